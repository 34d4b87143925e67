"""Fork processes for answers, in sandboxes that are ready before a client asks for them.

The server imports the modules that answers need and runs the sets' set-ups, once. It has one thread. It never holds an
answer, a check or a hidden input, because a fork could read it. A client gets a sandbox over the server's unix socket
(`connect`), and starts one answer's process after the other in it (`Box.start`). Before each start, the previous
processes are killed and their files removed. When the client closes its connection, Linux ends the sandbox. The server
ends when its owner ends.
"""

from __future__ import annotations

import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

import psutil

import scalelab
from scalelab.answers import process as answer_process
from scalelab.answers.channel import Channel
from scalelab.grading.judging.boxes import ADDRESS, NotStarted
from scalelab.grading.sandbox import namespaces as sandbox
from scalelab.grading.sandbox.cgroups import bytes_of, join, mounted_hierarchies, total_pss, writable_hierarchies

SPARES = 2
"""Sandboxes that are ready before a client asks for one."""
LIMITS = sandbox.Limits(cpu_s=60, memory_mb=512, processes=64)
MAX_FOLDER = 70  # characters; a socket's path can have about a hundred
STOP_TIMEOUT_S = 10.0
CHILDREN_TIMEOUT_S = 3.0
"""How long a server that ends waits for its processes to end."""
MEMORY_POLL_S = 0.25
"""How often a sandbox's memory is added up, if no control group limits it."""
CONTROL = 3
"""The descriptor on which a sandbox's init receives requests to start an answer's process."""
MODULES = ("__init__.py", "__init__.pyi", "errors.py", "course.py", "notebooks", "checks", "answers")
"""The parts of this package that an answer can import."""
WARM = (
    "IPython.core.inputtransformer2",
    "aiohttp.web",
    "aiohttp.test_utils",
    "numpy",
    "scalelab.answers.process_loop",
)
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")
ENVIRONMENT = {
    **dict.fromkeys(ONE_THREAD, "1"),
    "HOME": str(sandbox.HOME),
    "IPYTHONDIR": str(sandbox.HOME / ".ipython"),
    "LANG": "C.UTF-8",
    "LOGNAME": sandbox.USER,
    # Each thread's own arena would reserve address space, which is limited.
    "MALLOC_ARENA_MAX": "2",
    "MPLCONFIGDIR": str(sandbox.HOME / ".matplotlib"),
    "NUMBA_CACHE_DIR": str(sandbox.HOME / ".numba"),
    "PYTHONDONTWRITEBYTECODE": "1",
    "TMPDIR": str(sandbox.HOME),
    "USER": sandbox.USER,
}
"""All of an answer's environment, except PATH."""


@contextmanager
def fork_server(setups: Mapping[str, Sequence[str]], *, boxed: bool) -> Iterator[dict[str, str]]:
    """Start a fork server for sets, given by their set-up cells; `boxed` sandboxes the answers' processes.

    Yields the environment variables that processes need for `connect`. Raises NotStarted.
    """
    where = None if len(tempfile.gettempdir()) <= MAX_FOLDER else "/tmp"
    with tempfile.TemporaryDirectory(prefix="scalelab-", dir=where, ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        task = {"folder": str(folder), "setups": {slug: list(cells) for slug, cells in setups.items()}, "boxed": boxed}
        path = os.pathsep.join(map(str, (Path(sys.executable).parent, "/usr/local/bin", "/usr/bin", "/bin")))
        with subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            # Answers can read the environment and arguments that their server was started with.
            env=ENVIRONMENT | {"PATH": path},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            assert server.stderr is not None
            try:
                with suppress(BrokenPipeError):
                    server.stdin.write(json.dumps(task | {"owner": os.getpid()}).encode() + b"\n")
                    server.stdin.flush()
                if error := _error(server.stdout.readline(), server.stderr):
                    raise NotStarted(f"Answers' processes do not start here: {error}.{sandbox.advice()}")
                yield {ADDRESS: str(folder / "answers")}
            finally:
                with suppress(BrokenPipeError):
                    server.stdin.close()
                try:
                    server.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    server.kill()
        until = time.monotonic() + CHILDREN_TIMEOUT_S  # sandboxes of a server that was killed end soon
        while not mounted_hierarchies(folder.name).remove() and time.monotonic() < until:
            time.sleep(0.01)


@cache
def sandbox_missing() -> str:
    """Return "" if this system can sandbox answers, else the reason; tries it once per process."""
    try:
        with fork_server({}, boxed=True):
            return ""
    except NotStarted as error:
        return str(error)


def _error(reply: bytes, stderr: IO[bytes]) -> str:
    """Return the reason why a server did not start: from its reply, or else the last line on stderr."""
    if reply:
        return str(json.loads(reply)["error"])
    lines = stderr.read().decode("utf-8", "replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it ended without a word")


class _Server:
    """Keeps sandboxes ready and gives them to clients. Raises OSError or RuntimeError if it cannot make one."""

    def __init__(self, folder: Path, setups: Mapping[str, Sequence[str]], *, boxed: bool, owner: int) -> None:
        self.modules = {slug: answer_process.run_setup(cells) for slug, cells in setups.items()}
        self.folder = folder
        self.boxed = boxed
        self.root = folder / "root"
        self.root.mkdir()
        self.filter = sandbox.system_calls() if boxed else b""
        self.readable = sandbox.readable_paths()
        self.package = Path(scalelab.__file__).resolve().parent
        self.cgroups = writable_hierarchies(folder.name) if boxed else mounted_hierarchies("")
        self.slot = 0
        self.tested = False
        self.spares: deque[tuple[socket.socket, int]] = deque()  # each sandbox's control and init
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "answers"))
        self.listener.listen(64)
        self.owner = os.pidfd_open(owner)
        if os.getppid() != owner:
            raise ProcessLookupError("the owner has ended")
        self.spares.append(self._make())  # raises if sandboxes do not work here
        self.tested = True

    def serve(self) -> None:
        """Serve clients until the owner has ended, or has closed the server's stdin."""
        while True:
            with suppress(OSError, RuntimeError):  # `_hand_out` tries again, and reports the error
                while len(self.spares) < SPARES:
                    self.spares.append(self._make())
            ready, _, _ = select.select([self.listener, sys.stdin, self.owner], [], [], 1.0)
            self._reap()
            if self.owner in ready or sys.stdin in ready:
                break
            if self.listener in ready:
                with suppress(OSError):  # the client is gone
                    self._hand_out(self.listener.accept()[0])
        self.spares.clear()  # closes their controls, so they end
        for process in psutil.Process().children(recursive=True):  # unsandboxed answers may have left some
            with suppress(psutil.Error):
                process.kill()
        until = time.monotonic() + CHILDREN_TIMEOUT_S
        while self._reap() and time.monotonic() < until:
            time.sleep(0.01)
        self.cgroups.remove()
        shutil.rmtree(self.folder, ignore_errors=True)  # an owner that was killed cannot

    def _hand_out(self, client: socket.socket) -> None:
        with client:
            try:
                control, pid = self.spares.popleft() if self.spares else self._make()
            except (OSError, RuntimeError) as error:
                client.sendall(json.dumps({"error": str(error)}).encode())
                return
            with control:
                socket.send_fds(client, [json.dumps({"pid": pid}).encode()], [control.fileno()])

    def _reap(self) -> bool:
        """Remove processes that have ended; return whether any others are left."""
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            return True
        return False

    def _make(self) -> tuple[socket.socket, int]:
        """Start a sandbox; return its control, and the id of its init."""
        self.slot = (self.slot + 1) % sandbox.SLOTS
        uid = sandbox.uid_of(self.slot)
        box = sandbox.Sandbox(self.root, self.readable, self.package, MODULES, LIMITS, self.filter, uid)
        groups = self.cgroups.make(self.slot, LIMITS)
        own_end, other_end = socket.socketpair()
        reader, writer = os.pipe()
        with sandbox.new_pid_namespace() if self.boxed and sandbox.privileged() else nullcontext():
            init = os.fork()
            if init == 0:
                self._separate(box, groups, other_end.fileno(), writer)
        other_end.close()
        os.close(writer)
        reply: dict[str, Any] = {"init": init}
        with os.fdopen(reader, "rb") as lines:
            while "error" not in reply and "ready" not in reply:
                reply |= json.loads(lines.readline() or b'{"error": "it ended at once"}')
        if "error" in reply:
            own_end.close()
            raise RuntimeError(reply["error"])
        return own_end, int(reply["init"])

    def _separate(self, box: sandbox.Sandbox, groups: tuple[Path, ...], control: int, report: int) -> NoReturn:
        """In a fork: leave the host's namespaces. Then run the sandbox's init, or fork it, report its id, and end."""
        with _reporting(report):
            os.setsid()
            report = _keep_only(control, report)
            with _reporting(report):  # the descriptor has changed
                join(groups)
                if self.boxed:
                    sandbox.enter_namespaces(box)
                if os.getpid() == 1 or not self.boxed or (init := os.fork()) == 0:
                    self._init(box, report)
                _send(report, {"init": init})
        os._exit(0)

    def _init(self, box: sandbox.Sandbox, report: int) -> NoReturn:
        """Run the sandbox's process 1: fork one answer's process at a time, until the client closes the control."""
        with _reporting(report):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            if self.boxed:
                sandbox.pivot_root(box)
                sandbox.drop_privileges(box)
                sandbox.check_readable(box)
                if not self.tested:
                    self._test(box, report)
            _send(report, {"ready": True})
            os.close(report)
            max_bytes = None if self.cgroups.memory or not self.boxed else bytes_of(LIMITS)
            before = sandbox.contents() if self.boxed else frozenset()
            control = socket.socket(fileno=CONTROL)
            while True:
                slug, connections, _, _ = socket.recv_fds(control, 200, 1)
                if not connections:
                    os._exit(0)
                answer = os.fork()
                if answer == 0:
                    control.close()
                    self._answer(box, slug.decode(), connections[0])
                control.sendall(b"+")
                _wait(answer, connections[0], max_bytes)
                if self.boxed:
                    sandbox.clear(before)
                else:
                    with suppress(ProcessLookupError):
                        os.killpg(answer, signal.SIGKILL)
                    os.waitpid(answer, 0)
                os.close(connections[0])
        os._exit(1)

    def _test(self, box: sandbox.Sandbox, report: int) -> None:
        """Test whether an answer's process can be confined here; if not, report the error and end."""
        child = os.fork()
        if child == 0:
            with _reporting(report):
                sandbox.confine(box)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            os._exit(1)

    def _answer(self, box: sandbox.Sandbox, slug: str, connection: int) -> NoReturn:
        """Run the answer's process, without privileges, connected only to its check."""
        with suppress(BaseException):
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if self.boxed:
                sandbox.confine(box)
            if numpy_random := sys.modules.get("numpy.random"):
                numpy_random.seed()  # else each fork would draw the same numbers
            module = self.modules.get(slug) or answer_process.run_setup([])
            self.modules.clear()
            answer_process.main(Channel(socket.socket(fileno=connection)), module)
        os._exit(1)


def _wait(answer: int, connection: int, max_bytes: int | None) -> None:
    """Wait until the process `answer` ends, its client ends it, or the sandbox holds more than `max_bytes`."""
    poll = select.poll()
    watch = os.pidfd_open(answer)
    poll.register(watch, select.POLLIN)
    poll.register(connection, select.POLLRDHUP)
    poll.register(CONTROL, select.POLLIN)
    while not poll.poll(None if max_bytes is None else MEMORY_POLL_S * 1000):
        if max_bytes is not None and total_pss() > max_bytes:
            break
    os.close(watch)


def _send(report: int, message: dict[str, Any]) -> None:
    os.write(report, json.dumps(message).encode() + b"\n")


def _keep_only(control: int, report: int) -> int:
    """Close all descriptors but these two, and open 0 to 2 on /dev/null; return the new number of `report`."""
    report = os.dup2(report, 100)
    os.dup2(control, CONTROL)
    os.closerange(CONTROL + 1, report)
    os.closerange(report + 1, os.sysconf("SC_OPEN_MAX"))
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)
    return report


@contextmanager
def _reporting(report: int) -> Iterator[None]:
    """Report an error, and end this process: a fork must never return into the server's loop."""
    try:
        yield
    except BaseException as error:
        with suppress(BaseException):
            _send(report, {"error": f"{type(error).__name__}: {error}"})
        os._exit(1)


def main() -> None:
    """Run the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for name in WARM:
        import_module(name)
    if not (line := sys.stdin.readline()):
        return  # the owner has ended
    task = json.loads(line)
    sandbox.adopt_orphans()
    try:
        server = _Server(Path(task["folder"]), task["setups"], boxed=task["boxed"], owner=task["owner"])
        if (threads := len(os.listdir("/proc/self/task"))) != 1:
            raise RuntimeError(
                f"the set-ups started {threads - 1} threads; expected none, since they do not survive a fork"
            )
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return
    gc.collect()
    gc.freeze()
    gc.disable()
    print(json.dumps({"error": ""}), flush=True)
    server.serve()


if __name__ == "__main__":
    main()
