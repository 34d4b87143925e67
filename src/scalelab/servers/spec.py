"""The facts about each kind of server: how to get it, prepare it, start it, and tell that it is ready."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

from scalelab.errors import ScalelabError
from scalelab.servers.supervisor import as_user

LOOPBACK = "127.0.0.1"
ANSWER_S = 1.0
VERSION_S = 10.0
PREPARE_S = 120.0
LAST_LINES = 20
NOTHING: Mapping[str, str] = MappingProxyType({})


class ServiceError(ScalelabError):
    """A server was given invalid options, did not start, or does not answer."""


class MissingServer(ServiceError):
    """This machine does not have the server."""


@dataclass(frozen=True)
class Wheel:
    """A Python package that contains the server: its import name and the pattern of the program's path in it.

    systems: the operating systems that it has wheels for, in words; distribution: its name on the package index, if
    that differs from the import name.
    """

    package: str
    pattern: str
    systems: str
    distribution: str = ""


@dataclass(frozen=True)
class Run:
    """One server process that is to run: a kind's functions read from it what they need.

    launch: the start of the command line, a program or `python -m module`; folder: the server's own temporary folder
    and its working directory; ports: free ports of loopback, the server's own first, then those that the kind names;
    settings: the server's own settings, as its configuration file names them; user: the user to run as, or "" for the
    present one; number: this node's place in its cluster; nodes: the ports of every node of the cluster.
    """

    launch: tuple[str, ...]
    folder: Path
    ports: Mapping[str, int]
    settings: Mapping[str, str]
    user: str
    number: int
    nodes: tuple[Mapping[str, int], ...]

    @property
    def port(self) -> int:
        return next(iter(self.ports.values()))

    def beside(self, name: str) -> str:
        """Return the path of a program that lies in the same folder as the server's, links resolved."""
        return str(Path(self.launch[0]).resolve().with_name(name))

    def call(self, *command: str) -> None:
        """Run a command that prepares the server, as the server's user in its folder. Raises ServiceError."""
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                timeout=PREPARE_S,
                check=False,
                **as_user(self.user),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceError(f"{Path(command[0]).name} could not prepare the server: {error}.") from error
        if done.returncode:
            lines = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
            raise ServiceError(f"{Path(command[0]).name} ended with status {done.returncode}. Its last lines:\n{lines}")


def ask_version(program: Path) -> str:
    """Return the version that `program --version` prints, or ""."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=VERSION_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return first_version(done.stdout + done.stderr)


def first_version(text: str) -> str:
    """Return the first version number in `text`, such as 3.10.8, or ""."""
    number = re.search(r"\d+(\.\d+)+", text)
    return number.group() if number else ""


@dataclass(frozen=True)
class ServerKind:
    """A kind of server. A file of `scalelab.servers.kinds` holds one as KIND; everything else is derived from it.

    Description:
    name: as in `missing` and in the names of its environment variables; title: with its article, for people; purpose:
    what the course uses it for; schemes: the schemes of its URLs and their usual ports, its own first; url: the URL of
    a server that the course starts, with `{host}` and `{port}`.

    How to get it (any may be empty):
    programs: names of its executables, the preferred one first; places: patterns of folders that hold them and that
    PATH may lack; debian, homebrew: the packages of these systems; wheel: a Python package that contains the program;
    module: a Python module that is the server, run as `python -m module`; image: a container image; image_env: the
    environment that it needs, each as NAME=value.

    How to run it:
    command: returns its command line. prepare: called before each start; writes configuration, and leaves alone what
    is kept. env: returns further environment variables. ready: whether it answers requests. ports: names of further
    ports that it listens at. user: the user to run as if this process is root's, because the server refuses to be
    root. stop: the signal that asks it to end. keeps: files and folders in its folder that a restart keeps; all else
    is deleted. ready_s: seconds that it may take to be ready. join: called with all nodes of a cluster when each is
    ready, to make them one. version: returns the version of a program. after: returns a command to run after the
    server has ended.
    """

    name: str
    title: str
    purpose: str
    schemes: Mapping[str, int]
    url: str
    command: Callable[[Run], Sequence[str]]
    ready: Callable[[Run], bool]
    programs: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    debian: str = ""
    homebrew: str = ""
    wheel: Wheel | None = None
    module: str = ""
    image: str = ""
    image_env: tuple[str, ...] = ()
    prepare: Callable[[Run], None] | None = None
    env: Callable[[Run], Mapping[str, str]] | None = None
    ports: tuple[str, ...] = ()
    user: str = ""
    stop: str = "SIGTERM"
    keeps: tuple[str, ...] = ()
    ready_s: float = 30.0
    join: Callable[[Sequence[Run]], None] | None = None
    version: Callable[[Path], str] = ask_version
    after: Callable[[Run], Sequence[str]] | None = None

    @property
    def url_variable(self) -> str:
        """The environment variable in which the user names a server."""
        return f"SCALELAB_{self.name.upper()}_URL"

    @property
    def home_variable(self) -> str:
        """The environment variable in which the user names the folder of an unpacked distribution."""
        return f"{self.name.upper()}_HOME"

    @property
    def port(self) -> int:
        """The usual port of this kind."""
        return next(iter(self.schemes.values()))

    @property
    def example(self) -> str:
        """The form of a URL that the user may name."""
        return f"{next(iter(self.schemes))}://host:port"


def replies(port: int, question: bytes, answer: bytes, *, host: str = LOOPBACK) -> bool:
    """Return whether the server at this port answers `question` with bytes that begin with `answer`.

    If `answer` is empty, a server that accepts the connection is enough.
    """
    try:
        with socket.create_connection((host, port), ANSWER_S) as connection:
            connection.sendall(question)
            return connection.recv(len(answer)).startswith(answer) if answer else True
    except OSError:
        return False


def server_user(kind: ServerKind) -> str:
    """Return the user that a server of this kind must run as, or "" for the present user."""
    return kind.user if hasattr(os, "geteuid") and os.geteuid() == 0 else ""


def keep_last_lines(stream: IO[str], lines: list[str]) -> None:
    """Read `stream` to its end, keeping its last LAST_LINES lines in `lines`."""
    for line in stream:
        lines.append(line)
        del lines[:-LAST_LINES]
