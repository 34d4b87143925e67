"""Decide when an answer has had its time, from what its processes use and not from the clock on the wall.

A busy machine may leave an answer without a turn for seconds. So time counts only as far as the answer's processes
compute, or all of them sleep: a process that waits for its turn does neither.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import psutil

POLL_S = 0.25
MAX_ASLEEP_S = 5.0
"""How long an answer may sleep before it says something; in a check, waits take virtual time."""
WAITING = {"S", "T", "Z", "X", "I"}
"""States of Linux's threads that are neither running nor ready to run, nor waiting for a disk."""


class OutOfTime(Exception):
    """The answer has used its processor time, or sleeps without an end; the text says which."""


class Monitor:
    """Watches the process `pid` and all that it starts; `cpu_s` is the processor time that they have together.

    Call it every POLL_S seconds while the answer is silent, and `heard` whenever it is not. Raises OutOfTime.
    """

    def __init__(self, pid: int, cpu_s: float) -> None:
        self.pid = pid
        self.cpu_s = cpu_s
        self._asleep_s = 0.0
        self._used_s = 0.0

    def heard(self) -> None:
        self._asleep_s = 0.0

    def __call__(self) -> None:
        processes = _tree(self.pid)
        before, self._used_s = self._used_s, max(self._used_s, sum(map(_cpu_s, processes)))
        if self._used_s > self.cpu_s:
            raise OutOfTime(f"Your answer computed for {self.cpu_s:g} s of processor time without coming to an end.")
        if self._used_s - before < POLL_S / 10 and all(map(_sleeps, processes)):
            self._asleep_s += POLL_S
        if self._asleep_s > MAX_ASLEEP_S:
            raise OutOfTime("Your answer waits for something that never comes.")


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _cpu_s(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        times = process.cpu_times()
        ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        return float(times.user + times.system + ended)
    return 0.0


def _sleeps(process: psutil.Process) -> bool:
    """Whether no thread of a process runs or is ready to run; where the system does not say, its processor time does."""
    if sys.platform != "linux":
        return True
    with suppress(OSError, IndexError):
        threads = Path(f"/proc/{process.pid}/task").iterdir()
        return all((thread / "stat").read_text().rpartition(")")[2].split()[0] in WAITING for thread in threads)
    return True
