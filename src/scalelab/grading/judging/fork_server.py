"""Fork the answers' processes: each warm, in a sandbox of its own, and ready before anyone asks.

One process imports what answers need and runs the sets' set-ups, once. It holds no thread, and never an answer, a check
or a hidden input, which a fork could read. A client sends a set's name over the server's unix socket, and gets one end
of a socket pair, of which the answer's process has the other. When the client closes its end, Linux kills everything
that runs in the sandbox. The server ends with its owner, however that ends.
"""

from __future__ import annotations

import array
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
from scalelab.errors import ScalelabError
from scalelab.grading import sandbox
from scalelab.grading.cgroups import bytes_of, held, join, known, usable

ADDRESS = "SCALELAB_ANSWERS"
"""The environment variable that says where a fork server listens."""
SPARES = 2
"""How many processes are ready before anyone asks."""
LIMITS = sandbox.Limits(cpu_s=60, memory_mb=512, processes=64)
LONGEST_FOLDER = 70
STOP_S = 10.0
LINGER_S = 3.0
"""How long a server that ends waits for its processes to end."""
WATCH_S = 0.25
"""How often a sandbox's memory is added up, if no control group bounds it."""
CONNECTION = 3
"""The descriptor that leads from an answer's process to its check."""
MODULES = ("__init__.py", "errors.py", "_help.py", "checks", "answers")
"""What an answer can import of this package."""
WARM = ("IPython.core.inputtransformer2", "aiohttp.web", "aiohttp.test_utils", "numpy", "scalelab.answers.process_loop")
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


class NotStarted(ScalelabError):
    """The fork server did not start, or can start no process; the message says why."""


@contextmanager
def fork_server(setups: Mapping[str, Sequence[str]], *, boxed: bool) -> Iterator[dict[str, str]]:
    """Start a fork server for the sets whose set-up cells `setups` holds; `boxed` sandboxes the answers' processes.

    Yields what to add to the environment of the processes that call `connect`. At the end, nothing of it is left.
    Raises NotStarted.
    """
    # The path of a socket has room for about a hundred characters.
    where = None if len(tempfile.gettempdir()) <= LONGEST_FOLDER else "/tmp"
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
                    server.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    server.kill()
        known(folder.name).remove()


def connect(address: str, slug: str) -> tuple[socket.socket, int]:
    """Return the connection to a fresh process for an answer of a set, and its id. Raises NotStarted."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(address)
            client.sendall(slug.encode())
            data, handles, _, _ = client.recvmsg(4096, socket.CMSG_SPACE(4))
        except OSError as error:
            raise NotStarted(f"The fork server does not answer ({error}).") from error
    reply = json.loads(data or b'{"error": "it ended"}')
    if "error" in reply:
        raise NotStarted(f"No process could be started for an answer: {reply['error']}")
    numbers = array.array("i")
    numbers.frombytes(handles[0][2])
    return socket.socket(fileno=numbers[0]), reply["pid"]


@cache
def sandbox_missing() -> str:
    """Return "" if this system can sandbox answers, else why not; it is tried, once per process."""
    try:
        with fork_server({}, boxed=True):
            return ""
    except NotStarted as error:
        return str(error)


def _error(answer: bytes, last_words: IO[bytes]) -> str:
    """Return why a server did not start, from its answer or, without one, the last line on stderr."""
    if answer:
        return str(json.loads(answer)["error"])
    lines = last_words.read().decode("utf-8", "replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it ended without a word")


class _Server:
    """Keeps a few answers' processes ready, and hands them out. Raises OSError or RuntimeError if none can be made."""

    def __init__(self, folder: Path, setups: Mapping[str, Sequence[str]], *, boxed: bool, owner: int) -> None:
        self.modules = {slug: answer_process.run_setup(cells) for slug, cells in setups.items()}
        self.folder = folder
        self.boxed = boxed
        self.root = folder / "root"
        self.root.mkdir()
        self.filter = sandbox.system_calls() if boxed else b""
        self.readable = sandbox.readable_paths()
        self.package = Path(scalelab.__file__).resolve().parent
        self.cgroups = usable(folder.name) if boxed else known("")
        self.slot = 0
        self.spares: deque[tuple[socket.socket, int]] = deque()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "answers"))
        self.listener.listen(64)
        self.owner = os.pidfd_open(owner)
        if os.getppid() != owner:
            raise ProcessLookupError("the owner has ended")
        self.spares.append(self._make())  # which shows whether it can be done

    def serve(self) -> None:
        """Serve clients until the owner has ended, or closed the server's stdin."""
        while True:
            with suppress(OSError, RuntimeError):  # the next client is told
                while len(self.spares) < SPARES:
                    self.spares.append(self._make())
            ready, _, _ = select.select([self.listener, sys.stdin, self.owner], [], [], 1.0)
            self._reap()
            if self.owner in ready or sys.stdin in ready:
                break
            if self.listener in ready:
                with suppress(OSError):  # the client is gone
                    self._hand_out(self.listener.accept()[0])
        self.spares.clear()  # closes their connections, which ends them
        for process in psutil.Process().children(recursive=True):  # without a sandbox, answers may have left some
            with suppress(psutil.Error):
                process.kill()
        until = time.monotonic() + LINGER_S
        while self._reap() and time.monotonic() < until:
            time.sleep(0.01)
        self.cgroups.remove()
        shutil.rmtree(self.folder, ignore_errors=True)  # an owner that was killed cannot

    def _hand_out(self, client: socket.socket) -> None:
        slug = client.recv(200).decode()
        with client:
            try:
                connection, pid = self.spares.popleft() if self.spares else self._make()
            except (OSError, RuntimeError) as error:
                client.sendall(json.dumps({"error": str(error)}).encode())
                return
            with connection:
                connection.sendall(f"{slug}\n".encode())
                handles = array.array("i", [connection.fileno()])
                reply = json.dumps({"pid": pid}).encode()
                client.sendmsg([reply], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)])

    def _reap(self) -> bool:
        """Return whether any process is left, after those that have ended."""
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            return True
        return False

    def _make(self) -> tuple[socket.socket, int]:
        """Start a process; return the connection to it, and the id of its sandbox's first process."""
        self.slot = (self.slot + 1) % sandbox.SLOTS
        uid = sandbox.uid_of(self.slot)
        box = sandbox.Sandbox(self.root, self.readable, self.package, MODULES, LIMITS, self.filter, uid)
        groups = self.cgroups.make(self.slot, LIMITS)
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        with sandbox.new_pid_namespace() if self.boxed and sandbox.privileged() else nullcontext():
            init = os.fork()
            if init == 0:
                self._separate(box, groups, theirs.fileno(), writer)
        theirs.close()
        os.close(writer)
        reply: dict[str, Any] = {"init": init}
        with os.fdopen(reader, "rb") as lines:
            while "error" not in reply and "ready" not in reply:
                reply |= json.loads(lines.readline() or b'{"error": "it ended at once"}')
        if "error" in reply:
            ours.close()
            raise RuntimeError(reply["error"])
        return ours, int(reply["init"])

    def _separate(self, box: sandbox.Sandbox, groups: tuple[Path, ...], connection: int, report: int) -> NoReturn:
        """In a fork: leave the host's namespaces, and be the sandbox's init, or fork it, report its id, and end."""
        with _reporting(report):
            os.setsid()
            report = _keep_only(connection, report)
            with _reporting(report):  # it has another number now
                join(groups)
                if self.boxed:
                    sandbox.separate(box)
                if os.getpid() == 1 or not self.boxed or (init := os.fork()) == 0:
                    self._init(box, report)
                _say(report, {"init": init})
        os._exit(0)

    def _init(self, box: sandbox.Sandbox, report: int) -> NoReturn:
        """Be the sandbox's process 1: fork the answer's process, and end with it or when the check is over."""
        with _reporting(report):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            if self.boxed:
                sandbox.settle(box)
            answer = os.fork()
            if answer == 0:
                self._answer(box, report)
            if self.boxed:
                sandbox.give_up(box, filtered=False)
            os.close(report)
            self._attend(answer, None if self.cgroups.memory or not self.boxed else bytes_of(LIMITS))
        os._exit(1)

    def _attend(self, answer: int, most: int | None) -> NoReturn:
        """Wait for the end; `most` is how many bytes all processes may hold together, None if that is seen to."""
        watch = os.pidfd_open(answer)
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        poll.register(CONNECTION, select.POLLRDHUP)
        while not poll.poll(None if most is None else WATCH_S * 1000):
            if most is not None and held() > most:
                break
        if not self.boxed:
            with suppress(ProcessLookupError):
                os.killpg(answer, signal.SIGKILL)
        os._exit(0)

    def _answer(self, box: sandbox.Sandbox, report: int) -> NoReturn:
        """Be the answer's process, without any privilege, with one line to the check that uses it."""
        with _reporting(report):
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if self.boxed:
                sandbox.limit(box.limits)
                sandbox.give_up(box, filtered=True)
                sandbox.check_readable(box)
                os.chdir(sandbox.HOME)
            if numpy_random := sys.modules.get("numpy.random"):
                numpy_random.seed()  # each fork would draw the same numbers
            _say(report, {"ready": True})
            os.close(report)
            connection = socket.socket(fileno=CONNECTION)
            slug = b""
            while not slug.endswith(b"\n"):
                slug += connection.recv(1) or os._exit(0)
            module = self.modules.get(slug.decode().strip()) or answer_process.run_setup([])
            self.modules.clear()
            answer_process.main(Channel(connection), module)
        os._exit(0)


def _say(report: int, words: dict[str, Any]) -> None:
    os.write(report, json.dumps(words).encode() + b"\n")


def _keep_only(connection: int, report: int) -> int:
    """Close every descriptor but these two; return the new number of `report`. The first three lead nowhere."""
    report = os.dup2(report, 100)
    os.dup2(connection, CONNECTION)
    os.closerange(CONNECTION + 1, report)
    os.closerange(report + 1, os.sysconf("SC_OPEN_MAX"))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    os.close(nowhere)
    return report


@contextmanager
def _reporting(report: int) -> Iterator[None]:
    """Report why this process failed, and end it: no fork may go back into the server's loop."""
    try:
        yield
    except BaseException as error:
        with suppress(BaseException):
            _say(report, {"error": f"{type(error).__name__}: {error}"})
        os._exit(1)


def main() -> None:
    """Be the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for name in WARM:
        import_module(name)
    if not (line := sys.stdin.readline()):
        return  # whoever wanted it is gone
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
