"""An event loop in the answer's process whose clock the other side moves."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
from typing import TYPE_CHECKING, Any

import aiohttp

from scalelab.checks import _inside
from scalelab.checks._run import SETTLE, TURNS, _left, _names
from scalelab.checks._world import POLL, SPIN, SPIN_SECONDS, Blocking, Ended, Loop, World, instant

if TYPE_CHECKING:
    from scalelab.answers.process import AnswerProcess

TURNS_IN_A_ROW = 100  # after which the other side gets a turn at the same instant


class ChildWorld(World):
    """The clock as the answer's process sees it: it moves when the other side says so."""

    def __init__(self, child: AnswerProcess) -> None:
        from scalelab.answers.process_threads import here

        super().__init__(limit=float("inf"), turns=10 * TURNS, where=lambda: str(here()))
        self.child = child
        self.wires = Wires(self)
        self.loop: Loop | None = None
        self.sessions: list[aiohttp.ClientSession] = []
        self.never_awaited: list[str] = []
        self.over: asyncio.Future[None] | None = None
        self.alone = False
        self.others_wait = False  # whether the other side's loop has something to do at this instant
        self.main: asyncio.Task[Any] | None = None
        self.awaited: list[asyncio.Task[Any]] = []
        self.tasks: dict[asyncio.Task[Any], int] = {}

    def born(self, task: asyncio.Task[Any]) -> None:
        """Say at once that there is a task, and when it is over: what has been said cannot be taken back."""
        if not self.alone:
            number = self.tasks[task] = len(self.tasks)
            self.child.channel.tell(["born", number, _names([task])[0]])
            task.add_done_callback(functools.partial(self.died, number))

    def died(self, number: int, task: asyncio.Task[Any]) -> None:
        if not self.alone:
            self.child.channel.tell(["died", number, not getattr(task, "_log_traceback", False)])

    def rest(self, timer: float | None, events: Any) -> list[Any]:
        self._in_a_row, self.idle = 0, True
        try:
            while not (found := events(0)):
                if self.busy:
                    self._yielded.wait(POLL)
                elif self._due and (timer is None or self._due[0][0] <= timer):
                    if self.reach(self._due[0][0]):
                        self.step()
                    else:
                        return []
                elif timer is None and self._strangers():
                    found = events(POLL)
                    if found:
                        break
                else:
                    self.reach(timer)
                    return []
            return found
        finally:
            self.idle = False

    def pass_by(self) -> None:
        self._in_a_row += 1
        if self.busy:
            self._yielded.wait(0.001)
        elif self._in_a_row > SPIN:
            self.reach(instant(self.now + SPIN_SECONDS))
            if self._due and self._due[0][0] <= self.now:
                self.step()
        elif self.others_wait or self._in_a_row % TURNS_IN_A_ROW == 0:
            self.reach(self.now)

    def reach(self, moment: float | None, *, blocked: bool = False) -> bool:
        """Say until when there is nothing to do; return whether that moment has come, or something came before."""
        if self.alone:
            self.now = max(self.now, moment or self.now)
            return moment is not None
        self.progress += 1
        channel = self.child.channel
        channel.send(["idle", moment, blocked])
        while True:
            message = channel.receive()
            if message[0] == "go":
                self.now, self.others_wait = message[1], message[3]
                for one in message[2]:
                    self.child.handle(one)
                return moment is not None and self.now >= moment
            self.child.handle(message)

    def _block(self, call: str, end: float | None, done: Any) -> None:
        """Stand still until a moment: what comes meanwhile is kept by the loop until it runs again."""
        began, where = self.now, self._where()
        while not done():
            if self.busy:
                self._yielded.wait(POLL)
            elif self._due and (end is None or self._due[0][0] <= end):
                if self.reach(self._due[0][0], blocked=True):
                    self.step()
            elif self.reach(end, blocked=True):
                break
        self._note(Blocking(call, instant(self.now - began), where))

    # What the other side asks of the loop.

    def start(self, number: int, coroutine: Any) -> None:
        assert self.loop is not None
        task = Loop.create_task(self.loop, self._awaited(number, coroutine))
        self.child.tasks[number] = task
        self.awaited.append(task)

    async def _awaited(self, number: int, coroutine: Any) -> None:
        codec, told = self.child.codec, ["done", number, "return", None]
        try:
            told[3] = codec.encode(await coroutine)
        except asyncio.CancelledError:
            told[2] = "cancelled"
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            told[2:] = ["raise", codec.error(error)]
        self.child.tasks.pop(number, None)
        self.child.channel.tell(told)

    def ask(self, number: int, method: str, args: Any, kwargs: Any) -> asyncio.Future[Any]:
        """Call an async function of the other side's."""
        future = Far(self.child, next(self.child.count))
        self.child.far[future.number] = future
        self.child.channel.tell(["acall", future.number, number, method, args, kwargs])
        return future

    def take_stock(self) -> None:
        assert self.loop is not None
        Loop.create_task(self.loop, self._take_stock())

    async def _take_stock(self) -> None:
        loop = self.loop
        assert loop is not None
        left = [task for task in self.tasks if not task.done()]
        given_up = [task for task in left if task.cancelling()]
        waits = waiting(left + [task for task in self.awaited if not task.done()])
        seconds = self.now
        for _ in range(SETTLE):
            if loop.has_come_to_rest():
                break
            await asyncio.sleep(0)
        ends = [number for task, number in self.tasks.items() if not _left(task, task in given_up)]
        self.child.channel.tell(
            [
                "stock",
                {
                    "seconds": seconds,
                    "sessions": len(self.sessions),
                    "unclosed": sum(not session.closed for session in self.sessions),
                    "over": ends,
                    "blocking": [[one.call, one.seconds, int(one.where or 0)] for one in self.blocking[:1000]],
                    "never_awaited": self.never_awaited[:100],
                    "waiting": waits,
                    "printed": self.child.printed.take(),
                },
            ]
        )

    def finish(self) -> None:
        assert self.over is not None
        self.alone = True
        if not self.over.done():
            self.over.set_result(None)

    async def until_over(self) -> None:
        self.main = asyncio.current_task()
        self.over = asyncio.get_running_loop().create_future()
        await self.over
        for session in self.sessions:
            if not session.closed:
                with contextlib.suppress(Exception):
                    await session.close()


def waiting(tasks: list[asyncio.Task[Any]]) -> list[list[Any]]:
    """Return where in the answer's cell tasks wait: the coroutine's name, and its line."""
    from scalelab.answers.process_threads import ANSWER_FILE

    places = set()
    for task in tasks:
        coroutine: Any = task.get_coro()
        found = None
        while coroutine is not None:
            frame = getattr(coroutine, "cr_frame", None)
            if frame is not None and frame.f_code.co_filename == ANSWER_FILE:
                found = frame
            coroutine = getattr(coroutine, "cr_await", None)
        if found is not None:
            places.add((found.f_lineno, found.f_code.co_name))
    return [[name, line] for line, name in sorted(places)[:10]]


class ChildLoop(Loop):
    """The answer's event loop."""

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        if getattr(coro, "__qualname__", "") != "ChildWorld.until_over":
            self._world.born(task)  # type: ignore[attr-defined]
        return task


class Far(asyncio.Future[Any]):
    """The result of an async call to the other side; to cancel it is to ask for that there."""

    def __init__(self, child: AnswerProcess, number: int) -> None:
        super().__init__()
        self.child, self.number = child, number

    def cancel(self, msg: Any = None) -> bool:
        if self.done():
            return False
        self.child.channel.tell(["acancel", self.number])
        return True

    def finish(self, how: str, value: Any) -> None:
        if how == "cancelled":
            super().cancel()
        elif how == "raise":
            self.set_exception(value)
        else:
            self.set_result(value)


class Wires:
    """Connections to a server that is on the other side: what a client writes is sent there as it is."""

    def __init__(self, world: ChildWorld) -> None:
        self.world = world
        self.open: dict[int, Wire] = {}
        self.count = 0

    def connect(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> asyncio.Transport:
        self.count += 1
        wire = self.open[self.count] = Wire(self.world, loop, protocol, self.count)
        self.world.child.channel.tell(["open", self.count])
        protocol.connection_made(wire)
        return wire

    def data(self, number: int, data: str) -> None:
        if number in self.open:
            self.open[number].protocol.data_received(base64.b64decode(data))

    def lost(self, number: int, why: str) -> None:
        if number in self.open:
            self.open[number].lose(ConnectionResetError(why) if why else None)


class Wire(asyncio.Transport):
    """The client's end of a connection."""

    def __init__(self, world: ChildWorld, loop: Any, protocol: asyncio.Protocol, number: int) -> None:
        super().__init__()
        self.world, self.loop, self.protocol, self.number = world, loop, protocol, number
        self.closing = False

    def write(self, data: Any) -> None:
        if not self.closing:
            self.world.child.channel.tell(["write", self.number, base64.b64encode(bytes(data)).decode()])

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            if not self.world.alone:
                self.world.child.channel.tell(["close", self.number])
            self.lose(None)

    abort = close

    def lose(self, error: Exception | None) -> None:
        if not self.closing:
            self.closing = True
            self.world.wires.open.pop(self.number, None)
            self.loop.call_soon(self.protocol.connection_lost, error)

    def is_reading(self) -> bool:
        return not self.closing

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def can_write_eof(self) -> bool:
        return False


def run_loop(child: AnswerProcess, server: bool) -> None:
    """Run an event loop until the other side ends it."""
    world = ChildWorld(child)
    child.world = world
    world.begin()
    with _inside.warned(world.never_awaited), _inside.patched(world, world.sessions, child.namespace):
        runner = asyncio.Runner(loop_factory=lambda: ChildLoop(world, world.wires if server else None))
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        world.loop = loop
        try:
            runner.run(world.until_over())
        except Ended as ended:
            child.channel.send(["over", type(ended.reason).__name__, str(ended.reason)])
            world.alone = True
        except BaseException as error:
            if world.alone:
                raise
            child.channel.send(["over", "Stuck", f"the event loop was ended by {type(error).__name__}"])
            world.alone = True
        world.grant(seconds=3600.0, turns=20_000)
        with contextlib.suppress(BaseException):
            runner.close()
        world.close(0.1)
    child.tasks.clear()
    child.far.clear()
    child.world = None
    child.channel.send(["ended"])
