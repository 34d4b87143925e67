"""One control group per sandbox, if this process may make groups: it limits a sandbox's memory and processes in total.

Without groups (an ordinary user outside a delegated part of the tree, most containers) only the limits of each process
apply. The sandbox's init then adds up the processes' memory a few times a second (`total_pss`), and ends the sandbox
soon after it exceeds its limit.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scalelab.grading.sandbox.namespaces import Limits

COPIED_MB = 128
"""Memory that a sandbox may use beyond its limit: pages copied from the fork server, and its /tmp, count too."""
CONTROLLERS = ("memory", "pids")
Files = dict[str, tuple[str, ...]]
V1: Files = {"memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), "pids": ("pids.max",)}
V2: Files = {"memory": ("memory.max",), "pids": ("pids.max",)}


@dataclass(frozen=True)
class Cgroups:
    """The folders in which groups can be made (perhaps none), each with the names of its limit files by controller."""

    name: str
    parents: tuple[tuple[Path, Files], ...]

    @property
    def memory(self) -> bool:
        """Whether the groups limit memory."""
        return any("memory" in files for _, files in self.parents)

    def make(self, slot: int, limits: Limits) -> tuple[Path, ...]:
        """Make a sandbox's groups, or reuse existing ones, set their limits, and return their folders."""
        maxima = {"memory": bytes_of(limits), "pids": limits.processes}
        made = []
        for parent, files in self.parents:
            folder = parent / f"{self.name}-{slot}"
            folder.mkdir(exist_ok=True)
            for controller, names in files.items():
                for name in filter(lambda name: (folder / name).exists(), names):
                    (folder / name).write_text(str(maxima[controller]), encoding="ascii")
            with suppress(OSError):  # without swap, there is nothing to forbid
                (folder / "memory.swap.max").write_text("0", encoding="ascii")
            made.append(folder)
        return tuple(made)

    def remove(self) -> bool:
        """Remove every group of this name; a group that still has a process stays. Return whether none is left."""
        folders = [folder for parent, _ in self.parents for folder in parent.glob(f"{self.name}-*")]
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in folders)


def bytes_of(limits: Limits) -> int:
    """Return how many bytes of memory a sandbox may hold."""
    return (limits.memory_mb + COPIED_MB) * 2**20


def join(folders: tuple[Path, ...]) -> None:
    """Put this process, and what it forks from now on, into groups."""
    for folder in folders:
        (folder / "cgroup.procs").write_text("0", encoding="ascii")


def total_pss() -> int:
    """Return the memory in bytes of all processes that this one sees; a shared page is divided among its users."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError, StopIteration):  # it may have ended
            total += _share(Path("/proc", name), page)
    return total


def _share(process: Path, page: int) -> int:
    for thread in (process / "task").iterdir():  # if its first thread has ended, only others report memory
        with suppress(ProcessLookupError, FileNotFoundError):
            try:
                with (thread / "smaps_rollup").open("rb") as lines:
                    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:"))
            except PermissionError:  # a process can hide this, but not its resident size
                return int((thread / "statm").read_bytes().split()[1]) * page
    return 0


def writable_hierarchies(name: str) -> Cgroups:
    """Return the places in which groups of this name can be made; a forked process tries each."""
    parents = mounted_hierarchies(name).parents
    return Cgroups(name, tuple((folder, files) for folder, files in parents if _writable(folder, name)))


def mounted_hierarchies(
    name: str, *, groups: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo"
) -> Cgroups:
    """Return the places in which groups of this name would be made, untried."""
    wanted: dict[str, Path] = {}
    parents: list[tuple[Path, Files]] = []
    places = _mounted(Path(mounts).read_text(encoding="utf-8"))
    for line in Path(groups).read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in places and controller in CONTROLLERS:
                wanted[controller] = _below(*places[controller], path)
        if not controllers and "" in places and (parent := _delegated(_below(*places[""], path), places[""][1])):
            parents.append((parent, V2))
    parents += [(folder, {controller: V1[controller]}) for controller, folder in wanted.items()]
    return Cgroups(name, tuple(parents))


def _mounted(mounts: str) -> dict[str, tuple[str, Path]]:
    """Return, by controller ("" for version 2), the root of the mounted part of the tree and its mount point."""
    places = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            places[""] = (root, Path(point))
        elif kind == "cgroup":
            places |= {option: (root, Path(point)) for option in options.split(",")}
    return places


def _below(root: str, point: Path, path: str) -> Path:
    inside = os.path.relpath(path, root)
    return point if inside.startswith("..") else point / inside


def _delegated(own: Path, top: Path) -> Path | None:
    """Return the nearest folder, from `own` upwards, whose child groups have both controllers, or None."""
    for folder in (own, *own.parents):
        if not folder.is_relative_to(top):
            return None
        with suppress(OSError):
            if set(CONTROLLERS) <= set((folder / "cgroup.subtree_control").read_text(encoding="ascii").split()):
                return folder
    return None


def _writable(parent: Path, name: str) -> bool:
    folder = parent / f"{name}-try"
    try:
        folder.mkdir()
    except OSError:
        return False
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(OSError):
            join((folder,))
            status = 0
        os._exit(status)
    _, status = os.waitpid(child, 0)
    with suppress(OSError):
        folder.rmdir()
    return status == 0
