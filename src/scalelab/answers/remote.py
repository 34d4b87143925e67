"""An answer as checks see it: stand-ins for functions, classes and objects in the answer's process.

Everything that the answer's process sends is data, decoded by `codec`, and none of it is trusted.
"""

from __future__ import annotations

import inspect
import itertools
import linecache
import random
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, NoReturn

from scalelab.answers.channel import Channel, Disconnected, ProtocolError, TooMuch
from scalelab.answers.codec import Codec, checked_int, checked_text
from scalelab.answers.declared import check_types
from scalelab.answers.monitor import Monitor, OutOfTime
from scalelab.checks import AnswerEnded
from scalelab.checks._side import Clock
from scalelab.checks._words import ANSWER_FILE
from scalelab.checks._world import Ended

MAX_FRAMES = 150_000  # from one answer
MAX_BYTES = 32 * 2**20
MAX_OBJECTS = 100_000
MAX_PRINTED = 200_000  # characters
LOCK_METHODS = {"acquire", "release", "locked"}
AWAITABLES = {"coroutine", "task", "awaitable"}
KINDS = AWAITABLES | {"iterator", "class", "function", "object"}
TOO_MUCH = "Your answer gave its check too much, and was stopped"
DISTURBED = (
    "Your answer disturbed the conversation with its check, and was stopped. Return values, and call only the "
    "functions that you are given. Your instructor may want to know the detail:"
)
PROCESS_ENDED = "The process of your answer ended: it ran out of memory, crashed, or exited by itself."


class Answer:
    """One question's answer, in a process of its own, for one check.

    `connection` leads to the answer's process, `namespace` is that of the check, `setup_names` are the set-up's names
    in it, and `monitor` ends an answer that takes too long.
    """

    def __init__(
        self,
        connection: socket.socket,
        namespace: dict[str, Any],
        setup_names: Iterable[str] = (),
        monitor: Monitor | None = None,
    ) -> None:
        self._monitor = monitor
        self.channel = Channel(connection, idle=monitor)
        if monitor is not None:
            monitor.has_spoken = self.channel.is_readable
        self.namespace = namespace
        self.codec = Codec(namespace, self.refer, self.resolve)
        self.codec.by_reference = (SharedList, Clock)
        self.codec.record = lambda value: ["@", value.remote._number] if isinstance(value, Record) else None
        self.codec.add_records({name: namespace[name] for name in setup_names if name in namespace})
        self.given: list[Any] = []  # objects that the answer may call or read, by number
        self.given_numbers: dict[int, int] = {}  # their numbers, by id
        self.synchronised: dict[int, list[Any]] = {}  # states of shared lists and clocks that were sent last, by number
        self._in_state: set[int] = set()  # numbers of the lists that `_state` is encoding
        self.remotes: dict[int, Remote] = {}  # stand-ins for the answer's objects, by number
        self.classes: dict[int, RemoteClass] = {}
        self.world: Any = None  # SharedWorld of the current run in virtual time
        self.turns: Any = None  # RemoteTurns of the current run
        self.called_in_loop = False  # whether the answer's last call of a check's function came from its loop's thread
        self.fewest_steps: dict[str, int] = {}  # of a call that returns, by the function's name
        self.ended = ""  # why the conversation is over
        self.state = "ended"  # or "timed out"
        self.counter = itertools.count()

    # The conversation.

    def begin(self, source: str, wanted: Sequence[str], *, takes_turns: bool = True) -> dict[str, Any]:
        """Run the answer's cell; return those of the wanted names that it defines. Errors of the cell are raised.

        `takes_turns`: whether the check deals turns to threads.
        """
        linecache.cache[ANSWER_FILE] = (len(source), None, source.splitlines(keepends=True), ANSWER_FILE)
        names = self.ask("begin", source, list(wanted), takes_turns)
        if not isinstance(names, dict) or not set(names) <= set(wanted):
            self.fail("it sent other names than were asked for")
        return names

    def ask(self, word: str, *rest: Any) -> Any:
        """Send a question; return or raise its reply. Until then, serve the answer's requests."""
        number = secrets.randbits(53)  # so that the answer cannot reply before it is asked
        self.send_changes()
        self.send([word, number, *rest])
        while True:
            message = self.receive()
            if message[0] in ("return", "raise") and len(message) == 3:
                if message[1] != number:
                    self.fail("it answered a question that was not asked")
                value = self.decoded(message[2])
                if message[0] == "return":
                    return value
                if not isinstance(value, BaseException):
                    self.fail("it raised something that is not an exception")
                raise value
            self.handle(message)

    def send(self, message: list[Any], *, now: bool = True) -> None:
        """Send a message, now or together with the next one."""
        self.raise_if_ended()
        try:
            (self.channel.send if now else self.channel.tell)(message)
        except Disconnected:
            self._end(PROCESS_ENDED)
        except OutOfTime as error:
            self._end(str(error), error.state)

    def receive(self) -> list[Any]:
        """Return the next message. Raises AnswerEnded."""
        self.raise_if_ended()
        try:
            message = self.channel.receive()
        except Disconnected:
            self._end(PROCESS_ENDED)
        except OutOfTime as error:
            self._end(str(error), error.state)
        except ProtocolError as error:
            self.fail(error)
        if self.channel.frames_received > MAX_FRAMES or self.channel.bytes_received > MAX_BYTES:
            self.fail(TooMuch("too many calls and values in all"))
        if self._monitor is not None:
            try:
                self._monitor.heard()
            except OutOfTime as error:
                self._end(str(error), error.state)
        return message

    def raise_if_ended(self) -> None:
        """Raise AnswerEnded if the conversation is over."""
        if self.ended:
            raise AnswerEnded(self.ended, self.state)

    def fail(self, reason: str | Exception) -> NoReturn:
        """End the conversation, because the answer has broken the protocol."""
        self._end(f"{TOO_MUCH}: {reason}." if isinstance(reason, TooMuch) else f"{DISTURBED} ({reason}).")

    def fail_of_resources(self, resource: str) -> NoReturn:
        """End the conversation, because the answer made its check use too much of a resource of this process."""
        self._end(f"Your answer made its check use too much {resource}, and was stopped.", "timed out")

    def _end(self, reason: str, state: str = "ended") -> NoReturn:
        self.close()
        self.ended, self.state = reason, state
        raise AnswerEnded(reason, state)

    def close(self) -> None:
        """End the answer's process, which is killed when this end of the connection is closed."""
        self.ended = self.ended or "The check of this answer is over."
        self.channel.close()

    def handle(self, message: list[Any]) -> None:
        """Serve a request of the answer. Ends the conversation if the request is not allowed."""
        try:
            match message:
                case ["callback", number, given, method, args, kwargs, *in_loop]:
                    self.called_in_loop = in_loop == [True]
                    self._reply(number, lambda: self.call_given(given, method, args, kwargs))
                case ["getattr", number, given, name]:
                    self._reply(number, lambda: self.read(given, name))
                case ["setattr", number, given, name, value]:
                    self._reply(number, lambda: self.write(given, name, value))
                case ["changed", number, list() as values] if isinstance(self.object(number), SharedList):
                    self.given[number][:] = [self.codec.decode(value) for value in values]
                    self.synchronised[number] = ["L", number, values]
                case ["next", number, given]:
                    self._reply(number, lambda: self.next_items(given))
                case ["steps", dict() as steps] if self.channel.frames_received == 1:  # the answer has not run yet
                    self.fewest_steps = steps
                case _ if self.world is not None:
                    self.world.handle(message)
                case ["acancel" | "close" | "done" | "idle", *_]:
                    pass  # of a run that is over
                case _:
                    raise ProtocolError(f"{message[0][:20]!r} was not expected")
        except ProtocolError as error:
            self.fail(error)

    def _reply(self, number: Any, compute: Callable[[], Any]) -> None:
        number = checked_int(number)
        try:
            try:
                reply = ["result", number, self.codec.encode(compute())]
            except (ProtocolError, AnswerEnded, Ended, KeyboardInterrupt, MemoryError):
                raise
            except BaseException as error:  # also those that no `except Exception` of the answer catches
                reply = ["error", number, self.codec.error(error)]
            self.send_changes()
            self.send(reply)
        except MemoryError:  # a result that its arguments have made large
            self.fail_of_resources("memory")

    # Objects of the check that it has given to the answer.

    def refer(self, value: Any) -> list[Any]:
        """Give an object that is not data to the answer, which may call it, or read its public attributes."""
        if isinstance(value, (Remote, RemoteMethod)):
            return value._reference(self)
        if isinstance(value, ModuleType):
            return ["m", value.__name__]
        number = self.given_numbers.get(id(value))
        if number is None:
            number = self.given_numbers[id(value)] = len(self.given)
            self.given.append(value)
            if isinstance(value, random.Random):  # a copy of it is used in the answer's process
                version, state, gauss = value.getstate()
                return ["R", number, [version, list(state), gauss]]
        elif isinstance(value, random.Random):
            return ["$", number]
        if isinstance(value, (Clock, SharedList)):
            self.synchronised[number] = self._state(number, value)
            return self.synchronised[number]
        return ["$", number, *self._described(value)]

    def _described(self, value: Any) -> list[Any]:
        """Return an object's kind: a lock, a function with its name, or an object with its class and methods."""
        if is_lock(value):
            return ["lock"]
        if callable(value):
            is_function = isinstance(value, (FunctionType, MethodType))
            called = value if is_function else getattr(type(value), "__call__", value)  # noqa: B004
            name = getattr(value, "__name__", type(value).__name__)
            return ["async" if inspect.iscoroutinefunction(called) else "function", name]
        methods = {
            name: inspect.iscoroutinefunction(getattr(type(value), name))
            for name in dir(type(value))
            if name[:1] != "_" and isinstance(getattr(type(value), name, None), FunctionType)
        }
        return ["object", type(value).__name__, methods]

    def object(self, given: Any) -> Any:
        """Return the given object with this number. Raises ProtocolError."""
        if type(given) is not int or not 0 <= given < len(self.given):
            raise ProtocolError("it was given no such object")
        return self.given[given]

    def function(self, given: Any, method: Any) -> Callable[..., Any]:
        """Return a given function (`method` is empty), or a public method. Raises ProtocolError."""
        value = self.object(given)
        if method == "":
            if not callable(value):
                raise ProtocolError("it cannot call that")
            return value  # type: ignore[no-any-return]
        function = getattr(type(value), checked_text(method), None)
        if is_lock(value):
            is_public = method in LOCK_METHODS
        elif is_set_ups(value):
            is_public = method[:1] != "_"
        else:
            is_public = method in getattr(type(value), "answers_may_call", ())
        if not is_public or not isinstance(function, FunctionType):
            raise ProtocolError("it has no such method")
        return MethodType(function, value)

    def call_given(self, given: Any, method: Any, args: Any, kwargs: Any) -> Any:
        """Call a given function, or a public method, with arguments as data. Raises ProtocolError."""
        function, args, kwargs = self.function(given, method), self.args(args), self.kwargs(kwargs)
        check_types(function, args, kwargs)
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            result.close()  # else Python would warn in the middle of another check
            raise ProtocolError("it called an async function as if it were none")
        return result

    def read(self, given: Any, name: Any) -> Any:
        """Return a public attribute of a given object. Raises AttributeError, ProtocolError.

        The set-up or the check must define the object's class: attributes of other objects lead into this process.
        """
        value = self.object(given)
        opaque = callable(value) or is_lock(value) or not is_set_ups(value)
        if opaque or checked_text(name)[:1] == "_" or name not in vars(value):
            raise AttributeError(f"{type(value).__name__!r} object has no attribute {name!r}")
        return vars(value)[name]

    def write(self, given: Any, name: Any, value: Any) -> None:
        """Set an attribute that is named in the object's `answers_may_set`. Raises AttributeError."""
        owner = self.object(given)
        if name not in getattr(owner, "answers_may_set", ()):
            raise AttributeError(f"{name!r} of {type(owner).__name__!r} is not yours to set")
        setattr(owner, name, self.decoded(value))

    def next_items(self, given: Any) -> list[Any]:
        """Return the next `items_per_message` items (default: one) of a given iterator; an empty list at its end."""
        iterable = self.object(given)
        return list(itertools.islice(iterable, getattr(iterable, "items_per_message", 1)))

    def send_changes(self) -> None:
        """Send the new states of clocks and shared lists, together with the next message."""
        changes = []
        for number, before in list(self.synchronised.items()):
            state = self._state(number, self.given[number])
            if state != before:
                self.synchronised[number] = state
                changes.append(state)
        if changes:
            self.send(["change", changes], now=False)

    def _state(self, number: int, value: Clock | SharedList) -> list[Any]:
        if isinstance(value, Clock):
            return ["C", number, value.now]
        if number in self._in_state:  # a list that holds itself
            return ["$", number]
        self._in_state.add(number)
        try:
            return ["L", number, [self.codec.encode(item) for item in value]]
        finally:
            self._in_state.discard(number)

    # Values and objects of the answer.

    def decoded(self, data: Any) -> Any:
        """Return the value that data stands for. Ends the conversation if there is none."""
        try:
            return self.codec.decode(data)
        except ProtocolError as error:
            self.fail(error)

    def args(self, data: Any) -> list[Any]:
        args = self.decoded(data)
        if not isinstance(args, (tuple, list)):
            raise ProtocolError("not arguments")
        return list(args)

    def kwargs(self, data: Any) -> dict[str, Any]:
        kwargs = self.decoded(data)
        if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
            raise ProtocolError("not arguments")
        return kwargs

    def resolve(self, data: list[Any]) -> Any:
        """Return the given object for ["$", n], or a stand-in for ["@", n, ...]. Raises ProtocolError."""
        if data[0] == "$":
            return self.object(data[1])
        if data[0] == "N":
            record = Record(data[4])
            record.remote = self.resolve(["@", data[1], data[2], "object"])
            record.fields = [checked_text(field, 100) for field in data[3]]
            if len(record.fields) != len(record):
                raise ProtocolError("not the fields of that record")
            return record
        if data[0] != "@" or len(data) != 4 or data[3] not in KINDS:
            raise ProtocolError("not a value")
        number = checked_int(data[1])
        if number not in self.remotes:
            if len(self.remotes) >= MAX_OBJECTS:
                raise TooMuch(f"more than {MAX_OBJECTS:,} objects")
            class_number = data[2]
            if isinstance(class_number, list):
                class_number, name, methods, special = class_number
                method_names = frozenset(checked_text(method, 100) for method in methods[:500])
                cls = RemoteClass(checked_text(name, 100), method_names, frozenset(special))
                self.classes[checked_int(class_number)] = cls
            self.remotes[number] = Remote(self, number, self.classes[class_number], data[3])
        return self.remotes[number]

    # Calls.

    def call(self, target: Any, method: str, args: Sequence[Any], kwargs: dict[str, Any], *, keep: bool = False) -> Any:
        """Call a function, class or method of the answer; its error is raised here.

        With `keep`, the result stays in the answer's process, and a stand-in for it is returned.
        """
        if self.turns is not None:
            return self.turns.call(target, method, args, kwargs, keep)
        encode = self.codec.encode
        if method:
            return self.ask("method", target, method, encode(list(args)), encode(kwargs), keep)
        return self.ask("call", target, encode(list(args)), encode(kwargs), keep)

    def printed(self, word: str = "printed") -> str:
        """Return the text that the answer has printed since the last call."""
        try:
            return checked_text(self.ask(word), MAX_PRINTED)
        except ProtocolError as error:
            self.fail(error)


class RemoteClass(NamedTuple):
    """A class in the answer's process; `special` holds the names of its special methods, without underscores."""

    name: str
    methods: frozenset[str]
    special: frozenset[str]


class Remote:
    """A stand-in for an object in the answer's process. It is equal only to itself."""

    def __init__(self, answer: Answer, number: int, cls: RemoteClass, kind: str) -> None:
        self.__dict__.update(_answer=answer, _number=number, _class=cls, _kind=kind)

    def _reference(self, answer: Answer) -> list[Any]:
        if answer is not self._answer:
            raise ProtocolError("an object of another answer")
        return ["@", self._number]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._kind not in ("class", "function") and "call" not in self._class.special:
            raise TypeError(f"{self._class.name!r} object is not callable")
        return self._answer.call(self._number, "", args, kwargs, keep=self._kind == "class")

    def __getattr__(self, name: str) -> Any:
        if name[:1] == "_":
            raise AttributeError(name)
        if name in self._class.methods:
            return RemoteMethod(self, name)
        return self._answer.ask("attr", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"the answer's {self._class.name} is not the check's to change")

    def __len__(self) -> int:
        if "len" not in self._class.special:
            raise TypeError(f"object of type {self._class.name!r} has no len()")
        return self._answer.call(self._number, "__len__", (), {})  # type: ignore[no-any-return]

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Any:
        if "iter" not in self._class.special:
            raise TypeError(f"{self._class.name!r} object is not iterable")
        return self if self._kind == "iterator" else iter(self._answer.ask("value", self._number))

    def __next__(self) -> Any:
        if self._kind != "iterator":
            raise TypeError(f"{self._class.name!r} object is not an iterator")
        items = self._answer.ask("next", self._number)
        if not isinstance(items, list) or not items:
            raise StopIteration
        return items[0]

    def __getitem__(self, key: Any) -> Any:
        return self._answer.call(self._number, "__getitem__", (key,), {})

    def __contains__(self, key: Any) -> bool:
        return self._answer.call(self._number, "__contains__", (key,), {}) is True

    def __await__(self) -> Any:
        if not self.awaitable_kind:
            raise TypeError(f"object {self._class.name} can't be used in 'await' expression")
        return self._answer.world.await_remote(self._number).__await__()

    @property
    def awaitable_kind(self) -> str:
        """The kind of awaitable, or ""."""
        return self._kind if self._kind in AWAITABLES else ""

    def __repr__(self) -> str:
        return f"<{self._class.name} of the answer>"


class Record(tuple[Any, ...]):
    """A NamedTuple of the answer: its values are here; its methods run in the answer's process."""

    remote: Remote
    fields: list[str]

    def __getattr__(self, name: str) -> Any:
        if name in self.fields:
            return self[self.fields.index(name)]
        if name == "_replace" or name[:1] != "_":
            return RemoteMethod(self.remote, name)
        raise AttributeError(name)


class RemoteMethod:
    """A method of an object of the answer."""

    def __init__(self, remote: Remote, name: str) -> None:
        self.remote, self.name = remote, name

    def _reference(self, answer: Answer) -> list[Any]:
        return ["M", self.remote._reference(answer)[1], self.name]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.remote._answer.call(self.remote._number, self.name, args, kwargs)

    def __repr__(self) -> str:
        return f"<{self.name} of {self.remote!r}>"


class SharedList(list[Any]):
    """A list that the check shares with the answer: each sees the other's changes after each call."""


def is_set_ups(value: Any) -> bool:
    """Whether the set-up or the check defines the value's class."""
    return type(value).__module__ == "__main__"


def is_lock(value: Any) -> bool:
    """Whether a value is a lock. An object of the set-up with further public methods is not."""
    public = {name for name in vars(type(value)) if name[:1] != "_"}
    return {"acquire", "release", "__enter__"} <= set(dir(type(value))) and (
        not is_set_ups(value) or public <= LOCK_METHODS
    )
