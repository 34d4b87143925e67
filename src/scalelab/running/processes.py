"""End processes together with everything they started."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

GRACE = 3.0
"""Seconds that a process has to terminate before it is killed."""


def descendants(pid: int) -> list[psutil.Process]:
    """Return the descendants of process `pid`. Call this before it ends: they cannot be found afterwards."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def end(processes: Iterable[psutil.Process]) -> None:
    """End the processes that still run: terminate them, then kill those that are left after `GRACE` seconds."""
    alive = [process for process in processes if process.is_running()]
    for process in alive:
        _try(process.terminate)
    _, alive = psutil.wait_procs(alive, timeout=GRACE)
    for process in alive:
        _try(process.kill)
    psutil.wait_procs(alive, timeout=GRACE)


def _try(action: Callable[[], None]) -> None:
    with suppress(psutil.Error):
        action()
