"""Threads that take turns by a seed: one runs at a time, and the turn can pass wherever threads share something.

On a quiet machine, a lost update or a deadlock of two locks may take years to happen. Here it happens in every run,
and runs with the same seed and Python version are the same. Time is virtual.
"""

from __future__ import annotations

import _thread
import concurrent.futures.thread
import contextlib
import functools
import io
import math
import multiprocessing.pool
import opcode
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CellType, CodeType, FrameType, FunctionType
from typing import Any, Protocol

from scalelab.checks import _side, _words
from scalelab.checks._inside import pool_size, set_attribute, set_name
from scalelab.checks._run import PATIENCE, observed
from scalelab.checks._words import Unmet
from scalelab.checks._world import Ended, NeverEnds, Stuck, instant, let_in, raise_in, settle_errors
from scalelab.errors import ScalelabError

STEPS = 100_000  # bytecodes at which the turn may pass, before a run counts as endless
SHARES = (1.0, 0.3)  # of these bytecodes, at which the turn passes; the seed picks one
LET_GO = 5.0  # real seconds for a thread to end after the run
MAX_SHOWN = 4  # threads of a deadlock, and runs that printed something, in a verdict
NO_THREAD_POOL = (
    "The threads of multiprocessing's ThreadPool cannot take turns here; use concurrent.futures.ThreadPoolExecutor."
)

_real_lock, _real_start, _settrace = _thread.allocate_lock, _thread.start_new_thread, sys.settrace
_one_at_a_time = _real_lock()


class ThreadDeadlock(ScalelabError):
    """Every thread waits, for a lock or for another thread, and nothing is left that could wake one."""


@dataclass(frozen=True)
class Interleaving:
    """The record of a run of an answer's threads.

    `result` is the program's result, `seconds` the virtual time until then. `threads` counts the threads that were
    started, `most_alive` the most that were alive at once, `left` those alive when the program returned, and `stuck`
    those that never ended. `died` holds the errors that ended a thread. `locks` counts the answer's own locks that were
    acquired, `acquired` the acquisitions, and `waited` the acquisitions that had to wait.
    """

    result: Any
    error: BaseException | None
    seconds: float
    threads: int
    most_alive: int
    left: int
    stuck: int
    died: tuple[BaseException, ...]
    locks: int
    acquired: int
    waited: int
    switches: int
    steps: int
    printed: str
    never_awaited: tuple[str, ...] = ()

    @property
    def deadlock(self) -> bool:
        """Whether every thread waited and nothing could wake one."""
        return isinstance(self.error, ThreadDeadlock)


def interleave(
    program: Callable[[], Any],
    *,
    seed: int = 0,
    otherwise: str | Callable[[Interleaving], str] | None = None,
    may_raise: type[BaseException] | tuple[type[BaseException], ...] = (),
) -> Interleaving:
    """Call `program` in a thread whose turns, and those of all threads that it starts, are dealt by `seed`.

    The turn may pass on before every bytecode that reads or changes what threads can share, in code of the caller's
    namespace (the cells of checks left out), and wherever a thread waits. Locks, conditions, events, queues, threads
    and pools of `threading`, `queue` and `concurrent.futures` are the library's own, on locks that this module watches.
    `time.sleep` takes virtual time.

        run = checks.interleave(lambda: checks.together(withdraw, withdraw), seed=6)

    Raises Unmet if the program raises an error (not of type `may_raise`), deadlocks, or runs more than STEPS such
    bytecodes; `otherwise` is the author's advice then.
    """
    if not _one_at_a_time.acquire(False):
        raise ScalelabError("Threads are being run; wait for their end before you start others.")
    try:
        make = Turns if _side.current is None else _side.current.turns
        world = make(program, seed, sys._getframe(1))
        settle_errors()
        world.run()
    finally:
        _one_at_a_time.release()
    run = world.report()
    seen = observed.get()
    if seen is not None and run.printed not in {run.printed for run in seen} and len(seen) < MAX_SHOWN:
        seen.append(run)
    error = run.error
    if error is None or isinstance(error, may_raise):
        return run
    advice = _words.advice(error, world.namespace, world.check)
    if advice is None and otherwise is not None:
        advice = otherwise if isinstance(otherwise, str) else otherwise(run)
    right = "it runs to its end" if isinstance(error, (ThreadDeadlock, NeverEnds, Stuck)) else "it raises no error"
    detail = str(error) if isinstance(error, ThreadDeadlock) else _words.error_text(error, world.namespace, world.check)
    raise Unmet(right, advice or "", detail=detail) from None


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Make each call in a thread of its own, wait for all, and return their results. Raises the first call's error."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException | None] = [None] * len(calls)

    def make(number: int) -> None:
        try:
            results[number] = calls[number]()
        except Exception as error:
            errors[number] = error

    threads = [threading.Thread(target=make, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if error is not None:
            raise error
    return results


class Member:
    """One thread that takes turns."""

    def __init__(self, number: int, thread: threading.Thread, seed: int) -> None:
        self.number = number
        self.thread = thread
        self.left = 0  # steps until its turn passes; 0: to be drawn
        self.draw = random.Random(seed * 10_007 + number)
        self.turn = _real_lock()
        self.turn.acquire()
        self.door = _real_lock()  # held while the thread ends, or is being ended
        self.over = False
        self.ident = 0
        self.error: BaseException | None = None
        self.holds: list[Lock] = []
        self.ready: Callable[[], bool] | None = None  # None: it can go on
        self.until: float | None = None
        self.wants: Lock | Member | None = None
        self.place: FrameType | int | None = None  # where in the answer's code it waits

    def can_go_on(self, now: float) -> bool:
        return self.ready is None or self.ready() or (self.until is not None and self.until <= now)


class Turns:
    """The threads of one run; one of them has the turn."""

    traced = True  # whether the answer's code runs in these threads, and its steps are counted

    def __init__(self, program: Callable[[], Any], seed: int, caller: FrameType) -> None:
        self.namespace: dict[str, Any] = caller.f_globals
        self.check = caller.f_code.co_filename
        self.skipped = _words.check_files if observed.get() is not None else set()
        self.now = 0.0
        self.closed = False
        self.locks = self.acquired = self.waited = self.switches = self.steps = 0
        self._program = program
        self._seed = seed
        self._draw = random.Random(seed)
        self._share = SHARES[seed % len(SHARES)]
        self._members: list[Member] = []
        self._by_ident: dict[int, Member] = {}
        self._by_thread: dict[int, Member] = {}
        self._over = _real_lock()
        self._over.acquire()
        self._written, self._text = io.StringIO(), ""
        self._result: Any = None
        self._error: BaseException | None = None
        self._stock: dict[str, Any] = {}
        self._most_alive = self._unended = 0

    # From the thread that runs the check.

    def run(self) -> None:
        """Run the program until every thread has ended, or none can go on."""
        with (
            contextlib.redirect_stdout(self._written),
            contextlib.redirect_stderr(self._written),
            _patched(self),
            watched(self) if self.traced else contextlib.nullcontext(),
        ):
            main = threading.Thread(target=self._main, name="MainThread", daemon=False)
            self.start(main)
            self._members[0].turn.release()
            try:
                self._watch()
            finally:
                self._close()

    def report(self) -> Interleaving:
        """Return the record of the run."""
        started = self._members[1:]
        stock = self._stock or {"seconds": self.now, "left": sum(not member.over for member in started)}
        return Interleaving(
            result=self._result,
            error=self._error,
            threads=len(started),
            most_alive=self._most_alive,
            stuck=self._unended,
            died=tuple(member.error for member in started if member.error is not None),
            locks=self.locks,
            acquired=self.acquired,
            waited=self.waited,
            switches=self.switches,
            steps=self.steps,
            printed=self._text,
            **stock,
        )

    def _watch(self) -> None:
        seen, since = -1, time.monotonic()
        while not self._over.acquire(timeout=PATIENCE / 20):
            if self.steps != seen:
                seen, since = self.steps, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                self._fail(Stuck(f"for {PATIENCE:g} s of real time a thread has waited, or computed, without an end"))
                return

    def _close(self) -> None:
        """End the threads that are left, one after another."""
        self.closed = True
        self._text = self._written.getvalue()  # without the output of threads that are being ended
        self._unended = sum(not member.over for member in self._members[1:])
        pools: Any = concurrent.futures.thread
        # A pool's thread logs the error that ends it. Another error meanwhile would leave logging's lock held.
        log = pools._base.LOGGER
        before, log.disabled = log.disabled, True
        try:
            for member in self._members:
                self._end(member)
                if member.over:
                    self._by_ident.pop(member.ident, None)  # a later thread can have the same
                pools._threads_queues.pop(member.thread, None)  # the interpreter's exit would wait for it
        finally:
            log.disabled = before

    def _end(self, member: Member) -> None:
        given_up = time.monotonic() + LET_GO
        if not member.over:
            member.turn.release()
        while not member.over and time.monotonic() < given_up:
            with member.door:
                if not member.over:
                    raise_in(member.ident, Ended)
            _sleep(0.001)

    def _main(self) -> None:
        try:
            self._result = self._program()
        except Ended:
            raise
        except BaseException as error:
            self._error = self._error or error
        started = self._members[1:]
        self._stock = {"seconds": self.now, "left": sum(not member.over for member in started)}

    def _fail(self, error: BaseException) -> None:
        if self._error is None and not self._stock:
            self._error = error

    # For the threads of the run.

    def member(self) -> Member | None:
        """Return the calling thread's member; None for a thread of the rest of the process."""
        return self._by_ident.get(_thread.get_ident())

    def member_of(self, thread: threading.Thread) -> Member | None:
        """Return the member that a thread object stands for."""
        return self._by_thread.get(id(thread))

    def start(self, thread: threading.Thread) -> None:
        """Start a thread that takes turns."""
        if self.member_of(thread) is not None:
            raise RuntimeError("threads can only be started once")
        if self.closed:
            raise Ended
        member = Member(len(self._members), thread, self._seed)
        self._members.append(member)
        self._by_thread[id(thread)] = member
        try:
            _real_start(self._run_thread, (member,))
        except RuntimeError:  # the system allows no more threads
            self._members.remove(member)
            del self._by_thread[id(thread)]
            raise
        self._most_alive = max(self._most_alive, sum(not other.over for other in self._members[1:]))
        thread._started.set()  # type: ignore[attr-defined]

    def _run_thread(self, member: Member) -> None:
        member.ident = _thread.get_ident()
        self._by_ident[member.ident] = member
        member.turn.acquire()
        try:
            if not self.closed:
                with each_step(self) if self.traced else contextlib.nullcontext():
                    member.thread.run()
        except Ended:
            pass
        except BaseException as error:
            member.error = error
            detail = _words.error_text(error, self.namespace, self.check).replace("\n", ". ")
            self._written.write(f"Thread {member.number} was ended by an error. {detail}\n")
        finally:
            self._end_thread(member)

    def _end_thread(self, member: Member) -> None:
        try:
            with member.door:
                member.over = True
            let_in()
        except Ended:
            return self._end_thread(member)
        if not self.closed:
            self._pass_on(member)

    def join(self, thread: threading.Thread, timeout: float | None) -> None:
        """Wait, at most `timeout` virtual seconds, for the end of a thread."""
        me, member = self.member(), self.member_of(thread)
        if member is None:
            raise RuntimeError("cannot join thread before it is started")
        if member is me:
            raise RuntimeError("cannot join current thread")
        if me is not None and not member.over:
            self.wait(lambda: member.over, timeout, member)

    def is_alive(self, thread: threading.Thread) -> bool:
        """Whether a thread that takes turns has not ended."""
        member = self.member_of(thread)
        return member is not None and not member.over

    def current_thread(self) -> threading.Thread:
        """Return the calling thread, one that takes turns."""
        return self._by_ident[_thread.get_ident()].thread

    def sleep(self, seconds: float) -> None:
        """Wait in virtual time."""
        self.wait(lambda: False, seconds)

    def step(self) -> None:
        """Count a bytecode, before it runs, at which the turn may pass."""
        member = self.member()
        if member is None:
            return
        self._count()
        if not self.closed and self._quantum(member) is not None:
            self._spend(member, 1)

    def _count(self, steps: int = 1) -> None:
        self.steps += steps
        if self.steps > STEPS and not self.closed:
            self._fail(NeverEnds("the threads went on and on, and came to no end"))
            self.closed = True
            self._over.release()

    def _quantum(self, me: Member) -> int | None:
        """Return the number of steps until `me` gives up the turn; None if no other thread could go on."""
        if not self._others(me):
            return None
        if not me.left:
            me.left = 1
            if self._share < 1:
                me.left += int(math.log(1.0 - me.draw.random()) / math.log(1.0 - self._share))
        return me.left

    def _spend(self, me: Member, steps: int) -> None:
        """Subtract steps from a turn. At its end another thread gets the turn; return when `me` has it again."""
        me.left = max(me.left - steps, 0)
        if not me.left and (others := self._others(me)):
            self._hand_over(me, self._draw.choice(others))

    def _others(self, me: Member) -> list[Member]:
        return [other for other in self._members if other is not me and not other.over and other.can_go_on(self.now)]

    def _pass_on(self, me: Member) -> None:
        """Give the turn to any thread that can go on, if `me` waits or has ended; return when `me` has it again."""
        chosen = self._choose()
        if chosen is me and not me.over:
            return
        if chosen is None:
            if any(not member.over for member in self._members):
                self._fail(ThreadDeadlock(self._who_waits()))
            self.closed = True
            self._over.release()
        self._hand_over(me, chosen)

    def _hand_over(self, me: Member, chosen: Member | None) -> None:
        if chosen is not None:
            self.switches += 1
            chosen.turn.release()
        if not me.over:
            me.turn.acquire()

    def _choose(self) -> Member | None:
        alive = [member for member in self._members if not member.over]
        ready = [member for member in alive if member.can_go_on(self.now)]
        if not ready:
            times = [member.until for member in alive if member.until is not None]
            if not times:
                return None
            self.now = max(self.now, min(times))
            ready = [member for member in alive if member.can_go_on(self.now)]
        return self._draw.choice(ready)

    def _end_of_wait(self, seconds: float) -> float:
        end = instant(self.now + seconds)
        if seconds > 0 and end <= self.now:  # it was rounded away, but a thread that has waited expects a later time
            end = max(self.now + seconds, math.nextafter(self.now, math.inf))
        return end

    def wait(self, ready: Callable[[], bool], seconds: float | None, wants: Lock | Member | None = None) -> bool:
        """Wait in the calling thread until `ready()`, at most so many virtual seconds; return `ready()`."""
        self._count()
        if self.closed:
            raise Ended
        if seconds is not None and math.isnan(seconds):
            raise ValueError("Invalid value NaN (not a number)")  # in Python's words
        member = self._by_ident[_thread.get_ident()]
        member.ready, member.wants = ready, wants
        member.until = None if seconds is None else self._end_of_wait(seconds)
        member.place = self._where(member)
        self._pass_on(member)
        if self.closed:
            raise Ended
        member.ready = member.until = member.wants = None
        return ready()

    def _where(self, member: Member) -> FrameType | int | None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not self.is_answer(frame):
            frame = frame.f_back
        return frame

    def is_answer(self, frame: FrameType | None) -> bool:
        """Whether this is a frame of the student's code."""
        return frame is not None and frame.f_globals is self.namespace and frame.f_code.co_filename not in self.skipped

    def _who_waits(self) -> str:
        lines = ["Every thread waits, and none is left that could wake another."]
        waiting = [member for member in self._members if not member.over]
        with_locks = [member for member in waiting if _has_to_do_with_locks(member)]
        for member in (with_locks or waiting)[:MAX_SHOWN]:
            locks = [f"lock {lock.number}" for lock in member.holds if lock.number and lock is not member.wants]
            holds = " and ".join(locks)
            name = f"Thread {member.number}" if member.number else "The main thread"
            where = f", in {_words.place(member.place)}" if member.place else ""
            lines.append(f"{name}{f' holds {holds}, and' if holds else ''} waits{_for(member)}{where}")
        return "\n".join(lines)


def _has_to_do_with_locks(member: Member) -> bool:
    wants = [member.wants] if isinstance(member.wants, Lock) else []
    return any(lock.number for lock in (*wants, *member.holds))


def _for(member: Member) -> str:
    """Return the words for what a member waits for; "" if that is inside a library."""
    wants = member.wants
    if isinstance(wants, Member):
        return f" for the end of thread {wants.number}"
    if wants is None or not wants.number:
        return ""
    owner, more = wants.owner, ""
    if owner is member:
        more = ", which it holds itself"
    elif isinstance(owner, Member) and owner.over:
        more = f", which thread {owner.number} has not given back and, being at its end, never will"
    return f" for lock {wants.number}{more}"


class Lock:
    """A lock of `threading` whose owner is known; a thread that waits for it passes the turn on."""

    reentrant = False

    def __init__(self, world: Turns, of_answer: bool) -> None:
        self.world = world
        self.of_answer = of_answer  # whether the answer has made it, and not a library
        self.number = 0  # of the answer's locks, from 1, in the order of their first acquisition
        self.owner: object = None
        self.depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        world = self.world
        me: object = world.member()
        if me is None:
            if self.owner is not None and self.owner != "outside" and not world.closed:
                raise RuntimeError("this lock belongs to threads that take turns")
            if self.owner is not None and not (self.reentrant and self.owner == "outside"):
                raise RuntimeError("this lock is still held, and no thread is left that could release it")
            me = "outside"
        elif world.closed:
            raise Ended
        if self.of_answer:
            world.acquired += 1
            if not self.number:
                world.locks += 1
                self.number = world.locks
        if self.owner is not None and not (self.reentrant and self.owner is me):
            if not blocking or timeout == 0:
                return False
            if self.of_answer:
                world.waited += 1
            if not world.wait(lambda: self.owner is None, None if timeout < 0 else timeout, self):
                return False
        self.owner, self.depth = me, self.depth + 1
        if isinstance(me, Member) and self.depth == 1:
            me.holds.append(self)
        return True

    __enter__ = acquire

    def release(self) -> None:
        if self.owner is None:
            if self.world.closed:
                return
            raise RuntimeError("cannot release un-acquired lock" if self.reentrant else "release unlocked lock")
        if self.reentrant and not self.world.closed and self.owner is not (self.world.member() or "outside"):
            raise RuntimeError("cannot release un-acquired lock")
        self.depth -= 1
        if self.depth == 0:
            if isinstance(self.owner, Member):
                self.owner.holds.remove(self)
            self.owner = None

    def hold(self, member: Member) -> None:
        """Make a member its owner, once."""
        if isinstance(self.owner, Member):
            self.owner.holds.remove(self)
        self.owner, self.depth = member, 1
        member.holds.append(self)

    def locked(self) -> bool:
        return self.owner is not None

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    """A lock that its owner may take again; it has the methods that `threading.Condition` calls."""

    reentrant = True

    def _is_owned(self) -> bool:
        return self.owner is not None and self.owner is (self.world.member() or "outside")

    def _release_save(self) -> int:
        depth, self.depth = self.depth, 1
        self.release()
        return depth

    def _acquire_restore(self, depth: int) -> None:
        self.acquire()
        self.depth = depth


SHARED = {
    opcode.opmap[name]
    for name in (
        *("LOAD_ATTR", "LOAD_SUPER_ATTR", "STORE_ATTR", "DELETE_ATTR", "LOAD_DEREF", "STORE_DEREF", "DELETE_DEREF"),
        *("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "STORE_NAME", "DELETE_NAME"),
        *("BINARY_SUBSCR", "BINARY_SLICE", "STORE_SUBSCR", "STORE_SLICE", "DELETE_SUBSCR", "CONTAINS_OP"),
        *("CALL", "CALL_KW", "CALL_FUNCTION_EX"),
        *("JUMP_BACKWARD", "POP_JUMP_BACKWARD_IF_TRUE", "POP_JUMP_BACKWARD_IF_FALSE"),
        *("POP_JUMP_BACKWARD_IF_NONE", "POP_JUMP_BACKWARD_IF_NOT_NONE"),
    )
    if name in opcode.opmap
}
"""Bytecodes that read or change objects that threads can share, or that begin a loop's next round.

Between two of these it makes no difference where the turn passes.
"""
LOADS = {opcode.opmap["LOAD_GLOBAL"]} | ({opcode.opmap["LOAD_ATTR"]} if sys.version_info >= (3, 12) else set())
"""If the last bit of their argument is set, they load a function for the next CALL."""
BINARY_OP, NB_SUBSCR = opcode.opmap["BINARY_OP"], 26  # 3.14 subscripts by this operation


def switch_points(code: CodeType) -> frozenset[int]:
    """Return the offsets of the bytecodes of SHARED, and of the first prefix of those that have prefixes."""
    points, first, raw = set(), None, code.co_code  # without specialised bytecodes; its caches are zeros
    for offset in range(0, len(raw), 2):
        operation, argument = raw[offset], raw[offset + 1]
        if operation == opcode.EXTENDED_ARG:
            first = offset if first is None else first
            continue
        if (operation in SHARED and not (operation in LOADS and argument & 1)) or (
            operation == BINARY_OP and argument == NB_SUBSCR
        ):
            points |= {offset, offset if first is None else first}
        first = None
    return frozenset(points)


class Threads(Protocol):
    """Threads that take turns: `Turns`, or `process_threads.Turns` in the answer's process."""

    now: float

    def is_answer(self, frame: FrameType) -> bool: ...
    def member(self) -> object | None: ...
    def member_of(self, thread: threading.Thread) -> object | None: ...
    def current_thread(self) -> threading.Thread: ...
    def start(self, thread: threading.Thread) -> None: ...
    def join(self, thread: threading.Thread, timeout: float | None) -> None: ...
    def is_alive(self, thread: threading.Thread) -> bool: ...
    def sleep(self, seconds: float) -> None: ...
    def step(self) -> None: ...


if sys.version_info >= (3, 12):
    each_step: Callable[[Threads], contextlib.AbstractContextManager[None]] = contextlib.nullcontext  # type: ignore[assignment]

    @contextlib.contextmanager
    def watched(world: Threads) -> Iterator[None]:
        """Call `world.step` before every bytecode of the answer at which the turn may pass, in every thread.

        Traces of `sys.settrace` change the code under threads that stand in it: 3.12.1 crashes, 3.13.0 forgets events.
        """
        watch = sys.monitoring
        tool = next(number for number in (4, 3, 5, 2, 1, 0) if watch.get_tool(number) is None)
        codes: dict[CodeType, frozenset[int]] = {}

        def start(code: CodeType, offset: int) -> Any:
            if world.is_answer(sys._getframe(1)):
                codes[code] = switch_points(code)
                watch.set_local_events(tool, code, watch.events.INSTRUCTION)
            return watch.DISABLE

        def instruction(code: CodeType, offset: int) -> Any:
            if offset not in codes[code]:
                return watch.DISABLE
            world.step()
            return None

        watch.use_tool_id(tool, "scalelab.checks")
        try:
            watch.register_callback(tool, watch.events.PY_START, start)
            watch.register_callback(tool, watch.events.INSTRUCTION, instruction)
            watch.restart_events()  # an earlier run may have looked at code that was not the answer's then
            watch.set_events(tool, watch.events.PY_START)
            yield
        finally:
            watch.set_events(tool, 0)
            for code in codes:
                watch.set_local_events(tool, code, 0)
            watch.register_callback(tool, watch.events.PY_START, None)
            watch.register_callback(tool, watch.events.INSTRUCTION, None)
            watch.free_tool_id(tool)

else:
    _switch_points = functools.lru_cache(maxsize=None)(switch_points)

    @contextlib.contextmanager
    def each_step(world: Threads) -> Iterator[None]:
        """Call `world.step` before every bytecode of the answer at which the turn may pass, in the calling thread."""

        def enter(frame: FrameType, event: str, arg: Any) -> Any:
            if not world.is_answer(frame):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            points = _switch_points(frame.f_code)

            def step(frame: FrameType, event: str, arg: Any) -> Any:
                if event == "opcode" and frame.f_lasti in points:
                    world.step()
                return step

            return step

        _settrace(enter)
        try:
            yield
        finally:
            _settrace(None)

    watched: Callable[[Threads], contextlib.AbstractContextManager[None]] = contextlib.nullcontext  # type: ignore[assignment]


_sleep = time.sleep


@contextlib.contextmanager
def _patched(world: Turns) -> Iterator[None]:
    """Replace locks, threads, clocks and pools for the world's threads, and for no others.

    This includes the names that the namespace has imported, and the locks that its objects hold already.
    """

    def made(kind: type[Lock]) -> Lock:
        return kind(world, world.is_answer(sys._getframe(2)))

    kinds = {
        real: for_members(world, real, functools.partial(made, kind)) for real, kind in replaced_locks(Lock, RLock)
    }
    with contextlib.ExitStack() as stack:
        patch(world, stack, kinds, [world.namespace])
        _Substitute(world, stack).inside(world.namespace)
        yield


def replaced_locks(lock: Any, rlock: Any) -> list[tuple[Any, Any]]:
    """Return the makers of locks in this process, each with the one that replaces it."""
    names: Any = threading
    return [(names.Lock, lock), (names._allocate_lock, lock), (_real_lock, lock), (names.RLock, rlock)]


def patch(world: Threads, stack: contextlib.ExitStack, locks: dict[Any, Any], scopes: Iterable[dict[str, Any]]) -> None:
    """Replace clocks, threads, pools and the keys of `locks`, in the standard library and in `scopes`.

    Closing `stack` restores them.
    """

    def sleep(seconds: float) -> None:
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        world.sleep(seconds)

    replaced = {id(kind): new for kind, new in locks.items()}
    for clock in (time.monotonic, time.perf_counter, time.time):
        replaced[id(clock)] = for_members(world, clock, lambda: world.now)
    replaced[id(time.sleep)] = for_members(world, time.sleep, sleep)
    replaced[id(threading.current_thread)] = for_members(world, threading.current_thread, world.current_thread)
    simple: Any = queue._PySimpleQueue  # type: ignore[attr-defined]
    replaced[id(queue.SimpleQueue)] = for_members(world, queue.SimpleQueue, simple)
    for scope in (vars(time), vars(threading), vars(queue), *scopes):
        for name, value in list(scope.items()):
            if id(value) in replaced:
                set_name(stack, scope, name, replaced[id(value)])
    for cls, name, new in [
        (threading.Thread, "start", _start(world)),
        (threading.Thread, "join", _join(world)),
        (threading.Thread, "is_alive", _is_alive(world)),
        (concurrent.futures.ThreadPoolExecutor, "__init__", pool_size(lambda: world.member() is not None)),
        (multiprocessing.pool.ThreadPool, "__init__", _no_pool(world)),
    ]:
        set_attribute(stack, cls, name, new)


def for_members(world: Threads, real: Callable[..., Any], virtual: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `virtual` in threads that take turns, and `real` in others."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return (real if world.member() is None else virtual)(*args, **kwargs)

    call.__name__ = call.__qualname__ = getattr(real, "__name__", "call")
    return call


def _start(world: Threads) -> Callable[[threading.Thread], None]:
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if world.member() is None:
            real(self)
        else:
            world.start(self)

    return start


def _join(world: Threads) -> Callable[..., None]:
    real = threading.Thread.join

    def join(self: threading.Thread, timeout: float | None = None) -> None:
        if world.member() is None and world.member_of(self) is None:
            real(self, timeout)
        else:
            world.join(self, None if timeout is None else max(timeout, 0.0))

    return join


def _is_alive(world: Threads) -> Callable[[threading.Thread], bool]:
    real = threading.Thread.is_alive

    def is_alive(self: threading.Thread) -> bool:
        return real(self) if world.member_of(self) is None else world.is_alive(self)

    return is_alive


def _no_pool(world: Threads) -> Callable[..., None]:
    real = multiprocessing.pool.ThreadPool.__init__

    @functools.wraps(real)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if world.member() is not None:
            self._state = None  # which its end looks at
            raise RuntimeError(NO_THREAD_POOL)
        real(self, *args, **kwargs)

    return init


def _is_full(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


class _Substitute:
    """Replaces real locks that objects of the namespace hold already."""

    LIBRARY = ("threading", "queue", "_queue", "concurrent.futures.thread")

    def __init__(self, world: Turns, stack: contextlib.ExitStack) -> None:
        self.world = world
        self.stack = stack
        self.locks: dict[int, Lock] = {}
        self.seen: set[int] = set()
        self.kinds: dict[type, type[Lock]] = {type(threading.Lock()): Lock, type(threading.RLock()): RLock}
        self.kinds |= {Lock: Lock, RLock: RLock}  # of an earlier run

    def inside(self, scope: Any, of_answer: bool = True) -> None:
        """Replace the locks in a namespace, list, class or instance, and in the objects that these hold."""
        if id(scope) in self.seen:
            return
        self.seen.add(id(scope))
        for key, value in list(scope.items() if isinstance(scope, dict) else enumerate(scope)):
            new = self._new(value, of_answer)
            if new is not None:
                if isinstance(scope, list):
                    self.stack.callback(scope.__setitem__, key, value)
                    scope[key] = new
                else:
                    set_name(self.stack, scope, key, new)
            elif isinstance(value, (dict, list)):
                self.inside(value, of_answer)
            elif isinstance(value, type) and value.__module__ == self.world.namespace.get("__name__"):
                self._class(value)
            elif isinstance(value, FunctionType):
                self._closure(value)
            elif type(value).__module__ in (self.world.namespace.get("__name__"), *self.LIBRARY):
                self.inside(getattr(value, "__dict__", {}), type(value).__module__ not in self.LIBRARY)

    def _new(self, value: Any, of_answer: bool) -> Any:
        kind = self.kinds.get(type(value))
        if kind is not None:
            if id(value) not in self.locks:
                self.locks[id(value)] = kind(self.world, of_answer)
            return self.locks[id(value)]
        owner = getattr(value, "__self__", None)  # a condition keeps methods of its lock
        if type(owner) in self.kinds and callable(value):
            return getattr(self._new(owner, of_answer), value.__name__)
        return None

    def _class(self, cls: type) -> None:
        for name, value in list(vars(cls).items()):
            new = self._new(value, True)
            if new is not None:
                self.stack.callback(setattr, cls, name, value)
                setattr(cls, name, new)
            elif isinstance(value, (dict, list)):
                self.inside(value)

    def _closure(self, function: FunctionType) -> None:
        for cell in function.__closure__ or ():
            value = cell.cell_contents if _is_full(cell) else None
            new = self._new(value, True)
            if new is not None:
                self.stack.callback(setattr, cell, "cell_contents", value)
                cell.cell_contents = new
