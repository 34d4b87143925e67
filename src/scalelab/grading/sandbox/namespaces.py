"""The sandbox of one answer: Linux namespaces, mounts, limits and a filter of system calls, by calls to libc.

bubblewrap cannot replace this: it executes a program, but an answer's process is a fork that continues in Python.
As root, bubblewrap also keeps all capabilities by default.

A sandbox has two processes. The *init*, process 1 of a new pid namespace, leaves the host's other namespaces
(`enter_namespaces`), takes a new root (`pivot_root`), drops every privilege (`drop_privileges`), and forks the
*answer's process*, which limits itself (`confine`) before it runs a line of the answer. Afterwards, the init can clear
the sandbox (`clear`) for another answer's process. When the init ends, Linux kills the whole namespace.

As root, each sandbox has an unprivileged uid of its own. As an ordinary user, a user namespace gives what is needed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

HOME = Path("/tmp")
"""An answer's home, working directory and temporary folder; it can write here, and in SHARED_MEMORY."""
SHARED_MEMORY = Path("/dev/shm")
USER = "student"

SPARE_AS_MB = 2048
"""Address space beyond the memory limit: stacks and arenas of threads reserve far more than they use."""
OWN_UIDS = 2_000_000_000
"""The first uid of sandboxes that root starts; no distribution assigns these uids."""
SLOTS = 256
"""Sandboxes of one fork server that can exist at once, each with a uid of its own."""
INNER_UID = 1000

_NEW_NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
_ALWAYS = ("mount", "cgroup", "uts", "ipc", "pid", "net")

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_SETATTR = 442

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 22, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CAP_SYS_ADMIN = 21
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40

_SETTINGS = (
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "Ordinary users are refused namespaces here: see sysctl kernel.unprivileged_userns_clone",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor takes the rights out of ordinary users' namespaces: see sysctl "
        "kernel.apparmor_restrict_unprivileged_userns, or give this Python a profile with `userns,`",
    ),
    ("/proc/sys/user/max_user_namespaces", "0", "No user namespace is allowed: see sysctl user.max_user_namespaces"),
)
_CONTAINERS = ("/.dockerenv", "/run/.containerenv")

_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SHOWN_OF_ETC = ("alternatives", "ld.so.cache")
_MASKED = ("acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "sysrq-trigger", "sysvipc", "tty")
_MASKED_FILES = (
    *("cmdline", "config.gz", "consoles", "diskstats", "interrupts", "iomem", "ioports", "kallsyms", "kcore"),
    *("key-users", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "locks", "modules"),
    *("mtrr", "partitions", "sched_debug", "slabinfo", "swaps", "timer_list", "timer_stats", "vmallocinfo"),
)

DENIED = (
    # Other processes, and the kernel's data about them.
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd", "move_pages"),
    *("migrate_pages", "perf_event_open", "userfaultfd", "bpf", "lookup_dcookie", "syslog", "acct", "quotactl"),
    *("quotactl_fd", "fanotify_init", "fanotify_mark", "open_by_handle_at", "name_to_handle_at"),
    # Keys, mounts and namespaces.
    *("add_key", "request_key", "keyctl", "mount", "umount", "umount2", "pivot_root", "chroot", "unshare", "setns"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "open_tree_attr", "mount_setattr"),
    # The machine.
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon", "swapoff"),
    *("iopl", "ioperm", "modify_ldt", "vm86", "vm86old", "personality", "uselib", "nfsservctl", "vhangup", "sysfs"),
    *("settimeofday", "clock_settime", "clock_settime64", "clock_adjtime", "clock_adjtime64", "adjtimex", "stime"),
    *("sethostname", "setdomainname", "_sysctl", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    # Memory that no limit of a process counts, and that may outlive the process.
    *("memfd_create", "memfd_secret", "shmget", "shmat", "shmctl", "msgget", "semget", "mq_open", "mq_unlink"),
)
_FAMILIES = {1, 2, 10, 16}  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: all belong to the network namespace
_CLONE_PARENT, _CLONE_VFORK, _CLONE_THREAD = 0x8000, 0x4000, 0x10000
_UNSEEN_WAITS = (_CLONE_PARENT, _CLONE_VFORK | _CLONE_THREAD)  # with these, a wait would look like a wait for a disk
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_SOL_SOCKET, _BUFFER_SIZES = 1, (7, 8)  # SO_SNDBUF, SO_RCVBUF: memory that no limit counts
_TCP_BUFFERS = "4096 16384 65536"


@dataclass(frozen=True)
class Limits:
    """The resources of an answer.

    `cpu_s` is the CPU time of each process, `memory_mb` its memory, `processes` the number of processes and threads at
    once, `file_mb` the largest file, `tmp_mb` the size of /tmp and also of /dev/shm, and `open_files` the open files of
    each process.
    """

    cpu_s: int = 60
    memory_mb: int = 1024
    processes: int = 128
    file_mb: int = 64
    tmp_mb: int = 64
    open_files: int = 256


@dataclass(frozen=True)
class Sandbox:
    """One answer's sandbox.

    `root` is an empty folder for the new root, `readable` the paths that the answer may read besides the system's own,
    `filter` the result of `system_calls`, and `uid` the uid and gid inside the sandbox. In the folder `package` the
    answer may read only `modules`.
    """

    root: Path
    readable: tuple[Path, ...]
    package: Path
    modules: tuple[str, ...]
    limits: Limits
    filter: bytes
    uid: int


def privileged() -> bool:
    """Return whether this process is the system's own root, which needs no user namespace."""
    uids = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    return os.geteuid() == 0 and uids == ["0", "0", "4294967295"] and bool(_effective() & 1 << _CAP_SYS_ADMIN)


def uid_of(slot: int) -> int:
    """Return the uid for a slot (below SLOTS) of the calling fork server."""
    return OWN_UIDS + os.getpid() * SLOTS + slot if privileged() else INNER_UID


def check_readable(sandbox: Sandbox) -> None:
    """Raise PermissionError if the answer cannot read its Python or this package."""
    module_paths = (sandbox.package / name for name in sandbox.modules)
    for path in (*sandbox.readable, Path(sys.executable), Path(os.__file__), *module_paths):
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, "cannot be read by every user, as a sandbox needs it", path)


def advice() -> str:
    """Return sentences on the settings of this system that forbid namespaces, or ""."""
    sentences = [sentence for path, value, sentence in _SETTINGS if _setting(path) == value]
    if any(Path(path).exists() for path in _CONTAINERS):
        sentences.append(
            "A container refuses them unless it is started with --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined and, as root, --cap-add SYS_ADMIN"
        )
    return "".join(f" {sentence}." for sentence in sentences)


def _setting(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="ascii").strip()
    return ""


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent has ended."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """Make Linux kill this process when its parent ends."""
    _call("prctl", _PR_SET_PDEATHSIG, 9, 0, 0, 0)


def system_calls() -> bytes:
    """Return the filter of system calls, as the kernel takes it. Raises RuntimeError without libseccomp."""
    pyseccomp = _pyseccomp()
    refuse = pyseccomp.ERRNO(errno.EPERM)
    filter = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in DENIED:
        with suppress(OSError):  # not a system call of this machine
            filter.add_rule(refuse, name)
    # A filter cannot read clone3's flags, which are in memory; libraries fall back to clone.
    filter.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    for flag in (*_NEW_NAMESPACES.values(), *_UNSEEN_WAITS):
        filter.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))
    for request in (_TIOCSTI, _TIOCLINUX):
        filter.add_rule(refuse, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, request))
    filter.add_rule(refuse, "prlimit64", pyseccomp.Arg(0, pyseccomp.NE, 0))  # of another process
    for option in _BUFFER_SIZES:
        filter.add_rule(
            refuse, "setsockopt", pyseccomp.Arg(1, pyseccomp.EQ, _SOL_SOCKET), pyseccomp.Arg(2, pyseccomp.EQ, option)
        )
    no_family = pyseccomp.ERRNO(errno.EAFNOSUPPORT)
    highest = max(_FAMILIES)
    for family in set(range(highest)) - _FAMILIES:
        filter.add_rule(no_family, "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    filter.add_rule(no_family, "socket", pyseccomp.Arg(0, pyseccomp.GT, highest))
    with tempfile.TemporaryFile() as file:
        filter.export_bpf(file)
        file.seek(0)
        program = file.read()
    return program


def readable_paths() -> tuple[Path, ...]:
    """Return the folders of this Python and its environment."""
    return tuple({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()})


@contextmanager
def new_pid_namespace() -> Iterator[None]:
    """In this block, a forked child becomes process 1 of a new pid namespace. Needs the system's root."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    try:
        _call("unshare", _NEW_NAMESPACES["pid"])
        yield
    finally:
        _call("setns", own, _NEW_NAMESPACES["pid"])
        os.close(own)


def enter_namespaces(sandbox: Sandbox) -> None:
    """Leave the host's namespaces, and build the new root.

    If this process is process 1 of a new pid namespace, it is the sandbox's init; else its next child is.
    """
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    flags = sum(_NEW_NAMESPACES[name] for name in _ALWAYS if name != "pid" or os.getpid() != 1)
    if privileged():
        _call("unshare", flags)
    else:
        uid, gid = os.geteuid(), os.getegid()
        _call("unshare", flags | _NEW_NAMESPACES["user"])
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{sandbox.uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{sandbox.uid} {gid} 1", encoding="ascii")
    for name in ("rmem", "wmem"):
        with suppress(FileNotFoundError):
            Path(f"/proc/sys/net/ipv4/tcp_{name}").write_text(_TCP_BUFFERS, encoding="ascii")
    socket.sethostname("sandbox")
    _raise_loopback()
    _mount("none", Path("/"), None, _MS_REC | _MS_PRIVATE)
    _build(sandbox)


def pivot_root(sandbox: Sandbox) -> None:
    """Take the new root, as the first process of the new pid namespace."""
    root = sandbox.root
    _mount("proc", root / "proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    for name in _MASKED_FILES:
        if (path := root / "proc" / name).exists():
            _bind(root / "dev/null", path)
    for name in _MASKED:
        if (path := root / "proc" / name).is_dir():
            _mount("tmpfs", path, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=4k,mode=555")
        elif path.exists():
            _bind(root / "dev/null", path)
    _set_read_only(root / "proc")
    os.chdir(root)
    _syscall("pivot_root", b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    _mount("none", Path("/"), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    os.chdir(HOME)


def limit(limits: Limits) -> None:
    """Set this process's limits, which its children inherit; memory allocated so far does not count."""
    import resource  # noqa: PLC0415 - not on Windows

    pages, *_, data, _ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
    page = resource.getpagesize()
    for resource_type, wanted in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_DATA, data * page + limits.memory_mb * 2**20),
        (resource.RLIMIT_AS, pages * page + (limits.memory_mb + SPARE_AS_MB) * 2**20),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_FSIZE, limits.file_mb * 2**20),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_MEMLOCK, 2**20),
    ):
        _, hard = resource.getrlimit(resource_type)
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        # The process is killed one second of CPU time after the first signal.
        resource.setrlimit(resource_type, (soft, soft + 1 if resource_type == resource.RLIMIT_CPU else soft))


def drop_privileges(sandbox: Sandbox) -> None:
    """Drop all privileges irrevocably."""
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii")) + 1):
        _call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
    _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if os.getuid() != sandbox.uid:
        os.setgroups([])
        os.setresgid(sandbox.uid, sandbox.uid, sandbox.uid)
        os.setresuid(sandbox.uid, sandbox.uid, sandbox.uid)
    _call("capset", struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def confine(sandbox: Sandbox) -> None:
    """Limit this process's resources, filter its system calls, and make its own /proc entry readable."""
    limit(sandbox.limits)
    _call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)
    program = ctypes.create_string_buffer(sandbox.filter, len(sandbox.filter))
    header = struct.pack("HP", len(sandbox.filter) // 8, ctypes.addressof(program))
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)


def contents() -> frozenset[Path]:
    """Return the paths in the writable folders. Before an answer starts, all of them are read-only mounts."""
    return frozenset(path for folder in (HOME, SHARED_MEMORY) for path in folder.iterdir())


def clear(spared: frozenset[Path]) -> None:
    """As the sandbox's process 1, kill all other processes, and remove the files that they left, except for `spared`.

    Raises OSError or RecursionError if a file cannot be removed.
    """
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.wait()
    for folder in (HOME, SHARED_MEMORY):
        folder.chmod(0o700)
        _remove(set(folder.iterdir()) - spared)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
            _remove(path.iterdir())
            path.rmdir()
        else:
            path.unlink()


def _build(sandbox: Sandbox) -> None:
    root, limits = sandbox.root, sandbox.limits
    own = f"uid={sandbox.uid},gid={sandbox.uid}"
    no_escape = _MS_NOSUID | _MS_NODEV
    _mount("tmpfs", root, "tmpfs", no_escape, "size=1m,mode=755")
    for name in ("dev/shm", "etc", "proc", "run", "var/tmp"):
        (root / name).mkdir(parents=True)
    _inside(root, HOME).mkdir()
    for path in (_inside(root, HOME), _inside(root, SHARED_MEMORY)):
        _mount("tmpfs", path, "tmpfs", no_escape, f"size={limits.tmp_mb}m,nr_inodes=16384,mode=700,{own}")
    visible = (*map(Path, _SYSTEM), *(Path("/etc", name) for name in _SHOWN_OF_ETC), *sandbox.readable)
    # Folders first: paths inside them are then visible already.
    for path in sorted(visible, key=lambda path: len(path.parts)):
        _show(root, path)
    _write_etc(root / "etc", sandbox.uid)
    for name in _DEVICES:
        (root / "dev" / name).touch()
        _bind(Path("/dev", name), root / "dev" / name)
    for name, target in _DEVICE_LINKS.items():
        (root / "dev" / name).symlink_to(target)
    _hide_all_but(root, sandbox.package, sandbox.modules)


def _inside(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _show(root: Path, path: Path) -> None:
    """Make the host's `path` readable at the same place below `root`, unless it is visible there already."""
    target = _inside(root, path)
    if not path.exists() or target.exists() or target.is_symlink():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        target.symlink_to(path.readlink())
        return
    if path.is_dir():
        target.mkdir()
    else:
        target.touch()
    _bind(path, target)
    _set_read_only(target)


def _hide_all_but(root: Path, package: Path, modules: tuple[str, ...]) -> None:
    """Hide a package except for these modules: the others could contain solutions."""
    target = _inside(root, package)
    if not target.exists():
        target.mkdir(parents=True)
    _mount("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=64k,mode=755")
    for name in modules:
        _show(root, package / name)
    _mount("none", target, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


def _write_etc(etc: Path, uid: int) -> None:
    files = {
        "passwd": f"root:x:0:0:root:/:/bin/false\n{USER}:x:{uid}:{uid}::{HOME}:/bin/sh\n",
        "group": f"root:x:0:\n{USER}:x:{uid}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "resolv.conf": "",
    }
    for name, text in files.items():
        (etc / name).write_text(text, encoding="ascii")


def _raise_loopback() -> None:
    import fcntl  # noqa: PLC0415 - not on Windows

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP | _IFF_RUNNING))


def _effective() -> int:
    """Return this process's effective capabilities."""
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))


def _bind(source: Path, target: Path) -> None:
    _mount(str(source), target, None, _MS_BIND | _MS_REC)


def _set_read_only(path: Path) -> None:
    """Make a mount read-only, and all mounts below it."""
    attributes = struct.pack("QQQQ", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, 0, 0)
    try:
        _call("syscall", _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, attributes, len(attributes))
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"mount_setattr {path}") from error


def _mount(source: str, target: Path, kind: str | None, flags: int, data: str = "") -> None:
    kind_bytes = None if kind is None else kind.encode()
    try:
        _call("mount", source.encode(), os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), data.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"mount {kind or source} {target}") from error


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _pyseccomp() -> Any:
    return import_module("pyseccomp")  # raises RuntimeError if libseccomp is missing


@cache
def _number(name: str) -> int:
    pyseccomp = _pyseccomp()
    return int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))


def _syscall(name: str, *arguments: bytes | int) -> int:
    return _call("syscall", _number(name), *arguments)


def _call(name: str, *arguments: object) -> int:
    """Call a function of libc. Raises OSError with the function's name if it returns -1."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = getattr(_libc(), name)(*wide)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result
