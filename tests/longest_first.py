"""Begin with the test files that took longest last time, so that workers that take a file at a time end together."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from scalelab.notebooks.files import write_atomically


class LongestFirst:
    """The plugin; the seconds of each test file are kept in the file `path`.

    needs: markers of tests that are slow as a rule. A file that has not run yet begins first if it has one of them.
    """

    def __init__(self, path: Path, needs: frozenset[str]) -> None:
        self.path = path
        self.needs = needs
        self.seconds: Counter[str] = Counter()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        last = self._read()

        def seconds(item: pytest.Item) -> float:
            slow = any(marker.name in self.needs for marker in item.iter_markers())
            return last.get(_file(item.nodeid), math.inf if slow else 0.0)

        items.sort(key=seconds, reverse=True)  # stable: the tests of a file keep their order

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[_file(report.nodeid)] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workerinput"):  # the process that started this worker of xdist gets all reports
            return
        # A run of a few tests of a file says little of the whole file: the longest run counts.
        last = self._read()
        longest = {file: round(max(spent, last.get(file, 0.0)), 1) for file, spent in self.seconds.items()}
        self.path.parent.mkdir(exist_ok=True)
        write_atomically(self.path, json.dumps(last | longest, indent=0, sort_keys=True))

    def _read(self) -> dict[str, float]:
        with suppress(OSError, ValueError):
            last = json.loads(self.path.read_text(encoding="utf-8"))
            return last if isinstance(last, dict) else {}
        return {}


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]
