"""An answer as checks see it: names that stand for functions, classes and objects in the answer's own process.

What comes from there is data, decoded by `codec`. Nothing of it is trusted, except that the answer said so.
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
from typing import Any, NoReturn

from scalelab.answers.channel import Channel, Disconnected, ProtocolError
from scalelab.answers.codec import Codec, checked_int, checked_text
from scalelab.answers.monitor import Monitor, OutOfTime
from scalelab.checks import AnswerEnded
from scalelab.checks._world import Ended

ANSWER_FILE = "<answer>"
MAX_FRAMES = 150_000  # from one answer
MAX_BYTES = 32 * 2**20
MAX_OBJECTS = 100_000
MAX_PRINTED = 200_000  # characters
LOCK_METHODS = {"acquire", "release", "locked"}
AWAITABLES = {"coroutine", "task", "awaitable"}
KINDS = AWAITABLES | {"iterator", "class", "function", "object"}
GONE = "The process of your answer ended: it ran out of memory, crashed, or exited by itself."


class Answer:
    """One question's answer, in a process of its own, for one check.

    `connection` leads to the process, `namespace` is where the check runs, `setup_names` are the set-up's names in it,
    and `monitor` ends what takes too long.
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
        self.namespace = namespace
        self.codec = Codec(namespace, self.refer, self.resolve)
        self.codec.by_reference = (SharedList, Clock)
        self.codec.record = lambda value: ["@", value.remote._number] if isinstance(value, Record) else None
        self.codec.add_records({name: namespace[name] for name in setup_names if name in namespace})
        self.given: list[Any] = []  # what the answer may call or read, by number
        self.given_numbers: dict[int, int] = {}
        self.synchronised: dict[int, list[Any]] = {}  # shared lists and clocks: the state that was sent last
        self._in_state: set[int] = set()
        self.remotes: dict[int, Remote] = {}
        self.kinds: dict[int, tuple[str, frozenset[str], frozenset[str]]] = {}
        self.world: Any = None  # the run in virtual time that is under way
        self.turns: Any = None  # the threads that take turns
        self.called_in_loop = False  # whether its last call of a function of the check was made in its loop's thread
        self.fewest_steps: dict[str, int] = {}  # of a call that returns, by the function's name
        self.ended = ""  # why the conversation is over
        self.state = "ended"  # and whether it "ended" or "timed out"
        self.counts = itertools.count()

    # The conversation.

    def begin(self, source: str, wanted: Sequence[str], *, takes_turns: bool = True) -> dict[str, Any]:
        """Run the answer's cell; return the wanted names that it defines. Raises what the cell raises.

        `takes_turns` says whether its check deals turns to threads.
        """
        linecache.cache[ANSWER_FILE] = (len(source), None, source.splitlines(keepends=True), ANSWER_FILE)
        names = self.ask("begin", source, list(wanted), takes_turns)
        if not isinstance(names, dict) or not set(names) <= set(wanted):
            self.fail("it sent other names than were asked for")
        return names

    def ask(self, word: str, *rest: Any) -> Any:
        """Ask the answer, and return or raise its reply; meanwhile it may call what it was given."""
        number = secrets.randbits(53)  # a reply cannot be sent before its question
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
            self.obey(message)

    def send(self, message: list[Any], *, now: bool = True) -> None:
        """Send a message, at once or with the next one."""
        if self.ended:
            raise AnswerEnded(self.ended, self.state)
        try:
            (self.channel.send if now else self.channel.tell)(message)
        except Disconnected:
            self._end(GONE)
        except OutOfTime as error:
            self._end(str(error), error.state)

    def receive(self) -> list[Any]:
        if self.ended:
            raise AnswerEnded(self.ended, self.state)
        try:
            message = self.channel.receive()
        except Disconnected:
            self._end(GONE)
        except OutOfTime as error:
            self._end(str(error), error.state)
        except ProtocolError as error:
            self.fail(str(error))
        if self.channel.frames_received > MAX_FRAMES or self.channel.bytes_received > MAX_BYTES:
            self.fail("too many messages")
        if self._monitor is not None:
            try:
                self._monitor.heard()
            except OutOfTime as error:
                self._end(str(error), error.state)
        return message

    def fail(self, why: str) -> NoReturn:
        """End the conversation with an answer that does not keep to the protocol."""
        self._end(f"Your answer sent the check something of its own, or too much ({why}).")

    def _end(self, reason: str, state: str = "ended") -> NoReturn:
        self.close()
        self.ended, self.state = reason, state
        raise AnswerEnded(reason, state)

    def close(self) -> None:
        """End the answer's process: whoever started it kills it when this end of the connection closes."""
        self.ended = self.ended or "The check of this answer is over."
        self.channel.close()

    def obey(self, message: list[Any]) -> None:
        """Do what the answer asks for, if it may."""
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
                    self.world.obey(message)
                case ["acancel" | "close" | "done" | "idle", *_]:
                    pass  # of a run that is over
                case _:
                    raise ProtocolError(f"{message[0][:20]!r} was not expected")
        except ProtocolError as error:
            self.fail(str(error))

    def _reply(self, number: Any, make: Callable[[], Any]) -> None:
        number = checked_int(number)
        try:
            reply = ["result", number, self.codec.encode(make())]
        except (ProtocolError, AnswerEnded, Ended, KeyboardInterrupt):
            raise
        except BaseException as error:  # such as a crash that no `except Exception` of the answer's survives
            reply = ["error", number, self.codec.error(error)]
        self.send_changes()
        self.send(reply)

    # Objects of the check that the answer was given.

    def refer(self, value: Any) -> list[Any]:
        """Give the answer an object that is not data: it can call it, or read its public attributes."""
        if isinstance(value, (Remote, RemoteMethod)):
            return value._reference(self)
        if isinstance(value, ModuleType):
            return ["m", value.__name__]
        number = self.given_numbers.get(id(value))
        if number is None:
            number = self.given_numbers[id(value)] = len(self.given)
            self.given.append(value)
            if isinstance(value, random.Random):  # from now on it is drawn from in the answer's process
                version, state, gauss = value.getstate()
                return ["R", number, [version, list(state), gauss]]
        elif isinstance(value, random.Random):
            return ["$", number]
        if isinstance(value, (Clock, SharedList)):
            self.synchronised[number] = self._state(number, value)
            return self.synchronised[number]
        return ["$", number, *self._described(value)]

    def _described(self, value: Any) -> list[Any]:
        """Return what kind of object the answer is given: a lock, a function, or an object with its methods."""
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
        """Return an object that the answer was given, by its number. Raises ProtocolError."""
        if type(given) is not int or not 0 <= given < len(self.given):
            raise ProtocolError("it was given no such object")
        return self.given[given]

    def function(self, given: Any, method: Any) -> Callable[..., Any]:
        """Return a function that it may call: one that it was given, or a public method. Raises ProtocolError."""
        value = self.object(given)
        if method == "":
            if not callable(value):
                raise ProtocolError("it cannot call that")
            return value  # type: ignore[no-any-return]
        function = getattr(type(value), checked_text(method), None)
        is_public = method in LOCK_METHODS if is_lock(value) else is_set_ups(value) and method[:1] != "_"
        if not is_public or not isinstance(function, FunctionType):
            raise ProtocolError("it has no such method")
        return MethodType(function, value)

    def call_given(self, given: Any, method: Any, args: Any, kwargs: Any) -> Any:
        """Call a function that the answer was given, with arguments as data. Raises ProtocolError."""
        result = self.function(given, method)(*self.args(args), **self.kwargs(kwargs))
        if inspect.iscoroutine(result):
            result.close()  # unawaited, it would warn in the middle of another check
            raise ProtocolError("it called an async function as if it were none")
        return result

    def read(self, given: Any, name: Any) -> Any:
        """Return a public attribute of an object of the set-up's or the check's. Raises AttributeError, ProtocolError.

        Attributes of other objects lead into this process.
        """
        value = self.object(given)
        opaque = callable(value) or is_lock(value) or not is_set_ups(value)
        if opaque or checked_text(name)[:1] == "_" or name not in vars(value):
            raise AttributeError(f"{type(value).__name__!r} object has no attribute {name!r}")
        return vars(value)[name]

    def write(self, given: Any, name: Any, value: Any) -> None:
        """Set an attribute that the given object, or its class, names in `answers_may_set`. Raises AttributeError."""
        owner = self.object(given)
        if name not in getattr(owner, "answers_may_set", ()):
            raise AttributeError(f"{name!r} of {type(owner).__name__!r} is not yours to set")
        setattr(owner, name, self.decoded(value))

    def next_items(self, given: Any) -> list[Any]:
        """Return the next items of a given iterable, one or as many as it says, or an empty list at its end."""
        iterable = self.object(given)
        return list(itertools.islice(iterable, getattr(iterable, "items_per_message", 1)))

    def send_changes(self) -> None:
        """Bring clocks and shared lists up to date in the answer's process, with the next message."""
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
        try:
            return self.codec.decode(data)
        except ProtocolError as error:
            self.fail(str(error))

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
                raise ProtocolError("too many objects")
            kind = data[2]
            if isinstance(kind, list):
                kind, name, methods, special = kind
                names = frozenset(checked_text(method, 100) for method in methods[:500])
                self.kinds[checked_int(kind)] = checked_text(name, 100), names, frozenset(special)
            self.remotes[number] = Remote(self, number, self.kinds[kind], data[3])
        return self.remotes[number]

    # Calls.

    def call(self, target: Any, method: str, args: Sequence[Any], kwargs: dict[str, Any], *, keep: bool = False) -> Any:
        """Call a function, class or method of the answer; what it raises is raised here.

        With `keep` the result stays in the answer's process, and a stand-in for it is returned.
        """
        if self.turns is not None:
            return self.turns.call(target, method, args, kwargs, keep)
        encode = self.codec.encode
        if method:
            return self.ask("method", target, method, encode(list(args)), encode(kwargs), keep)
        return self.ask("call", target, encode(list(args)), encode(kwargs), keep)

    def printed(self, word: str = "printed") -> str:
        """Return what the answer has printed since it was asked last."""
        try:
            return checked_text(self.ask(word), MAX_PRINTED)
        except ProtocolError as error:
            self.fail(str(error))


class Remote:
    """An object of the answer, in the answer's process. It is equal to itself, and to nothing else."""

    def __init__(
        self, answer: Answer, number: int, kind: tuple[str, frozenset[str], frozenset[str]], what: str
    ) -> None:
        self.__dict__.update(_answer=answer, _number=number, _kind=kind, _what=what)

    def _reference(self, answer: Answer) -> list[Any]:
        if answer is not self._answer:
            raise ProtocolError("an object of another answer")
        return ["@", self._number]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._what not in ("class", "function") and "call" not in self._kind[2]:
            raise TypeError(f"{self._kind[0]!r} object is not callable")
        return self._answer.call(self._number, "", args, kwargs, keep=self._what == "class")

    def __getattr__(self, name: str) -> Any:
        if name[:1] == "_":
            raise AttributeError(name)
        if name in self._kind[1]:
            return RemoteMethod(self, name)
        return self._answer.ask("attr", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"the answer's {self._kind[0]} is not the check's to change")

    def __len__(self) -> int:
        if "len" not in self._kind[2]:
            raise TypeError(f"object of type {self._kind[0]!r} has no len()")
        return self._answer.call(self._number, "__len__", (), {})  # type: ignore[no-any-return]

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Any:
        if "iter" not in self._kind[2]:
            raise TypeError(f"{self._kind[0]!r} object is not iterable")
        return self if self._what == "iterator" else iter(self._answer.ask("value", self._number))

    def __next__(self) -> Any:
        if self._what != "iterator":
            raise TypeError(f"{self._kind[0]!r} object is not an iterator")
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
            raise TypeError(f"object {self._kind[0]} can't be used in 'await' expression")
        return self._answer.world.await_remote(self._number).__await__()

    @property
    def awaitable_kind(self) -> str:
        """Which kind of awaitable this is, or ""."""
        return self._what if self._what in AWAITABLES else ""

    def __repr__(self) -> str:
        return f"<{self._kind[0]} of the answer>"


class Record(tuple[Any, ...]):
    """A NamedTuple of the answer: its values are here, its methods and its identity in the answer's process."""

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


class Clock:
    """A clock that stands still until the check moves it; calls of it stay in the answer's process."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class SharedList(list[Any]):
    """A list that check and answer share: each sees the other's changes after each call."""


def is_set_ups(value: Any) -> bool:
    """Whether a value's class is one of the set-up's or the check's."""
    return type(value).__module__ == "__main__"


def is_lock(value: Any) -> bool:
    """Whether a value is a lock, and not an object of the set-up's that can do more than a lock."""
    public = {name for name in vars(type(value)) if name[:1] != "_"}
    return {"acquire", "release", "__enter__"} <= set(dir(type(value))) and (
        not is_set_ups(value) or public <= LOCK_METHODS
    )
