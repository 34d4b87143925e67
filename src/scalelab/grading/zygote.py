"""Warm kernels: one process imports what kernels need, once, and forks each kernel into a sandbox of its own.

The zygote holds no thread, event loop or zmq context, which would not survive a fork. A client connects to its unix
socket for a kernel, gets the kernel's connection back as one line of JSON, and keeps the socket: lines to it are orders
(`{"signal": 2}`), its end ends the kernel, and the kernel's end is its last line. Nothing that a kernel wrote is read
here: what the zygote hears of a kernel was written before the kernel took its first order.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from itertools import count
from pathlib import Path
from pkgutil import resolve_name
from typing import IO, Any, NoReturn
from uuid import uuid4

from scalelab.errors import ScalelabError
from scalelab.grading import sandbox
from scalelab.grading.cgroups import bytes_of, held, join, known, usable
from scalelab.grading.sandbox import CONNECTION, HOME, SLOTS, Limits, Sandbox

LISTENER = "zygote"
SOCKET = "SCALELAB_ZYGOTE"
"""The environment variable that says where the zygote listens."""
JUPYTER = Path(__file__).parent / "jupyter"
KERNEL = "scalelab-judge-warm"
STREAM = "scalelab.grading.stream.Stream"

WARM = (
    STREAM.rpartition(".")[0],
    "scalelab.grading.shell",
    *("ipykernel.kernelapp", "ipykernel.debugger", "tornado.platform.asyncio", "faulthandler", "runpy"),
    *("IPython.core.completer", "IPython.core.completerlib", "IPython.core.debugger", "IPython.core.logger"),
    *(
        "IPython.core.oinspect",
        "IPython.extensions.storemagic",
        "unicodedata",
        "pygments.formatters.terminal256",
        "pygments.styles.default",
        "stack_data",
    ),
)
"""What every kernel imports at its start, or at its first error."""
SPARES = 2
"""How many kernels are ready before anyone asks."""
LONGEST_FOLDER = 70
STOP_S = 10.0
WATCH_S = 0.25
"""How often a kernel's memory is added up, where no control group bounds it."""
HEARTBEAT_S = 30.0
PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "hb_port": 4, "control_port": 5}
IP = "s"
"""What the names of a kernel's sockets begin with, each followed by its port."""
FILE = "kernel.json"
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")
ENVIRONMENT = {
    **dict.fromkeys(ONE_THREAD, "1"),
    "HOME": str(HOME),
    "IPYTHONDIR": str(HOME / ".ipython"),
    "JUPYTER_CONFIG_DIR": str(HOME / ".jupyter"),
    "LANG": "C.UTF-8",
    "LOGNAME": sandbox.USER,
    # Each thread's own arena would reserve address space, which is limited.
    "MALLOC_ARENA_MAX": "2",
    "MPLCONFIGDIR": str(HOME / ".matplotlib"),
    "NUMBA_CACHE_DIR": str(HOME / ".numba"),
    "PYTHONDONTWRITEBYTECODE": "1",
    "TMPDIR": str(HOME),
    "USER": sandbox.USER,
}
"""All of a kernel's environment, but for PATH."""


_begun: list[subprocess.Popen[bytes]] = []
"""The zygote of `make_ready`, until it is used."""


class NoZygote(ScalelabError):
    """The zygote did not start; the message says why."""


@contextmanager
def warm_kernels(*, imports: Sequence[str] = (), limits: Limits | None = None) -> Iterator[dict[str, str]]:
    """Start a zygote that has imported `imports`, each `module` or `module:name`; at the end, nothing of it is left.

    Yields what to add to the environment of the process that starts kernels named KERNEL through jupyter_client.
    Several such processes may do so at once. The zygote ends with this process too, however that ends.
    Raises NoZygote where it does not start.
    """
    # The path of a socket has room for about a hundred letters.
    where = None if len(tempfile.gettempdir()) <= LONGEST_FOLDER else "/tmp"
    with tempfile.TemporaryDirectory(prefix="scalelab-", dir=where, ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        told = {
            "folder": str(folder),
            "imports": list(imports),
            "limits": asdict(limits or Limits()),
            "owner": os.getpid(),
        }
        process = _begun.pop() if _begun else _begin()
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(told).encode() + b"\n")
                process.stdin.flush()
            if error := _error(process.stdout.readline(), process.stderr):
                raise NoZygote(f"Warm kernels do not start here: {error}.{sandbox.advice()}")
            paths = filter(None, (str(JUPYTER), os.environ.get("JUPYTER_PATH", "")))
            yield {SOCKET: str(folder / LISTENER), "JUPYTER_PATH": os.pathsep.join(paths)}
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
            process.stderr.close()
            known(folder.name).remove()


def make_ready() -> None:
    """Let a zygote begin to import while the caller does other things; the next `warm_kernels` goes on with it."""
    if sys.platform == "linux" and not _begun:
        atexit.register(_end_unused)
        _begun.append(_begin())


def _end_unused() -> None:
    for process in _begun:
        process.kill()
        process.communicate()
    _begun.clear()


def _begin() -> subprocess.Popen[bytes]:
    """Start a zygote, which ends with this process, and waits to be told what it is to do."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        # Kernels can read the environment and arguments that their zygote was started with.
        env=_environment(),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@cache
def missing() -> str:
    """Return "" where this system can sandbox kernels, else why not; it is tried, once per process."""
    try:
        with warm_kernels():
            return ""
    except NoZygote as error:
        return str(error)


def _error(answer: bytes, words: IO[bytes]) -> str:
    """Return why a zygote did not start, from its answer or, without one, its last words."""
    if answer:
        return str(json.loads(answer)["error"])
    lines = words.read().decode("utf-8", "replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it ended without a word")


def _environment() -> dict[str, str]:
    folders = (Path(sys.executable).parent, "/usr/local/bin", "/usr/bin", "/bin")
    return ENVIRONMENT | {"PATH": os.pathsep.join(map(str, folders))}


@dataclass
class Kernel:
    """A kernel as the zygote sees it.

    `line` is what its init lives by, `status` what is read until the kernel is ready, `keeper` the process that forks
    the init, `init` and `watch` that process and a descriptor of it (0 and -1 until known).
    """

    slot: int
    folder: Path
    connection: dict[str, Any]
    line: socket.socket
    status: int
    keeper: int
    init: int = 0
    watch: int = -1
    said: bytes = b""
    error: str = ""
    ready: bool = False
    reported: bool = False
    client: Client | None = None


@dataclass
class Client:
    """Who asked for a kernel, and the kernel once there is one."""

    socket: socket.socket
    kernel: Kernel | None = None
    heard: bytes = b""


class Zygote:
    """Forks kernels for its clients, and looks after them, until its owner is gone.

    A few kernels are ready before anyone asks. Raises OSError or ScalelabError where the first cannot be made.
    """

    def __init__(self, folder: Path, limits: Limits, owner: int) -> None:
        self.folder = folder
        self.limits = limits
        self.filter = sandbox.system_calls()
        self.readable = sandbox.readable_paths()
        self.cgroups = usable(folder.name)
        self.root = folder / "root"
        self.root.mkdir()
        self.kernels: dict[int, Kernel] = {}
        self.numbers = count()
        self.waiting: deque[Client] = deque()
        self.selector = selectors.DefaultSelector()
        self.stopped = False
        self.failed = False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / LISTENER))
        self.listener.listen(SLOTS)
        self.owner = os.pidfd_open(owner)
        if os.getppid() != owner:
            raise ProcessLookupError("the owner has ended")
        for end in (sys.stdin.fileno(), self.owner):
            self.selector.register(end, selectors.EVENT_READ, self._stop)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)

    def serve(self, announce: Callable[[str], None]) -> None:
        """Make the first kernel, and `announce` "" or why that failed; serve until the owner has gone."""
        try:
            announce(error := self._first())
            while not self.stopped and not error:
                self._fill()
                for key, _ in self.selector.select():
                    now = self.selector.get_map().get(key.fd)
                    if now is not None and now.data is key.data:  # else an event before has ended its kernel
                        key.data()
        finally:
            for kernel in list(self.kernels.values()):
                self._kill(kernel)
            for kernel in list(self.kernels.values()):
                self._end(kernel)
            self.cgroups.remove()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _first(self) -> str:
        """Make a kernel; return why that failed, or ""."""
        try:
            kernel = self._make()
        except OSError as error:
            return str(error)
        while not kernel.ready and not kernel.reported:
            self._hear(kernel)
        return "" if kernel.ready else kernel.error or "it ended at once"

    def _stop(self) -> None:
        self.stopped = True

    def _fill(self) -> None:
        """Have as many kernels in the making as clients wait for, or one where fewer than SPARES are ready.

        After a kernel that could not be made, nothing is tried before the next client asks.
        """
        unready = sum(not kernel.ready for kernel in self.kernels.values())
        spare = sum(kernel.ready and kernel.client is None for kernel in self.kernels.values())
        wanted = len(self.waiting) or (spare < SPARES and not self.failed)
        for _ in range(unready, min(wanted, SLOTS - len(self.kernels))):
            try:
                self._make()
            except OSError as error:
                if self.waiting:
                    self._close(self.waiting.popleft(), {"error": str(error)})
                return

    def _accept(self) -> None:
        client = Client(self.listener.accept()[0])
        self.selector.register(client.socket, selectors.EVENT_READ, lambda: self._obey(client))
        self.waiting.append(client)
        self.failed = False
        self._hand_out()

    def _hand_out(self) -> None:
        """Give what is ready to who waits."""
        free = (kernel for kernel in list(self.kernels.values()) if kernel.ready and kernel.client is None)
        for kernel, client in zip(free, list(self.waiting), strict=False):
            self.waiting.remove(client)
            kernel.client, client.kernel = client, kernel
            _tell(client, {"connection": kernel.connection})

    def _make(self) -> Kernel:
        slot = next(slot for slot in range(SLOTS) if slot not in self.kernels)
        # jupyter_client removes the sockets of a kernel some time after its end: never those of another one.
        folder = self.folder / f"{next(self.numbers)}"
        folder.mkdir(mode=0o700)
        connection = {"transport": "ipc", **PORTS, "key": uuid4().hex, "signature_scheme": "hmac-sha256"}
        (folder / FILE).touch(mode=0o600)
        (folder / FILE).write_text(json.dumps(connection | {"ip": str(CONNECTION / IP)}), encoding="ascii")
        box = Sandbox(self.root, folder, self.readable, self.limits, self.filter, sandbox.uid_of(slot))
        groups = self.cgroups.make(slot, self.limits)
        ours, its = socket.socketpair()
        status, report = os.pipe()
        keeper = os.fork()
        if keeper == 0:
            _keep(box, groups, None if self.cgroups.memory else bytes_of(self.limits), its.fileno(), report)
        its.close()
        os.close(report)
        kernel = Kernel(slot, folder, connection | {"ip": str(folder / IP)}, ours, status, keeper)
        self.kernels[slot] = kernel
        self.selector.register(status, selectors.EVENT_READ, lambda: self._hear(kernel))
        return kernel

    def _hear(self, kernel: Kernel) -> None:
        """Take what the kernel's keeper and init say, until the kernel is ready or could not be made."""
        said = os.read(kernel.status, 65536)
        *lines, kernel.said = (kernel.said + said).split(b"\n")
        for told in map(json.loads, lines):
            kernel.error = told.get("error", kernel.error)
            kernel.ready = told.get("ready", kernel.ready)
            if "init" in told:
                kernel.init = told["init"]
                kernel.watch = os.pidfd_open(kernel.init)
                self.selector.register(kernel.watch, selectors.EVENT_READ, lambda: self._end(kernel))
                os.waitpid(kernel.keeper, 0)
        if not said:
            kernel.reported = True
            self.selector.unregister(kernel.status)
            if not kernel.ready:
                self._end(kernel)
        elif kernel.ready:
            self._hand_out()

    def _obey(self, client: Client) -> None:
        try:
            heard = client.socket.recv(4096)
        except ConnectionError:
            heard = b""
        *lines, client.heard = (client.heard + heard).split(b"\n")
        orders = [json.loads(line)["signal"] for line in lines]
        if not heard or signal.SIGKILL in orders:
            self._dismiss(client)
        elif client.kernel is not None:
            with suppress(OSError):
                client.kernel.line.send(bytes(orders))

    def _dismiss(self, client: Client) -> None:
        self.selector.unregister(client.socket)
        if client.kernel is not None:
            self._kill(client.kernel)
            return
        self.waiting.remove(client)
        self._close(client, {"ended": 1})

    def _kill(self, kernel: Kernel) -> None:
        """Let Linux kill all that runs in a kernel's sandbox; its end is noticed as any other."""
        while not kernel.init and not kernel.reported:
            self._hear(kernel)
        if kernel.init:
            os.kill(kernel.init, signal.SIGKILL)

    def _end(self, kernel: Kernel) -> None:
        """Clear away what a kernel that has ended, or was killed, leaves; tell its client how it ended."""
        if self.kernels.pop(kernel.slot, None) is None:
            return
        for end in (kernel.status, kernel.watch):
            with suppress(KeyError, ValueError):
                self.selector.unregister(end)
        self.failed = not kernel.ready
        status = 1
        if kernel.init:
            _, result = os.waitpid(kernel.init, 0)
            status = os.waitstatus_to_exitcode(result)
            os.close(kernel.watch)
        else:
            os.waitpid(kernel.keeper, 0)
        shutil.rmtree(kernel.folder, ignore_errors=True)
        os.close(kernel.status)
        kernel.line.close()
        if kernel.client is not None:
            self._close(kernel.client, {"ended": status})
        elif not kernel.ready and self.waiting:
            self._close(self.waiting.popleft(), {"error": kernel.error or "it ended at once"})

    def _close(self, client: Client, words: dict[str, Any]) -> None:
        with suppress(KeyError):  # it has left already
            self.selector.unregister(client.socket)
        _tell(client, words)
        client.socket.close()


def _tell(client: Client, words: dict[str, Any]) -> None:
    with suppress(OSError):
        client.socket.sendall(json.dumps(words).encode() + b"\n")


def _keep(box: Sandbox, groups: tuple[Path, ...], most: int | None, line: int, report: int) -> NoReturn:
    """Be a kernel's keeper: leave the host's namespaces, fork the init, say its number, and end."""
    with _reporting(report):
        os.setsid()
        _close_all_but(line, report)
        os.dup2(1, 0)
        join(groups)
        sandbox.separate(box)
        init = os.fork()
        if init == 0:
            _init(box, most, line, report)
        os.write(report, json.dumps({"init": init}).encode() + b"\n")
    os._exit(0)


def _init(box: Sandbox, most: int | None, line: int, report: int) -> NoReturn:
    """Be the sandbox's process 1: fork the kernel, pass signals on to it, reap what is left behind, end with it.

    `most` is how many bytes all processes may hold together, or None where that is seen to.
    """
    with _reporting(report):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        sandbox.settle(box)
        ready, bound = os.pipe()
        start, go = os.pipe()
        kernel = os.fork()
        if kernel == 0:
            _kernel(box, bound, start, report)
        os.close(bound)
        os.close(start)
        if os.read(ready, 1):
            sandbox.seal()
            sandbox.give_up(box, filtered=False)
            os.write(report, b'{"ready": true}\n')
            os.write(go, b"!")
        os.close(report)
        _attend(kernel, most, line)
    os._exit(1)


def _attend(kernel: int, most: int | None, line: int) -> NoReturn:
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == kernel:
                status = os.waitstatus_to_exitcode(ended[1])
                os._exit(status if status >= 0 else 128 - status)
        readable, _, _ = select.select([woken, line], [], [], None if most is None else WATCH_S)
        if most is not None and held() > most:
            os._exit(128 + signal.SIGKILL)
        if woken in readable:
            os.read(woken, 4096)
        if line in readable:
            orders = os.read(line, 64)
            if not orders:
                os._exit(0)
            for number in orders:
                with suppress(ProcessLookupError):
                    os.killpg(kernel, number)


def _kernel(box: Sandbox, bound: int, start: int, report: int) -> NoReturn:
    """Be the kernel: limited, without privileges, with its sockets bound before the init seals their folder."""
    with _reporting(report):
        os.setsid()
        _close_all_but(bound, start, report)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sandbox.limit(box.limits)
        sandbox.give_up(box, filtered=True)
        sandbox.check_readable(box)
        if numpy_random := sys.modules.get("numpy.random"):
            numpy_random.seed()  # each fork would draw the same numbers
        gc.disable()
        run = _prepared()
        gc.freeze()  # none of this is ever garbage
        gc.enable()
        os.write(bound, b"!")
        os.close(bound)
        if not os.read(start, 1):
            os._exit(1)
        os.close(start)
        os.close(report)
        run()
    os._exit(0)


def _prepared() -> Callable[[], None]:
    """Return ipykernel's loop, once all its sockets are bound."""
    sys.argv[:] = ["ipykernel_launcher.py"]
    app = _application()
    app.initialize()
    # A thread of its own binds the heartbeat's.
    until = time.monotonic() + HEARTBEAT_S
    while not all((CONNECTION / f"{IP}-{port}").exists() for port in PORTS.values()):
        if time.monotonic() > until:
            raise TimeoutError("the kernel's sockets are not bound")
        time.sleep(0.001)
    start: Callable[[], None] = app.start
    return start


@cache
def _application() -> Any:
    """Return ipykernel's application, set up as far as it can be before a fork."""
    from traitlets.config import Config  # noqa: PLC0415

    from scalelab.grading.shell import Application  # noqa: PLC0415

    app: Any = Application.instance()
    app.log.setLevel(logging.WARNING)
    app.outstream_class = STREAM
    app.update_config(Config(HistoryManager={"enabled": False}))
    app.connection_file = str(CONNECTION / FILE)
    app.parent_handle = 1  # which is not watched, and spares the advice for people at a terminal
    app.prepare()
    return app


@contextmanager
def _reporting(report: int) -> Iterator[None]:
    """Say why this process failed, and end it: no fork of the zygote may go back into the zygote's loop."""
    try:
        yield
    except BaseException as error:
        with suppress(BaseException):
            words = f"{type(error).__name__}: {error}"
            os.write(report, json.dumps({"error": words}).encode() + b"\n")
        os._exit(1)


def _close_all_but(*kept: int) -> None:
    first = 3
    for number in sorted(kept):
        os.closerange(first, number)
        first = number + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Its debugger would cost each kernel a tenth of a second, and nobody debugs here.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    for name in WARM:
        import_module(name)
    if not (line := sys.stdin.readline()):
        return  # whoever wanted it is gone
    told = json.loads(line)
    for name in told["imports"]:
        with suppress(AttributeError):  # a cell that imports it will say so
            resolve_name(name)
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"after its imports the process has {threads} threads; expected one, which alone can fork")
    _application()
    gc.collect()
    gc.freeze()
    sandbox.adopt_orphans()
    zygote = Zygote(Path(told["folder"]), Limits(**told["limits"]), told["owner"])
    answer = os.dup(sys.stdout.fileno())
    _mute()

    def announce(error: str) -> None:
        os.write(answer, json.dumps({"error": error}).encode() + b"\n")
        os.close(answer)

    zygote.serve(announce)


def _mute() -> None:
    """Let stdout and stderr lead nowhere: a kernel inherits them, and the owner does not read them."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(null, number)
    os.close(null)


if __name__ == "__main__":
    _main()
