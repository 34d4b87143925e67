"""Find other Python interpreters on this machine: a free-threaded one, and PyPy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator

from scalelab.errors import ScalelabError

NAMED = "SCALELAB_FREETHREADED"
"""The environment variable that names a free-threaded interpreter, by its path or by a name on PATH."""

NAMED_PYPY = "SCALELAB_PYPY"
"""The environment variable that names a PyPy, by its path or by a name on PATH."""

NAMES = ("python3.14t", "python3.13t", "python3t")
PYPY_NAMES = ("pypy3", "pypy3.11", "pypy3.10")
VERSIONS = ("3.14t", "3.13t")
ASK_S = 30.0


class InterpreterError(ScalelabError):
    """The interpreter that an environment variable names does not exist or is of another kind."""


def free_threaded() -> str | None:
    """Return the path of an interpreter that really runs without the interpreter lock, or None.

    The search order is: the one named in SCALELAB_FREETHREADED; this one; python3.14t, python3.13t and python3t on
    PATH; 3.14t and 3.13t as found by uv, without a download. Each candidate is started and asked. Raises
    InterpreterError if the one named in SCALELAB_FREETHREADED does not run, or runs with the lock.
    """
    if wanted := os.environ.get(NAMED):
        path = shutil.which(wanted)
        if path is None or not _runs_without_lock(path):
            found = "there is no such program" if path is None else "it does not run with the interpreter lock off"
            raise InterpreterError(
                f"Expected a free-threaded Python in {NAMED}; got {wanted!r}: {found}. "
                f"`uv python install {VERSIONS[0]}` gets one; or unset {NAMED}."
            )
        return path
    return next((path for path in _candidates() if _runs_without_lock(path)), None)


def missing_free_threaded() -> str:
    """Return the missing free-threaded Python and how to get it, for `recorded(…, lacks=…)`; "" if one is found.

    Raises InterpreterError as `free_threaded` does.
    """
    if free_threaded():
        return ""
    return f"a free-threaded Python (uv python install {VERSIONS[0]} gets one, or name one in {NAMED})"


def pypy() -> str | None:
    """Return the path of a PyPy for Python 3, or None: the one named in SCALELAB_PYPY, else one found on PATH.

    Each candidate is started and asked. Raises InterpreterError if the one named in SCALELAB_PYPY is not a PyPy 3.
    """
    if wanted := os.environ.get(NAMED_PYPY):
        path = shutil.which(wanted)
        if path is None or not _is_pypy(path):
            found = "there is no such program" if path is None else "it is none"
            raise InterpreterError(
                f"Expected a PyPy for Python 3 in {NAMED_PYPY}; got {wanted!r}: {found}. "
                f"Debian's package is pypy3; or unset {NAMED_PYPY}."
            )
        return path
    return next((path for path in filter(None, map(shutil.which, PYPY_NAMES)) if _is_pypy(path)), None)


def version_of(python: str) -> str:
    """Return the version of the interpreter at this path, such as 3.14.0; "" if it does not report one."""
    return _said([python, "-I", "-c", "import platform; print(platform.python_version())"])


def _is_pypy(python: str) -> bool:
    return _said([python, "-I", "-c", "import sys; print(sys.implementation.name, sys.version_info[0])"]) == "pypy 3"


def _candidates() -> Iterator[str]:
    if sys.executable:
        yield sys.executable
    for name in NAMES:
        if path := shutil.which(name):
            yield path
    uv = shutil.which("uv", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    for version in VERSIONS if uv else ():
        if path := _said([str(uv), "python", "find", "--no-python-downloads", "--no-project", version]):
            yield path


def _runs_without_lock(python: str) -> bool:
    return _said([python, "-I", "-c", "import sys; print(sys._is_gil_enabled())"]) == "False"


def _said(command: list[str]) -> str:
    """Return the stripped standard output of the command; "" if it failed or took too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
