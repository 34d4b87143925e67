"""Run cells that may do anything in separate processes, and end these with everything that they started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import psutil

from scalelab.errors import ScalelabError
from scalelab.running.kernel import jupyter_environment

MARK = "SCALELAB_MARK"
"""The environment variable that identifies a family of processes; children inherit its value, orphans keep it."""

PYTEST_OWN = ("PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
ROUNDS = 20
CAN_FORK = sys.platform == "linux"
"""Whether a process with many imports may be forked: outside Linux, the system's own libraries may not allow it."""


@dataclass(frozen=True)
class Family:
    """Processes that carry one mark, their private folder, and the environment that makes a process a member."""

    mark: str
    folder: Path
    environment: dict[str, str]

    def end(self) -> None:
        """Kill every process of the family, including those whose parent is gone."""
        end_marked(self.mark)


def end_marked(mark: str, *, spare: int | None = None) -> None:
    """Kill every process that carries `mark`, except the process `spare`."""
    for _ in range(ROUNDS):
        members = [process for process in psutil.process_iter() if process.pid != spare and _carries(process, mark)]
        if not members:
            return
        for process in members:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(members, timeout=1)


def _carries(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error, OSError):
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def family(*, sweep: bool = True) -> Iterator[Family]:
    """Yield a family that has its own empty folder and Jupyter state; at the end, kill all of its processes.

    sweep: if False, leave the processes to the caller: a search through all processes on a machine takes time.
    """
    with TemporaryDirectory(prefix="scalelab-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        mark = uuid4().hex
        environment = {key: value for key, value in jupyter_environment().items() if key not in PYTEST_OWN}
        environment |= {
            MARK: mark,
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
        }
        processes = Family(mark, folder, environment)
        try:
            yield processes
        finally:
            if sweep:
                processes.end()


@dataclass(frozen=True)
class CellResult:
    """The result of a cell, as `running.cells` describes it."""

    ok: bool
    printed: str
    error: str
    traceback: str
    verdict: dict[str, Any] | None

    @property
    def passed(self) -> bool:
        """Whether the cell made a verdict that its answer passed."""
        return self.verdict is not None and self.verdict["passed"] is True

    @property
    def failure(self) -> str:
        """The traceback of a cell that raised, or else its error; "" if the cell ended without an error."""
        return "" if self.ok else self.traceback or self.error or "it fails"


class EndedEarly(ScalelabError):
    """The process ended before the last cell; `status` is None if it was stopped because it took too long."""

    def __init__(self, text: str, status: int | None) -> None:
        super().__init__(text)
        self.status = status


class CellRunner:
    """Runs cells as a notebook does, each list of them in a new process, but without waiting for imports.

    `imports` are import statements that are executed before the runs. One run at a time; as a context manager, it
    leaves no process behind. If processes cannot be forked, each run starts a fresh Python.
    """

    def __init__(self, imports: Iterable[str]) -> None:
        self._imports = list(imports)
        self._open = ExitStack()
        self._forked_from: tuple[Family, subprocess.Popen[bytes]] | None = None

    def __enter__(self) -> CellRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self._forked_from = None
        self._open.close()

    def run(self, cells: Sequence[str], *, timeout: float) -> list[CellResult]:
        """Return the cells' results. Raises EndedEarly, also if they take longer than `timeout` seconds."""
        run = self._run_forked if CAN_FORK else _run_fresh
        status, printed = run(json.dumps(cells), timeout)
        if status is None:
            raise EndedEarly(f"did not end within {timeout:g} s, and was stopped", None)
        if status:
            raise EndedEarly(f"ended its process with status {status}", status)
        return [CellResult(**result) for result in json.loads(printed)]

    def _run_forked(self, cells: str, timeout: float) -> tuple[int | None, str]:
        own, process = self._forked_from = self._forked_from or self._start()
        before = set(psutil.pids())
        with TemporaryDirectory(dir=own.folder, ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / "work").mkdir()
            (folder / "in").write_text(cells, encoding="utf-8")
            (folder / "out").touch()
            reply = _request(process, {"folder": name, "timeout": timeout})
            if set(psutil.pids()) - before:  # Reading every process's mark takes longer than most runs.
                end_marked(own.mark, spare=process.pid)
            printed = (folder / "out").read_text(encoding="utf-8", errors="replace")
        if not reply:  # The run ended the process that forks.
            self.__exit__()
        return json.loads(reply) if reply else process.returncode, printed

    def _start(self) -> tuple[Family, subprocess.Popen[bytes]]:
        own = self._open.enter_context(family())
        argv = [sys.executable, "-P", "-m", "scalelab.running.fork_server"]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=own.folder,
            env=own.environment,
            start_new_session=True,  # Ctrl-C is for us; the child ends when we close its stdin or exit
        )
        self._open.enter_context(process)
        self._open.callback(own.end)
        _send(process, self._imports)
        return own, process


def _run_fresh(cells: str, timeout: float) -> tuple[int | None, str]:
    with family() as own:
        work = own.folder / "work"
        work.mkdir()
        with (own.folder / "in").open("w+", encoding="utf-8") as given, (own.folder / "out").open("w+b") as out:
            given.write(cells)
            given.seek(0)
            # Files, not pipes: a process that the code leaves behind would keep a pipe open, and we would wait for it.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "scalelab.running.cells"],
                stdin=given,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=work,
                env=own.environment,
            )
            status = None
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(timeout)
            own.end()
            process.wait()
            out.seek(0)
            return status, out.read().decode("utf-8", "replace")


def _send(process: subprocess.Popen[bytes], message: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")


def _request(process: subprocess.Popen[bytes], message: object) -> bytes:
    """Send a request, and return the line that the process writes in reply; it is empty if the process ends instead."""
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        _send(process, message)
    return process.stdout.readline()
