"""Threads of an answer that take turns: the trusted side deals the turns, and holds the locks.

A thread runs until it has used up its steps, or until it needs a lock, a sleep, another thread or an object of the
check. Then it sends a request, and the trusted side chooses the thread that goes on. Steps are counted by tracing the
answer's code. An answer can prevent that; `RemoteTurns` describes how the trusted side notices.
"""

from __future__ import annotations

import _thread
import ast
import concurrent.futures.thread
import contextlib
import dis
import functools
import gc
import heapq
import inspect
import itertools
import os
import sys
import threading
from collections.abc import Iterable
from importlib.machinery import SourceFileLoader
from types import CodeType, FrameType, FunctionType
from typing import TYPE_CHECKING, Any

from scalelab.answers.channel import Disconnected, ProtocolError
from scalelab.answers.codec import unsendable
from scalelab.checks import _inside, _interleave
from scalelab.checks._words import ANSWER_FILE
from scalelab.checks._world import Ended

if TYPE_CHECKING:
    from scalelab.answers.process import AnswerProcess

LIBRARY = tuple(
    os.path.join(os.path.realpath(folder), "")
    for folder in (sys.prefix, sys.base_prefix, os.path.dirname(__file__), os.path.dirname(_inside.__file__))
)
"""Folders of modules that the answer has not written."""
RETURNS = ("RETURN_VALUE", "RETURN_CONST", "RETURN_GENERATOR")
"""Bytecodes by which a call returns."""
NEVER_FALLS_THROUGH = ("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "RAISE_VARARGS", "RERAISE")

STACK_BYTES = 2 * 2**20
"""Of each thread: an answer's memory is limited, and stacks count."""

_real_lock, _real_rlock, _real_start = _thread.allocate_lock, _thread.RLock, _thread.start_new_thread
_current = threading.local()
_turns: list[Turns] = []  # one item, once `install` was called
_libraries: dict[int, CodeType] = {}  # code of libraries, by its id
_never_closed = contextlib.ExitStack()  # the replacements in this process
_lock_numbers = itertools.count(1)


def note_libraries() -> None:
    """Note the code of all functions that this process has loaded from files. The threads' turns never pass in it."""
    functions = [value for value in gc.get_objects() if isinstance(value, FunctionType)]
    for code in _with_inner(function.__code__ for function in functions):
        if code.co_filename[:1] != "<" or code.co_filename.startswith("<frozen"):
            _libraries[id(code)] = code


def _with_inner(codes: Iterable[CodeType]) -> list[CodeType]:
    found = list(codes)
    for code in found:
        found += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return found


@functools.cache
def _code_of_library(file: str) -> frozenset[CodeType]:
    """Return the code in a library's file; nothing for any other file."""
    if not os.path.realpath(file).startswith(LIBRARY):
        return frozenset()
    try:
        code = SourceFileLoader("library", file).get_code("library")
    except (OSError, ImportError, SyntaxError, ValueError, EOFError):
        return frozenset()
    return frozenset(_with_inner([code] if code else []))


def install(process: AnswerProcess) -> Turns:
    """Replace locks, threads, clocks and pools by ones that can take turns, until this process ends."""
    turns = Turns(process)
    _turns[:] = [turns]
    locks = dict(_interleave.replaced_locks(Lock, RLock))
    scopes = [process.namespace, *(scope for scope, _ in _inside.looked_up())]
    _interleave.patch(turns, _never_closed, locks, scopes)
    _never_closed.enter_context(_interleave.watched(turns))

    def refuse(*_: Any) -> None:
        """Do nothing: turns depend on tracing, and an answer does not need it."""

    threading.stack_size(STACK_BYTES)
    sys.settrace = sys.setprofile = threading.settrace = threading.setprofile = refuse  # type: ignore[assignment]
    return turns


def in_ended_run() -> bool:
    """Whether the calling thread took turns in a run that is over."""
    member: Member | None = getattr(_current, "member", None)
    return member is not None and member.over


def line_of_answer() -> int:
    """Return the line of the answer's cell that is running, or 0."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != ANSWER_FILE:
        frame = frame.f_back
    return frame.f_lineno if frame is not None else 0


class Member:
    """A thread that takes turns."""

    def __init__(self, number: int, thread: threading.Thread) -> None:
        self.number = number
        self.thread = thread
        self.turn = _real_lock()
        self.turn.acquire()
        self.message: list[Any] = []
        self.over = False
        self.quantum = self.left = 0  # steps that it was given, and those that are left
        self.lock_changes: list[list[int]] = []  # not sent yet


class Turns:
    """The threads of the current run. One of them has the turn, and gives it up with each message that it sends."""

    def __init__(self, process: AnswerProcess) -> None:
        self.process = process
        self.now = 0.0
        self.runs = 0
        self.open = False
        self._main = Member(-1, threading.main_thread())
        self._members: dict[int, Member] = {}
        self._started: dict[int, Member] = {}  # by the id of their threads

    def begin(self, message: list[Any]) -> None:
        """Give a thread its turn, and wait for the next message that is not a turn."""
        if not self.open:
            self.open, self.now = True, 0.0
            self.runs += 1
            self._members, self._started = {}, {}
        self._hand_over(message, self._main)
        self._main.turn.acquire()
        self.process.handle(self._main.message)

    def close(self) -> None:
        """End every thread that is left."""
        self.open = False
        pools: Any = concurrent.futures.thread
        for member in self._members.values():
            pools._threads_queues.pop(member.thread, None)  # the interpreter's exit would wait for it
            if not member.over:
                member.over = True
                member.turn.release()

    def is_answer(self, frame: FrameType) -> bool:
        """Whether a frame runs code of the answer or of the set-up, wherever it was put; libraries have files."""
        code = frame.f_code
        if id(code) not in _libraries:
            imported_later = _code_of_library(code.co_filename)
            if not imported_later or code not in imported_later:
                return True
            _libraries[id(code)] = code
        return False

    def member(self) -> Member | None:
        """Return the calling thread's member; None outside of runs."""
        member: Member | None = getattr(_current, "member", None)
        return None if member is None or member.over else member

    def member_of(self, thread: threading.Thread) -> Member | None:
        """Return the member of a thread that this run has started."""
        return self._started.get(id(thread))

    def ask(self, word: str, *rest: Any) -> Any:
        """Send a request of the calling thread; return or raise its reply when the thread has the turn again."""
        me = self.member()
        if me is None:
            raise Ended
        payload = self._exchange(me, word, *rest, *([line_of_answer()] if word == "callback" else []))
        payload = self._make_calls(me, payload)
        value = self.process.codec.decode(payload[1])
        if payload[0] == "error":
            raise value
        return value

    # The rest of `_interleave.Threads`.

    def step(self) -> None:
        if (me := self.member()) is not None:
            me.left -= 1
            if me.left <= 0:
                self.ask("yield")

    def start(self, thread: threading.Thread) -> None:
        if self.member_of(thread) is not None:
            raise RuntimeError("threads can only be started once")
        target = getattr(thread, "_target", None) if type(thread).run is threading.Thread.run else thread.run
        member = Member(-1, thread)
        _real_start(self._run_thread, (member,))  # first: the system may allow no more threads
        try:
            member.number = self.ask("start", getattr(target, "__name__", ""))
        except BaseException:
            member.over = True
            member.turn.release()
            raise
        self._members[member.number] = self._started[id(thread)] = member
        thread._started.set()  # type: ignore[attr-defined]

    def join(self, thread: threading.Thread, timeout: float | None) -> None:
        if (member := self.member_of(thread)) is None:
            raise RuntimeError("cannot join thread before it is started")
        if not member.over:
            self.ask("join", member.number, timeout, line_of_answer())

    def is_alive(self, thread: threading.Thread) -> bool:
        return not self._started[id(thread)].over

    def current_thread(self) -> threading.Thread:
        member: Member = _current.member
        return member.thread

    def sleep(self, seconds: float) -> None:
        self.ask("sleep", float(seconds), line_of_answer())

    # Messages.

    def _exchange(self, me: Member, word: str, *rest: Any) -> Any:
        """Send a message of a thread; return the payload that comes with its next turn."""
        self._send(me, word, *rest)
        message = self.process.channel.receive()
        if message[:2] == ["go", me.number]:
            me.message = message
        else:
            self._hand_over(message, me)
            me.turn.acquire()
        return self._resumed(me)

    def _send(self, me: Member, word: str, *rest: Any) -> None:
        changes, me.lock_changes = me.lock_changes, []
        report = [me.number, me.quantum - me.left, changes]
        try:
            self.process.channel.send([word, *report, *rest])
        except ProtocolError as error:
            if word != "return":
                raise
            self.process.channel.send(["raise", *report, self.process.codec.error(unsendable(None, error))])
        me.quantum = me.left

    def _hand_over(self, message: list[Any], me: Member) -> None:
        """Give a message, and the turn, to the thread that it is for."""
        other = self._main
        if message[0] == "go":
            if message[1] not in self._members:  # a thread of the check's that calls the answer for the first time
                name = f"Thread-{message[1]}" if message[1] else "MainThread"
                self._members[message[1]] = Member(message[1], threading.Thread(name=name))
                _real_start(self._run_thread, (self._members[message[1]],))
            other = self._members[message[1]]
        other.message = message
        other.turn.release()

    def _resumed(self, me: Member) -> Any:
        """Take the turn that a message has brought; return its payload."""
        if me.over:
            raise Ended
        _, _, me.quantum, payload, self.now = me.message
        me.left = me.quantum
        return payload

    def _run_thread(self, me: Member) -> None:
        _current.member = me
        try:
            self._take_turns(me)
        except Disconnected:
            os._exit(0)  # the main thread waits for a turn that will never come

    def _take_turns(self, me: Member) -> None:
        with contextlib.suppress(Ended), _interleave.each_step(self):
            me.turn.acquire()
            self._make_calls(me, self._resumed(me))
            error = None
            try:
                me.thread.run()
            except (Ended, Disconnected):
                raise
            except BaseException as raised:
                error = self.process.codec.error(raised)
            me.over = True
            self._send(me, "ended", error)
            self._hand_over(self.process.channel.receive(), me)

    def _make_calls(self, me: Member, payload: list[Any]) -> list[Any]:
        """Make the calls that the trusted side asks for, in the calling thread; return the first other payload."""
        process = self.process
        while payload[0] == "call":
            _, *call, keep = payload
            reply: list[Any]
            try:
                value = process.call(*call)
            except (Ended, Disconnected):
                raise
            except BaseException as error:
                reply = ["raise", process.codec.error(error)]
            else:
                try:
                    reply = ["return", process.encode_result(value, keep)]
                except Exception as error:
                    reply = ["raise", process.codec.error(unsendable(value, error))]
            payload = self._exchange(me, *reply)
        return payload


class Lock:
    """A lock that takes part in turns.

    If the answer has made it, the next message reports each change of its owner. If a library has made it, the trusted
    side hears of it only when a thread waits for it.
    """

    reentrant = False

    def __init__(self) -> None:
        self._real: Any = _real_rlock() if self.reentrant else _real_lock()
        self._of_answer = _turns[0].is_answer(sys._getframe(1))
        self._number = next(_lock_numbers)
        self._run = 0  # the run in which the following attributes were set
        self._owner: Member | None = None
        self._depth = self._waiting = 0

    def _member(self) -> Member | None:
        me = _turns[0].member()
        if me is not None and self._run != _turns[0].runs:
            self._run, self._owner, self._depth, self._waiting = _turns[0].runs, None, 0, 0
        return me

    def _report(self, me: Member, change: int) -> None:
        if self._of_answer or self._waiting:
            me.lock_changes.append([self._number, change])
        if self._waiting:
            _turns[0].ask("changed")  # others can go on, or can no longer

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if (me := self._member()) is None:
            return bool(self._real.acquire(blocking, timeout))
        if self._owner is None or (self.reentrant and self._owner is me):
            self._owner, self._depth = me, self._depth + 1
            self._report(me, int(self.reentrant))
            return True
        if not self._of_answer and (not blocking or timeout == 0):
            return False
        holder = None if self._of_answer else self._owner.number
        self._waiting += 1
        try:
            wait = float(timeout) if blocking else 0.0
            if not _turns[0].ask("acquire", self._number, self.reentrant, holder, wait, line_of_answer()):
                return False
        finally:
            self._waiting -= 1
        self._owner, self._depth = me, 1
        return True

    __enter__ = acquire

    def release(self) -> None:
        if (me := self._member()) is None:
            self._real.release()
        elif self._owner is None or (self.reentrant and self._owner is not me):
            raise RuntimeError("cannot release un-acquired lock" if self.reentrant else "release unlocked lock")
        else:
            self._set_depth(me, self._depth - 1)

    def _set_depth(self, me: Member, depth: int) -> None:
        self._depth, self._owner = depth, me if depth else None
        self._report(me, -1 - depth)

    def locked(self) -> bool:
        if self._member() is None:
            return bool(self._real.locked())
        return self._owner is not None

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    """A lock that its owner may take again; it has the methods that `threading.Condition` calls."""

    reentrant = True

    def _is_owned(self) -> bool:
        if (me := self._member()) is None:
            return bool(self._real._is_owned())
        return self._owner is me

    def _recursion_count(self) -> int:  # multiprocessing asks for it
        return int(self._real._recursion_count()) if self._member() is None else int(self._is_owned())

    def _release_save(self) -> Any:
        if (me := self._member()) is None:
            return self._real._release_save()
        depth = self._depth
        self._set_depth(me, 0)
        return depth

    def _acquire_restore(self, state: Any) -> None:
        if (me := self._member()) is None:
            self._real._acquire_restore(state)
            return
        self.acquire()
        self._set_depth(me, state)


class GivenLock:
    """A stand-in for a lock of the check: threads hold it, and wait for it, on the trusted side."""

    def __init__(self, process: AnswerProcess, number: int) -> None:
        self._process, self._given = process, number

    def _call(self, method: str, *args: Any) -> Any:
        encode = self._process.codec.encode
        return self._process.ask("callback", self._given, method, encode(list(args)), encode({}), False)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return bool(self._call("acquire", bool(blocking), float(timeout)))

    __enter__ = acquire

    def release(self) -> None:
        self._call("release")

    def locked(self) -> bool:
        return bool(self._call("locked"))

    def __exit__(self, *_: object) -> None:
        self.release()


def fewest_steps(source: str) -> dict[str, int]:
    """Return the fewest steps of a call that returns, for each function of a cell, by the function's name.

    Decorated functions, and names that are bound to something else as well, are left out.
    """
    try:
        tree = ast.parse(source)
        codes = [compile(tree, ANSWER_FILE, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    left_out = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                left_out.add(name)
            case ast.FunctionDef(name=name, decorator_list=[_, *_]):
                left_out.add(name)
    fewest: dict[str, int] = {}
    for code in _with_inner(codes):
        if code.co_flags & inspect.CO_NEWLOCALS and code.co_name not in left_out:
            fewest[code.co_name] = min(_fewest(code), fewest.get(code.co_name, _interleave.STEPS))
    return fewest


def _fewest(code: CodeType) -> int:
    """Return the steps of the shortest path from the first bytecode of a function to a return."""
    points = _interleave.switch_points(code)
    instructions = list(dis.get_instructions(code))
    places = {instruction.offset: place for place, instruction in enumerate(instructions)}
    entries: Any = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    handlers = {offset: entry.target for entry in entries for offset in range(entry.start, entry.end, 2)}
    queue, seen = [(0, 0)], set()
    while queue:
        steps, place = heapq.heappop(queue)
        if place in seen:
            continue
        seen.add(place)
        bytecode = instructions[place]
        if bytecode.offset in handlers:
            heapq.heappush(queue, (steps, places[handlers[bytecode.offset]]))
        steps += bytecode.offset in points and bytecode.opcode != dis.EXTENDED_ARG
        if bytecode.opname in RETURNS:
            return steps
        if bytecode.opcode in dis.hasjrel or bytecode.opcode in dis.hasjabs:
            heapq.heappush(queue, (steps, places[bytecode.argval]))
        if bytecode.opname not in NEVER_FALLS_THROUGH:
            heapq.heappush(queue, (steps, place + 1))
    return 0
