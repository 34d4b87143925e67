"""Threads of an answer that take turns: the other side deals the turns, and holds the locks.

`install` replaces locks, threads and clocks of the standard library for good: this process runs one answer.
"""

from __future__ import annotations

import _thread
import concurrent.futures.thread
import contextlib
import functools
import opcode
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from scalelab.answers.channel import Disconnected
from scalelab.checks import _inside

if TYPE_CHECKING:
    from scalelab.answers.process import AnswerProcess

ANSWER_FILE = "<answer>"

_real_lock, _real_rlock, _real_start = _thread.allocate_lock, _thread.RLock, _thread.start_new_thread
_real = {name: getattr(time, name) for name in ("sleep", "time", "monotonic", "perf_counter")}

_process: list[AnswerProcess] = []  # the one of this process, once it has begun
_own = threading.local()


class Ended(BaseException):
    """The run is over: carries a thread out of whatever it does."""


def here() -> int:
    """Return the line of the answer's cell that is running, or 0."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != ANSWER_FILE:
        frame = frame.f_back
    return frame.f_lineno if frame is not None else 0


def of_an_ended_run() -> bool:
    """Whether the calling thread took turns in a run that is over."""
    return getattr(_own, "member", None) is not None


class Member:
    """A thread that takes turns."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.turn = _real_lock()
        self.turn.acquire()
        self.mail: list[Any] = []
        self.quantum = self.left = 0  # bytecodes of the answer until the turn is given back
        self.thread: threading.Thread | None = None


class Turns:
    """The threads of one run; one is at work, and every message of it says what it wants next."""

    def __init__(self, process: AnswerProcess) -> None:
        self.process = process
        self.now = 0.0
        self.closed = False
        self.main = Member(-1)
        self.members: dict[int, Member] = {}
        self.started: dict[int, threading.Thread] = {}
        self.numbers: dict[int, int] = {}
        self.by_ident: dict[int, Member] = {}

    def member(self) -> Member | None:
        return self.by_ident.get(_thread.get_ident())

    def begin(self, message: list[Any]) -> None:
        """Hand the first turn on, and wait for a message that is for nobody's turn."""
        self._hand_over(message, self.main)
        self.process.handle(self.main.mail)

    def op(self, me: Member, word: str, *rest: Any) -> Any:
        """Say what this thread wants; return or raise what comes of it, when its turn comes."""
        message = self._exchange(me, [word, me.number, me.quantum - me.left, *rest])
        while message[3][0] == "call":
            message = self._exchange(me, self._perform(me, message))
        me.quantum = me.left = message[2]
        how, value = message[3]
        value = self.process.codec.decode(value)
        if how == "error":
            raise value
        return value

    def _perform(self, me: Member, message: list[Any]) -> list[Any]:
        """Make a call that the other side asks for, in this thread."""
        me.quantum = me.left = message[2]
        _, target, method, args, kwargs, keep = message[3]
        codec = self.process.codec
        try:
            function = getattr(self.process.target(target), method) if method else self.process.target(target)
            told = [
                "return",
                me.number,
                0,
                self.process.told(function(*codec.decode(args), **codec.decode(kwargs)), keep),
            ]
        except (Ended, Disconnected):
            raise
        except BaseException as error:
            told = ["raise", me.number, 0, codec.error(error)]
        told[2] = me.quantum - me.left
        return told

    def _exchange(self, me: Member, told: list[Any]) -> list[Any]:
        if self.closed:
            raise Ended
        self.process.channel.send(told)
        message = self.process.channel.receive()
        if message[0] == "go" and message[1] == me.number:
            self.now = message[4]
            return message
        return self._hand_over(message, me)

    def _hand_over(self, message: list[Any], me: Member) -> list[Any]:
        """Give a message to the thread that it is for, and wait for the next one for this thread."""
        other = self._of(message[1]) if message[0] == "go" else self.main
        if message[0] == "go":
            self.now = message[4]
        other.mail = message
        other.turn.release()
        me.turn.acquire()
        if self.closed and me is not self.main:
            raise Ended
        return me.mail

    def _of(self, number: int) -> Member:
        if number not in self.members:
            member = self.members[number] = Member(number)
            member.thread = self.started.get(number)
            _real_start(self._live, (member,))
        return self.members[number]

    def _live(self, me: Member) -> None:
        with contextlib.suppress(Ended, Disconnected):
            ident = _thread.get_ident()
            self.by_ident[ident] = me
            _own.member = me
            me.turn.acquire()
            if me.thread is not None:
                threading._active[ident] = me.thread  # type: ignore[attr-defined]
            sys_settrace(self._enter)
            message = me.mail
            if message[3][0] == "thread":
                self._run_thread(me, message)
                return
            while True:
                message = self._exchange(me, self._perform(me, message))

    def _run_thread(self, me: Member, message: list[Any]) -> None:
        me.quantum = me.left = message[2]
        told = None
        try:
            assert me.thread is not None
            me.thread.run()
        except (Ended, Disconnected):
            raise
        except BaseException as error:
            told = self.process.codec.error(error)
        sys_settrace(None)
        self.by_ident.pop(_thread.get_ident(), None)
        self.process.channel.send(["ended", me.number, me.quantum - me.left, told])
        message = self.process.channel.receive()
        other = self._of(message[1]) if message[0] == "go" else self.main
        self.now = message[4] if message[0] == "go" else self.now
        other.mail = message
        other.turn.release()

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(NOT_ANSWERS):
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return self._step
        return None

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode" and frame.f_code.co_code[frame.f_lasti] in SHARED:
            me = self.by_ident[_thread.get_ident()]
            me.left -= 1
            if me.left <= 0:
                self.op(me, "yield")
        return self._step

    def close(self) -> None:
        """Let every thread that is left run out."""
        self.closed = True
        for member in list(self.members.values()):
            with contextlib.suppress(RuntimeError):
                member.turn.release()
        pools: Any = concurrent.futures.thread
        for thread in self.started.values():
            pools._threads_queues.pop(thread, None)


def _turn() -> tuple[Turns, Member] | None:
    turns = _process[0].turns if _process else None
    member = turns.member() if turns is not None else None
    return (turns, member) if turns is not None and member is not None else None


class Lock:
    """A lock of the answer's. While threads take turns it is held, and waited for, on the other side."""

    again = False

    def __init__(self) -> None:
        self._real = _real_rlock() if self.again else _real_lock()
        self._run: Turns | None = None  # in which it is known on the other side
        self._seen: Turns | None = None  # in which it was taken last
        self._owner: Member | None = None
        self._depth = 0
        self._number = 0
        self._known = sys._getframe(1).f_code.co_filename == ANSWER_FILE

    @classmethod
    def far(cls, number: int, known: bool) -> Lock:
        """Return what stands for a lock of the check's."""
        lock = cls()
        lock._number, lock._known = number, known
        lock.acquire = functools.partial(lock._there, "acquire")  # type: ignore[method-assign]
        lock.release = functools.partial(lock._there, "release")  # type: ignore[method-assign]
        return lock

    def _there(self, word: str, *args: Any, **kwargs: Any) -> Any:
        blocking, timeout = (*args, *((True, -1)[len(args) :])) if word == "acquire" else (True, -1)
        given = [kwargs.get("blocking", blocking), kwargs.get("timeout", timeout), here()] if word == "acquire" else []
        return _process[0].ask(word, self._number, *given)

    def _at(self, turns: Turns) -> int:
        """Return this lock's number in the run under way; in a new run it is a new lock there."""
        if self._run is not turns:
            holder = self._owner.number if self._seen is turns and self._owner is not None else -1
            self._number = turns.process.ask("lock", self.again, self._known, holder, self._depth if holder >= 0 else 0)
            self._run = turns
        return self._number

    def _here(self, turns: Turns) -> bool:
        """Whether this is a lock of the library's that nobody has waited for yet: then it need not be asked for."""
        if self._known or self._run is turns:
            return False
        if self._seen is not turns:
            self._seen, self._owner, self._depth = turns, None, 0
        return True

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if (turn := _turn()) is None:
            return self._real.acquire(blocking, timeout)
        turns, member = turn
        if self._here(turns):
            if self._owner is None or (self.again and self._owner is member):
                self._owner, self._depth = member, self._depth + 1
                return True
            if not blocking or timeout == 0:
                return False
        return bool(turns.op(member, "acquire", self._at(turns), bool(blocking), float(timeout), here()))

    def release(self) -> None:
        if (turn := _turn()) is None:
            self._real.release()
        elif self._here(turn[0]):
            if self._owner is None or (self.again and self._owner is not turn[1]):
                raise RuntimeError("cannot release un-acquired lock" if self.again else "release unlocked lock")
            self._depth -= 1
            self._owner = self._owner if self._depth else None
        else:
            turn[0].op(turn[1], "release", self._at(turn[0]))

    def locked(self) -> bool:
        if (turn := _turn()) is None:
            return self._real.locked()  # type: ignore[union-attr]
        if self._here(turn[0]):
            return self._owner is not None
        return bool(turn[0].op(turn[1], "locked", self._at(turn[0])))

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    """A lock that its owner may take again; with what `threading.Condition` asks of one."""

    again = True

    def _is_owned(self) -> bool:
        if (turn := _turn()) is None:
            return self._real._is_owned()  # type: ignore[union-attr]
        if self._here(turn[0]):
            return self._owner is turn[1]
        return bool(turn[0].op(turn[1], "owned", self._at(turn[0])))

    def _recursion_count(self) -> int:  # multiprocessing asks for it
        return self._real._recursion_count() if _turn() is None else int(self._is_owned())  # type: ignore[union-attr]

    def _release_save(self) -> Any:
        if (turn := _turn()) is None:
            return self._real._release_save()  # type: ignore[union-attr]
        if self._here(turn[0]):
            depth, self._depth, self._owner = self._depth, 0, None
            return depth
        return turn[0].op(turn[1], "release_all", self._at(turn[0]))

    def _acquire_restore(self, state: Any) -> None:
        if (turn := _turn()) is None:
            self._real._acquire_restore(state)  # type: ignore[union-attr]
        elif self._here(turn[0]) and self._owner is None:
            self._owner, self._depth = turn[1], state
        else:
            turn[0].op(turn[1], "restore", self._at(turn[0]), state, here())


def _sleep(seconds: float) -> None:
    if (turn := _turn()) is None:
        _real["sleep"](seconds)
    elif seconds < 0:
        raise ValueError("sleep length must be non-negative")
    else:
        turn[0].op(turn[1], "sleep", float(seconds), here())


def _clock(name: str) -> Callable[[], float]:
    real = _real[name]
    return lambda: real() if (turn := _turn()) is None else turn[0].now


def _start(self: threading.Thread, real: Any = threading.Thread.start) -> None:
    if (turn := _turn()) is None:
        return real(self)  # type: ignore[no-any-return]
    turns, member = turn
    if id(self) in turns.numbers:
        raise RuntimeError("threads can only be started once")
    number = turns.op(member, "start")
    turns.started[number], turns.numbers[id(self)] = self, number
    self._started.set()  # type: ignore[attr-defined]
    return None


def _join(self: threading.Thread, timeout: float | None = None, real: Any = threading.Thread.join) -> None:
    if (turn := _turn()) is None:
        return real(self, timeout)  # type: ignore[no-any-return]
    turns, member = turn
    if id(self) not in turns.numbers:
        raise RuntimeError("cannot join thread before it is started")
    turns.op(member, "join", turns.numbers[id(self)], timeout, here())
    return None


def _is_alive(self: threading.Thread, real: Any = threading.Thread.is_alive) -> bool:
    turn = _turn()
    if turn is None or id(self) not in turn[0].numbers:
        return bool(real(self))
    return bool(turn[0].op(turn[1], "alive", turn[0].numbers[id(self)]))


def _pool_init(self: Any, max_workers: int | None = None, *args: Any, real: Any = None, **kwargs: Any) -> None:
    real(self, 32 if max_workers is None else max_workers, *args, **kwargs)


sys_settrace = sys.settrace
SHARED = {
    code
    for name, code in opcode.opmap.items()
    if name.startswith(
        (
            "LOAD_ATTR",
            "STORE_ATTR",
            "LOAD_GLOBAL",
            "STORE_",
            "DELETE_",
            "BINARY_SUBSCR",
            "LOAD_METHOD",
            "CALL",
            "FOR_ITER",
            "LOAD_DEREF",
            "CONTAINS",
            "COMPARE",
        )
    )
    and name != "STORE_FAST"
}
"""Before these a change of threads can matter: between two bytecodes that see only a thread's own, it makes no difference."""
NOT_ANSWERS = (
    sys.prefix,
    sys.base_prefix,
    "<frozen",
    "<setup",
    os.path.dirname(__file__),
    os.path.dirname(_inside.__file__),
)
"""Where code comes from that is not the answer's, whatever the answer calls its own."""


def install(process: AnswerProcess) -> None:
    """Replace locks, threads and clocks by ones that can take turns."""
    _process[:] = [process]
    namespace = process.namespace
    threading.Lock = threading._allocate_lock = Lock  # type: ignore[attr-defined,misc,assignment]
    threading.RLock = RLock  # type: ignore[assignment,misc]
    queue.SimpleQueue = queue._PySimpleQueue  # type: ignore[attr-defined,misc]
    concurrent.futures.thread._global_shutdown_lock = Lock()  # type: ignore[attr-defined]
    time.sleep = _sleep
    for name in ("time", "monotonic", "perf_counter"):
        setattr(time, name, _clock(name))
    queue.time = threading._time = time.monotonic  # type: ignore[attr-defined]
    threading.Thread.start, threading.Thread.join = _start, _join  # type: ignore[method-assign]
    threading.Thread.is_alive = _is_alive  # type: ignore[method-assign]
    pool = concurrent.futures.ThreadPoolExecutor
    pool.__init__ = functools.partialmethod(_pool_init, real=pool.__init__)  # type: ignore[assignment,method-assign]

    def refuse(*_: Any) -> None:
        """An answer has no use for it, and turns are dealt by it."""

    sys.settrace = sys.setprofile = threading.settrace = threading.setprofile = refuse  # type: ignore[assignment]
    for scope, names in _inside.LOOKED_UP:
        for name in names:
            for key in ("sleep", "time", "monotonic", "perf_counter"):
                if scope[name] is _before["time", key]:
                    scope[name] = getattr(time, key)
    for name, value in list(namespace.items()):  # names that the set-up took from these modules before
        for module in (threading, queue, time):
            for key in ("Lock", "RLock", "SimpleQueue", "sleep", "time", "monotonic", "perf_counter"):
                if value is _before.get((module.__name__, key)):
                    namespace[name] = getattr(module, key)


_before = {
    (module.__name__, key): getattr(module, key, None)
    for module in (threading, queue, time)
    for key in ("Lock", "RLock", "SimpleQueue", "sleep", "time", "monotonic", "perf_counter")
}
