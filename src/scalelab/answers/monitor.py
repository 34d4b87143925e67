"""Limit an answer's time by processor time and sleep, never by the wall clock.

On a busy machine, an answer may wait seconds for a processor. So time counts only while the answer's processes compute,
or while all of them sleep.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

POLL_S = 0.25
MAX_ASLEEP_S = 10.0
"""How long an answer may sleep before its next message; waits in a check take virtual time, so this is long."""
MAX_ASLEEP_IN_ALL_S = 30.0
UNKNOWN = 0.1
"""Share of the time that counts as asleep if the processes may be waiting for a disk or a processor."""
ENDED = set("ZXx")
ASLEEP = ENDED | set("STtPI")
"""States of Linux's threads that cannot run now, without D: those wait for a disk, or for a child."""
WAITS = "Your answer waits for something that never comes."
SLEEPS = (
    f"Your answer slept for {MAX_ASLEEP_IN_ALL_S:g} s in all, and was stopped. Its check needs no real time: look for "
    "a `sleep`, or for a loop that waits and looks again."
)
PROCESS_S = 0.05
"""Processor time charged for each process that an answer starts: short ones can end between two measurements."""


class OutOfTime(Exception):
    """The answer has used up its processor time, or its time asleep; the text says which."""

    state = "timed out"


class Monitor:
    """Watches the process `pid` and its descendants, which together have `cpu_s` seconds of processor time.

    Call it every POLL_S seconds while a message from the answer is due, and call `heard` after each message. Messages
    must not put a call off, so that the answer cannot choose when it is looked at: its sleep is sampled. Processor time
    counts from the first message, which is sent before the answer runs. `has_spoken` returns whether the message has
    come by now. Raises OutOfTime.
    """

    has_spoken: Callable[[], bool] = staticmethod(lambda: False)

    def __init__(self, pid: int, cpu_s: float) -> None:
        self.pid = pid
        self.cpu_s = cpu_s
        self._used_s = 0.0
        self._looked_at = monotonic()
        self._asleep_s = self._asleep_in_all_s = 0.0
        self._own_s: dict[tuple[int, float], float] = {}  # of each process, without its children
        self._before_s: tuple[float, float] | None = (
            None  # of `pid` at the first message, without and with its children
        )

    def heard(self) -> None:
        """Note that a message has come. If messages come without a pause, look at the processor time at least."""
        self._asleep_s = 0.0
        if monotonic() - self._looked_at > POLL_S:
            self._look(due=False)
        if self._before_s is None:
            self._before_s = 0.0, 0.0
            with suppress(psutil.Error):
                times = psutil.Process(self.pid).cpu_times()
                self._before_s = _own_s(times), _with_children_s(times)

    def __call__(self) -> None:
        self._look(due=True)

    def _look(self, *, due: bool) -> None:
        """Raise OutOfTime if the time is used up.

        If the processes sleep, POLL_S seconds count as asleep, less those in which they have computed.

        due: whether a message is due; an answer that has sent it sleeps until its reply comes.
        """
        self._looked_at = monotonic()
        due = due and not self.has_spoken()  # before measuring, which takes a while
        before, self._used_s, runs, states = self._used_s, *self._measured()
        if self._used_s > self.cpu_s:
            raise OutOfTime(f"Your answer computed for {self.cpu_s:g} s of processor time and did not finish.")
        if due and not runs:
            asleep_s = max(POLL_S - (self._used_s - before), 0.0) * (1.0 if states <= ASLEEP else UNKNOWN)
            self._asleep_s += asleep_s
            self._asleep_in_all_s += asleep_s
        if self._asleep_s > MAX_ASLEEP_S:
            raise OutOfTime(WAITS)
        if self._asleep_in_all_s > MAX_ASLEEP_IN_ALL_S:
            raise OutOfTime(SLEEPS)

    def _measured(self) -> tuple[float, bool, set[str]]:
        """Return the processor time used until now, whether a thread can run, and the states of threads.

        The states are those of processes without a child: a parent that waits for its child can look like one that
        waits for a disk.
        """
        states: dict[int, set[str]] = {}  # of the threads of each process, by its id
        parents, with_children_s = set(), 0.0
        for process in _tree(self.pid):
            with suppress(psutil.Error):
                times = process.cpu_times()
                if self._before_s is not None:
                    self._own_s[process.pid, process.create_time()] = _own_s(times)
                with_children_s += _with_children_s(times)
                states[process.pid] = set(_states(process.pid))
                if not states[process.pid] <= ENDED:
                    parents.add(process.ppid())
        runs = any("R" in seen for seen in states.values())
        of_leaves = set().union(*(seen for pid, seen in states.items() if pid not in parents))
        if self._before_s is None:
            return 0.0, runs, of_leaves
        # The sum would count children twice: their times are added to their parent's after it has waited for them.
        seen_s = sum(self._own_s.values()) - self._before_s[0] + PROCESS_S * (len(self._own_s) - 1)
        return max(self._used_s, with_children_s - self._before_s[1], seen_s), runs, of_leaves


def _own_s(times: Any) -> float:
    return float(times.user + times.system)


def _with_children_s(times: Any) -> float:
    return _own_s(times) + float(getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0))


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _states(pid: int) -> Iterator[str]:
    """Yield the states of a process's threads; "?" if the system does not say."""
    if sys.platform != "linux":
        yield "?"
        return
    with suppress(OSError):  # the process has just ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # the thread has
                yield (thread / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
