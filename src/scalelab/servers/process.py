"""Start servers on free ports of loopback, in temporary folders, and end them however the notebook ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from scalelab.servers import supervisor
from scalelab.servers.find import Installation, find, how_to_get
from scalelab.servers.spec import (
    LOOPBACK,
    NOTHING,
    MissingServer,
    Run,
    ServerKind,
    ServiceError,
    keep_last_lines,
    replies,
    server_user,
)
from scalelab.servers.supervisor import STOP_S

PORT_TRIES = 3
POLL_S = 0.02


class _Ended(ServiceError):
    """The server ended before it was ready, perhaps because another process took its port meanwhile."""


@dataclass(frozen=True)
class Server:
    """A running server.

    url: its address; version: that of its program, or ""; found: how it was found, in words; kind: all of this in
    words, for a page.
    """

    url: str
    version: str
    found: str
    kind: str
    _port: int
    _process: Process | None = field(repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or LOOPBACK

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or self._port

    def restart(self) -> None:
        """End the server and start it again at the same address, with what it had saved on disk.

        Also starts a server again that was killed. Raises ServiceError if the server is not a process of the course
        (open it with own=True), or if it does not start.
        """
        self._own().restart()

    def kill(self) -> None:
        """Kill the server's processes at once (SIGKILL), as a power failure would. `restart` starts it again."""
        self._own().kill()

    def pause(self) -> None:
        """Stop the server's processes (SIGSTOP): connections stay open, and nothing answers until `resume`."""
        supervisor.pause(self._own().running())

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        supervisor.resume(self._own().running())

    def _own(self) -> Process:
        if self._process is None:
            raise ServiceError(
                f"The server at {self.url} is {self.found}, and this course kills, pauses and restarts only the "
                "processes that it started itself: open the server with own=True."
            )
        return self._process


class Process:
    """A server's process, its supervisor and its temporary folder."""

    def __init__(self, kind: ServerKind, run: Run) -> None:
        self.kind, self.run = kind, run
        self._supervisor: subprocess.Popen[str] | None = None
        self._pid = 0
        self._lines: list[str] = []

    def running(self) -> int:
        """Return the server's process id. Raises ServiceError if it has ended."""
        if self._supervisor is None or self._supervisor.poll() is not None:
            raise ServiceError(f"The {self.kind.name} server at port {self.run.port} has ended: restart it first.")
        return self._pid

    def launch(self) -> None:
        """Prepare the server and start it; it is ready only after `wait`. Raises ServiceError."""
        kind, run = self.kind, self.run
        _give(run)
        if kind.prepare:
            kind.prepare(run)
            _give(run)
        options = {
            "command": [str(word) for word in kind.command(run)],
            "user": run.user,
            "stop": kind.stop,
            "after": list(kind.after(run)) if kind.after else [],
        }
        self._supervisor = subprocess.Popen(
            [sys.executable, "-P", supervisor.__file__, json.dumps(options)],
            cwd=run.folder,
            env={**os.environ, **(kind.env(run) if kind.env else {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._lines = []
        self._reader = threading.Thread(
            target=keep_last_lines, args=(self._supervisor.stderr, self._lines), daemon=True
        )
        self._reader.start()
        assert self._supervisor.stdout is not None
        self._pid = int(self._supervisor.stdout.readline() or 0)

    def wait(self) -> None:
        """Return when the server is ready. Raises ServiceError if it ends first, or is not ready in time."""
        assert self._supervisor is not None
        until = time.monotonic() + self.kind.ready_s
        while not self.kind.ready(self.run):
            ended = self._supervisor.poll()
            if ended is not None or time.monotonic() > until:
                self.end()
                why = f"ended with status {ended}" if ended is not None else "did not answer within"
                why += "" if ended is not None else f" {self.kind.ready_s:g} s"
                raise (ServiceError if ended is None else _Ended)(
                    f"{self.kind.name} {why}. Its last lines:\n{''.join(self._lines)}"
                    "Run the cell again; if it fails again, the lines above say why."
                )
            time.sleep(POLL_S)

    def restart(self) -> None:
        """End the server, delete what its kind does not keep, and start it on the same ports."""
        self.end()
        for path in self.run.folder.iterdir():
            if path.name not in self.kind.keeps:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.launch()
        self.wait()

    def kill(self) -> None:
        supervisor.kill(self.running())
        assert self._supervisor is not None
        self._supervisor.wait()

    def end(self) -> None:
        """End the server's process, if it runs."""
        process, self._supervisor = self._supervisor, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(4 * STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(STOP_S)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()

    def close(self) -> None:
        """End the server and remove its folder."""
        self.end()
        shutil.rmtree(self.run.folder, ignore_errors=True)


@contextmanager
def running(kind: ServerKind, settings: Mapping[str, str] = NOTHING, *, own: bool = False) -> Iterator[Server]:
    """Run a server of this kind until the block ends, and yield it.

    settings: as the server's configuration file names them; they imply own=True. own: ignore servers that the user
    named, and containers. Raises MissingServer if there is none, and ServiceError if it does not start or answer.
    """
    installation = _find(kind, own=own or bool(settings))
    if installation.url:
        server = Server(installation.url, "", installation.where, f"the server {installation.where}", kind.port, None)
        if not replies(server.port, b"", b"", host=server.host):
            raise ServiceError(
                f"Nothing answers at {server.host}:{server.port}, which is {installation.where}. "
                "Start that server, or unset the variable to let the course start one of its own."
            )
        yield server
        return
    with _started(installation, settings, 1) as (process,):
        yield _server(installation, process)


@contextmanager
def cluster(kind: ServerKind, nodes: int, settings: Mapping[str, str] = NOTHING) -> Iterator[tuple[Server, ...]]:
    """Run a cluster of this kind until the block ends, and yield its nodes, each with kill, pause and restart.

    nodes: how many. settings: as in `running`, for each node. Raises MissingServer and ServiceError as `running` does.
    """
    if nodes < 1:
        raise ServiceError(f"Expected at least 1 node; got {nodes}.")
    installation = _find(kind, own=True)
    with _started(installation, settings, nodes) as processes:
        if kind.join:
            kind.join([process.run for process in processes])
        yield tuple(_server(installation, process) for process in processes)


def _find(kind: ServerKind, *, own: bool) -> Installation:
    installation = find(kind, own=own)
    if installation is None:
        raise MissingServer(f"This machine lacks {kind.title} ({how_to_get(kind)}).")
    return installation


def _server(installation: Installation, process: Process) -> Server:
    name = installation.program.name if installation.program else installation.kind.name
    version = installation.version
    description = f"{name} {version or '(version unknown)'}, {installation.where}"
    url = installation.kind.url.format(host=LOOPBACK, port=process.run.port)
    return Server(
        url, version, installation.where, description, process.run.port, None if installation.container else process
    )


@contextmanager
def _started(installation: Installation, settings: Mapping[str, str], nodes: int) -> Iterator[list[Process]]:
    """Start all nodes, on other ports if one ends at once, and close them when the block ends."""
    for tries_left in reversed(range(PORT_TRIES)):
        with ExitStack() as stack:
            processes = []
            for run in _runs(installation, settings, nodes):
                process = Process(installation.kind, run)
                stack.callback(process.close)
                processes.append(process)
            try:
                for process in processes:
                    process.launch()
                for process in processes:
                    process.wait()
            except _Ended:
                if tries_left:
                    continue
                raise
            yield processes
            return


def _runs(installation: Installation, settings: Mapping[str, str], nodes: int) -> Iterator[Run]:
    """Yield the run of each node, with ports that are free now and a new folder."""
    names = (installation.kind.name, *installation.kind.ports)
    free = iter(_free_ports(nodes * len(names)))
    ports = tuple({name: next(free) for name in names} for _ in range(nodes))
    user = server_user(installation.kind)
    for number in range(nodes):
        folder = Path(tempfile.mkdtemp(prefix=f"scalelab-{installation.kind.name}-"))
        yield Run(installation.launch, folder, ports[number], dict(settings), user, number, ports)


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]


def _give(run: Run) -> None:
    """Make the server's user the owner of its folder, if that is not the present user."""
    if run.user:
        for folder, _, files in os.walk(run.folder):
            for path in (folder, *(os.path.join(folder, file) for file in files)):
                shutil.chown(path, run.user, supervisor.as_user(run.user)["group"])
