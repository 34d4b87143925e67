"""Run code that may do anything in processes of its own, and end them with all that they started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psutil

from scalelab.course.kernels import jupyter_environment

MARK = "SCALELAB_MARK"
"""The variable whose value names a family of processes; children inherit it, orphans keep it."""

PYTEST_OWN = ("PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
ROUNDS = 20
CAN_FORK = sys.platform == "linux"
"""Whether a process that has imported much may be forked: elsewhere, the system's own libraries may not allow it."""


@dataclass(frozen=True)
class Family:
    """Processes that carry one mark, their private folder, and the environment that makes a process one of them."""

    mark: str
    folder: Path
    environment: dict[str, str]

    def end(self) -> None:
        """Kill every process of the family, those whose parent is gone included."""
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
    """Yield a family that has its own empty folder and Jupyter state; at the end no process of it is left.

    Not `sweep` leaves the processes to whoever started them: to look through all that run on a machine takes time.
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
        this = Family(mark, folder, environment)
        try:
            yield this
        finally:
            if sweep:
                this.end()


def run_module(module: str, text: str, *, timeout: float) -> str | None:
    """Give `text` to a fresh `python -m module`; return what it prints, or None where it does not end in `timeout` s.

    Raises subprocess.CalledProcessError, with the process's stderr, where it ends with a status other than 0.
    """
    with family() as own:
        work = own.folder / "work"
        work.mkdir()
        argv: Sequence[str] = [sys.executable, "-P", "-m", module]
        with (own.folder / "in").open("w+", encoding="utf-8") as given, (own.folder / "out").open("w+b") as out:
            given.write(text)
            given.seek(0)
            # Files, not pipes: a process that the code leaves behind would keep a pipe open, and us waiting.
            process = subprocess.Popen(
                argv, stdin=given, stdout=out, stderr=subprocess.STDOUT, cwd=work, env=own.environment
            )
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                return None
            finally:
                own.end()
                process.wait()
            out.seek(0)
            printed = out.read().decode("utf-8", "replace")
        if status != 0:
            raise subprocess.CalledProcessError(status, argv, stderr=printed)
        return printed


class WarmModule:
    """Runs a module as `run_module` does, in a process of its own each time, which need not import first.

    `imports` are import statements for the runs to find done. One run at a time; as a context manager, it leaves no
    process behind. Where processes cannot be forked, each run is one of `run_module`.
    """

    def __init__(self, module: str, imports: Iterable[str]) -> None:
        self._module, self._imports = module, list(imports)
        self._open = ExitStack()
        self._forked_from: tuple[Family, subprocess.Popen[bytes]] | None = None

    def __enter__(self) -> WarmModule:
        return self

    def __exit__(self, *_: object) -> None:
        self._forked_from = None
        self._open.close()

    def run(self, text: str, *, timeout: float) -> str | None:
        """Return what `run_module` would return, and raise what it would raise."""
        if not CAN_FORK:
            return run_module(self._module, text, timeout=timeout)
        own, process = self._forked_from = self._forked_from or self._start()
        before = set(psutil.pids())
        with TemporaryDirectory(dir=own.folder, ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / "work").mkdir()
            (folder / "in").write_text(text, encoding="utf-8")
            (folder / "out").touch()
            said = _ask(process, {"folder": name, "timeout": timeout})
            if set(psutil.pids()) - before:  # Asking each process for its mark takes longer than most runs do.
                end_marked(own.mark, spare=process.pid)
            printed = (folder / "out").read_text(encoding="utf-8", errors="replace")
        if not said:  # It was ended by what ran.
            self.__exit__()
        status = json.loads(said) if said else process.returncode
        if status:
            raise subprocess.CalledProcessError(status, self._module, stderr=printed)
        return None if status is None else printed

    def _start(self) -> tuple[Family, subprocess.Popen[bytes]]:
        own = self._open.enter_context(family())
        argv = [sys.executable, "-P", "-m", "scalelab.course.forks", self._module]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=own.folder,
            env=own.environment,
            start_new_session=True,  # Ctrl-C is for us: it ends when we close its stdin, or go
        )
        self._open.enter_context(process)
        self._open.callback(own.end)
        _tell(process, self._imports)
        return own, process


def _tell(process: subprocess.Popen[bytes], what: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(what).encode() + b"\n")


def _ask(process: subprocess.Popen[bytes], what: object) -> bytes:
    """Return the line that the process answers; nothing where it ends instead."""
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        _tell(process, what)
    return process.stdout.readline()


def cores() -> int:
    """Return how many processes to run side by side."""
    return os.cpu_count() or 1
