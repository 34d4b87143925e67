"""Skip tests that passed before on the same bytes: `scalelab test` does, `scalelab test --all` runs them again.

A test marked `proven_by` depends on nothing but the files and folders that the marker names, its own folder, and what
`_shared` gathers. A pass is recorded in `_build/proven.json` with a hash of all of these; a failure removes the record.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import distributions
from pathlib import Path

import pytest

from scalelab.author.execution_cache import files_below, fingerprint
from scalelab.cli.author import SKIP_PROVEN
from scalelab.notebooks.files import write_atomically

MARKER = "proven_by"
HASH = "hash of what the test depends on"


class Proven:
    """The plugin for the course in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "_build" / "proven.json"
        self.passed: dict[str, str] = {}
        self.failed: set[str] = set()
        # Each file is read once per session.
        self._once = cache(lambda get, *arguments: get(*arguments))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        known = self._read()
        for item in items:
            if (marker := item.get_closest_marker(MARKER)) is None:
                continue
            paths = [item.path.parent, *(self.root / name for name in marker.args)]
            parts = [self._once(self._shared), *(self._once(self._content, path) for path in paths)]
            digest = sha256("\n".join(parts).encode()).hexdigest()
            item.user_properties.append((HASH, digest))
            if os.environ.get(SKIP_PROVEN) and known.get(item.nodeid) == digest:
                item.add_marker(pytest.mark.skip(reason="passed before on the same bytes; --all runs it again"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        digest = dict(report.user_properties).get(HASH)
        if digest is None:
            return
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed[report.nodeid] = str(digest)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workerinput"):  # the process that started this worker of xdist gets all reports
            return
        known = self._read() | self.passed
        for test in self.failed:
            known.pop(test, None)
        if self.passed or self.failed:
            self.path.parent.mkdir(exist_ok=True)
            write_atomically(self.path, json.dumps(known, indent=0, sort_keys=True))

    def _read(self) -> dict[str, str]:
        with suppress(OSError, ValueError):
            known = json.loads(self.path.read_text(encoding="utf-8"))
            return known if isinstance(known, dict) else {}
        return {}

    def _content(self, path: Path) -> str:
        return fingerprint(self.root, files_below(path) if path.is_dir() else [path])

    def _shared(self) -> str:
        """Return a hash of the library, the locks, this machine's Python and packages, and the files in `tests`."""
        packages = sorted(f"{package.name} {package.version}" for package in distributions())
        user = os.getuid() if hasattr(os, "getuid") else ""
        machine = f"{sys.version} {platform.platform()} {user}"
        files = [*self.root.glob("*.lock"), self.root / "pyproject.toml", *(self.root / "tests").glob("*.py")]
        content = fingerprint(self.root, [*files, *files_below(self.root / "src")])
        return "\n".join([machine, *packages, content])
