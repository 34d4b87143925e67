"""An event loop in the answer's process whose clock the other side moves."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any

import aiohttp

from scalelab.answers.future import FarFuture, outcome
from scalelab.checks import _inside, _run, _words
from scalelab.checks._network import Connection
from scalelab.checks._world import Ended, Loop, World

if TYPE_CHECKING:
    from scalelab.answers.process import AnswerProcess

TURNS_IN_A_ROW = 100  # after which the other side gets a turn at the same instant
MAX_REPORTED = 1_000  # blocking calls and forgotten coroutines


class ProcessWorld(World):
    """The clock as the answer's process sees it: the other side moves it.

    What the loop does is told at once, in an order that cannot be changed afterwards; it travels with the next message
    that waits for a reply.
    """

    loop: ProcessLoop

    def __init__(self, process: AnswerProcess) -> None:
        where = functools.partial(_words.caller, process.namespace)
        super().__init__(limit=float("inf"), turns=10 * _run.TURNS, where=where)
        self.process = process
        self.tell = process.channel.tell
        self.wires = Wires(self)
        self.sessions: list[aiohttp.ClientSession] = []
        self.never_awaited: list[str] = []
        self.alone = True  # whether nobody moves the clock but this process: before and after the run
        self._over: asyncio.Future[None] | None = None
        self._blocked = False  # whether the loop's thread stands in a call
        self._others_wait = False  # whether the other side's loop has something to do at this instant
        self._awaited: list[asyncio.Task[Any]] = []
        self._tasks: dict[asyncio.Task[Any], int] = {}

    def born(self, task: asyncio.Task[Any]) -> None:
        """Tell that a task of the answer's has begun, and when it is over."""
        if not self.alone:
            number = self._tasks[task] = len(self._tasks)
            self.tell(["born", number, *_run.names([task])])
            task.add_done_callback(functools.partial(self._died, number))

    def _died(self, number: int, task: asyncio.Task[Any]) -> None:
        if not self.alone:
            self.tell(["died", number, not _run.is_left(task, False)])

    def pass_by(self) -> None:
        super().pass_by()
        if not self.busy and (self._others_wait or self._in_a_row % TURNS_IN_A_ROW == 0):
            self.reach(self.now)

    def reach(self, moment: float | None, call: str = "") -> bool:
        """Say until when there is nothing to do; return whether that moment has come, or something came before."""
        if self.alone:
            return super().reach(moment, call)
        self._blocked = bool(call)
        self.process.channel.send(["idle", moment, call])
        while True:
            message = self.process.channel.receive()
            if message[0] == "go":
                _, self.now, messages, self._others_wait = message
                for inner in messages:
                    self.process.handle(inner)
                return moment is not None and self.now >= moment
            self.process.handle(message)

    # What the other side asks of the loop.

    def start(self, number: int, awaitable: Any) -> None:
        """Await an object of the answer's, and tell what came of it."""

        async def tell_outcome() -> None:
            result = await outcome(awaitable, self.process.codec)
            self.process.tasks.pop(number, None)
            self.tell(["done", number, *result])

        task = self.process.tasks[number] = Loop.create_task(self.loop, tell_outcome())
        self._awaited.append(task)

    def ask(self, number: int, method: str, args: Any, kwargs: Any) -> asyncio.Future[Any]:
        """Call an async function of the other side's."""
        call = next(self.process.count)

        def ask_to_cancel() -> bool:
            self.tell(["acancel", call])
            return not self.alone

        future = self.process.far[call] = FarFuture(ask_to_cancel)
        self.tell(["acall", call, number, method, args, kwargs])
        return future

    def take_stock(self) -> None:
        """Tell what the loop has left behind, once it has come to rest."""
        left = [task for task in self._tasks if not task.done()]
        given_up = [task for task in left if task.cancelling()]
        waiting = left + [task for task in self._awaited if not task.done()]
        places = _words.waiting(waiting, self.process.namespace)

        async def tell_stock() -> None:
            await _run.settle(self.loop)
            self._tell_stock(places, given_up)

        if self._blocked:  # no task would run
            self._tell_stock(places, given_up)
        else:
            Loop.create_task(self.loop, tell_stock())

    def _tell_stock(self, places: str, given_up: list[asyncio.Task[Any]]) -> None:
        left = [task for task in self._tasks if not task.done()]
        stock = {
            "names": [[self._tasks[task], *_run.names([task])] for task in left],  # which may have changed
            "sessions": len(self.sessions),
            "unclosed": _run.unclosed(self.sessions),
            "over": [number for task, number in self._tasks.items() if not _run.is_left(task, task in given_up)],
            "blocking": [[call.call, call.seconds, call.where] for call in self.blocking[:MAX_REPORTED]],
            "never_awaited": self.never_awaited[:MAX_REPORTED],
            "places": places,
            "printed": self.process.printed.take(),
        }
        self.tell(["stock", stock])

    def finish(self) -> None:
        """End the loop."""
        assert self._over is not None
        self.alone = True
        if not self._over.done():
            self._over.set_result(None)

    async def until_over(self) -> None:
        """Run until `finish` is called."""
        self._over = asyncio.get_running_loop().create_future()
        self.alone = False
        await self._over
        await _run.close(self.sessions)

    def end(self, error: BaseException) -> None:
        """Tell that the loop has ended by itself."""
        kind, text = "Stuck", f"the event loop was ended by {type(error).__name__}"
        if isinstance(error, Ended):
            kind, text = type(error.reason).__name__, str(error.reason)
        self._tell_stock("", [])
        self.process.channel.send(["over", kind, text])


class ProcessLoop(Loop):
    """The answer's event loop."""

    _world: ProcessWorld

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        self._world.born(task)
        return task


class Wires:
    """Connections to a server that is on the other side: a client's bytes are sent there as they are."""

    def __init__(self, world: ProcessWorld) -> None:
        self.world = world
        self.open: dict[int, Wire] = {}
        self.count = 0

    def connect(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> asyncio.Transport:
        self.count += 1
        wire = self.open[self.count] = Wire(self, loop, protocol, self.count)
        self.world.tell(["open", self.count])
        protocol.connection_made(wire)
        return wire

    def data(self, number: int, data: str) -> None:
        if number in self.open:
            self.open[number].receive(data.encode("latin-1"))

    def lost(self, number: int, why: str) -> None:
        if number in self.open:
            self.open[number].end(ConnectionResetError(why))


class Wire(Connection):
    """One of these connections."""

    def __init__(self, wires: Wires, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, number: int) -> None:
        super().__init__(loop, protocol)
        self._wires, self._number = wires, number

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if not self._closing:
            self._wires.world.tell(["write", self._number, bytes(data).decode("latin-1")])

    def receive(self, data: bytes) -> None:
        self._protocol.data_received(data)

    def _release(self, error: Exception | None) -> None:
        del self._wires.open[self._number]
        if error is None and not self._wires.world.alone:
            self._wires.world.tell(["close", self._number])


def run_loop(process: AnswerProcess, server: bool) -> None:
    """Run an event loop until the other side ends it."""
    world = process.world = ProcessWorld(process)
    network = world.wires if server else None
    printed_before = process.printed.take()
    with (
        _run.one_at_a_time,
        _inside.warned(world.never_awaited),
        _inside.patched(world, world.sessions, process.namespace),
    ):
        runner = asyncio.Runner(loop_factory=lambda: ProcessLoop(world, network))
        loop = runner.get_loop()
        assert isinstance(loop, ProcessLoop)
        world.begin(loop)
        try:
            runner.run(world.until_over())
        except BaseException as error:
            if not world.alone:
                world.end(error)
            world.alone = True
        world.grant(seconds=_run.GRACE_SECONDS, turns=_run.GRACE_TURNS)
        with contextlib.suppress(BaseException):
            runner.close()
        world.close(0.1)
    process.printed.write(printed_before)
    process.tasks.clear()
    process.far.clear()
    process.world = None
    process.channel.send(["ended"])
