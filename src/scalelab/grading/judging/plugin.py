"""The pytest plugin beside nbval: it prints a line of JSON for each check that begins, and for each that has ended.

nbval runs and compares the cells, as released. This plugin loads in the process of pytest, never in a kernel.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest

from scalelab.grading.judging import PREFIX

CELL = "cell"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Any) -> None:
    """Say that a cell begins, so that whoever reads this knows what ended the session, if something does."""
    _say({"cell": item.cell.id})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report carry the cell's id."""
    report = yield
    report.user_properties.append((CELL, item.cell.id))
    return report


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Report how a cell ended. A setup that fails has no kernel."""
    if report.when == "call" or (report.when == "setup" and report.failed):
        ran = report.when == "call" and report.outcome != "skipped"
        cell = dict(report.user_properties)[CELL]
        _say({"cell": cell, "ran": ran, "passed": report.passed, "seconds": report.duration})


def _say(words: dict[str, object]) -> None:
    print("\n" + PREFIX + json.dumps(words), flush=True)  # pytest may have left a dot on the line
