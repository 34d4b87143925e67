"""Third-party servers: find them, start them on loopback in a temporary folder, and end them with their caller."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from scalelab.servers.process import LAST_LINES, START_S, STOP_S, ServiceError

LOOPBACK = "127.0.0.1"
USUAL_PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin", "/snap/bin")
PORT_TRIES = 3
POLL_S = 0.02
VERSION_S = 10.0
VERSION = re.compile(r"\d+(\.\d+)+")


class MissingServer(ServiceError):
    """This machine does not have the server."""


@dataclass(frozen=True)
class Component:
    """A server that chapters use, and how to get it.

    name: as in `missing`; title, purpose: for people; variable: the environment variable that names the user's own
    server; programs: names of its executables, the preferred one first; wheel: a package that contains one, and the
    pattern of its path in the package; get: how to get one, in one line.
    """

    name: str
    title: str
    purpose: str
    variable: str
    programs: tuple[str, ...]
    wheel: tuple[str, str] | None
    get: str


@dataclass(frozen=True)
class Found:
    """A component that was found: `where` in words, and either the user's `url` or the path of a `program`."""

    where: str
    url: str | None = None
    program: Path | None = None

    @property
    def version(self) -> str:
        """The version that the program reports; "" if it reports none, or for a server that the user named."""
        if self.program is None:
            return ""
        try:
            done = subprocess.run(
                [self.program, "--version"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=VERSION_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        number = VERSION.search(done.stdout + done.stderr)
        return number.group() if number else ""


def find(component: Component, *, own: bool = False) -> Found | None:
    """Return the component as found, or None.

    The search order is: a server that the user named, a program on this machine, a program from a wheel. own: ignore a
    server that the user named, because the caller restarts its server or changes its settings.
    """
    url = os.environ.get(component.variable)
    if url and not own:
        return Found(f"named by {component.variable}", url=url)
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *USUAL_PLACES])
    for program in component.programs:
        if path := shutil.which(program, path=places):
            return Found("on this machine", program=Path(path))
    if component.wheel is not None:
        package, pattern = component.wheel
        spec = find_spec(package)
        folder = Path(spec.origin).parent if spec and spec.origin else None
        for file in sorted(folder.glob(pattern)) if folder else ():
            if os.access(file, os.X_OK):
                return Found(f"from the wheel {package}", program=file)
    return None


def missing(component: Component, *, own: bool = False) -> str:
    """Return "" if the component is found, else its title and how to get it, as the end of a sentence."""
    return "" if find(component, own=own) else f"{component.title} ({component.get})"


class Process:
    """A server in its own process, on `port` of loopback, with a temporary folder as its working directory."""

    def __init__(
        self, name: str, command: Callable[[int, Path], Sequence[str]], answers: Callable[[int], bool]
    ) -> None:
        self._name, self._command, self._answers = name, command, answers
        self._folder = Path(tempfile.mkdtemp(prefix=f"scalelab-{name}-"))
        self._lines: list[str] = []
        try:
            self.port = self._start_on_a_free_port()
        except BaseException:
            self.close()
            raise

    def restart(self) -> None:
        """End the server, and start an empty one on the same port. Raises ServiceError if that fails."""
        self._end()
        for file in self._folder.iterdir():
            file.unlink()
        self._start(self.port)

    def close(self) -> None:
        """End the server and remove its folder."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_on_a_free_port(self) -> int:
        for tries_left in reversed(range(PORT_TRIES)):
            with socket.socket() as probe:
                probe.bind((LOOPBACK, 0))
                port: int = probe.getsockname()[1]
            try:
                self._start(port)
            except ServiceError:  # another process may have taken the port meanwhile
                if not tries_left:
                    raise
            else:
                return port
        raise AssertionError("unreachable")

    def _start(self, port: int) -> None:
        command = [sys.executable, "-m", "scalelab.servers._supervisor", *self._command(port, self._folder)]
        self._process = subprocess.Popen(
            command,
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._lines = []
        self._reader = threading.Thread(target=self._keep_last_lines, daemon=True)
        self._reader.start()
        until = time.monotonic() + START_S
        while not self._answers(port):
            if self._process.poll() is not None or time.monotonic() > until:
                ended = self._process.poll()
                self._end()
                why = f"ended with status {ended}" if ended is not None else f"did not answer within {START_S:g} s"
                raise ServiceError(
                    f"{self._name} {why}. Its last lines:\n{''.join(self._lines)}"
                    "Run the cell again; if it fails again, the lines above say why."
                )
            time.sleep(POLL_S)

    def _keep_last_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            del self._lines[:-LAST_LINES]

    def _end(self) -> None:
        process = getattr(self, "_process", None)
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(2 * STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(STOP_S)
        process.stdout.close()


@contextmanager
def running(
    component: Component,
    command: Callable[[Path, int, Path], Sequence[str]],
    answers: Callable[[int], bool],
    *,
    own: bool = False,
) -> Iterator[tuple[Found, Process | None]]:
    """Run a component; yield the `Found` component and its process, or None if the user named the server.

    command: returns the command line for a program, a port and the server's folder; answers: returns whether a server
    on that port of loopback answers. Raises MissingServer if there is none, ServiceError if it does not start.
    """
    found = find(component, own=own)
    if found is None:
        raise MissingServer(f"This machine lacks {missing(component, own=own)}.")
    if found.program is None:
        yield found, None
        return
    program = found.program
    process = Process(component.name, lambda port, folder: command(program, port, folder), answers)
    try:
        yield found, process
    finally:
        process.close()


def ask_port(host: str, port: int, question: bytes, wanted: bytes, timeout: float = 1.0) -> bool:
    """Return whether the server at this port answers `question` with bytes that begin with `wanted`."""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(question)
            return connection.recv(len(wanted)).startswith(wanted)
    except OSError:
        return False
