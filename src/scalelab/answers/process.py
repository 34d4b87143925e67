"""The answer's process: it runs the student's cell and does what the trusted side asks, one message at a time.

Nothing in here is trusted. It is written so that an honest answer notices nothing, and so that all that a hostile one
can do by taking it over is to send other data: what counts is kept on the other side.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
import io
import itertools
import linecache
import random
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, NoReturn

from scalelab.answers.channel import Channel, Disconnected, ProtocolError
from scalelab.answers.codec import Codec
from scalelab.answers.process_threads import ANSWER_FILE, GivenLock, fewest_steps, install, of_an_ended_run
from scalelab.checks._world import Ended

PRINTED = 100_000  # letters that are kept of what an answer prints
MOST_OBJECTS = 100_000


class Printed(io.TextIOBase):
    """Keeps the first letters of what an answer prints; prints cost nothing."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.room = PRINTED

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.room > 0:
            self.parts.append(text[: self.room])
            self.room -= len(text)
        return len(text)

    def take(self) -> str:
        text, self.parts, self.room = "".join(self.parts), [], PRINTED
        return text


class AnswerProcess:
    """One answer, its objects, and its conversation."""

    def __init__(self, channel: Channel, namespace: dict[str, Any]) -> None:
        self.channel = channel
        self.namespace = namespace
        self.codec = Codec(namespace, self.refer, self.resolve, intern=True)
        self.codec.line = line_of
        self.codec.record = self.record
        self.codec.by_reference = (SharedList, Clock, Given)
        self.printed = Printed()
        self.objects: dict[int, Any] = {}  # what the other side may ask for, by number
        self.numbers: dict[int, int] = {}  # and its number, by id
        self.kinds: dict[type, int] = {}  # classes that have been described
        self.given: dict[int, Any] = {}  # stand-ins for the other side's objects, by its numbers
        self.lent: list[SharedList] = []
        self.count = itertools.count(1)
        self.far: dict[int, Any] = {}  # futures of async calls to the other side
        self.tasks: dict[int, asyncio.Task[Any]] = {}  # what the other side awaits
        self.world: Any = None  # of the run under way
        self.turns = install(self)

    # The conversation.

    def serve(self) -> NoReturn:
        while True:
            self.handle(self.channel.receive())

    def handle(self, message: list[Any]) -> None:
        getattr(self, f"on_{message[0]}")(*message[1:])

    def answer(self, number: int, make: Callable[[], Any], *, keep: bool = False) -> None:
        """Say what `make` returns or raises; with `keep`, name the object and leave it here."""
        try:
            try:
                value = make()
            except (Ended, Disconnected):
                raise
            except BaseException as error:
                told = ["raise", number, self.codec.error(error)]
            else:
                told = ["return", number, self.told(value, keep)]
            self.tell_changes()
            self.channel.send(told)
        except ProtocolError as error:
            reason = ValueError(f"The value cannot be sent to the check: {error}")
            self.channel.send(["raise", number, self.codec.error(reason)])

    def tell_changes(self) -> None:
        """Say what became of the lists that were lent."""
        for held in self.lent:
            now = [self.codec.encode(one) for one in held]
            if now != held.told:
                held.told = now
                self.channel.tell(["changed", held.number, now])

    def ask(self, word: str, *rest: Any) -> Any:
        """Ask the other side, and return or raise what comes; meanwhile it may ask something itself."""
        if self.turns.member() is not None:
            return self.turns.ask(word, *rest)
        if of_an_ended_run():  # of a run that is over
            raise Ended
        number = next(self.count)
        self.channel.send([word, number, *rest])
        while True:
            message = self.channel.receive()
            if message[0] in ("result", "error") and message[1] == number:
                value = self.codec.decode(message[2])
                if message[0] == "error":
                    raise value
                return value
            self.handle(message)

    # Objects that are no data.

    def refer(self, value: Any) -> list[Any]:
        """Name an object of ours, and say what it is and which methods it has."""
        if (stands_for := stand_in_number(value)) is not None:
            return ["$", stands_for]
        if isinstance(value, ModuleType):
            return ["m", value.__name__]
        number = self.numbers.get(id(value))
        if number is None:
            if len(self.objects) > MOST_OBJECTS:
                raise ProtocolError("too many objects")
            number = self.numbers[id(value)] = next(self.count)
            self.objects[number] = value
        kind = type(value)
        if kind in self.kinds:
            return ["@", number, self.kinds[kind], what_it_is(value)]
        self.kinds[kind] = len(self.kinds)
        methods = [name for name in dir(kind) if name[:1] != "_" and callable(getattr(kind, name, None))]
        special = [
            name for name in ("call", "len", "iter", "next", "getitem", "contains") if hasattr(kind, f"__{name}__")
        ]
        return ["@", number, [self.kinds[kind], kind.__name__, methods[:500], special], what_it_is(value)]

    def told(self, value: Any, keep: bool) -> Any:
        """Return a value as data; with `keep`, only its name, unless it is a NamedTuple, which is both."""
        return self.refer(value) if keep and not self.is_record(value) else self.codec.encode(value)

    def is_record(self, value: Any) -> bool:
        kind = type(value)
        return kind.__module__ == "__main__" and hasattr(kind, "_fields") and kind.__name__ not in self.codec.known

    def record(self, value: Any) -> list[Any] | None:
        """Name a NamedTuple whose class the answer has made."""
        if not self.is_record(value):
            return None
        _, number, what, _ = self.refer(value)
        return ["N", number, what, list(type(value)._fields)]

    def resolve(self, data: list[Any]) -> Any:
        """Return an object of the answer's, or a stand-in for one of the check's, brought up to date."""
        match data[0]:
            case "@":
                return self.objects[data[1]]
            case "M":
                return getattr(self.objects[data[1]], data[2])
            case "m":
                return sys.modules[data[1]]
            case "R":
                draw = self.given[data[1]] = random.Random()
                draw.setstate((data[2][0], tuple(data[2][1]), data[2][2]))
            case "C":
                self.given.setdefault(data[1], Clock(data[1])).now = data[2]
            case "L":
                held = self.given.setdefault(data[1], SharedList())
                held.number, held.told, held[:] = data[1], data[2], [self.codec.decode(one) for one in data[2]]
                if not any(held is one for one in self.lent):
                    self.lent.append(held)
            case "$" if data[1] not in self.given:
                self.given[data[1]] = stand_in(self, *data[1:])
        return self.given[data[1]]

    def target(self, target: Any) -> Any:
        return self.namespace[target] if isinstance(target, str) else self.objects[target]

    # What the other side asks.

    def on_begin(self, number: int, source: str, wanted: list[str], takes_turns: bool) -> None:
        """Run the answer's cell, and say what became of the names that the checks use."""
        linecache.cache[ANSWER_FILE] = (len(source), None, source.splitlines(keepends=True), ANSWER_FILE)

        def make() -> dict[str, Any]:
            run_cell(source, self.namespace)
            return {name: self.namespace[name] for name in wanted if name in self.namespace}

        self.channel.send(["steps", fewest_steps(source) if takes_turns else {}])  # before the answer has run
        self.answer(number, make)

    def on_call(self, number: int, target: Any, args: Any, kwargs: Any, keep: bool) -> None:
        self.answer(
            number, lambda: self.target(target)(*self.codec.decode(args), **self.codec.decode(kwargs)), keep=keep
        )

    def on_method(self, number: int, target: Any, name: str, *rest: Any) -> None:
        args, kwargs, keep = rest

        def make() -> Any:
            return getattr(self.target(target), name)(*self.codec.decode(args), **self.codec.decode(kwargs))

        self.answer(number, make, keep=keep)

    def on_attr(self, number: int, target: Any, name: str) -> None:
        self.answer(number, lambda: getattr(self.target(target), name))

    def on_value(self, number: int, target: Any) -> None:
        self.answer(number, lambda: list(self.target(target)))

    def on_next(self, number: int, target: Any) -> None:
        self.answer(number, lambda: list(itertools.islice(self.target(target), 1)))

    def on_beside(self, number: int, module: str, name: str) -> None:
        """Return a function or class of the set-up, or of the package of checks."""

        def find() -> Any:
            return self.namespace[name] if module == "__main__" else getattr(sys.modules[module], name)

        self.answer(number, find, keep=True)

    def on_assemble(self, number: int, program: str, file: str, names: list[str]) -> None:
        """Run the lines of a program; the names that it defines come back."""
        linecache.cache[file] = (len(program), None, program.splitlines(keepends=True), file)
        space = {name: self.namespace.get(name) or sys.modules[name] for name in names}

        def make() -> dict[str, Any]:
            given = set(space)
            exec(compile(program, file, "exec"), space)
            return {name: value for name, value in space.items() if name not in given and name != "__builtins__"}

        self.answer(number, make)

    def on_change(self, changes: list[Any]) -> None:
        """Bring what was given to us up to date: clocks, and lists that were lent."""
        for data in changes:
            self.resolve(data)

    def on_printed(self, number: int) -> None:
        self.answer(number, self.printed.take)

    # Runs in virtual time.

    def on_loop(self, server: bool) -> None:
        from scalelab.answers.process_loop import run_loop  # noqa: PLC0415 (most answers have no loop)

        run_loop(self, server)

    def on_await(self, number: int, target: int) -> None:
        self.world.start(number, self.objects[target])

    def on_cancel(self, number: int) -> None:
        if number in self.tasks:
            self.tasks[number].cancel()

    def on_adone(self, number: int, how: str, value: Any) -> None:
        future = self.far.pop(number, None)
        if future is not None and not future.done():
            future.finish(how, self.codec.decode(value))

    def on_data(self, number: int, data: str) -> None:
        self.world.wires.data(number, data)

    def on_lost(self, number: int, why: str) -> None:
        self.world.wires.lost(number, why)

    def on_stock(self) -> None:
        self.world.take_stock()

    def on_end(self) -> None:
        self.world.finish()

    # Threads that take turns.

    def on_go(self, *rest: Any) -> None:
        self.turns.begin(["go", *rest])

    def on_endturns(self, number: int) -> None:
        self.turns.close()
        self.answer(number, self.printed.take)


# Cells.


def run_cell(source: str, namespace: dict[str, Any]) -> None:
    """Run a cell as IPython would: with its magics, and with `await` at the top."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        tree = compile(source, ANSWER_FILE, "exec", flags | ast.PyCF_ONLY_AST)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # noqa: PLC0415 (few answers have magics)

        source = TransformerManager().transform_cell(source)  # type: ignore[no-untyped-call]
        tree = compile(source, ANSWER_FILE, "exec", flags | ast.PyCF_ONLY_AST)
    code = compile(tree, ANSWER_FILE, "exec", flags)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, namespace))
    else:
        exec(code, namespace)


class Magics:
    """Stands for IPython: a cell's magic runs the cell, a line's magic and the shell do nothing."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        run_cell("\n" + cell, self.namespace)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def line_of(error: BaseException) -> int | None:
    """Return the last line of the answer's cell that an error came through."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == ANSWER_FILE or frame.f_code.co_filename.startswith("<program"):
            found = line
    return found


def what_it_is(value: Any) -> str:
    if inspect.iscoroutine(value):
        return "coroutine"
    if asyncio.isfuture(value):
        return "task"
    if inspect.isawaitable(value):
        return "awaitable"
    if isinstance(value, Iterator):
        return "iterator"
    return "class" if isinstance(value, type) else "function" if callable(value) else "object"


# Stand-ins for what the check has given.


class Clock:
    """A clock of the check's: it stands still while the answer is at work, so a number is enough."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SharedList(list[Any]):
    """A list of the check's that both sides hold."""

    number = 0
    told: Any = None


class Given:
    """An object of the check's: what is read, set or called is read, set or called there."""

    def __init__(self, child: AnswerProcess, number: int, kind: str, methods: dict[str, bool]) -> None:
        self.__dict__.update(_child=child, _number=number, _kind=kind, _methods=methods)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self._child.namespace.get(self._kind, Given)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name[:1] == "_":
            raise AttributeError(name)
        if name in self._methods:
            made = given_function(self._child, self._number, name, self._methods[name])
            made.__name__ = made.__qualname__ = name
            self.__dict__[name] = made
            return made
        return self._child.ask("getattr", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._child.ask("setattr", self._number, name, self._child.codec.encode(value))

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        chunk = self.__dict__.setdefault("_chunk", [])
        if not chunk:
            chunk.extend(self._child.ask("next", self._number))
            if not chunk:
                raise StopIteration
        return chunk.pop(0)


def stand_in(child: AnswerProcess, number: int, kind: str, name: str = "", *rest: Any) -> Any:
    if kind in ("function", "async"):
        made = given_function(child, number, "", kind == "async")
        made.__name__ = made.__qualname__ = name
        made.given_number = number
        return made
    if kind == "lock":
        return GivenLock(child, number)
    return Given(child, number, name, dict(rest[0]) if rest else {})


def stand_in_number(value: Any) -> int | None:
    if type(value) is Given:
        return value.__dict__["_number"]  # type: ignore[no-any-return]
    if type(value) in (Clock, SharedList):
        return value.number  # type: ignore[no-any-return]
    is_wrapper = hasattr(value, "__wrapped__")  # of functools.wraps, which copies the number
    return getattr(value, "given_number", None) if inspect.isfunction(value) and not is_wrapper else None


def given_function(child: AnswerProcess, number: int, method: str, is_async: bool) -> Any:
    """Return a function that is called on the other side."""
    encode = child.codec.encode

    def call(*args: Any, **kwargs: Any) -> Any:
        in_loop = asyncio._get_running_loop() is not None
        return child.ask("callback", number, method, encode(args), encode(kwargs), in_loop)

    async def acall(*args: Any, **kwargs: Any) -> Any:
        return await child.world.ask(number, method, encode(args), encode(kwargs))

    return acall if is_async else call


def run_setup(cells: Iterable[str]) -> ModuleType:
    """Run the set's set-up; what it makes, every answer finds."""
    module = ModuleType("__main__")
    for number, cell in enumerate(cells):
        file = f"<setup {number}>"
        linecache.cache[file] = (len(cell), None, cell.splitlines(keepends=True), file)
        exec(compile(cell, file, "exec"), vars(module))
    return module


def main(channel: Channel, module: ModuleType) -> NoReturn:
    """Be the answer's process, in a fork of the server; `module` is what `run_setup` has returned."""
    namespace = vars(module)
    sys.modules["__main__"] = module  # where processes that the answer starts look for its functions
    child = AnswerProcess(channel, namespace)
    child.codec.add_records(namespace)
    magics = Magics(namespace)
    namespace["get_ipython"] = lambda: magics
    namespace["display"] = print
    sys.stdout = sys.stderr = child.printed
    sys.stdin = io.StringIO()
    gc.freeze()
    gc.enable()
    child.serve()
