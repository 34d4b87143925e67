"""Run nbval over a few notebooks, in a process of its own, and return what became of each cell."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from queue import Empty, Queue
from typing import IO

from scalelab.course.isolated import Family, family
from scalelab.course.notebooks import Notebook, written
from scalelab.grading import sandbox
from scalelab.grading.records import SETUP_S, Records, read_line

JUPYTER = Path(__file__).parent / "jupyter"
COLD_KERNEL = "scalelab-judge"
KERNEL_START_S = 60
SILENCE_S = 30
"""How much longer than a cell's and a kernel's own limits the judge may be silent before it is ended."""
KEPT_LINES = 20
POLL_S = 0.5
PRELOADED = ("__main__", "scalelab.grading.nbval_run", "scalelab.grading.preload")
PLUGINS = ("scalelab.grading.plugin", "nbval.plugin")
NOT_NEEDED = (
    *("cacheprovider", "debugging", "doctest", "faulthandler", "junitxml", "logging", "nose", "pastebin", "setuponly"),
    *("recwarn", "setupplan", "stepwise", "subtests", "threadexception", "tmpdir", "unittest", "unraisableexception"),
    "warnings",
)
"""Plugins of pytest that a judge has no use for, of which some take longer than an answer."""
OPTIONS = (
    "--noconftest",
    *(word for name in NOT_NEEDED for word in ("-p", f"no:{name}")),
    *("--assert=plain", "--capture=no", "--color=no", "--tb=no", "--quiet"),
    *("--nbval-lax", "--nbval-kernel-startup-timeout", str(KERNEL_START_S)),
)
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""A variable that keeps from pytest what else is installed for it."""


@dataclass(frozen=True)
class Kernels:
    """Which kernels nbval asks for: a kernelspec's name, and the variables of the environment that it needs."""

    name: str = COLD_KERNEL
    environment: Mapping[str, str] | None = None


class Stopped(Exception):
    """The batch was interrupted."""


def run(
    notebooks: Mapping[str, Notebook], *, timeout: float, kernels: Kernels, stop: threading.Event
) -> tuple[Records, str]:
    """Let one pytest with nbval judge the notebooks, by name, one after another.

    Returns what it reported until it ended or fell silent, and its last words; `timeout` is in seconds per cell.
    Raises Stopped soon after `stop` is set. Nothing that the notebooks started is left.
    """
    records: Records = {}
    last_words: list[str] = []
    # What runs in a sandbox ends with it, and carries no mark.
    sweep = kernels.name == COLD_KERNEL
    with family(sweep=sweep) as own:
        files = [_put(own, name, notebook) for name, notebook in notebooks.items()]
        judge = _Forked if _forks() else _Executed
        process = judge(_Judging(files, timeout, kernels.name, own.folder, _environment(own, kernels)))
        try:
            silence = max(timeout, SETUP_S) + KERNEL_START_S + SILENCE_S
            for line in _lines(process, silence, stop):
                if told := read_line(line):
                    records.update([told])
                else:
                    last_words = [*last_words, line][-KEPT_LINES:]
        finally:
            if sweep:
                own.end()
            process.close()
    if stop.is_set():
        raise Stopped
    return records, "\n".join(last_words)


def _put(own: Family, name: str, notebook: Notebook) -> Path:
    path = own.folder / "notebooks" / name / "notebook.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(written(notebook), encoding="utf-8", newline="\n")
    return path


def _environment(own: Family, kernels: Kernels) -> dict[str, str]:
    more = dict(kernels.environment or {})
    paths = [more.get("JUPYTER_PATH", ""), str(JUPYTER), own.environment["JUPYTER_PATH"]]
    more |= ALONE | {"JUPYTER_PATH": os.pathsep.join(filter(None, paths))}
    return own.environment | more


def make_ready() -> None:
    """Let what judges are forked from begin to import, which takes a second, while the caller does other things."""
    if _forks():
        _context()
        forkserver.ensure_running()


def _forks() -> bool:
    # A fork server imports the program that it serves, which one that was typed or piped does not allow.
    program = getattr(sys.modules["__main__"], "__file__", None)
    return sys.platform == "linux" and program is not None and Path(program).is_file()


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


@dataclass(frozen=True)
class _Judging:
    """What one pytest is to do: the notebooks, the seconds a cell has, the kernel, and its folder and environment."""

    files: Sequence[Path]
    timeout: float
    kernel: str
    folder: Path
    environment: Mapping[str, str]


class _Executed:
    """A new Python that runs pytest."""

    stream: IO[bytes]

    def __init__(self, judging: _Judging) -> None:
        settings = judging.folder / "pytest.ini"
        settings.write_text("[pytest]\n", encoding="utf-8")
        options = (
            *("-c", str(settings), "--rootdir", str(judging.folder)),
            *("--nbval-kernel-name", judging.kernel, "--nbval-cell-timeout", str(judging.timeout)),
            *(word for name in PLUGINS for word in ("-p", name)),
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pytest", *OPTIONS, *options, *map(str, judging.files)],
            cwd=judging.folder,
            env=dict(judging.environment),
            stdin=subprocess.DEVNULL,
            # Kernels inherit stdout, and may flood it; stderr is pytest's alone, and carries the records.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # Ctrl-C is for us: we end what runs.
            start_new_session=True,
        )
        assert self._process.stderr is not None
        self.stream = self._process.stderr

    def ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self.stream.close()


class _Forked:
    """A copy of a server that has imported all that pytest and nbval need: it begins at once."""

    stream: IO[bytes]

    def __init__(self, judging: _Judging) -> None:
        context = _context()
        reader, writer = context.Pipe(duplex=False)
        self._process = context.Process(target=_judge, args=(writer, judging), daemon=True)
        self._process.start()
        writer.close()
        self.stream = os.fdopen(os.dup(reader.fileno()), "rb")
        reader.close()

    def ended(self) -> bool:
        return self._process.exitcode is not None

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self.stream.close()


def _judge(writer: Connection, judging: _Judging) -> None:
    """In the forked process: be what a new one would be, and run pytest."""
    sandbox.end_with_parent()  # the fork server, which ends when we do
    os.setsid()
    os.chdir(judging.folder)
    os.environ.clear()
    os.environ.update(judging.environment)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number, end in enumerate((nowhere, nowhere, writer.fileno())):
        os.dup2(end, number)
    writer.close()
    os.close(nowhere)
    # A judge lives for a moment: what it leaves in cycles is gone with it.
    gc.disable()
    from scalelab.grading import preload  # noqa: PLC0415 (the fork server has it; whoever starts judges need not)

    options = {"nbval_kernel_name": judging.kernel, "nbval_cell_timeout": judging.timeout}
    preload.judge(judging.files, judging.folder, options)
    os._exit(0)


def _lines(process: _Executed | _Forked, silence: float, stop: threading.Event) -> Iterator[str]:
    """Yield the process's lines until it ends, `silence` s pass without one, or `stop` is set."""
    lines: Queue[str | None] = Queue()
    threading.Thread(target=_read, args=(process.stream, lines.put), daemon=True).start()
    heard = time.monotonic()
    ended = False
    while time.monotonic() - heard < silence:
        if stop.is_set():
            return
        try:
            line = lines.get(timeout=POLL_S)
        except Empty:
            if ended:
                return
            ended = process.ended()
            continue
        if line is None:
            return
        heard = time.monotonic()
        yield line
    yield f"The judge was silent for {silence:g} s, and was ended."


def _read(stream: IO[bytes], put: Callable[[str | None], None]) -> None:
    with suppress(ValueError):  # closed while we read
        for line in stream:
            put(line.decode("utf-8", "replace").rstrip("\n"))
    put(None)
