"""Values to data and back, for the frames of `channel`. Whatever is not data stays where it is, and travels as a number.

    1, 2.5, true, null, "text"            themselves
    ["l" | "t" | "s" | "f", [values]]     a list, tuple, set, frozenset
    ["d", [[key, value], ...]]            a dict
    ["b", base64]  ["c", re, im]  ["q", n, d]  ["D", text]  ["r", start, stop, step]  ["..."]
    ["a", dtype, shape, base64]           a NumPy array of numbers
    ["x", name, [[field, value], ...]]    a NamedTuple or dataclass of the set-up
    ["S", start, stop, step]              a slice
    ["N", n, name, fields, values]        a NamedTuple of the answer's: a tuple here, and an object there
    ["E", {...}]                          an exception: the names of its classes, its text, its line
    ["@", n, ...]                         an object of the sender's; ["$", n] one of the receiver's own

Sizes, depths and the range of numbers are bounded; a value that breaks a bound raises ProtocolError.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from scalelab.answers.channel import ProtocolError

MAX_DEPTH = 40
MAX_TEXT = 10_000  # characters of an error's text
MAX_KEYS = 20_000  # of a dict or set
MAX_NUMERIC_KEYS = 2_000  # of them: keys chosen to have equal hashes take quadratic time
ERROR_MODULES = ("builtins", "asyncio", "aiohttp", "statistics", "concurrent", "queue", "_queue", "json", "scalelab")


class Codec:
    """Values to data and back. `refer` names an object that is no data, `resolve` finds what ["@", ...] or ["$", n] is.

    `namespace` holds the set-up's names: its NamedTuples, dataclasses and exceptions are known by name on both sides.
    """

    def __init__(
        self, namespace: dict[str, Any], refer: Callable[[Any], list[Any]], resolve: Callable[[list[Any]], Any]
    ) -> None:
        self.namespace = namespace
        self.refer = refer
        self.resolve = resolve
        self.line: Callable[[BaseException], int | None] = lambda error: None
        self.record: Callable[[Any], list[Any] | None] = lambda value: None
        self.known: dict[str, type] = {}
        self.by_reference: tuple[type, ...] = ()

    def add_records(self, names: dict[str, Any]) -> None:
        """Send instances of the set-up's NamedTuples and dataclasses by their class's name and their fields."""
        for name, value in names.items():
            if isinstance(value, type) and (hasattr(value, "_fields") or dataclasses.is_dataclass(value)):
                self.known[name] = value

    # To data.

    def encode(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float or kind is int:
            return value
        if depth > MAX_DEPTH:
            raise ProtocolError("values nested too deep")
        inner = depth + 1
        if kind is list or kind is tuple:
            return ["l" if kind is list else "t", [self.encode(one, inner) for one in value]]
        if kind is dict:
            return ["d", [[self.encode(key, inner), self.encode(one, inner)] for key, one in value.items()]]
        return self._rest(value, kind, inner)

    def _rest(self, value: Any, kind: type, inner: int) -> Any:
        if kind in self.by_reference:
            return self.refer(value)
        for name, known in self.known.items():
            if kind is known:
                fields = getattr(known, "_fields", None) or [field.name for field in dataclasses.fields(known)]
                return ["x", name, [[field, self.encode(getattr(value, field), inner)] for field in fields]]
        if isinstance(value, BaseException):
            return self.error(value, inner)
        if isinstance(value, tuple) and (found := self.record(value)) is not None:
            return found + [[self.encode(one, inner) for one in tuple.__iter__(value)]]
        if kind is slice:
            return ["S", value.start, value.stop, value.step]
        if isinstance(value, (set, frozenset)):
            return ["s" if isinstance(value, set) else "f", [self.encode(one, inner) for one in value]]
        if isinstance(value, dict):
            return ["d", [[self.encode(key, inner), self.encode(one, inner)] for key, one in dict.items(value)]]
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, list):
            return ["l", [self.encode(one, inner) for one in list.__iter__(value)]]
        if isinstance(value, tuple):
            return ["t", [self.encode(one, inner) for one in tuple.__iter__(value)]]
        if isinstance(value, (bytes, bytearray)):
            return ["b", base64.b64encode(bytes(value)).decode()]
        if kind is complex:
            return ["c", value.real, value.imag]
        if kind is Fraction:
            return ["q", value.numerator, value.denominator]
        if kind is Decimal:
            return ["D", str(value)]
        if kind is range:
            return ["r", value.start, value.stop, value.step]
        if value is ...:
            return ["..."]
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            if isinstance(value, numpy.generic) and value.dtype.kind in "biuf":
                return value.item()
            if kind is numpy.ndarray and value.dtype.kind in "biufc":
                data = base64.b64encode(numpy.ascontiguousarray(value).tobytes()).decode()
                return ["a", value.dtype.str, list(value.shape), data]
        return self.refer(value)

    def error(self, error: BaseException, inner: int = 1) -> list[Any]:
        """Say what an exception was: what it is called, its classes, its text, the line in the answer's cell."""
        try:
            text = str(error)[:MAX_TEXT]
        except BaseException:
            text = ""
        told: dict[str, Any] = {
            "name": type(error).__name__[:100],
            "kinds": [f"{one.__module__}.{one.__qualname__}" for one in type(error).__mro__][:20],
            "text": text,
            "line": self.line(error),
        }
        if type(error).__module__ == "builtins" and len(error.args) < 5:
            args = [one for one in error.args if type(one) in (int, float, str, bool, type(None))]
            told["args"] = args if len(args) == len(error.args) else None
        if isinstance(error, BaseExceptionGroup) and inner < 6:
            told["inside"] = [self.error(one, inner + 1) for one in error.exceptions[:50]]
            told["text"] = str(error.message)[:MAX_TEXT]
        if isinstance(error, SyntaxError):
            told["syntax"] = [error.lineno, str(error.msg)[:1000], str(error.text or "")[:1000]]
        if isinstance(getattr(error, "status", None), int):
            told["status"] = int(error.status)  # type: ignore[attr-defined]
        return ["E", told]

    # From data.

    def decode(self, data: Any, depth: int = 0) -> Any:
        """Return the value that data stands for. Raises ProtocolError for what `encode` never makes."""
        if type(data) is str:
            return sys.intern(data) if len(data) < 64 else data  # equal texts are one object, as in one process
        if data is None or isinstance(data, (bool, int, float)):
            return data
        if depth > MAX_DEPTH + 1 or not isinstance(data, list) or not data:
            raise ProtocolError("no value")
        try:
            return self._value(data, depth + 1)
        except (TypeError, ValueError, KeyError, IndexError, ArithmeticError, AttributeError) as error:
            raise ProtocolError(f"no value: {str(error)[:80]}") from None

    def _value(self, data: list[Any], inner: int) -> Any:
        tag = data[0]
        match tag:
            case "l":
                return [self.decode(one, inner) for one in data[1]]
            case "t":
                return tuple([self.decode(one, inner) for one in data[1]])
            case "d" if len(data[1]) <= MAX_KEYS:
                self._few([key for key, _ in data[1]])
                return {self.decode(key, inner): self.decode(one, inner) for key, one in data[1]}
            case "s" | "f" if len(data[1]) <= MAX_KEYS:
                self._few(data[1])
                return (set if tag == "s" else frozenset)([self.decode(one, inner) for one in data[1]])
            case "b":
                return base64.b64decode(data[1], validate=True)
            case "c":
                return complex(float(data[1]), float(data[2]))
            case "q" if type(data[1]) is type(data[2]) is int:
                return Fraction(data[1], data[2])
            case "D" if isinstance(data[1], str) and len(data[1]) < 1000:
                return Decimal(data[1])
            case "r" if all(type(one) is int for one in data[1:4]):
                return range(*data[1:4])
            case "...":
                return ...
            case "a":
                return self._array(*data[1:])
            case "x":
                return self.known[data[1]](**{field: self.decode(one, inner) for field, one in data[2]})
            case "E":
                return self.made_error(data[1], inner)
            case "S":
                return slice(*data[1:4])
            case "N":
                return self.resolve([*data[:4], tuple([self.decode(one, inner) for one in data[4]])])
            case "@" | "$" | "M" | "m" | "R" | "C" | "L":
                return self.resolve(data)
        raise ProtocolError("no value")

    def _few(self, keys: list[Any]) -> None:
        if len(keys) > MAX_NUMERIC_KEYS and sum(type(key) is not str for key in keys) > MAX_NUMERIC_KEYS:
            raise ProtocolError("too many keys")

    def _array(self, kind: str, shape: list[int], data: str) -> Any:
        import numpy

        dtype = numpy.dtype(kind)
        if dtype.kind not in "biufc" or len(shape) > 8 or dtype.hasobject:
            raise ProtocolError("no array")
        return (
            numpy.frombuffer(base64.b64decode(data, validate=True), dtype).reshape([int(one) for one in shape]).copy()
        )

    def made_error(self, told: dict[str, Any], inner: int = 1) -> BaseException:
        """Make an exception of the first of its classes that is known here; it has no code of the answer's."""
        base = next(filter(None, map(self._error_class, told["kinds"][:20])), Exception)
        name = told["name"] if isinstance(told["name"], str) and told["name"].isidentifier() else base.__name__
        text = str(told["text"])[:MAX_TEXT]
        if issubclass(base, BaseExceptionGroup):
            inside = [self.made_error(one[1], inner + 1) for one in told["inside"][:50]] if inner < 7 else []
            error: BaseException = base(text, inside or [Exception("?")])
        else:
            made = type(name[:100], (base,), {"__str__": lambda self: text, "__module__": base.__module__})
            error = made.__new__(made)
            args = told.get("args")
            error.args = tuple(args) if isinstance(args, list) else (text,)
            if isinstance(error, SyntaxError) and isinstance(told.get("syntax"), list):
                error.lineno, error.msg, error.text = told["syntax"]
            if isinstance(told.get("status"), int):
                error.status = told["status"]  # type: ignore[attr-defined]
        line = told.get("line")
        error.answers_line = line if type(line) is int and 0 < line < 10**6 else None  # type: ignore[attr-defined]
        return error

    def _error_class(self, name: str) -> type[BaseException] | None:
        module, _, short = str(name).rpartition(".")
        if module == "__main__":
            found = self.namespace.get(short)
        elif module.partition(".")[0] in ERROR_MODULES and module in sys.modules:
            found = vars(sys.modules[module]).get(short)
        else:
            return None
        is_error = isinstance(found, type) and issubclass(found, BaseException)
        # What passes every `except Exception` is never raised at a word of the other side's, but for a cancellation.
        harmless = is_error and (issubclass(found, Exception) or short in ("CancelledError", "BaseExceptionGroup"))
        return found if harmless else None


def checked_time(value: Any, now: float) -> float | None:
    """Return a time that the other side names: None, or a finite number from now on. Raises ProtocolError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ProtocolError("no time")
    return max(float(value), now)


def checked_int(value: Any, most: int = 2**31) -> int:
    """Return a whole number from 0. Raises ProtocolError."""
    if type(value) is not int or not 0 <= value <= most:
        raise ProtocolError("no number")
    return value


def checked_text(value: Any, most: int = MAX_TEXT) -> str:
    """Return a text, cut. Raises ProtocolError."""
    if not isinstance(value, str):
        raise ProtocolError("no text")
    return value[:most]
