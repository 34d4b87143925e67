"""Find a server of a kind on this machine: one that the user named, a program, a wheel, a module, or a container."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from glob import glob
from importlib.util import find_spec
from pathlib import Path

from scalelab.servers.spec import LOOPBACK, Run, ServerKind, ServiceError

USUAL_PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin", "/snap/bin")
CONTAINERS = "SCALELAB_CONTAINERS"
ENGINES = ("docker", "podman")
PULL_S = 600.0


@dataclass(frozen=True)
class Installation:
    """A server that was found: `where` in words, and the kind as it must be run.

    url: the URL that the user named, if any. launch: the start of its command line. program: its executable, if it is
    a program of its own. container: whether it runs in one, and so is not a process of ours to kill, pause or restart.
    """

    kind: ServerKind
    where: str
    url: str = ""
    launch: tuple[str, ...] = ()
    program: Path | None = None
    container: bool = False

    @property
    def version(self) -> str:
        """The version that the program reports; "" if it reports none, or if it is not a program on this machine."""
        return "" if self.program is None else self.kind.version(self.program)


def find(kind: ServerKind, *, own: bool = False) -> Installation | None:
    """Return the first server of this kind that this machine has, or None.

    The search order is: a server that the user named, a program of an unpacked distribution that the user named, a
    program on this machine, a program from a wheel, a Python module, and a container if SCALELAB_CONTAINERS is 1. own:
    ignore named servers and containers, because the caller changes the server's settings, kills it or restarts it.
    Raises ServiceError if a variable names something that cannot be used.
    """
    installation = None if own else _named(kind)
    installation = installation or _unpacked(kind) or _program(kind) or _wheel(kind) or _module(kind)
    return installation or (None if own else _container(kind))


def how_to_get(kind: ServerKind) -> str:
    """Return the ways to get a server of this kind, in one line."""
    ways = [f"`python -m pip install {package}` on {systems}" for package, systems in _packages(kind)]
    systems = [("Debian", kind.debian), ("Homebrew", kind.homebrew)]
    ways += [", ".join(f"{system}'s {package}" for system, package in systems if package)]
    ways += [f"or name one in {kind.url_variable}, as {kind.example}"]
    return "; ".join(filter(None, ways))


def _packages(kind: ServerKind) -> Iterator[tuple[str, str]]:
    if kind.wheel:
        yield kind.wheel.distribution or kind.wheel.package, kind.wheel.systems


def lacks(kind: ServerKind, *, own: bool = False) -> str:
    """Return "" if a server is found, else its title and how to get it, as the end of a sentence."""
    return "" if find(kind, own=own) else f"{kind.title} ({how_to_get(kind)})"


def _named(kind: ServerKind) -> Installation | None:
    url = os.environ.get(kind.url_variable)
    if not url:
        return None
    if url.partition("://")[0] not in kind.schemes:
        raise ServiceError(f"Expected {kind.url_variable} as {kind.example}; got {url!r}. Correct or unset it.")
    return Installation(kind, f"named by {kind.url_variable}", url=url)


def _unpacked(kind: ServerKind) -> Installation | None:
    home = os.environ.get(kind.home_variable)
    if not home or not kind.programs:
        return None
    places = [Path(home, folder) for folder in ("", "bin", "sbin", "src")]
    program = _first(kind.programs, places)
    if program is None:
        raise ServiceError(
            f"Expected {kind.home_variable} to name a folder with {' or '.join(kind.programs)} in it or in its bin; "
            f"{home} has none. Correct or unset it."
        )
    return Installation(kind, f"in {kind.home_variable}", launch=(str(program),), program=program)


def _program(kind: ServerKind) -> Installation | None:
    places = [folder for pattern in kind.places for folder in sorted(glob(pattern), key=_by_version, reverse=True)]
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    program = _first(kind.programs, [Path(folder) for folder in (*path, *USUAL_PLACES, *places) if folder])
    return None if program is None else Installation(kind, "on this machine", launch=(str(program),), program=program)


def _first(programs: tuple[str, ...], places: list[Path]) -> Path | None:
    path = os.pathsep.join(map(str, places))
    paths = (shutil.which(program, path=path) for program in programs)
    return next((Path(program) for program in paths if program), None)


def _by_version(folder: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", folder)]


def _wheel(kind: ServerKind) -> Installation | None:
    if kind.wheel is None:
        return None
    spec = find_spec(kind.wheel.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob(kind.wheel.pattern)):
            if os.access(file, os.X_OK):
                return Installation(kind, f"from the wheel {kind.wheel.package}", launch=(str(file),), program=file)
    return None


def _module(kind: ServerKind) -> Installation | None:
    if not kind.module or find_spec(kind.module.partition(".")[0]) is None:
        return None
    return Installation(kind, f"the Python module {kind.module}", launch=(sys.executable, "-m", kind.module))


def _container(kind: ServerKind) -> Installation | None:
    if not kind.image or os.environ.get(CONTAINERS) != "1":
        return None
    engine = _first(ENGINES, [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)])
    if engine is None:
        raise ServiceError(f"{CONTAINERS} is 1, but neither Docker nor Podman is on PATH. Install one, or unset it.")
    where = f"in a container of {kind.image}, by {engine.stem}"
    return Installation(_contained(kind, str(engine)), where, launch=(str(engine),), container=True)


def _contained(kind: ServerKind, engine: str) -> ServerKind:
    """Return the kind with the command that runs its image, published on loopback only, and removed at its end.

    The client of the engine stays in the foreground and passes signals on, so the supervisor ends a container as it
    ends a program.
    """

    def name(run: Run) -> str:
        return run.folder.name

    def command(run: Run) -> list[str]:
        env = [f"--env={variable}" for variable in kind.image_env]
        publish = f"--publish={LOOPBACK}:{run.port}:{kind.port}"
        return [*run.launch, "run", "--rm", f"--name={name(run)}", publish, *env, kind.image]

    def remove(run: Run) -> list[str]:
        return [engine, "rm", "--force", name(run)]

    return replace(
        kind, command=command, after=remove, prepare=None, env=None, user="", stop="SIGTERM", ports=(), ready_s=PULL_S
    )
