"""Virtual time: an event loop whose clock jumps, and threads that wait beside it.

Either the loop or one thread runs at a time. Their order depends only on virtual time and the order of the calls, so a
run is the same on every machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import heapq
import itertools
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, TypeVarTuple

from scalelab.errors import ScalelabError

THREADS = 32  # of the loop's own pool, on every machine
SPIN, SPIN_SECONDS = 10_000, 1e-4  # after so many turns in a row a turn takes time, as it does in a real loop
POLL = 0.02  # real seconds between two looks at what this world does not schedule
RESOLUTION = 1e-9  # of the virtual clock, in seconds

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Deadlock(ScalelabError):
    """Every coroutine waits, and nothing is left that could wake one."""


class NeverEnds(ScalelabError):
    """The answer went past its limit of virtual seconds, or of turns of the loop."""


class Stuck(ScalelabError):
    """The run made no progress for a long real time: the loop's thread, or one that it waits for, is blocked."""


class Ended(BaseException):
    """Ends the loop or a thread; `except Exception` does not catch it."""

    def __init__(self, reason: ScalelabError | None = None) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class Blocking:
    """A call that kept the loop from running, for so many virtual seconds; `where` names the coroutine's line."""

    call: str
    seconds: float
    where: str

    def __str__(self) -> str:
        return f"{self.call}, {self.seconds:g} s" + (f", in {self.where}" if self.where else "")


class Network(Protocol):
    """Opens connections for the clients of a loop."""

    def connect(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Return the client's end of a new connection. Raises ConnectionRefusedError."""
        ...


def raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an error in a thread, at its next step of Python; None takes back one that has not been raised yet."""
    exception = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)


def let_in() -> None:
    """Run a few steps of Python, so that an error that `raise_in` has set is raised in this thread."""
    for _ in range(100):
        pass


def settle_errors() -> None:
    """Take back the interpreter's note that some thread has an error to raise.

    Python 3.11 keeps it when the error itself was taken back, and then turns in circles as soon as code is traced.
    """
    with contextlib.suppress(Ended):
        raise_in(threading.get_ident(), Ended)
        let_in()


def instant(moment: float) -> float:
    """Return `moment` rounded to the clock's resolution, so that instants that should be equal are."""
    return round(moment, 9)


class World:
    """The virtual clock, and the loop and threads that wait for it."""

    def __init__(self, *, limit: float, turns: int, where: Callable[[], str]) -> None:
        self.now = 0.0
        self.blocking: list[Blocking] = []
        self.progress = 0  # grows with every turn and step, for an onlooker to see whether anything moves
        self.idle = False  # whether the loop has nothing to do
        self.interruption: ScalelabError | None = None
        self._limit = limit
        self._turns_left = turns
        self._where = where
        self._in_a_row = 0
        self._closed = False
        self._lock = threading.RLock()
        self._loop_thread = 0
        self.loop: Loop | None = None
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, int, _Thread]] = []
        self._threads: dict[int, _Thread] = {}
        self._pools: dict[object, _Pool] = {}
        self._running: _Thread | None = None
        self._yielded = threading.Event()
        self._elsewhere = 0
        self._bystanders = set(threading.enumerate())

    # For the loop's thread.

    def begin(self, loop: Loop) -> None:
        """Make the calling thread that of `loop`."""
        self.loop = loop
        self._loop_thread = threading.get_ident()

    def grant(self, *, seconds: float, turns: int) -> None:
        """Extend the limits, to tidy up after the run."""
        self._limit, self._turns_left, self.interruption = self.now + seconds, turns, None

    def close(self, patience: float = 1.0) -> None:
        """End every thread that waits for virtual time, and give each so many real seconds to go."""
        self._closed = True
        for thread in list(self._threads.values()):
            thread.turn.set()
        for thread in list(self._threads.values()):
            thread.real.join(patience)

    def turn(self) -> None:
        """Count a turn of the loop. Raises Ended beyond the limits of the run."""
        self.progress += 1
        self._turns_left -= 1
        if self.interruption is not None:
            raise Ended(self.interruption)
        if self.now > self._limit:
            raise Ended(NeverEnds(f"it was still at work after {self._limit:g} virtual seconds"))
        if self._turns_left < 0:
            raise Ended(NeverEnds("it took turn after turn of the loop and came to no end"))

    def pass_by(self) -> None:
        """Count a turn in which the loop has work; after SPIN of them in a row, each turn takes virtual time."""
        self._in_a_row += 1
        if self._in_a_row <= SPIN:
            return
        if self.busy or self._elsewhere:
            self._yielded.wait(0.001)
        else:
            self.reach(instant(self.now + SPIN_SECONDS))
            if self._due and self._due[0][0] <= self.now:
                self.step()

    def rest(self, timer: float | None, events: Callable[[float], list[Any]]) -> list[Any]:
        """Do what comes next while the loop has nothing to do, until it has: move the clock, run a thread.

        `timer` is when the loop's next timer is due; `events` waits up to so many real seconds for calls from other
        threads. Raises Ended with a Deadlock when nothing comes next.
        """
        self._in_a_row, self.idle = 0, True
        try:
            while not (ready := events(0)):
                if self.interruption is not None:
                    raise Ended(self.interruption)
                if self.busy:
                    self._yielded.wait(POLL)
                elif self._elsewhere:
                    ready = events(POLL)
                elif self._due and (timer is None or self._due[0][0] <= timer):
                    if not self.reach(self._due[0][0]):
                        return []
                    self.step()
                elif timer is None and self._strangers():
                    ready = events(POLL)
                else:
                    self.reach(timer)
                    return []
                if ready:
                    break
            return ready
        finally:
            self.idle = False

    def reach(self, moment: float | None, call: str = "") -> bool:
        """Move the clock to `moment`, for which the loop waits, and return whether that is what comes next.

        With `call` the loop's thread waits, in that call. Without a moment raises Ended with a Deadlock.
        """
        if moment is None:
            text = "every coroutine waits, and nothing is left that could wake one"
            raise Ended(Deadlock(f"{call} waits for a thread that does not end" if call else text))
        self.now = max(self.now, moment)
        return True

    def at_rest(self) -> bool:
        """Whether nothing but the loop has anything to do at this instant."""
        return True

    @property
    def busy(self) -> bool:
        """Whether a thread of this world computes at this moment."""
        return self._running is not None

    def step(self) -> None:
        """Give the thread that is due its turn, and wait a moment for it to give it back."""
        moment, _, ticket, thread = heapq.heappop(self._due)
        if ticket != thread.ticket:
            return
        self.now = max(self.now, moment)
        self.progress += 1
        self._running = thread
        self._yielded.clear()
        try:
            thread.go_on()
        except RuntimeError as error:  # the system starts no more threads
            self.left(thread)
            if thread.future.set_running_or_notify_cancel():
                thread.future.set_exception(error)
        self._yielded.wait(POLL)

    def elsewhere(self, change: int) -> None:
        """Count the work that other processes do for the loop; while they do it, the clock stands."""
        self._elsewhere += change

    def note_blocking(self, call: str) -> None:
        """Record that the loop's thread made a call that would keep the loop from running."""
        self._note(Blocking(call, 0.0, self._where()))

    def _block(self, call: str, end: float | None, done: Callable[[], bool]) -> None:
        began, where = self.now, self._where()
        while not done():
            if self.interruption is not None:
                raise Ended(self.interruption)
            if self.busy:
                self._yielded.wait(POLL)
            elif self._due and (end is None or self._due[0][0] <= end):
                if self.reach(self._due[0][0], call):
                    self.step()
            elif self.reach(end, call):
                break
        self._note(Blocking(call, instant(self.now - began), where))

    def _note(self, call: Blocking) -> None:
        last = self.blocking[-1] if self.blocking else None
        if last is None or call.seconds or (last.call, last.where) != (call.call, call.where):
            self.blocking.append(call)

    def _strangers(self) -> bool:
        return any(
            not isinstance(thread, _Real) and thread not in self._bystanders and thread.ident != self._loop_thread
            for thread in threading.enumerate()
        )

    # For every thread of the run.

    def takes_part(self) -> bool:
        """Whether the calling thread lives in this world."""
        ident = threading.get_ident()
        return ident == self._loop_thread or ident in self._threads

    def on_loop(self) -> bool:
        """Whether the calling thread is the loop's."""
        return threading.get_ident() == self._loop_thread

    def sleep(self, seconds: float) -> None:
        """Wait in virtual time: what `time.sleep` does inside a run."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        end = instant(self.now + seconds)
        if self.on_loop():
            self._block("time.sleep", end, lambda: False)
        else:
            self._park(end)

    def wait_for(self, call: str, futures: Iterable[Future[Any]], timeout: float | None = None) -> None:
        """Wait, at most `timeout` virtual seconds, for what threads of this world will do."""
        unfinished = [future for future in futures if not future.done()]
        if not unfinished:
            return
        end = None if timeout is None else instant(self.now + timeout)
        if self.on_loop():
            self._block(call, end, lambda: all(future.done() for future in unfinished))
            return
        thread = self._threads[threading.get_ident()]
        for future in unfinished:
            self._wake_after(future, thread, thread.ticket + 1)
            self._park(end)

    def submit(self, pool: object, size: int, call: Callable[[], Any]) -> Future[Any]:
        """Make the call in a thread of `pool`, which makes at most `size` calls at once."""
        with self._lock:
            own = self._pools.setdefault(pool, _Pool(size))
            thread = _Thread(self, own, next(self._numbers), call)
            own.futures.append(thread.future)
            own.queue.append(thread)
            self._start(own)
        return thread.future

    def follow(self, other: Future[Any]) -> Future[Any]:
        """Return a future with the result of `other` that threads of this world can wait for."""
        own = _Future(self)

        def pass_on(done: Future[Any]) -> None:
            if not own.set_running_or_notify_cancel():
                return
            if done.cancelled():
                own.set_exception(CancelledError())
            elif (error := done.exception()) is not None:
                own.set_exception(error)
            else:
                own.set_result(done.result())

        other.add_done_callback(pass_on)
        own.add_done_callback(lambda future: other.cancel() if future.cancelled() else None)
        return own

    def close_pool(self, pool: object, *, wait: bool, cancel_futures: bool) -> None:
        """Wait for the pool's calls, or cancel those that have not begun: its `shutdown` inside a run."""
        futures = self._pools[pool].futures if pool in self._pools else []
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            self.wait_for("waiting for a thread pool", futures)

    # For the threads of the pools.

    def joined(self, thread: _Thread) -> None:
        """Count the calling thread as one of this world."""
        self._threads[threading.get_ident()] = thread

    def left(self, thread: _Thread) -> None:
        """Let the next call of the pool start, and give the turn back."""
        with self._lock:
            thread.pool.active -= 1
            self._start(thread.pool)
        self._give_back(thread)
        self._threads.pop(threading.get_ident(), None)

    def _start(self, pool: _Pool) -> None:
        while pool.queue and pool.active < pool.size:
            thread = pool.queue.popleft()
            pool.active += 1
            self._make_due(thread, self.now, thread.ticket)

    def _make_due(self, thread: _Thread, moment: float, ticket: int) -> None:
        heapq.heappush(self._due, (moment, thread.number, ticket, thread))

    def _wake_after(self, future: Future[Any], thread: _Thread, ticket: int) -> None:
        future.add_done_callback(lambda _: self._make_due(thread, self.now, ticket))

    def _park(self, end: float | None) -> None:
        thread = self._threads[threading.get_ident()]
        thread.ticket += 1
        if end is not None:
            self._make_due(thread, end, thread.ticket)
        thread.turn.clear()
        self._give_back(thread)
        if not self._closed:
            thread.turn.wait()
        thread.ticket += 1
        if self._closed:
            raise Ended

    def _give_back(self, thread: _Thread) -> None:
        if self._running is thread:
            self._running = None
            self._yielded.set()


@dataclass
class _Pool:
    size: int
    active: int = 0
    futures: list[Future[Any]] = field(default_factory=list)
    queue: deque[_Thread] = field(default_factory=deque)


class _Real(threading.Thread):
    """A thread of a world, told from others by its class."""


class _Thread:
    """One call of a pool, made in a real thread that runs whenever the world gives it its turn."""

    def __init__(self, world: World, pool: _Pool, number: int, call: Callable[[], Any]) -> None:
        self.pool = pool
        self.number = number
        self.future: Future[Any] = _Future(world)
        self.turn = threading.Event()
        self.ticket = 0  # of the wait that may still be ended; entries with another number are stale
        self.real = _Real(target=self._main, daemon=True, name=f"virtual-{number}")
        self._world = world
        self._call = call

    def go_on(self) -> None:
        if self.real.ident is None:
            self.real.start()
        else:
            self.turn.set()

    def _main(self) -> None:
        self._world.joined(self)
        try:
            if self.future.set_running_or_notify_cancel():
                try:
                    result = self._call()
                except BaseException as error:
                    self.future.set_exception(error)
                else:
                    self.future.set_result(result)
        finally:
            self._world.left(self)  # only now, when whoever waits for the result has been told


class _Future(Future[Any]):
    """A pool's future; to wait for it takes virtual time."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def result(self, timeout: float | None = None) -> Any:
        self._await("Future.result", timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._await("Future.exception", timeout)
        return super().exception(0)

    def _await(self, call: str, timeout: float | None) -> None:
        if self._world.takes_part():
            self._world.wait_for(call, [self], timeout)


class _Selector(selectors.DefaultSelector):
    """Waits for a loop that has nothing to do; here the clock jumps."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._world.turn()
        if timeout == 0:
            self._world.pass_by()
            return []
        timer = None if timeout is None else instant(self._world.now + timeout)
        return self._world.rest(timer, super().select)


class _Instant(float):
    """A timer's time; of two equal ones the timer that was set first comes first."""

    number: int

    def __lt__(self, other: float) -> bool:
        if isinstance(other, _Instant) and float.__eq__(self, other):
            return self.number < other.number
        return float.__lt__(self, other)


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own loop on a virtual clock, with a network that never leaves the process."""

    def __init__(self, world: World, network: Network | None) -> None:
        super().__init__(_Selector(world))
        self._world = world
        self._network = network
        self._timers = itertools.count()
        self.tasks: list[asyncio.Task[Any]] = []  # kept until the run is over, so that none is forgotten
        self._clock_resolution = RESOLUTION  # of the real clock it would be 16 ms on Windows
        self.set_exception_handler(lambda loop, context: None)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        self.tasks.append(task)
        return task

    def time(self) -> float:
        return self._world.now

    def has_work(self) -> bool:
        """Whether anything will run in the next turn."""
        own: Any = self  # asyncio does not show this list
        return bool(own._ready)

    def has_come_to_rest(self) -> bool:
        """Whether nothing but the caller would run in the next turn, nor in any before the clock moves."""
        own: Any = self  # nor this one
        due = own._scheduled and own._scheduled[0].when() < self.time() + self._clock_resolution
        return not self.has_work() and not due and self._world.at_rest()

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        # A wait moves the clock, however short: who sleeps until a moment between two ticks would ask for ever.
        later = max(delay, RESOLUTION) if delay > 0 else delay
        return self.call_at(self.time() + later, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        moment = _Instant(instant(when))
        moment.number = next(self._timers)
        return super().call_at(moment, callback, *args, context=context)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        if executor is not None and not isinstance(executor, ThreadPoolExecutor):
            self._world.elsewhere(+1)
            future.add_done_callback(lambda _: self._world.elsewhere(-1))
        return future

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        """Return one address of the kind kept for documentation (RFC 5737), whatever the name."""
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.8", port))]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect nothing: `create_connection` makes the connection."""

    async def create_connection(self, protocol_factory: Any, *_: Any, sock: Any = None, **__: Any) -> Any:
        """Connect the protocol to the run's server. Raises ConnectionRefusedError if the run has none."""
        if sock is not None:
            sock.close()
        if self._network is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "this check has no server")
        protocol = protocol_factory()
        return self._network.connect(self, protocol), protocol
