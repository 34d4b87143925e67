"""One build at a time: a lock that the system releases when its holder ends, even by a crash."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt

    def _try(handle: BinaryIO) -> bool:
        handle.seek(0)
        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try(handle: BinaryIO) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Hold the lock file at `path` and yield True, or yield False at once if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        yield _try(handle)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file at `path`; if another process holds it, call `waiting` once and wait for its release."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        if not _try(handle):
            waiting()
            while not _try(handle):
                time.sleep(0.2)
        yield
