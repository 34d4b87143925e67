"""`checks.run` for an answer in another process: the virtual clock, the server and the books are on this side.

Two event loops share one clock. This side's runs the check, and the functions that the check gives; the answer's says
when it has nothing to do, and until when. Then the clock goes on to whatever comes first, on either side.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import threading
from collections.abc import Callable
from typing import Any

from scalelab.answers.channel import ProtocolError
from scalelab.answers.codec import checked_int, checked_text, checked_time
from scalelab.answers.remote import Answer, Remote
from scalelab.checks import AnswerEnded, _run, _words
from scalelab.checks._network import Service
from scalelab.checks._run import NotAwaitable
from scalelab.checks._world import Blocking, Deadlock, Ended, Loop, NeverEnds, Stuck, World

MOST_WIRES = 5_000
MOST_CALLS = 100_000
ENDINGS = {"NeverEnds": NeverEnds, "Stuck": Stuck, "Deadlock": Deadlock}


class SharedWorld(World):
    """The virtual clock of both processes."""

    def __init__(self, answer: Answer, *, limit: float, turns: int, where: Callable[[], str]) -> None:
        super().__init__(limit=limit, turns=turns, where=where)
        self.answer = answer
        self.loop: Any = None
        self.service: Service | None = None
        self.pending: list[list[Any]] = []
        self.alone = False  # whether the answer's loop has been ended
        self.until: float | None = None  # when the answer's loop goes on by itself
        self.stock: dict[str, Any] | None = None
        self._relays: dict[int, Relay] = {}
        self._calls: dict[int, asyncio.Task[Any]] = {}
        self._awaited: dict[int, Awaited] = {}
        self._over = ""
        self.tasks: dict[int, str] = {}  # of the answer's, those that are not over
        self.names: dict[int, str] = {}
        self.alive: dict[int, str] | None = None  # when the last of what this side awaited was done

    def begin(self) -> None:
        super().begin()
        self.answer.world = self
        self.answer.send(["loop", self.service is not None])
        self._hear()

    def pump(self) -> None:
        """Give the answer its turn at this instant: hand over what has come, and hear what it does until it waits."""
        if self.alone:
            self.pending.clear()
            return
        self.turn()
        self.answer.send_changes()
        messages, self.pending = self.pending, []
        self.answer.send(["go", self.now, messages, bool(self.loop._ready)])
        self._hear()

    def _hear(self) -> None:
        self.until, waiting = None, False
        try:
            while not waiting:
                message = self.answer.receive()
                if message[0] == "idle":
                    self.until, waiting = checked_time(message[1], self.now), True
                else:
                    self.answer.obey(message)
        except ProtocolError as error:
            self.answer.fail(str(error))
        except AnswerEnded as ended:
            raise Ended(Stuck(str(ended))) from None

    def pass_by(self) -> None:
        if self.pending or (self.until is not None and self.until <= self.now):
            self.pump()
        super().pass_by()

    def rest(self, timer: float | None, events: Callable[[float], list[Any]]) -> list[Any]:
        self._in_a_row, self.idle = 0, True
        try:
            if self.interruption is not None:
                raise Ended(self.interruption)
            if self.pending or (self.until is not None and self.until <= self.now):
                self.pump()  # which may have set timers of this side's: the loop looks anew
                return []
            if found := events(0):
                return found
            coming = [when for when in (timer, self.until) if when is not None]
            if not coming:
                raise Ended(Deadlock("every coroutine waits, and nothing is left that could wake one"))
            self.now = max(self.now, min(coming))
            return []
        finally:
            self.idle = False

    # What the answer says while its loop runs.

    def obey(self, message: list[Any]) -> None:
        match message:
            case ["open", number] if self.service is not None and len(self._relays) < MOST_WIRES:
                relay = self._relays[checked_int(number)] = Relay(self, number)
                relay.wire = self.service.connect(self.loop, relay)
            case ["write", number, data] if number in self._relays:
                self._relays[number].wire.write(base64.b64decode(data))
            case ["close", number]:
                if number in self._relays:
                    self._relays[number].wire.close()
            case ["acall", number, given, method, args, kwargs] if len(self._calls) < MOST_CALLS:
                function = self.answer.function(given, method)
                call = function(*self.answer.args(args), **self.answer.kwargs(kwargs))
                if not inspect.iscoroutine(call):
                    raise ProtocolError("that is no async function")
                self._calls[checked_int(number)] = self.loop.create_task(self._call(number, call))
            case ["acancel", number]:
                if number in self._calls:
                    self._calls[number].cancel()
            case ["done", number, how, value] if number in self._awaited:
                self.alive = dict(self.tasks)
                self._awaited.pop(number).finish(how, self.answer.decoded(value))
            case ["born", number, name] if len(self.names) < MOST_CALLS:
                self.names[checked_int(number)] = self.tasks[number] = checked_text(name, 100)
            case ["died", number, bool() as well]:
                if well:  # else somebody has to ask for its error
                    self.tasks.pop(number, None)
            case ["stock", dict() as stock]:
                self.stock = stock
            case ["over", str() as kind, words]:
                self._over = checked_text(words)
                raise Ended(ENDINGS.get(kind, Stuck)(self._over))
            case _:
                raise ProtocolError(f"{message[0][:20]!r} was not expected")

    async def _call(self, number: int, call: Any) -> None:
        told = ["adone", number, "return", None]
        try:
            told[3] = self.answer.codec.encode(await call)
        except asyncio.CancelledError:
            told[2] = "cancelled"
        except Exception as error:
            told[2:] = ["raise", self.answer.codec.error(error)]
        self.pending.append(told)
        try:
            self.pump()  # who awaited it goes on at this very instant, as in one loop
        except Ended as ended:
            self.interruption = ended.reason or Stuck("it was ended")

    async def wait_for(self, target: int) -> Any:
        """Await a coroutine of the answer's."""
        number = next(self.answer.counts)
        self._awaited[number] = future = Awaited(self, number)
        self.pending.append(["await", number, target])
        return await future

    def take_stock(self) -> dict[str, Any]:
        """Ask the answer's loop what it has left behind; the clock stands still meanwhile."""
        if self._over or self.answer.ended:
            return {}
        self.grant(seconds=3_600.0, turns=20_000)
        self.stock = None
        self.pending.append(["stock"])
        for _ in range(1_000):
            self.pump()
            if self.stock is not None:
                return self.stock
        return {}

    def end(self) -> None:
        """End the answer's loop."""
        self.until, self.alone = None, True
        self.answer.world = None
        if self.answer.ended:
            return
        if not self._over:
            self.answer.send(["go", self.now, [["end"]], False])
        while self.answer.receive()[0] != "ended":
            pass


class Awaited(asyncio.Future[Any]):
    """What a coroutine of the answer's will return; to cancel it is to ask for that there."""

    def __init__(self, world: SharedWorld, number: int) -> None:
        super().__init__()
        self.world, self.number = world, number

    def cancel(self, msg: Any = None) -> bool:
        if self.done():
            return False
        self.world.pending.append(["cancel", self.number])
        return True

    def finish(self, how: Any, value: Any) -> None:
        if how == "cancelled":
            super().cancel()
        elif how == "raise" and isinstance(value, BaseException):
            self.set_exception(value)
        elif how == "return":
            self.set_result(value)
        else:
            raise ProtocolError("no result")


class Relay(asyncio.Protocol):
    """The server's view of a client in the other process."""

    def __init__(self, world: SharedWorld, number: int) -> None:
        self.world, self.number = world, number
        self.wire: Any = None

    def data_received(self, data: bytes) -> None:
        self.world.pending.append(["data", self.number, base64.b64encode(data).decode()])

    def connection_lost(self, error: BaseException | None) -> None:
        if error is not None:
            self.world.pending.append(["lost", self.number, str(error)])


class RemoteAttempt(_run.Attempt):
    """One run of an answer that is in another process."""

    def __init__(self, remote: Answer, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.remote = remote
        before = self.world
        self.world = SharedWorld(remote, limit=before._limit, turns=_run.TURNS, where=before._where)
        self._service._world = self.world
        self.world.service = self._network
        self._said: dict[str, Any] = {}

    def _watch(self, over: threading.Event, thread: threading.Thread) -> None:
        over.wait()  # the answer's monitor ends what takes too long

    def _main(self, over: threading.Event) -> None:
        runner = asyncio.Runner(loop_factory=lambda: Loop(self.world, None))
        try:
            self.world.loop = loop = runner.get_loop()
            try:
                self.world.begin()
                runner.run(self._call())
            except BaseException as error:  # the loop itself has come to an end
                if self._stock is None:
                    self._fail(error)
            self._close_door()
            if self._stock is None:
                asyncio._set_running_loop(loop)
                try:
                    self._stock = self._look_back(loop)
                finally:
                    asyncio._set_running_loop(None)
            self.world.end()
            self.world.pending.clear()
            self.world._relays.clear()
            self._tidy_up(runner)
        except AnswerEnded:
            self._stock = self._stock or self._take_stock([])
        except BaseException as error:
            self._crash = error
        finally:
            self.remote.world = None
            over.set()

    async def _call(self) -> None:
        self._own = asyncio.current_task()
        try:
            found = self.answer()
            if not inspect.isawaitable(found) or (isinstance(found, Remote) and found._what not in AWAITABLE):
                raise NotAwaitable(_words.short(found))
            result = await found
            if self.world.interruption is not None:
                raise Ended(self.world.interruption)
        except BaseException as error:
            self._fail(error)
            result = None
        self._close_door()
        if self._stock is None:
            self._result = result
            self._stock = self._take_stock([])

    def _look_back(self, loop: Any) -> dict[str, Any]:
        stock = self._take_stock([])
        places = [
            f"`{checked_text(name, 100)}` waits in {_words.place(line)}"
            for name, line in self._said.get("waiting", [])[:3]
        ]
        if places and self._error is not None:
            self._error.add_note("\n".join(places))
        return stock

    def _take_stock(self, left: Any) -> dict[str, Any]:
        """What this side has seen, and, where it is none of its business, what the answer's says."""
        world, service = self.world, self._service
        seen = {
            "seconds": world.now,
            "requests": tuple(service.requests),
            "most_in_flight": service.most_in_flight,
            "connections": service.connections,
        }
        alive = dict(world.tasks) if world.alive is None or self._error is not None else world.alive
        try:
            said = self._said = world.take_stock() if world.loop is not None else {}
        except (Ended, AnswerEnded):
            said = {}
        over = set(said.get("over", ()))
        leaked = tuple(sorted(name for number, name in alive.items() if number not in over))
        if not leaked and said and world.until is not None and self._error is None:
            leaked = ("something that still waits",)
        self._written.write(checked_text(said.get("printed", ""), 200_000))
        blocking = [
            Blocking(checked_text(call, 100), float(took), _words.place_in_answer(checked_int(line)) if line else "")
            for call, took, line in said.get("blocking", ())
        ]
        return (
            seen
            | {
                "requests": tuple(service.requests),  # with those that were given up when it had returned
                "sessions": checked_int(said.get("sessions", 0)),
                "unclosed": checked_int(said.get("unclosed", 0)),
                "leaked": leaked,
                "blocking": tuple(blocking),
                "never_awaited": tuple(checked_text(name, 100) for name in list(said.get("never_awaited", ()))[:100]),
            }
        )


AWAITABLE = ("coroutine", "task", "awaitable")


def unfinished(result: Any) -> str | None:
    """Say which unfinished business a result holds, if any: as `_run.unfinished` does, for stand-ins."""
    values = list(result.values()) if isinstance(result, dict) else [result]
    if isinstance(result, (list, tuple, set, frozenset)):
        values = list(result)
    kinds = [value._what for value in values if isinstance(value, Remote) and value._what in ("coroutine", "task")]
    if not kinds:
        return None
    kind = "coroutine object" if "coroutine" in kinds else "task"
    if values[0] is result:
        return f"What you return is a {kind}, not its result: nobody has awaited it."
    return f"What you return are {kind}s, not their results: nobody has awaited them."
