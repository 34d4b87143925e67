"""Grade in a container, if this system cannot sandbox answers but a container engine runs a Linux that can.

The same command runs inside, with the same sandbox around each answer. The container has no network. It sees only this
machine's course, submissions, roster and folder for the grades, and can write only to that folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid4

from scalelab.course import Course
from scalelab.errors import ScalelabError
from scalelab.grading.sandbox import namespaces as sandbox

BASE = "SCALELAB_BASE_IMAGE"
"""The environment variable that replaces the base image of the Containerfile."""
IMAGE = "scalelab-grade"
SOURCES = ("requirements.lock", "pyproject.toml", "README.md", "LICENSE", "src/scalelab")
"""The files of the course that a build of the image sees."""
PROCESSES = 4096
ENGINES = ("docker", "podman")
ASK_S, ENGINE_S, TRY_S, STOP_S = 10.0, 10.0, 600.0, 60.0
AS_ROOT = ("SYS_ADMIN", "NET_ADMIN", "SETUID", "SETGID", "SETPCAP", "CHOWN", "DAC_OVERRIDE", "KILL")
"""The capabilities with which root makes sandboxes; found by trial: if any one is missing, nothing is graded."""
MAKES_SANDBOXES = {"mount", "umount", "umount2", "pivot_root", "mount_setattr", "unshare", "sethostname"}
TRY = "import sys; from scalelab.grading.judging.fork_server import sandbox_missing; sys.exit(sandbox_missing() or 0)"
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/dev")


class NoContainer(ScalelabError):
    """The container's image cannot be built, or the container cannot be started as asked; nothing was graded."""


@dataclass(frozen=True)
class Engine:
    """A container engine that answers. `rootless`: root inside is an ordinary user here; `memory` is in bytes."""

    path: str
    name: str
    rootless: bool
    memory: int


@dataclass(frozen=True)
class EngineResult:
    """The exit status and the output of the engine's program."""

    status: int
    stdout: str
    stderr: str


def grade_in_container(
    path: str,
    course: Course,
    submissions: Path,
    out: Path,
    *,
    options: Sequence[str],
    roster: Path | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Run `scalelab grade` with these further `options` in a container of the engine at `path`.

    Returns the exit status of the command inside. Raises NoContainer if it cannot be run there.
    """
    engine = _engine(path)
    out.mkdir(parents=True, exist_ok=True)
    readable = [source.resolve() for source in (course.root, submissions, *([roster] if roster else []))]
    mounts = [*(_mount(source) for source in readable), _mount(out.resolve(), writable=True)]
    inside = [str(_inside(source)) for source in (*readable, out.resolve())]
    command = ["--course", inside[0], "grade", inside[1], "--out", inside[-1], *options]
    command += ["--roster", inside[2]] if roster else []
    with tempfile.TemporaryDirectory(prefix="scalelab-") as folder:
        image = _image(engine, course, Path(folder, "image"), say)
        description, container_options = _container_options(engine, image, _filter(Path(folder, "seccomp.json")))
        say(f"This system has no sandbox for answers: grading in a container of {engine.name}'s, {description}.")
        try:
            return _run(engine, [*container_options, *mounts, image, *command])
        finally:
            _give_to_caller(engine, container_options, image, mounts[-1], inside[-1])


def _engine(path: str) -> Engine:
    """Return the engine at `path`: docker may be another name for podman. Raises NoContainer if it does not answer."""
    podman = "podman" in _ask(path, "--version").stdout.lower()
    about = "{{.Host.MemTotal}} {{.Host.Security.Rootless}}" if podman else "{{.MemTotal}} {{.SecurityOptions}}"
    done = _ask(path, "info", "--format", about)
    memory, _, rest = done.stdout.strip().partition(" ")
    if done.status or not memory.isdecimal():
        raise NoContainer(f"{path} does not describe itself: {_last(done.stderr or done.stdout)} Nothing was graded.")
    return Engine(path, "podman" if podman else "docker", rest == "true" or "name=rootless" in rest, int(memory))


def _image(engine: Engine, course: Course, context: Path, say: Callable[[str], None]) -> str:
    """Return the name of the image for this state of the course; build it if it is missing. Raises NoContainer."""
    for name in SOURCES:
        source, copy = course.root / name, context / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, copy)
    base = os.environ.get(BASE, "")
    digest = hashlib.sha256(base.encode())
    for path in sorted(path for path in context.rglob("*") if path.is_file()):
        data = path.read_bytes()
        digest.update(f"\n{path.relative_to(context).as_posix()} {len(data)} ".encode() + data)
    image = f"{IMAGE}:{digest.hexdigest()[:16]}"
    if _ask(engine.path, "image", "inspect", image).status == 0:
        return image
    say(f"Building the image {image} with {engine.name}: once for this state of the course, a few minutes.")
    file = str(context / "src/scalelab/grading/sandbox/Containerfile")
    arguments = [f"--build-arg=BASE={base}"] if base else []
    done = _ask(engine.path, "build", *arguments, "--tag", image, "--file", file, str(context), limit=None)
    if done.status:
        raise NoContainer(
            f"The image to grade in cannot be built by {engine.name}, and nothing was graded. It said:\n"
            f"{_last(done.stdout + done.stderr, lines=5)}\n"
            "A build needs the network once: for the image that it begins with, and for the packages in "
            f"requirements.lock. {BASE} names another image to begin with: a Linux with Python and pip."
        )
    return image


def _filter(path: Path) -> str:
    """Write the container's filter of system calls, and return its path: `sandbox.DENIED` without MAKES_SANDBOXES."""
    refused = sorted(set(sandbox.DENIED) - MAKES_SANDBOXES)
    rules = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": refused, "action": "SCMP_ACT_ERRNO"}]}
    path.write_text(json.dumps(rules), encoding="ascii")
    return str(path)


def _container_options(engine: Engine, image: str, filter: str) -> tuple[str, tuple[str, ...]]:
    """Return how a container can make sandboxes, in words and arguments: without capabilities, or else as root.

    Raises NoContainer if neither works.
    """
    shared = (
        *("--network=none", "--read-only", "--tmpfs=/tmp", "--workdir=/tmp", f"--memory={engine.memory * 3 // 4}b"),
        *(f"--pids-limit={PROCESSES}", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
        *("--security-opt=label=disable", "--security-opt=apparmor=unconfined", f"--security-opt=seccomp={filter}"),
        *("--env=HOME=/tmp", "--env=LANG=C.UTF-8", "--env=PYTHONUNBUFFERED=1", "--env=PYTHONDONTWRITEBYTECODE=1"),
    )
    # An ordinary user's sandbox mounts its own /proc, which Linux allows only if nothing of /proc is hidden.
    bare = "--security-opt=unmask=ALL" if engine.name == "podman" else "--security-opt=systempaths=unconfined"
    uid, gid = _caller()
    user: tuple[str, ...] = (f"--user={uid}:{gid}",)
    description = "as an ordinary user without capabilities"
    if engine.rootless and engine.name == "podman":
        user = ("--userns=keep-id",)
    elif engine.rootless or uid == 0:
        # The caller's files belong to the container's root, who can make no namespace without SETFCAP.
        user, description = ("--user=0:0", "--cap-add=SETFCAP"), "with no capability but SETFCAP"
    attempts = [(description, (*shared, bare, *user))]
    if not engine.rootless:
        root = ("--user=0:0", *(f"--cap-add={capability}" for capability in AS_ROOT))
        attempts.append((f"as its root with the capabilities {', '.join(AS_ROOT)}", (*shared, *root)))
    failures = []
    for description, arguments in attempts:
        done = _ask(engine.path, "run", *_named(), *arguments, "--entrypoint=python", image, "-c", TRY, limit=TRY_S)
        if done.status == 0:
            return description, arguments
        failures.append(f"{description}: {_last(done.stderr)}")
    head = f"Answers cannot be sandboxed here, nor in a container of {engine.name}'s. Nothing was graded."
    raise NoContainer("\n".join([head, *failures]))


def _run(engine: Engine, arguments: Sequence[str]) -> int:
    """Run the container, and return its exit status. An interrupt is passed on; the container has STOP_S to end."""
    name = f"{IMAGE}-{uuid4().hex[:12]}"
    command = [engine.path, "run", *_named(name), *arguments]
    sys.stdout.flush()
    # A process group of its own: else Ctrl-C would end the engine's program, and leave the container running.
    group = {"creationflags": 0x200} if os.name == "nt" else {"process_group": 0}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **group)  # type: ignore[call-overload]
    try:
        return int(process.wait())
    except KeyboardInterrupt:
        until, interrupted = time.monotonic() + STOP_S, False
        while process.poll() is None and time.monotonic() < until:
            interrupted = interrupted or _ask(engine.path, "kill", "--signal=INT", name).status == 0
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
            _ask(engine.path, "rm", "--force", name)


def _give_to_caller(engine: Engine, container_options: Sequence[str], image: str, mount: str, folder: str) -> None:
    """Make the caller the owner of the folder of grades, if the container's root wrote it."""
    uid, gid = _caller()
    if uid and "--cap-add=CHOWN" in container_options:
        arguments = (*container_options, mount, "--entrypoint=chown", image, "-R", f"{uid}:{gid}", folder)
        _ask(engine.path, "run", *_named(), *arguments, limit=TRY_S)


def _named(name: str = "") -> tuple[str, ...]:
    return ("--rm", "--pull=never", f"--name={name or f'{IMAGE}-{uuid4().hex[:12]}'}")


def _caller() -> tuple[int, int]:
    """Return the caller's uid and gid; 1000 on systems without them: the engine's files are its user's there anyway."""
    return (os.getuid(), os.getgid()) if hasattr(os, "getuid") else (1000, 1000)


def _mount(path: Path, *, writable: bool = False) -> str:
    fields = ["type=bind", f"source={path}", f"target={_inside(path)}", *([] if writable else ["readonly"])]
    # Engines parse the option as a line of CSV.
    quoted = ['"' + field.replace('"', '""') + '"' if set(field) & set(',"') else field for field in fields]
    return "--mount=" + ",".join(quoted)


def _inside(path: Path) -> PurePosixPath:
    """Return a path's place in the container: the same as here, so that paths in the output are valid here, too.

    A drive becomes a folder. Raises NoContainer if the container has its own system there.
    """
    target = PurePosixPath("/", path.drive.rstrip(":").lower(), *path.parts[1:])
    if str(target) in ("/", "/tmp") or any(target.is_relative_to(folder) for folder in SYSTEM_FOLDERS):
        raise NoContainer(f"{path} is where a container has its own system. Nothing was graded. Use another folder.")
    return target


def _ask(path: str, *arguments: str, limit: float | None = ASK_S) -> EngineResult:
    """Run the engine's program; the status is 1 if it cannot be run, or takes longer than `limit` (seconds)."""
    command = [path, *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return EngineResult(1, "", str(error))
    return EngineResult(done.returncode, *(stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr)))


def _last(text: str, lines: int = 1) -> str:
    printed = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(printed[-lines:]) or "it said nothing."


def find_engine() -> tuple[str, str]:
    """Return the path and version of a container engine that answers, or "" and how to get one."""
    silent = ""
    for engine in filter(None, map(shutil.which, ENGINES)):  # the program alone cannot start a container
        try:
            done = subprocess.run(
                [engine, "version", "--format", "{{.Server.Version}}"],
                capture_output=True,
                text=True,
                timeout=ENGINE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0:
            return engine, done.stdout.strip()
        silent = silent or f"{Path(engine).stem} is here, but does not answer: start it; or "
    return "", f"{silent}install Docker or Podman"
