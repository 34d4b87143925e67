"""A pytest plugin that prints a line of JSON when a cell begins, and when it has ended.

nbval, unchanged, runs and compares the cells. The plugin runs in pytest's process, never in a kernel. nbval waits for a
kernel that has ended as for one that computes, so the plugin ends the session then.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

from scalelab.grading.judging import PREFIX

CELL = "cell"
POLL_S = 0.5


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Any) -> None:
    """Report that a cell begins: if the session ends early, that cell was running."""
    _report({"cell": item.cell.id})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Generator[None, None, None]:
    """End the session if the cell's kernel ends while it runs."""
    over = threading.Event()
    threading.Thread(target=_watch, args=(item.cell.id, item.parent.kernel.km.provisioner, over), daemon=True).start()
    try:
        return (yield)
    finally:
        over.set()


def _watch(cell: str, provisioner: Any, over: threading.Event) -> None:
    begin = time.monotonic()
    while not over.wait(POLL_S):
        if (status := provisioner.process.poll()) is not None:
            _report({"cell": cell, "kernel_ended": status, "seconds": time.monotonic() - begin})
            os._exit(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the cell's id to the report."""
    report = yield
    report.user_properties.append((CELL, item.cell.id))
    return report


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Report the result of a cell. If its setup fails, no kernel runs."""
    if report.when == "call" or (report.when == "setup" and report.failed):
        ran = report.when == "call" and report.outcome != "skipped"
        cell = dict(report.user_properties)[CELL]
        _report({"cell": cell, "ran": ran, "passed": report.passed, "seconds": report.duration})


def _report(event: dict[str, object]) -> None:
    print("\n" + PREFIX + json.dumps(event), flush=True)  # pytest may have left a dot on the line
