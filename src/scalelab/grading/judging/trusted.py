"""The module that nbval's notebooks import: it runs the set-up, and before each check an answer's process.

    trusted.set_up("08_asyncio", "import asyncio\\n…", …)                   # a cell that runs the set-up's cells

    trusted.answer("ordered", ["values"], "async def values(urls):\\n…")    # the first line of each other cell
    …                                                                      # the check, which calls `values`

No code of an answer runs in this process. Each check begins with the set-up's names, without those of earlier checks.
"""

from __future__ import annotations

import atexit
import json
import linecache
import math
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Any

import psutil

from scalelab import checks
from scalelab.answers.monitor import Monitor, OutOfTime
from scalelab.answers.remote import Answer
from scalelab.answers.remote_side import RemoteSide
from scalelab.checks import _side, _verdict, _words
from scalelab.grading.judging import CPU_S, OWN_PROCESS, RECORDS, boxes

if sys.platform != "win32":
    import resource

DEFAULT_CPU_S = 10.0
CHECK_CPU_S = 30.0
"""Processor time of this process for one check; an answer that makes it work longer has sent too much."""
KILL_AFTER_S = 5.0
"""Linux ends a process that is over its limit by this: no signal handler runs in the middle of a long C call."""
CHECK_MEMORY_MB = 1_024
"""Memory of this process, beyond what it holds before the first answer."""


class _Notebook:
    """The state of the notebook that this process runs."""

    def __init__(self) -> None:
        self.slug = ""
        self.cells: list[Any] = []  # the set-up's, compiled
        self.initial: dict[str, Any] = {}  # the namespace before the set-up
        self.answer: Answer | None = None
        self.key = self.question = ""
        self.student = ""
        self.boxes: dict[str, boxes.Box] = {}  # the sandboxes of `student`, by the role of the check
        self.ended: dict[str, tuple[str, str]] = {}  # by question whose next check does not run, either: reason, state
        self.memory = 0  # bytes of data before the first answer
        self.resources = ExitStack()


_notebook = _Notebook()


def set_up(slug: str, *cells: str) -> None:
    """Run the set-up cells of a set in the calling notebook, now and before each answer."""
    namespace = sys._getframe(1).f_globals
    _notebook.slug, _notebook.cells = slug, []
    for number, cell in enumerate(cells, start=1):
        file = f"<set-up {number}>"
        linecache.cache[file] = (len(cell), None, cell.splitlines(keepends=True), file)
        _notebook.cells.append(compile(cell, file, "exec", dont_inherit=True))
    if boxes.ADDRESS not in os.environ:
        from scalelab.grading.judging import fork_server  # noqa: PLC0415 (only a person's notebook starts its own)

        os.environ |= _notebook.resources.enter_context(fork_server.fork_server({slug: cells}, boxed=True))
        atexit.register(_notebook.resources.close)
    # IPython's own names begin with _, and change from cell to cell.
    _notebook.initial = {name: value for name, value in namespace.items() if name[:1] != "_"}
    _run_set_up(namespace)


def answer(exercise: str, names: Sequence[str], source: str, key: str = "", *, takes_turns: bool = True) -> None:
    """Run an answer in a process of its own, and bind the names that its checks use in this notebook.

    `key` is the key of the check that follows, in the records; `takes_turns`: whether that check deals turns to
    threads. An error of the answer's cell is recorded, and raised here.
    """
    namespace = sys._getframe(1).f_globals
    _limit(0)
    if _notebook.answer is not None:
        _notebook.answer.close()
    for name in [name for name in namespace if name[:1] != "_"]:
        del namespace[name]
    namespace.update(_notebook.initial)
    set_up_names = _run_set_up(namespace)
    _notebook.key, _notebook.question = key or exercise, key.rpartition("-")[0] or exercise
    student, _, role = key.rpartition(f"{exercise}-")
    connection, pid = _start(student, role)
    monitor = Monitor(pid, float(os.environ.get(CPU_S, DEFAULT_CPU_S)))
    _notebook.answer = Answer(connection, namespace, set_up_names, monitor)
    _side.current = RemoteSide(_notebook.answer)
    _limit(CHECK_CPU_S)
    try:
        if _notebook.question in _notebook.ended:
            raise checks.AnswerEnded(*_notebook.ended[_notebook.question])
        namespace.update(_notebook.answer.begin(source, names, takes_turns=takes_turns))
    except checks.AnswerEnded as error:
        _notebook.ended.setdefault(_notebook.question, (str(error), error.state))
        _record({"ended": error.state, "reason": str(error)})
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _record({"raised": _words.explained(error), "printed": _printed()})
        raise
    _record({"loaded": True})


def _start(student: str, role: str) -> tuple[socket.socket, int]:
    """Return a connection to a new process for a student's answer, and the id of the sandbox's init.

    Visible and hidden checks have a sandbox each: the inputs of a hidden check must not reach a page.
    """
    if student != _notebook.student:
        for box in _notebook.boxes.values():
            box.close()
        _notebook.student, _notebook.boxes = student, {}
    if role in _notebook.boxes:
        with suppress(boxes.NotStarted):
            return _notebook.boxes[role].start(), _notebook.boxes[role].pid
        _notebook.boxes.pop(role).close()
    box = _notebook.boxes[role] = boxes.connect(os.environ[boxes.ADDRESS], _notebook.slug)
    return box.start(), box.pid


def _run_set_up(namespace: dict[str, Any]) -> set[str]:
    """Run the set-up; return the names that it binds."""
    before = set(namespace)
    for cell in _notebook.cells:
        exec(cell, namespace)
    return set(namespace) - before


def _limit(cpu_s: float) -> None:
    """Limit a check to so many seconds of this process, and to CHECK_MEMORY_MB of its memory; 0 is no limit."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, _out_of_cpu)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
    if sys.platform == "linux" and OWN_PROCESS in os.environ:
        used = psutil.Process()
        _notebook.memory = _notebook.memory or used.memory_info().data
        _set_limit(resource.RLIMIT_CORE, 0)
        _set_limit(resource.RLIMIT_CPU, math.ceil(sum(used.cpu_times()[:2]) + cpu_s + KILL_AFTER_S) if cpu_s else None)
        _set_limit(resource.RLIMIT_DATA, _notebook.memory + CHECK_MEMORY_MB * 2**20 if cpu_s else None)


def _set_limit(kind: int, most: int | None) -> None:
    """Set a soft limit of this process; None stands for its hard limit."""
    hard = resource.getrlimit(kind)[1]
    wanted = hard if most is None else most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (wanted, hard))


def _out_of_cpu(number: int, frame: FrameType | None) -> None:
    if _notebook.answer is not None:
        _notebook.answer.fail_of_resources("processor time")


def _record(details: dict[str, Any]) -> None:
    if RECORDS in os.environ:
        with open(os.environ[RECORDS], "a", encoding="utf-8") as file:
            file.write(json.dumps({"key": _notebook.key, **details}) + "\n")


def _record_verdict(verdict: _verdict.Verdict) -> None:
    if verdict.ended == OutOfTime.state:
        _notebook.ended[_notebook.question] = verdict.expectations[-1].words, verdict.ended
    _record({"verdict": verdict.as_data(), "printed": _printed()})


def _printed() -> str:
    """Return the answer's output; "" if its process has ended."""
    with suppress(checks.AnswerEnded):
        return _notebook.answer.printed() if _notebook.answer is not None else ""
    return ""


_verdict.listeners.append(_record_verdict)
