"""Judge one answer in a process of its own, or in this one, without kernels: what tests of the boundary use."""

from __future__ import annotations

import atexit
import contextlib
import io
import linecache
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scalelab.answers.monitor import Monitor
from scalelab.answers.remote import Answer
from scalelab.answers.remote_side import RemoteSide
from scalelab.answers.spawn import spawn
from scalelab.checks import _side
from scalelab.grading.judging.boxes import ADDRESS, Box, NotStarted, connect
from scalelab.grading.judging.fork_server import fork_server

_servers = contextlib.ExitStack()
_boxes: dict[tuple[str, str], Box] = {}  # by server and set
_addresses: dict[tuple[str, ...], str] = {}  # of fork servers, by the set-up that their processes have run


def fork(setup: Sequence[str]) -> tuple[socket.socket, int]:
    """Return the connection to a process that has run the set-up, and its id; Linux forks it, which is fast."""
    if sys.platform != "linux":
        return spawn(setup)
    if tuple(setup) not in _addresses:
        if not _addresses:
            atexit.register(_servers.close)
        _addresses[tuple(setup)] = _servers.enter_context(fork_server({"set": setup}, boxed=False))[ADDRESS]
    return started(_addresses[tuple(setup)], "set")


def started(address: str, slug: str) -> tuple[socket.socket, int]:
    """Return the connection to a fresh process for an answer of a set, and the id of its parent."""
    if (box := _boxes.get((address, slug))) is not None:
        with contextlib.suppress(NotStarted):
            return box.start(), box.pid
        box.close()
    box = _boxes[address, slug] = connect(address, slug)
    return box.start(), box.pid


def run_cell(source: str, file: str, namespace: dict[str, Any]) -> None:
    """Run a cell of the course in a namespace."""
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec", dont_inherit=True), namespace)


@contextlib.contextmanager
def remote(
    setup: Sequence[str], source: str, names: Sequence[str], cpu_s: float = 10.0, start: Any = fork
) -> Iterator[dict[str, Any]]:
    """Yield the namespace of a check whose answer runs in a process of its own; `names` are what it uses of it."""
    connection, pid = start(setup)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(setup):
        run_cell(cell, f"<setup {number}>", namespace)
    known = [name for name in namespace if name[:1] != "_"]
    answer = Answer(connection, namespace, known, Monitor(pid, cpu_s))
    before, _side.current = _side.current, RemoteSide(answer)
    try:
        namespace.update(answer.begin(source, names))
        namespace["_answer"] = answer
        yield namespace
    finally:
        _side.current = before
        answer.close()


@contextlib.contextmanager
def local(setup: Sequence[str], source: str, names: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the namespace of a check whose answer runs in this process, as in a student's notebook."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(setup):
        run_cell(cell, f"<setup {number}>", namespace)
    run_cell(source, "<student>", namespace)
    with contextlib.chdir(tempfile.gettempdir()):  # the course's folder has hints, which a grader never gives
        yield namespace


@dataclass(frozen=True)
class Outcome:
    """What a check printed, and whether it passed."""

    passed: bool
    printed: str
    error: str = ""


def judged(where: Any, setup: Sequence[str], source: str, names: Sequence[str], check: str) -> Outcome:
    """Run a check on an answer; `where` is `remote` or `local`."""
    printed, error = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            with where(setup, source, names) as namespace:
                run_cell(check, "<check>", namespace)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
    return Outcome(not error, printed.getvalue(), error)


def names_of(exercise: Any) -> list[str]:
    """Return the names that an exercise's checks use of its answer."""
    from scalelab.exercises.answers import wanted

    return sorted(wanted(exercise.solution, exercise.check, exercise.hidden))
