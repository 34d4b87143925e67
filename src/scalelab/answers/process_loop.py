"""The event loop of the answer's process in a run; the trusted side moves its clock."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any

import aiohttp

from scalelab.answers.channel import ProtocolError
from scalelab.answers.codec import unsendable
from scalelab.answers.future import RemoteFuture, outcome
from scalelab.checks import _inside, _run, _words
from scalelab.checks._network import Connection
from scalelab.checks._world import Ended, Loop, World

if TYPE_CHECKING:
    from scalelab.answers.process import AnswerProcess

MAX_TURNS_IN_A_ROW = 100  # then the trusted side gets a turn at the same instant
MAX_REPORTED = 1_000  # blocking calls, and coroutines never awaited


class ProcessWorld(World):
    """The virtual clock in the answer's process, which the trusted side moves.

    The messages about the loop keep their order; they are sent together with the next message that waits for a reply.
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
        self.alone = True  # before and after the run: this process moves the clock
        self._over: asyncio.Future[None] | None = None
        self._blocked = False  # whether a call blocks the loop's thread
        self._others_wait = False  # whether the trusted side's loop has work at this instant
        self._awaited: list[asyncio.Task[Any]] = []
        self._tasks: dict[asyncio.Task[Any], int] = {}

    def born(self, task: asyncio.Task[Any]) -> None:
        """Report that a task of the answer has begun, and later that it is done."""
        if not self.alone:
            number = self._tasks[task] = len(self._tasks)
            self.tell(["born", number, *_run.names([task])])
            task.add_done_callback(functools.partial(self._died, number))

    def _died(self, number: int, task: asyncio.Task[Any]) -> None:
        if not self.alone:
            self.tell(["died", number, not _run.is_left(task, False)])

    def pass_by(self) -> None:
        super().pass_by()
        if not self.busy and (self._others_wait or self._in_a_row % MAX_TURNS_IN_A_ROW == 0):
            self.reach(self.now)

    def reach(self, moment: float | None, call: str = "") -> bool:
        """Report that the loop is idle until `moment`; return False if the trusted side wakes it earlier."""
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

    def start(self, number: int, awaitable: Any) -> None:
        """Await an object of the answer in a task, and report its result."""

        async def report_outcome() -> None:
            result = await outcome(awaitable, self.process.codec)
            self.process.tasks.pop(number, None)
            try:
                self.tell(["done", number, *result])
            except ProtocolError as error:
                self.tell(["done", number, "raise", self.process.codec.error(unsendable(None, error))])

        task = self.process.tasks[number] = Loop.create_task(self.loop, report_outcome())
        self._awaited.append(task)

    def ask(self, number: int, method: str, args: Any, kwargs: Any) -> asyncio.Future[Any]:
        """Call an async function of the check, given by its number."""
        call = next(self.process.counter)

        def request_cancel() -> bool:
            self.tell(["acancel", call])
            return not self.alone

        future = self.process.async_calls[call] = RemoteFuture(request_cancel)
        self.tell(["acall", call, number, method, args, kwargs])
        return future

    def report(self) -> None:
        """Report the tasks, sessions and calls of the loop, after the tasks that are about to end have ended."""
        left = [task for task in self._tasks if not task.done()]
        given_up = [task for task in left if task.cancelling()]
        waiting = left + [task for task in self._awaited if not task.done()]
        places = _words.waiting(waiting, self.process.namespace)

        async def settle_and_report() -> None:
            await _run.settle(self.loop)
            self._send_report(places, given_up)

        if self._blocked:  # no task would run
            self._send_report(places, given_up)
        else:
            Loop.create_task(self.loop, settle_and_report())

    def _send_report(self, places: str, given_up: list[asyncio.Task[Any]]) -> None:
        left = [task for task in self._tasks if not task.done()]
        report = {
            "names": [[self._tasks[task], *_run.names([task])] for task in left],  # a task's name may have changed
            "sessions": len(self.sessions),
            "unclosed": _run.unclosed(self.sessions),
            "over": [number for task, number in self._tasks.items() if not _run.is_left(task, task in given_up)],
            "blocking": [[call.call, call.seconds, call.where] for call in self.blocking[:MAX_REPORTED]],
            "never_awaited": self.never_awaited[:MAX_REPORTED],
            "places": places,
            "printed": self.process.printed.take(),
        }
        self.tell(["stock", report])

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
        """Report the error that ended the loop."""
        kind, text = "Stuck", f"the event loop was ended by {type(error).__name__}"
        if isinstance(error, Ended):
            kind, text = type(error.reason).__name__, str(error.reason)
        self._send_report("", [])
        self.process.channel.send(["over", kind, text])


class ProcessLoop(Loop):
    """The answer's event loop."""

    _world: ProcessWorld

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        self._world.born(task)
        return task


class Wires:
    """The answer's connections to the web service: the bytes of both ends travel as messages."""

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


class Wire(Connection):
    """The client's end of one connection."""

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
    """Run an event loop until the trusted side ends it."""
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
    process.async_calls.clear()
    process.world = None
    process.channel.send(["ended"])
