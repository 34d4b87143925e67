"""Run a student's coroutine in virtual time, and record its requests, tasks and sessions."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import importlib
import inspect
import io
import re
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from scalelab.checks import _side, _words
from scalelab.checks._inside import patched, warned
from scalelab.checks._network import ANSWERED, BROKEN, CANCELLED, Request, Server, Service
from scalelab.checks._words import Unmet
from scalelab.checks._world import Blocking, Deadlock, Ended, Loop, Stuck, World, raise_in
from scalelab.errors import ScalelabError

if TYPE_CHECKING:
    import aiohttp

TURNS = 100_000  # of the loop, before a run counts as endless
PATIENCE = 10.0  # real seconds without progress, before a run counts as stuck
LOOKS = 20  # in that time; looks are counted, not seconds, because a busy machine looks more slowly, too
LET_GO = 5.0  # real seconds for an interrupted thread to end, before it is left behind
SETTLE = 50  # turns at most after the answer's return, for tasks that are about to end
GRACE_SECONDS, GRACE_TURNS = 3_600.0, 20_000  # for tidying up after a run
DEFAULT_NAME = re.compile(r"Task-\d+")

one_at_a_time = threading.Lock()


class Seen(Protocol):
    """The facts of a run that a failed verdict shows."""

    @property
    def printed(self) -> str: ...

    @property
    def never_awaited(self) -> tuple[str, ...]: ...


observed: ContextVar[list[Seen] | None] = ContextVar("observed", default=None)  # the runs of the verdict under way


class NestedRun(ScalelabError):
    """A run was started during another run."""


class AnswerFailed(Unmet):
    """The answer did not return a suitable result; `run` is the record until then."""

    def __init__(self, right: str, text: str, run: Run, *, detail: str = "") -> None:
        super().__init__(right, text, detail=detail)
        self.run = run


class NotAwaitable(ScalelabError):
    """The answer returned something that cannot be awaited."""


@dataclass(frozen=True)
class Run:
    """The record of an answer's run; all times in virtual seconds.

    `result` is what it returned; `error` what it raised instead, or a Deadlock, NeverEnds or Stuck; `seconds` the time
    until then. `requests` are in the order of their arrival. `unclosed` counts the sessions still open at the end,
    `leaked` names the tasks left to themselves (at work when the answer returned, or dead of an error that nobody
    asked for), `never_awaited` the coroutines that nobody awaited; `blocking` lists
    the calls that kept the loop from running; `printed` is what the answer wrote.

    In the grader `result` and `error` are what the answer's process sent. `seconds`, `requests`, `most_in_flight`,
    `connections` and a deadlock are seen here. `sessions`, `unclosed`, `leaked`, `blocking`, `never_awaited` and
    `printed` are reported by that process, which an answer can falsify; three are compared with what is seen:
    `sessions` is at least the number of moments at which clients closed connections that could have been used again,
    and at least 2 if one was opened while another could have been used; `unclosed` is at least 1 if a connection is
    open at the end; and `leaked` is not empty if a timer, request or call is under way when all sessions are closed.
    """

    result: Any
    error: BaseException | None
    seconds: float
    requests: tuple[Request, ...]
    most_in_flight: int
    connections: int
    sessions: int
    unclosed: int
    leaked: tuple[str, ...]
    blocking: tuple[Blocking, ...]
    never_awaited: tuple[str, ...]
    printed: str

    def __repr__(self) -> str:
        fields = {"error": self.error} if self.error is not None else {"result": self.result}
        fields |= {
            "seconds": self.seconds,
            "requests": len(self.requests),
            "cancelled": len(self.cancelled),
        }
        names = ("most_in_flight", "connections", "sessions", "unclosed", "leaked", "blocking", "never_awaited")
        fields |= {name: getattr(self, name) for name in (*names, "printed")}
        return f"Run({', '.join(f'{name}={_words.short(value)}' for name, value in fields.items() if value)})"

    @property
    def arrivals(self) -> list[str]:
        """The paths, in the order in which the requests arrived."""
        return [request.path for request in self.requests]

    @property
    def answers(self) -> list[str]:
        """The paths, in the order in which the server finished the requests."""
        done = [request for request in self.requests if request.outcome in (ANSWERED, BROKEN)]
        return [request.path for request in sorted(done, key=lambda request: request.ended)]

    @property
    def cancelled(self) -> list[str]:
        """The paths of the requests that the client gave up, in the order of their arrival."""
        return [request.path for request in self.requests if request.outcome == CANCELLED]

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """The error, or the errors in a group; empty if there is none."""
        return () if self.error is None else tuple(_words.leaves(self.error))

    @property
    def deadlock(self) -> bool:
        """Whether everything waited and nothing could wake it."""
        return isinstance(self.error, Deadlock)


def run(
    answer: Callable[[], Awaitable[Any]],
    *,
    server: Server | None = None,
    limit: float = 3_600.0,
    most_requests: int = 5_000,
    returns: type | tuple[type, ...] = object,
    otherwise: str | Callable[[Run], str] | None = None,
    may_raise: type[BaseException] | tuple[type[BaseException], ...] = (),
) -> Run:
    """Call `answer`, await its result on an event loop in virtual time, and record the run.

    The loop has a thread of its own, so this works where another loop is running. `time.sleep` and the clocks of `time`
    follow the virtual clock in the answer's threads, and aiohttp reaches `server` under any host name. The run ends at
    a deadlock, after `limit` virtual seconds or `most_requests` requests, after TURNS turns of the loop, or when
    nothing moves for PATIENCE real seconds. Threads that the answer starts outside of pools live in real time. In the
    grader no real time counts: an answer that uses up its processor time, or sleeps without end, raises AnswerEnded.

    Raises AnswerFailed if the answer raises (anything but `may_raise`), does not end, or returns something that is not
    of type `returns`; `otherwise` is the author's word on an error where no more general advice fits ("" for none).
    Raises NestedRun.
    """
    if not one_at_a_time.acquire(blocking=False):
        raise NestedRun("An answer is being run; wait for its end before you start another.")
    try:
        if _side.current is None:
            importlib.import_module("aiohttp")  # by an answer in the middle of its run, it would keep that run's clock
        make = Attempt if _side.current is None else _side.current.attempt
        attempt = make(answer, server, limit, most_requests, check=sys._getframe(1).f_code.co_filename)
        attempt.go()
    finally:
        one_at_a_time.release()
    run: Run = attempt.report()
    runs = observed.get()
    if runs is not None:
        runs.append(run)
    if run.error is None:
        failure = _unfit(run, returns, attempt.kind)
    elif isinstance(run.error, may_raise):
        failure = None
    else:
        failure = _no_result(run, attempt, otherwise)
    if failure is not None:
        raise failure from None
    return run


class Attempt:
    """One run of an answer, in a thread of its own."""

    def __init__(
        self,
        answer: Callable[[], Awaitable[Any]],
        server: Server | None,
        limit: float,
        most_requests: int,
        *,
        check: str,
    ) -> None:
        function = answer.func if isinstance(answer, functools.partial) else answer
        self.answer = answer
        self.check = check  # the file of the check's own code, no line of which is the student's
        self.namespace: dict[str, Any] = getattr(function, "__globals__", {})
        where = functools.partial(_words.caller, self.namespace)
        self.world: World = self._make_world(limit=limit, turns=TURNS, where=where)
        self._service = Service(server or Server(), self.world, most_requests)
        self._has_server = server is not None
        self._sessions: list[aiohttp.ClientSession] = []
        self._written = io.StringIO()
        self._warned: list[str] = []
        self._result: Any = None
        self._error: BaseException | None = None
        self._stock: dict[str, Any] | None = None
        self._own: asyncio.Task[Any] | None = None
        self._crash: BaseException | None = None
        self._door = threading.Lock()
        self._closed = False
        self._left_behind = False

    def _make_world(self, **options: Any) -> World:
        return World(**options)

    def _make_loop(self) -> Loop:
        return Loop(self.world, self._service if self._has_server else None)

    def go(self) -> None:
        """Run in a new thread and wait for its end; then all replacements are undone."""
        over = threading.Event()
        thread = threading.Thread(target=self._main, args=(over,), daemon=True, name="virtual-loop")
        with (
            contextlib.redirect_stdout(self._written),
            contextlib.redirect_stderr(self._written),
            warned(self._warned),
            patched(self.world, self._sessions, self.namespace),
        ):
            thread.start()
            try:
                self._watch(over, thread)
            except BaseException:
                self._interrupt(over, thread, Stuck("it was interrupted"))
                raise
            finally:
                thread.join(0.1 if self._left_behind else None)
        if self._crash is not None and not self._left_behind:
            raise self._crash  # a fault of this module, not of the answer

    def report(self) -> Run:
        """Return the record of the run."""
        stock = self._stock or self._take_stock(())
        return Run(result=self._result, error=self._error, printed=self._written.getvalue(), **stock)

    def _watch(self, over: threading.Event, thread: threading.Thread) -> None:
        seen, looks = -1, 0
        while not self._left_behind and not over.wait(PATIENCE / LOOKS):
            looks = looks + 1 if self.world.progress == seen else 0
            seen = self.world.progress
            if looks > LOOKS:
                self._interrupt(over, thread, self._reason())

    def _reason(self) -> ScalelabError:
        if self.world.busy:
            return Stuck(f"for {PATIENCE:g} s of real time a thread has waited, or computed, without an end")
        if self.world.idle:
            return Deadlock("nothing moves any more")
        return Stuck(f"it held the event loop's thread for {PATIENCE:g} s of real time and gave the loop no turn")

    def _interrupt(self, over: threading.Event, thread: threading.Thread, reason: ScalelabError) -> None:
        """End the run, even if an `except:` in an endless loop catches the first interruptions."""
        self.world.interruption = reason
        given_up = time.monotonic() + LET_GO
        while time.monotonic() < given_up and not self._closed:
            with self._door:
                if not self._closed and thread.ident is not None and not self.world.idle:
                    raise_in(thread.ident, Ended)
            if over.wait(0.05):
                return
        if self._closed and over.wait(PATIENCE):
            return
        self._left_behind = True  # it stands in a call that Python cannot end
        self._fail(reason)

    def _main(self, over: threading.Event) -> None:
        runner = asyncio.Runner(loop_factory=self._make_loop)
        try:
            loop = runner.get_loop()
            assert isinstance(loop, Loop)
            try:
                self._run_in(runner, loop)
            except Ended as error:
                self._end_run(error)
            self._stock = self._stock or self._look_back(loop)
            self._tidy_up(runner)
        except BaseException as error:
            self._crash = error
        finally:
            over.set()

    def _run_in(self, runner: asyncio.Runner, loop: Loop) -> None:
        try:
            self.world.begin(loop)
            runner.run(self._call())
        except BaseException as error:  # the loop itself has come to an end
            self._end_run(error)
        else:
            self._end_run(None)

    def _end_run(self, error: BaseException | None) -> None:
        """Record the error that has ended the loop. An interruption can come at any step until the door is closed."""
        try:
            self._close_door()
        except Ended as late:
            return self._end_run(error or late)
        if error is not None and self._stock is None:
            self._fail(error)

    def _close_door(self) -> None:
        """Prevent interruptions from here on, also one that is on its way."""
        while not self._closed:
            with contextlib.suppress(Ended), self._door:
                raise_in(threading.get_ident(), None)
                self._closed = True

    def _tidy_up(self, runner: asyncio.Runner) -> None:
        loop = runner.get_loop()
        self.world.grant(seconds=GRACE_SECONDS, turns=GRACE_TURNS)
        with contextlib.suppress(BaseException):
            runner.run(close(self._sessions))
        with contextlib.suppress(BaseException):
            runner.close()
        self.world.close()
        for task in asyncio.all_tasks(loop):
            # It swallows every cancellation. Outside of a loop its `await` fails at once, so that to destroy its
            # coroutine could take for ever; to keep it costs a few bytes.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(task.get_coro()))

    async def _call(self) -> None:
        self._own = asyncio.current_task()
        try:
            awaitable = self.answer()
            if not self.kind(awaitable):
                raise NotAwaitable(_words.short(awaitable))
            result = await awaitable
            if self.world.interruption is not None:  # swallowed on the way
                raise Ended(self.world.interruption)
        except BaseException as error:
            self._fail(error)
            result = None
        self._close_door()
        if self._stock is not None:  # the run was over already, and only the tidying up has brought us here
            return
        self._result = result
        await self._look_around()

    def kind(self, value: Any) -> str:
        """Return which kind of awaitable a value is, or ""."""
        return kind_of_awaitable(value)

    async def _look_around(self) -> None:
        """Record the state of a loop in which the answer has returned."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        unfinished = [task for task in loop.tasks if not task.done() and task is not self._own]
        given_up = [task for task in unfinished if task.cancelling()]
        self._stock = self._take_stock(unfinished)
        await settle(loop)
        unfinished = [task for task in loop.tasks if task is not self._own and is_left(task, task in given_up)]
        self._stock |= {"leaked": names(unfinished), "unclosed": unclosed(self._sessions)}

    def _look_back(self, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
        """Record the state of a loop that had to be ended."""
        tasks = asyncio.all_tasks(loop)
        self._note_places(_words.waiting(tasks, self.namespace, self.check))
        return self._take_stock(task for task in tasks if task is not self._own)

    def _note_places(self, places: str) -> None:
        if places and self._error is not None:
            self._error.add_note(places)

    def _take_stock(self, unfinished: Iterable[asyncio.Task[Any]]) -> dict[str, Any]:
        return self._books() | {
            "sessions": len(self._sessions),
            "unclosed": unclosed(self._sessions),
            "leaked": names(unfinished),
            "blocking": tuple(self.world.blocking),
            "never_awaited": tuple(self._warned),
        }

    def _books(self) -> dict[str, Any]:
        """Return the facts that the clock and the service have recorded."""
        return {
            "seconds": self.world.now,
            "requests": tuple(self._service.requests),
            "most_in_flight": self._service.most_in_flight,
            "connections": self._service.connections,
        }

    def _fail(self, error: BaseException) -> None:
        if self._error is not None:
            return
        for inner in _words.leaves(error):
            if isinstance(inner, Ended):
                reason = inner.reason or self.world.interruption or Stuck("it was interrupted")
                error = reason.with_traceback(inner.__traceback__)
        self._error = error


async def settle(loop: Loop) -> None:
    """Run turns of the loop until tasks that are about to end have ended; the clock stands still."""
    for _ in range(SETTLE):
        if loop.has_come_to_rest():
            break
        await asyncio.sleep(0)


async def close(sessions: Iterable[aiohttp.ClientSession]) -> None:
    """Close the sessions that are open."""
    for session in sessions:
        if not session.closed:
            await session.close()


def unclosed(sessions: Iterable[aiohttp.ClientSession]) -> int:
    """Return how many sessions are open."""
    return sum(not session.closed for session in sessions)


def names(tasks: Iterable[asyncio.Task[Any]]) -> tuple[str, ...]:
    return tuple(
        sorted(
            _words.of_coroutine(task) if DEFAULT_NAME.fullmatch(task.get_name()) else task.get_name() for task in tasks
        )
    )


def is_left(task: asyncio.Task[Any], given_up: bool) -> bool:
    """Whether a task is not done, or has an exception that was never retrieved, as asyncio itself records it."""
    return not task.done() or (not given_up and bool(getattr(task, "_log_traceback", False)))


def _no_result(run: Run, attempt: Attempt, otherwise: str | Callable[[Run], str] | None) -> AnswerFailed:
    error = run.error
    assert error is not None
    right = "it runs to its end and returns"
    if isinstance(error, NotAwaitable):
        detail = f"It gave {error} at once, and no coroutine: define your function with `async def`."
        return AnswerFailed("it is a coroutine function", "", run, detail=detail)
    advice = _words.advice(error, attempt.namespace, attempt.check)
    if isinstance(error, NotImplementedError) and advice:
        return AnswerFailed(right, advice, run)
    if advice is None and otherwise is not None:
        advice = otherwise if isinstance(otherwise, str) else otherwise(run)
    return AnswerFailed(right, advice or "", run, detail=_words.error_text(error, attempt.namespace, attempt.check))


def _unfit(run: Run, returns: type | tuple[type, ...], kind_of: Callable[[Any], str]) -> AnswerFailed | None:
    result = run.result
    wanted = returns if isinstance(returns, tuple) else (returns,)
    kinds = " or ".join("None" if kind is type(None) else _a(kind) for kind in wanted)
    right = "it returns its result" if returns is object else f"it returns {kinds}"
    if result is ... or (result is None and not isinstance(None, wanted)):
        value = "`...`" if result is ... else "None"
        text = f"It returned {value}: it is not written yet, or a `return` is missing."
        return AnswerFailed(right, text, run)
    left_over = unfinished(result, kind_of)
    if left_over is not None:
        return AnswerFailed("it returns results", left_over, run)
    if not isinstance(result, wanted):
        return AnswerFailed(right, "", run, detail=f"It returned {_a(type(result))}: {_words.short(result)}")
    return None


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'aeiou' else 'a'} {kind.__name__}"


def kind_of_awaitable(value: Any) -> str:
    """Return "coroutine", "task" or "awaitable", or "" for a value that cannot be awaited."""
    if inspect.iscoroutine(value):
        return "coroutine"
    return "task" if asyncio.isfuture(value) else "awaitable" if inspect.isawaitable(value) else ""


def unfinished(result: Any, kind_of: Callable[[Any], str]) -> str | None:
    """Return words on coroutines or tasks in a result that were never awaited, or None; close the coroutines."""
    values = [result]
    if isinstance(result, (list, tuple, set, frozenset)):
        values = list(result)
    elif isinstance(result, dict):
        values = list(result.values())
    kinds = [kind_of(value) for value in values]
    for value in values:
        if inspect.iscoroutine(value):
            value.close()
    kind = "coroutine object" if "coroutine" in kinds else "task" if "task" in kinds else None
    if kind is None:
        return None
    if values[0] is result:
        return f"What you return is a {kind}, not its result: nobody has awaited it."
    return f"What you return are {kind}s, not their results: nobody has awaited them."
