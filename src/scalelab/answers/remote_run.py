"""`checks.run` for an answer in another process: the virtual clock, the web service and its books are on this side.

Two event loops share one clock. This side's loop runs the check, and the functions that the check has given. The
answer's loop reports when it becomes idle, and until when. Then the clock moves to the next event of either loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from scalelab.answers.channel import ProtocolError, TooMuch
from scalelab.answers.codec import checked_int, checked_text, checked_time
from scalelab.answers.declared import check_types
from scalelab.answers.future import RemoteFuture, outcome
from scalelab.answers.remote import Answer, Remote
from scalelab.checks import AnswerEnded, _run
from scalelab.checks._network import Service
from scalelab.checks._world import Blocking, Deadlock, Ended, Loop, NeverEnds, Stuck, World
from scalelab.errors import ScalelabError

MAX_CONNECTIONS = 10_000
MAX_CALLS = 20_000
MAX_UNREAD = 2**16
"""Bytes of an unfinished request on one connection."""
LOOP_WORDS = {"idle", "open", "write", "close", "acall", "acancel", "done", "born", "died", "stock", "over"}
"""Words of messages about the answer's loop."""
ENDINGS: dict[str, type[ScalelabError]] = {"NeverEnds": NeverEnds, "Deadlock": Deadlock}


@dataclass(frozen=True)
class Report:
    """The report of the answer's process on its loop: `names` of running tasks by number, `over` the finished tasks."""

    sessions: int = 0
    unclosed: int = 0
    names: dict[int, str] = field(default_factory=dict)
    over: frozenset[int] = frozenset()
    blocking: tuple[Blocking, ...] = ()
    never_awaited: tuple[str, ...] = ()
    places: str = ""
    printed: str = ""

    @classmethod
    def of(cls, data: dict[str, Any]) -> Report:
        """Return the report that a message contains. Raises ProtocolError."""
        return cls(
            sessions=checked_int(data["sessions"]),
            unclosed=checked_int(data["unclosed"]),
            names={checked_int(number): checked_text(name, 100) for number, name in data["names"]},
            over=frozenset(checked_int(number) for number in data["over"]),
            blocking=tuple(
                Blocking(checked_text(call, 100), checked_time(seconds, 0.0) or 0.0, checked_text(where, 300))
                for call, seconds, where in data["blocking"]
            ),
            never_awaited=tuple(checked_text(name, 100) for name in data["never_awaited"]),
            places=checked_text(data["places"], 1_000),
            printed=checked_text(data["printed"], 200_000),
        )


class SharedWorld(World):
    """The virtual clock of both processes."""

    def __init__(self, answer: Answer, *, limit: float, turns: int, where: Callable[[], str]) -> None:
        super().__init__(limit=limit, turns=turns, where=where)
        self.answer = answer
        self.service: Service | None = None
        self.pending: list[list[Any]] = []  # messages for the answer's next turn
        self.over = False  # whether the answer's loop has ended
        self.until: float | None = None  # the next timer of the answer's loop
        self.report: Report | None = None
        self.tasks: dict[int, str] = {}  # names of the answer's tasks that are not over, by number
        self.at_return: dict[str, Any] = {}  # the books when the answer's last awaitable was done
        self.books: Callable[[], dict[str, Any]] = dict
        self._tasks_begun = 0
        self._blocking_call = ""  # that blocks the answer's loop
        self._loop_runs = False  # whether the answer's loop has the turn
        self._relays: dict[int, Relay] = {}
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._awaited: dict[int, RemoteFuture] = {}

    def begin(self, loop: Loop) -> None:
        super().begin(loop)
        self.answer.world = self
        self._converse(["loop", self.service is not None])

    def pump(self) -> None:
        """Give the answer's loop a turn at this instant: send the pending messages, and serve it until it waits."""
        messages, self.pending = self.pending, []
        if self.over:
            return
        self.turn()
        assert self.loop is not None
        self._converse(["go", self.now, messages, self.loop.has_work()])

    def _converse(self, message: list[Any]) -> None:
        """Send a message, and serve the answer's loop until it waits."""
        answer, self.until, self._loop_runs = self.answer, None, True
        try:
            answer.send_changes()
            answer.send(message)
            while self._loop_runs:
                message = answer.receive()
                if message[0] in LOOP_WORDS:
                    self.handle(message)
                else:
                    answer.handle(message)
        except AnswerEnded as ended:
            self.over = True
            raise Ended(Stuck(str(ended))) from None

    @property
    def _is_due(self) -> bool:
        return bool(self.pending) or (self.until is not None and self.until <= self.now)

    def at_rest(self) -> bool:
        return not self._is_due

    def pass_by(self) -> None:
        if self._is_due:
            self.pump()
        super().pass_by()

    def rest(self, timer: float | None, events: Callable[[float], list[Any]]) -> list[Any]:
        if self._is_due:
            self.pump()  # may have set timers in this side's loop, which then looks again
            return []
        return super().rest(timer, events)

    def reach(self, moment: float | None, call: str = "") -> bool:
        if call:  # while a call blocks this side's loop, the answer's loop waits, too
            return super().reach(moment, call)
        coming = [when for when in (moment, self.until) if when is not None]
        super().reach(min(coming, default=None), self._blocking_call)
        return moment is not None and self.now >= moment

    def _strangers(self) -> bool:
        return False  # this process runs no thread of the answer

    # Messages of the answer's loop.

    def handle(self, message: list[Any]) -> None:
        """Serve a message of the answer's loop. Raises Ended, AnswerEnded."""
        try:
            if message[0] == "idle":
                self.until, self._blocking_call = checked_time(message[1], self.now), checked_text(message[2], 100)
                self._loop_runs = False
            else:
                self._handle(message)
        except TooMuch as error:
            self.answer.fail(error)
        except (ProtocolError, TypeError, ValueError, LookupError) as error:
            self.answer.fail(f"{message[0]!r}: {str(error)[:80]}")

    def _handle(self, message: list[Any]) -> None:
        assert self.loop is not None
        match message:
            case ["open", number] if self.service is not None and number == len(self._relays) + 1 <= MAX_CONNECTIONS:
                self._relays[checked_int(number)] = Relay(self, number, self.service, self.loop)
            case ["write", number, str() as data] if number in self._relays:
                self._relays[number].write(data.encode("latin-1"))
            case ["close", number] if number in self._relays:
                self._relays[number].wire.close()
            case ["acall", number, given, method, args, kwargs] if number not in self._calls and (
                len(self._calls) < MAX_CALLS
            ):
                function = self.answer.function(given, method)
                args, kwargs = self.answer.args(args), self.answer.kwargs(kwargs)
                call = self._make_call(checked_int(number), function, args, kwargs)
                self._calls[number] = self.loop.create_task(call)
            case ["acancel", number] if number in self._calls:
                self._calls[number].cancel()
            case ["done", number, how, value] if number in self._awaited:
                self.at_return = self.books()
                self._awaited.pop(number).finish(how, self.answer.decoded(value))
            case ["born", number, name] if number == self._tasks_begun < MAX_CALLS:
                self._tasks_begun += 1
                self.tasks[number] = checked_text(name, 100)
            case ["died", number, bool() as well]:
                if well:  # else it has left an error that nobody has asked for
                    self.tasks.pop(number, None)
            case ["stock", dict() as data]:
                self.report = Report.of(data)
            case ["over", str() as kind, text]:
                self.over = True
                raise Ended(ENDINGS.get(kind, Stuck)(checked_text(text)))
            case _:
                raise ProtocolError("not expected")

    async def _make_call(self, number: int, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        async def call() -> Any:
            check_types(function, args, kwargs)
            return await function(*args, **kwargs)

        result = await outcome(call(), self.answer.codec)
        self.pending.append(["adone", number, *result])
        try:
            self.pump()  # the coroutine that awaits it goes on at this instant, as in one loop
        except Ended as ended:
            self.interruption = ended.reason or Stuck("it was ended")

    def await_remote(self, target: int) -> Awaitable[Any]:
        """Await an object of the answer."""
        number = next(self.answer.counter)

        def request_cancel() -> bool:
            self.pending.append(["cancel", number])
            return not self.over

        future = self._awaited[number] = RemoteFuture(request_cancel)
        self.pending.append(["await", number, target])
        return future

    def request_report(self) -> Report:
        """Return the report on the answer's loop; the clock stands still meanwhile. Raises Ended."""
        self.grant(seconds=_run.GRACE_SECONDS, turns=_run.GRACE_TURNS)
        if not self.over:
            self.pending.append(["stock"])
            while self.report is None:
                self.pump()
        return self.report or Report()

    @property
    def something_waits(self) -> bool:
        """Whether the answer's loop waits for a timer, a request or a call."""
        calls = any(not call.done() for call in self._calls.values())
        return self.until is not None or calls or any(relay.wire.is_asked for relay in self._relays.values())

    @property
    def open_connections(self) -> int:
        return sum(not relay.wire.is_closing() for relay in self._relays.values())

    def end(self) -> None:
        """End the answer's loop."""
        with contextlib.suppress(AnswerEnded):
            if not self.over:
                self.answer.send(["go", self.now, [["end"]], False])
            while not self.answer.ended and self.answer.receive()[0] != "ended":
                pass
        self.over, self.until, self.answer.world = True, None, None
        self.pending.clear()


class Relay(asyncio.Protocol):
    """The web service's connection to a client in the answer's process."""

    def __init__(self, world: SharedWorld, number: int, service: Service, loop: Loop) -> None:
        self._world, self._number = world, number
        self.wire: Any = service.connect(loop, self)

    def write(self, data: bytes) -> None:
        self.wire.write(data)
        if self.wire.unread > MAX_UNREAD:
            raise ProtocolError("a request that does not end")

    def data_received(self, data: bytes) -> None:
        self._world.pending.append(["data", self._number, data.decode("latin-1")])

    def connection_lost(self, error: BaseException | None) -> None:
        if error is not None:
            self._world.pending.append(["lost", self._number, str(error)])


class RemoteAttempt(_run.Attempt):
    """One run of an answer in another process."""

    world: SharedWorld

    def __init__(self, remote: Answer, *args: Any, **kwargs: Any) -> None:
        self.remote = remote
        super().__init__(*args, **kwargs)
        self.world.service = self._service if self._has_server else None
        self.world.books = self._books

    def _make_world(self, **options: Any) -> SharedWorld:
        return SharedWorld(self.remote, **options)

    def _make_loop(self) -> Loop:
        return Loop(self.world, None)

    def report(self) -> _run.Run:
        self.remote.raise_if_ended()
        return super().report()

    def kind(self, value: Any) -> str:
        return value.awaitable_kind if isinstance(value, Remote) else super().kind(value)

    def _watch(self, over: threading.Event, thread: threading.Thread) -> None:
        over.wait()  # the answer's monitor ends an answer that takes too long

    def _interrupt(self, over: threading.Event, thread: threading.Thread, reason: ScalelabError) -> None:
        self.remote.close()  # which wakes a thread that waits for a message
        if not over.wait(_run.LET_GO):
            super()._interrupt(over, thread, reason)

    def _tidy_up(self, runner: asyncio.Runner) -> None:
        self.world.end()
        super()._tidy_up(runner)

    async def _look_around(self) -> None:
        assert self.world.loop is not None
        await _run.settle(self.world.loop)
        self._stock = self._compared(self.world.at_return or self._books())[0]

    def _look_back(self, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
        stock, places = self._compared(self._books())
        self._note_places(places)
        return stock

    def _compared(self, books: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Return the facts of the run, and where tasks wait: the books, with the answer's report compared with them."""
        world, service, report = self.world, self._service, Report()
        with contextlib.suppress(Ended):
            report = world.request_report()
        self._written.write(report.printed)
        unclosed = max(report.unclosed, min(1, world.open_connections))
        leaked = tuple(
            sorted(report.names.get(number, name) for number, name in world.tasks.items() if number not in report.over)
        )
        if not leaked and not unclosed and self._error is None and world.something_waits:
            leaked = ("something that still waits",)
        stock = books | {
            "sessions": max(report.sessions, len(service.client_closed), 2 * service.opened_beside_idle),
            "unclosed": unclosed,
            "leaked": leaked,
            "blocking": (*world.blocking, *report.blocking),
            "never_awaited": report.never_awaited,
        }
        return stock, report.places
