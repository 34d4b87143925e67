"""Find other Python interpreters on this machine: a free-threaded Python and PyPy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator

from scalelab.errors import ScalelabError

FREE_THREADED_VARIABLE = "SCALELAB_FREETHREADED"
"""The environment variable that names a free-threaded interpreter, by its path or by a name on PATH."""

PYPY_VARIABLE = "SCALELAB_PYPY"
"""The environment variable that names a PyPy, by its path or by a name on PATH."""

FREE_THREADED_VERSIONS = ("3.15t", "3.14t")
ADVISED_VERSION = "3.14t"
"""The free-threaded version to install: Python 3.14 is the first that supports one officially."""
DISCOURAGED_VERSION = "3.13t"
"""An experiment of Python 3.13: it is taken if there is no other."""
PYPY_NAMES = ("pypy3", "pypy3.11", "pypy3.10")
TIMEOUT_S = 30.0


class InterpreterError(ScalelabError):
    """The interpreter that an environment variable names does not exist, or is not of the expected kind."""


def free_threaded() -> str | None:
    """Return the path of an interpreter that really runs without the interpreter lock, or None.

    The search order is: the interpreter named in SCALELAB_FREETHREADED; this interpreter; python3.15t, python3.14t and
    python3t on PATH; 3.15t and 3.14t as found by uv, without a download; 3.13t, which is discouraged, in the same two
    ways. Each candidate is started and checked. Raises InterpreterError if the interpreter named in
    SCALELAB_FREETHREADED does not run, or runs with the lock.
    """
    if name := os.environ.get(FREE_THREADED_VARIABLE):
        path = shutil.which(name)
        if path is None or not _runs_without_lock(path):
            reason = "there is no such program" if path is None else "it does not run with the interpreter lock off"
            raise InterpreterError(
                f"Expected a free-threaded Python in {FREE_THREADED_VARIABLE}; got {name!r}: {reason}. "
                f"`uv python install {ADVISED_VERSION}` gets one; or unset {FREE_THREADED_VARIABLE}."
            )
        return path
    return next((path for path in _candidates() if _runs_without_lock(path)), None)


def missing_free_threaded() -> str:
    """Return the text for `recorded(…, lacks=…)` if there is no free-threaded Python, else "".

    Raises InterpreterError as `free_threaded` does.
    """
    if free_threaded():
        return ""
    get = f"uv python install {ADVISED_VERSION} gets one, or name one in {FREE_THREADED_VARIABLE}"
    return f"a free-threaded Python ({get})"


def pypy() -> str | None:
    """Return the path of a PyPy for Python 3, or None: the interpreter named in SCALELAB_PYPY, else a PyPy on PATH.

    Each candidate is started and checked. Raises InterpreterError if the interpreter named in SCALELAB_PYPY is not a
    PyPy for Python 3.
    """
    if name := os.environ.get(PYPY_VARIABLE):
        path = shutil.which(name)
        if path is None or not _is_pypy(path):
            reason = "there is no such program" if path is None else "it is not a PyPy for Python 3"
            raise InterpreterError(
                f"Expected a PyPy for Python 3 in {PYPY_VARIABLE}; got {name!r}: {reason}. "
                f"Debian's package is pypy3; or unset {PYPY_VARIABLE}."
            )
        return path
    return next((path for path in filter(None, map(shutil.which, PYPY_NAMES)) if _is_pypy(path)), None)


def version_of(python: str) -> str:
    """Return the version of the interpreter at this path, such as 3.14.0; "" if it does not report one."""
    return _stdout_of([python, "-I", "-c", "import platform; print(platform.python_version())"])


def _is_pypy(python: str) -> bool:
    return (
        _stdout_of([python, "-I", "-c", "import sys; print(sys.implementation.name, sys.version_info[0])"]) == "pypy 3"
    )


def _candidates() -> Iterator[str]:
    if sys.executable:
        yield sys.executable
    yield from _named(*FREE_THREADED_VERSIONS, "3t")
    yield from _found_by_uv(*FREE_THREADED_VERSIONS)
    yield from _named(DISCOURAGED_VERSION)
    yield from _found_by_uv(DISCOURAGED_VERSION)


def _named(*versions: str) -> Iterator[str]:
    yield from filter(None, (shutil.which(f"python{version}") for version in versions))


def _found_by_uv(*versions: str) -> Iterator[str]:
    uv = shutil.which("uv", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    for version in versions if uv else ():
        if path := _stdout_of([str(uv), "python", "find", "--no-python-downloads", "--no-project", version]):
            yield path


def _runs_without_lock(python: str) -> bool:
    return _stdout_of([python, "-I", "-c", "import sys; print(sys._is_gil_enabled())"]) == "False"


def _stdout_of(command: list[str]) -> str:
    """Return the stripped standard output of the command; "" if it failed or took too long."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return process.stdout.strip() if process.returncode == 0 else ""
