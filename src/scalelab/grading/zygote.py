"""Warm kernels: one process imports what kernels need, once, and forks each kernel into a sandbox of its own.

The zygote holds no thread, event loop or zmq context, which would not survive a fork. A client connects to its unix
socket for a kernel, gets the kernel's connection back as one line of JSON, and keeps the socket: lines to it are orders
(`{"signal": 2}`), its end ends the kernel, and the kernel's end is its last line. Nothing that a kernel wrote is read
here: what the zygote hears of a kernel was written before the kernel took its first order.
"""

from __future__ import annotations

import gc
import json
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from scalelab.errors import ScalelabError
from scalelab.grading import sandbox
from scalelab.grading.sandbox import CONNECTION, HOME, SLOTS, Limits, Sandbox

SOCKET = "SCALELAB_ZYGOTE"
"""The environment variable that says where the zygote listens."""
JUPYTER = Path(__file__).parent / "jupyter"
KERNEL = "scalelab-judge-warm"

STOP_S = 10.0
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


class NoZygote(ScalelabError):
    """The zygote did not start; the message says why."""


@contextmanager
def warm_kernels(*, imports: Sequence[str] = (), limits: Limits | None = None) -> Iterator[dict[str, str]]:
    """Start a zygote that has imported the modules `imports`; at the end, nothing of it or its kernels is left.

    Yields what to add to the environment of the process that starts kernels named KERNEL through jupyter_client.
    Several such processes may do so at once. The zygote ends with this process too, however that ends.
    Raises NoZygote where it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="scalelab-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        told = {
            "folder": str(folder),
            "imports": list(imports),
            "limits": asdict(limits or Limits()),
            "owner": os.getpid(),
        }
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            # Kernels can read the environment and arguments that their zygote was started with.
            env=_environment(),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(told).encode() + b"\n")
                process.stdin.flush()
            if not process.stdout.readline():
                words = process.stderr.read().decode("utf-8", "replace").strip()
                raise NoZygote(f"Warm kernels do not start here: {words}")
            paths = filter(None, (str(JUPYTER), os.environ.get("JUPYTER_PATH", "")))
            yield {SOCKET: str(folder / "zygote"), "JUPYTER_PATH": os.pathsep.join(paths)}
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


def _environment() -> dict[str, str]:
    folders = (Path(sys.executable).parent, "/usr/local/bin", "/usr/bin", "/bin")
    return ENVIRONMENT | {"PATH": os.pathsep.join(map(str, folders))}


@dataclass
class Kernel:
    """A kernel as the zygote sees it: its client, its init (0 until known), and the line that the init lives by."""

    client: socket.socket
    folder: Path
    slot: int
    line: socket.socket
    status: int
    keeper: int
    init: int = 0
    watch: int = -1
    reported: bool = False
    said: bytes = b""
    heard: bytes = b""
    connection: dict[str, Any] = field(default_factory=dict)


class Zygote:
    """Forks kernels for its clients, and looks after them, until its owner is gone."""

    def __init__(self, folder: Path, limits: Limits, owner: int) -> None:
        self.folder = folder
        self.limits = limits
        self.filter = sandbox.system_calls()
        self.readable = sandbox.readable_paths()
        self.root = folder / "root"
        self.root.mkdir()
        self.kernels: dict[int, Kernel] = {}
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "zygote"))
        self.listener.listen(SLOTS)
        self.stopped = False
        self._owner = os.pidfd_open(owner)
        if os.getppid() != owner:
            raise ProcessLookupError("its owner has ended")
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        for end in (sys.stdin.fileno(), self._owner):
            self.selector.register(end, selectors.EVENT_READ, self._stop)

    def serve(self) -> None:
        """Serve until the owner has closed our stdin, or is gone; then end every kernel."""
        try:
            while not self.stopped:
                for key, _ in self.selector.select():
                    if key.fd in self.selector.get_map():  # an event before may have ended its kernel
                        key.data()
        finally:
            for kernel in list(self.kernels.values()):
                self._end(kernel)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _stop(self) -> None:
        self.stopped = True

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        slot = next((slot for slot in range(SLOTS) if slot not in self.kernels), None)
        if slot is None:
            with client:
                _tell(client, {"error": f"{SLOTS} kernels are running"})
            return
        folder = self.folder / f"{slot}"
        folder.mkdir(mode=0o700)
        connection = {
            "transport": "ipc",
            "ip": str(CONNECTION / IP),
            **PORTS,
            "key": uuid4().hex,
            "signature_scheme": "hmac-sha256",
        }
        (folder / FILE).write_text(json.dumps(connection), encoding="ascii")
        (folder / FILE).chmod(0o600)
        box = Sandbox(self.root, folder, self.readable, self.limits, self.filter, sandbox.uid_of(slot))
        ours, its = socket.socketpair()
        status, report = os.pipe()
        keeper = os.fork()
        if keeper == 0:
            _keep(box, its.fileno(), report)
        its.close()
        os.close(report)
        kernel = Kernel(client, folder, slot, ours, status, keeper, connection=connection | {"ip": str(folder / IP)})
        self.kernels[slot] = kernel
        self.selector.register(status, selectors.EVENT_READ, lambda: self._hear(kernel))
        self.selector.register(client, selectors.EVENT_READ, lambda: self._obey(kernel))

    def _hear(self, kernel: Kernel) -> None:
        """Take what the kernel's keeper and init say until the kernel is ready, or could not be made."""
        said = os.read(kernel.status, 65536)
        kernel.said += said
        *lines, kernel.said = kernel.said.split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "init" in told:
                kernel.init = told["init"]
                kernel.watch = os.pidfd_open(kernel.init)
                self.selector.register(kernel.watch, selectors.EVENT_READ, lambda: self._end(kernel))
                os.waitpid(kernel.keeper, 0)
            elif "ready" in told:
                _tell(kernel.client, {"connection": kernel.connection})
            else:
                _tell(kernel.client, {"error": told["error"]})
        if not said:
            self.selector.unregister(kernel.status)
            kernel.reported = True
            if not kernel.init:
                self._end(kernel)

    def _obey(self, kernel: Kernel) -> None:
        try:
            ordered = kernel.client.recv(4096)
        except ConnectionError:
            ordered = b""
        kernel.heard += ordered
        *lines, kernel.heard = kernel.heard.split(b"\n")
        for line in lines:
            number = json.loads(line)["signal"]
            if number == signal.SIGKILL:
                ordered = b""
            else:
                with suppress(OSError):
                    kernel.line.send(bytes([number]))
        if not ordered:
            self._end(kernel)

    def _end(self, kernel: Kernel) -> None:
        """End a kernel with all that runs in its sandbox, and tell its client the status that it ended with."""
        if self.kernels.get(kernel.slot) is not kernel:
            return
        while not kernel.init and not kernel.reported:
            self._hear(kernel)
        if self.kernels.pop(kernel.slot, None) is None:
            return
        for end in (kernel.status, kernel.client, kernel.watch):
            with suppress(KeyError, ValueError):
                self.selector.unregister(end)
        status = 1
        if kernel.init:
            with suppress(ProcessLookupError):
                os.kill(kernel.init, signal.SIGKILL)
            _, result = os.waitpid(kernel.init, 0)
            status = os.waitstatus_to_exitcode(result)
            os.close(kernel.watch)
        else:
            os.waitpid(kernel.keeper, 0)
        shutil.rmtree(kernel.folder, ignore_errors=True)
        os.close(kernel.status)
        kernel.line.close()
        with kernel.client:
            _tell(kernel.client, {"ended": status})


def _tell(client: socket.socket, words: dict[str, Any]) -> None:
    with suppress(OSError):
        client.sendall(json.dumps(words).encode() + b"\n")


def _keep(box: Sandbox, line: int, report: int) -> NoReturn:
    """Be a kernel's keeper: leave the host's namespaces, fork the init, say its number, and end."""
    with _reporting(report):
        os.setsid()
        _close_all_but(line, report)
        os.dup2(1, 0)
        sandbox.separate(box)
        init = os.fork()
        if init == 0:
            _init(box, line, report)
        os.write(report, json.dumps({"init": init}).encode() + b"\n")
    os._exit(0)


def _init(box: Sandbox, line: int, report: int) -> NoReturn:
    """Be the sandbox's process 1: fork the kernel, pass signals on to it, reap what is left behind, end with it."""
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
        _attend(kernel, line)
    os._exit(1)


def _attend(kernel: int, line: int) -> NoReturn:
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == kernel:
                status = os.waitstatus_to_exitcode(ended[1])
                os._exit(status if status >= 0 else 128 - status)
        readable, _, _ = select.select([woken, line], [], [])
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
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed()
        run = _prepared()
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
    from ipykernel.kernelapp import IPKernelApp  # noqa: PLC0415

    sys.argv[:] = ["ipykernel_launcher.py"]
    app: Any = IPKernelApp.instance()
    app.initialize(["--HistoryManager.enabled=False", "-f", str(CONNECTION / FILE)])
    # A thread of its own binds the heartbeat's.
    until = time.monotonic() + HEARTBEAT_S
    while not all((CONNECTION / f"{IP}-{port}").exists() for port in PORTS.values()):
        if time.monotonic() > until:
            raise TimeoutError("the kernel's sockets are not bound")
        time.sleep(0.001)
    start: Callable[[], None] = app.start
    return start


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
    told = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Its debugger would cost each kernel a tenth of a second, and nobody debugs here.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    for name in ("ipykernel.kernelapp", "IPython.core.completer", *told["imports"]):
        import_module(name)
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"after its imports the process has {threads} threads; expected one, which alone can fork")
    gc.collect()
    gc.freeze()
    sandbox.adopt_orphans()
    zygote = Zygote(Path(told["folder"]), Limits(**told["limits"]), told["owner"])
    print("ready", flush=True)
    _mute()
    zygote.serve()


def _mute() -> None:
    """Let stdout and stderr lead nowhere: a kernel inherits them. What the owner gave is closed with them."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(null, number)
    os.close(null)


if __name__ == "__main__":
    _main()
