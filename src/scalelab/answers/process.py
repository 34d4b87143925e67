"""The answer's process: it runs the student's cell and serves the trusted side, one message at a time.

Nothing in here is trusted. An honest answer notices nothing of it. A hostile answer can take it over, but then it can
only send false data: the trusted side keeps everything that counts.
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

from scalelab.answers.channel import Channel, Disconnected, TooMuch
from scalelab.answers.codec import Codec, unsendable
from scalelab.answers.process_threads import GivenLock, fewest_steps, in_ended_run, install, note_libraries
from scalelab.checks._words import ANSWER_FILE
from scalelab.checks._world import Ended

MAX_PRINTED = 100_000  # characters
MAX_OBJECTS = 100_000


class Printed(io.TextIOBase):
    """Replaces stdout: keeps the first MAX_PRINTED characters that an answer prints."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.room = MAX_PRINTED

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.room > 0:
            self.parts.append(text[: self.room])
            self.room -= len(text)
        return len(text)

    def take(self) -> str:
        """Return the text printed since the last call."""
        text, self.parts, self.room = "".join(self.parts), [], MAX_PRINTED
        return text


class AnswerProcess:
    """One answer: its objects, and its conversation with the trusted side."""

    def __init__(self, channel: Channel, namespace: dict[str, Any]) -> None:
        self.channel = channel
        self.namespace = namespace
        self.codec = Codec(namespace, self.refer, self.resolve, intern=True)
        self.codec.line = line_in_answer
        self.codec.record = self.record
        self.codec.by_reference = (SharedList, Clock, Given)
        self.printed = Printed()
        self.objects: dict[int, Any] = {}  # the answer's objects that the trusted side knows, by number
        self.object_numbers: dict[int, int] = {}  # their numbers, by id
        self.class_numbers: dict[type, int] = {}  # of classes that have been described
        self.given: dict[int, Any] = {}  # stand-ins for the check's objects, by number
        self.shared_lists: list[SharedList] = []
        self.counter = itertools.count(1)
        self.async_calls: dict[int, Any] = {}  # futures of calls to the trusted side, by number
        self.tasks: dict[int, asyncio.Task[Any]] = {}  # awaited by the trusted side, by number
        self.world: Any = None  # ProcessWorld of the current run
        self.turns = install(self)

    # The conversation.

    def serve(self) -> NoReturn:
        while True:
            self.handle(self.channel.receive())

    def handle(self, message: list[Any]) -> None:
        getattr(self, f"on_{message[0]}")(*message[1:])

    def reply(self, number: int, compute: Callable[[], Any], *, keep: bool = False) -> None:
        """Send the result or error of `compute`; with `keep`, the result stays here, and its number is sent."""
        value: Any = None
        try:
            try:
                value = compute()
            except (Ended, Disconnected):
                raise
            except BaseException as error:
                message = ["raise", number, self.codec.error(error)]
            else:
                message = ["return", number, self.encode_result(value, keep)]
            self.send_changes()
            self.channel.send(message)
        except (Ended, Disconnected):
            raise
        except Exception as error:  # also one of the value's own methods
            self.channel.send(["raise", number, self.codec.error(unsendable(value, error))])

    def send_changes(self) -> None:
        """Send the items of shared lists that have changed."""
        for shared in self.shared_lists:
            items = [self.codec.encode(item) for item in shared]
            if items != shared.sent:
                shared.sent = items
                self.channel.tell(["changed", shared.number, items])

    def ask(self, word: str, *rest: Any) -> Any:
        """Send a request; return or raise its reply. Until then, serve the trusted side's questions."""
        if self.turns.member() is not None:
            return self.turns.ask(word, *rest)
        if in_ended_run():
            raise Ended
        number = next(self.counter)
        self.channel.send([word, number, *rest])
        while True:
            message = self.channel.receive()
            if message[0] in ("result", "error") and message[1] == number:
                value = self.codec.decode(message[2])
                if message[0] == "error":
                    raise value
                return value
            self.handle(message)

    # Objects that are not data.

    def refer(self, value: Any) -> list[Any]:
        """Return an object's number, its class with the class's methods, and its kind."""
        if (given_number := stand_in_number(value)) is not None:
            return ["$", given_number]
        if isinstance(value, ModuleType):
            return ["m", value.__name__]
        number = self.object_numbers.get(id(value))
        if number is None:
            if len(self.objects) > MAX_OBJECTS:
                raise TooMuch(f"more than {MAX_OBJECTS:,} objects")
            number = self.object_numbers[id(value)] = next(self.counter)
            self.objects[number] = value
        cls = type(value)
        if cls in self.class_numbers:
            return ["@", number, self.class_numbers[cls], kind_of(value)]
        self.class_numbers[cls] = len(self.class_numbers)
        methods = [name for name in dir(cls) if name[:1] != "_" and callable(getattr(cls, name, None))]
        special = [
            name for name in ("call", "len", "iter", "next", "getitem", "contains") if hasattr(cls, f"__{name}__")
        ]
        return ["@", number, [self.class_numbers[cls], cls.__name__, methods[:500], special], kind_of(value)]

    def encode_result(self, value: Any, keep: bool) -> Any:
        """Return a value as data; with `keep`, return its reference. A NamedTuple's data contains its reference."""
        return self.refer(value) if keep and not self.is_record(value) else self.codec.encode(value)

    def is_record(self, value: Any) -> bool:
        """Whether a value is an instance of a NamedTuple that the answer has defined."""
        cls = type(value)
        return cls.__module__ == "__main__" and hasattr(cls, "_fields") and cls.__name__ not in self.codec.known

    def record(self, value: Any) -> list[Any] | None:
        """Return the tag, number, class and fields of such an instance, without its values."""
        if not self.is_record(value):
            return None
        _, number, cls, _ = self.refer(value)
        return ["N", number, cls, list(type(value)._fields)]

    def resolve(self, data: list[Any]) -> Any:
        """Return the answer's object, or an up-to-date stand-in for the check's object."""
        match data[0]:
            case "@":
                return self.objects[data[1]]
            case "M":
                return getattr(self.objects[data[1]], data[2])
            case "m":
                return sys.modules[data[1]]
            case "R":
                generator = self.given[data[1]] = random.Random()
                generator.setstate((data[2][0], tuple(data[2][1]), data[2][2]))
            case "C":
                self.given.setdefault(data[1], Clock(data[1])).now = data[2]
            case "L":
                shared = self.given.setdefault(data[1], SharedList())
                shared.number, shared.sent, shared[:] = data[1], data[2], [self.codec.decode(item) for item in data[2]]
                if not any(shared is known for known in self.shared_lists):
                    self.shared_lists.append(shared)
            case "$" if data[1] not in self.given:
                self.given[data[1]] = stand_in(self, *data[1:])
        return self.given[data[1]]

    def target(self, target: Any) -> Any:
        return self.namespace[target] if isinstance(target, str) else self.objects[target]

    def call(self, target: Any, method: str, args: Any, kwargs: Any) -> Any:
        """Call an object of the answer, or one of its methods, with arguments as data."""
        function = getattr(self.target(target), method) if method else self.target(target)
        return function(*self.codec.decode(args), **self.codec.decode(kwargs))

    # Messages from the trusted side, by their first word.

    def on_begin(self, number: int, source: str, wanted: list[str], takes_turns: bool) -> None:
        """Run the answer's cell; reply with those of the wanted names that it defines."""
        linecache.cache[ANSWER_FILE] = (len(source), None, source.splitlines(keepends=True), ANSWER_FILE)

        def run() -> dict[str, Any]:
            run_cell(source, self.namespace)
            return {name: self.namespace[name] for name in wanted if name in self.namespace}

        self.channel.send(["steps", fewest_steps(source) if takes_turns else {}])  # before the answer has run
        self.reply(number, run)

    def on_call(self, number: int, target: Any, *rest: Any) -> None:
        self.on_method(number, target, "", *rest)

    def on_method(self, number: int, target: Any, name: str, *rest: Any) -> None:
        args, kwargs, keep = rest
        self.reply(number, lambda: self.call(target, name, args, kwargs), keep=keep)

    def on_attr(self, number: int, target: Any, name: str) -> None:
        self.reply(number, lambda: getattr(self.target(target), name))

    def on_value(self, number: int, target: Any) -> None:
        self.reply(number, lambda: list(self.target(target)))

    def on_next(self, number: int, target: Any) -> None:
        self.reply(number, lambda: list(itertools.islice(self.target(target), 1)))

    def on_beside(self, number: int, module: str, name: str) -> None:
        """Reply with the number of a function or class of the set-up or of `scalelab.checks`."""

        def find() -> Any:
            return self.namespace[name] if module == "__main__" else getattr(sys.modules[module], name)

        self.reply(number, find, keep=True)

    def on_assemble(self, number: int, program: str, file: str, names: list[str]) -> None:
        """Run a program that uses these names; reply with the names that it defines."""
        linecache.cache[file] = (len(program), None, program.splitlines(keepends=True), file)
        namespace = {name: self.namespace.get(name) or sys.modules[name] for name in names}

        def run() -> dict[str, Any]:
            given = {*namespace, "__builtins__"}
            exec(compile(program, file, "exec", dont_inherit=True), namespace)
            return {name: value for name, value in namespace.items() if name not in given}

        self.reply(number, run)

    def on_change(self, changes: list[Any]) -> None:
        for data in changes:
            self.resolve(data)

    def on_printed(self, number: int) -> None:
        self.reply(number, self.printed.take)

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
        future = self.async_calls.pop(number, None)
        if future is not None and not future.done():
            future.finish(how, self.codec.decode(value))

    def on_data(self, number: int, data: str) -> None:
        if connection := self.world.wires.open.get(number):
            connection.receive(data.encode("latin-1"))

    def on_lost(self, number: int, reason: str) -> None:
        if connection := self.world.wires.open.get(number):
            connection.end(ConnectionResetError(reason))

    def on_stock(self) -> None:
        self.world.report()

    def on_end(self) -> None:
        self.world.finish()

    # Threads that take turns.

    def on_go(self, *rest: Any) -> None:
        self.turns.begin(["go", *rest])

    def on_endturns(self, number: int) -> None:
        self.turns.close()
        self.on_printed(number)


def run_cell(source: str, namespace: dict[str, Any]) -> None:
    """Run a cell as IPython does: with magics, and with `await` at the top level."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        tree = compile(source, ANSWER_FILE, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # noqa: PLC0415 (few answers have magics)

        source = TransformerManager().transform_cell(source)  # type: ignore[no-untyped-call]
        tree = compile(source, ANSWER_FILE, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    code = compile(tree, ANSWER_FILE, "exec", flags, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, namespace))
    else:
        exec(code, namespace)


class Magics:
    """Replaces IPython: a cell magic runs its cell; line magics and shell commands do nothing."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        run_cell("\n" + cell, self.namespace)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def line_in_answer(error: BaseException) -> int | None:
    """Return the last line of the answer's cell in an error's traceback."""
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == ANSWER_FILE or frame.f_code.co_filename.startswith("<program")
    ]
    return lines[-1] if lines else None


def kind_of(value: Any) -> str:
    if inspect.iscoroutine(value):
        return "coroutine"
    if asyncio.isfuture(value):
        return "task"
    if inspect.isawaitable(value):
        return "awaitable"
    if isinstance(value, Iterator):
        return "iterator"
    return "class" if isinstance(value, type) else "function" if callable(value) else "object"


# Stand-ins for objects that the check has given.


class Clock:
    """A clock of the check; it stands still while the answer runs, so its time is sent with each message."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SharedList(list[Any]):
    """A list of the check that both processes hold."""

    number = 0
    sent: Any = None  # the items that the trusted side knows


class Given:
    """A stand-in for an object of the check: attributes are read, set and called in the check's process."""

    def __init__(self, process: AnswerProcess, number: int, kind: str, methods: dict[str, bool]) -> None:
        self.__dict__.update(_process=process, _number=number, _kind=kind, _methods=methods)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self._process.namespace.get(self._kind, Given)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name[:1] == "_":
            raise AttributeError(name)
        if name in self._methods:
            function = self.__dict__[name] = given_function(self._process, self._number, name, self._methods[name])
            function.__name__ = function.__qualname__ = name
            return function
        return self._process.ask("getattr", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._process.ask("setattr", self._number, name, self._process.codec.encode(value))

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        chunk = self.__dict__.setdefault("_chunk", [])
        if not chunk:
            chunk.extend(self._process.ask("next", self._number))
            if not chunk:
                raise StopIteration
        return chunk.pop(0)


def stand_in(process: AnswerProcess, number: int, kind: str, name: str = "", *rest: Any) -> Any:
    """Return a stand-in for an object of the check, as `Answer.refer` describes it."""
    if kind in ("function", "async"):
        function = given_function(process, number, "", kind == "async")
        function.__name__ = function.__qualname__ = name
        function.given_number = number
        return function
    if kind == "lock":
        return GivenLock(process, number)
    return Given(process, number, name, dict(rest[0]) if rest else {})


def stand_in_number(value: Any) -> int | None:
    """Return the number of the check's object that a value stands for; None for an object of the answer."""
    if type(value) is Given:
        return value.__dict__["_number"]  # type: ignore[no-any-return]
    if type(value) in (Clock, SharedList):
        return value.number  # type: ignore[no-any-return]
    is_wrapper = hasattr(value, "__wrapped__")  # of functools.wraps, which copies the number
    return getattr(value, "given_number", None) if inspect.isfunction(value) and not is_wrapper else None


def given_function(process: AnswerProcess, number: int, method: str, is_async: bool) -> Any:
    """Return a function that calls a function or method in the check's process."""
    encode = process.codec.encode

    def call(*args: Any, **kwargs: Any) -> Any:
        in_loop = asyncio._get_running_loop() is not None
        return process.ask("callback", number, method, encode(args), encode(kwargs), in_loop)

    async def acall(*args: Any, **kwargs: Any) -> Any:
        return await process.world.ask(number, method, encode(args), encode(kwargs))

    return acall if is_async else call


def run_setup(cells: Iterable[str]) -> ModuleType:
    """Run the set-up cells of a set; return the module in which every answer runs."""
    module = ModuleType("__main__")
    for number, cell in enumerate(cells):
        file = f"<setup {number}>"
        linecache.cache[file] = (len(cell), None, cell.splitlines(keepends=True), file)
        exec(compile(cell, file, "exec", dont_inherit=True), vars(module))
    note_libraries()
    return module


def main(channel: Channel, module: ModuleType) -> NoReturn:
    """Run the answer's process in this process; `module` comes from `run_setup`."""
    namespace = vars(module)
    sys.modules["__main__"] = module  # processes that the answer starts look for its functions here
    process = AnswerProcess(channel, namespace)
    process.codec.add_records(namespace)
    magics = Magics(namespace)
    namespace["get_ipython"] = lambda: magics
    namespace["display"] = print
    sys.stdout = sys.stderr = process.printed
    sys.stdin = io.StringIO()
    gc.freeze()
    gc.enable()
    process.serve()
