"""The folders for executed chapters: one for each state of the library, the lock file and Python."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import scalelab
from scalelab.course import Course

LIBRARY = Path(scalelab.__file__).parent
OUTSIDE = (
    *("console.py", "course.py", "doctor.py"),
    *("answers", "author", "checks", "cli", "exercises", "grading", "lab", "notebooks", "running", "student"),
)
"""Parts of the library that no chapter imports (import-linter enforces this): a change there leaves results valid."""
RUNNERS = ("author/execute.py", "running/notebook.py")

KEPT_CACHES = 2


def fingerprint(root: Path, files: Iterable[Path]) -> str:
    """Return a hash of the files' names, relative to `root`, and contents, whatever the order of `files`."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Return the files below `folder`, without hidden files, hidden folders and `__pycache__`."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return files


def cache_key(course: Course) -> str:
    """Return a hash of what executed chapters depend on besides their cells: library, lock, Python, what runs them."""
    library = [path for path in files_below(LIBRARY) if path.relative_to(LIBRARY).parts[0] not in OUTSIDE]
    lock = course.root / "requirements.lock"
    parts = [
        fingerprint(LIBRARY, [*library, *(LIBRARY / name for name in RUNNERS)]),
        fingerprint(course.root, [lock] if lock.is_file() else []),
        f"{platform.python_implementation()} {sys.version}",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def cache_path(course: Course) -> Path:
    """Return the path of the jupyter-cache for this state of the library; it may not exist yet."""
    return course.build / ".jupyter_cache" / cache_key(course)


def prune(course: Course) -> None:
    """Keep the cache in use and the one used before it; remove older ones."""
    current = cache_path(course)
    if current.is_dir():
        os.utime(current)
    folders = [path for path in current.parent.glob("*") if path.is_dir()]
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_CACHES:]:
        shutil.rmtree(folder, ignore_errors=True)
