"""Values to JSON and back, for the frames of `channel`. For an object that is not data, its number is sent.

    1, 2.5, true, null, "text"        themselves
    ["l" | "t" | "s" | "f", values]   a list, tuple, set, frozenset
    ["d", keys, values]               a dict
    ["b" | "B", base64]               bytes, a bytearray
    ["c", real, imag]  ["q", numerator, denominator]  ["D", text]    a complex number, Fraction, Decimal
    ["r", start, stop, step]  ["S", start, stop, step]  ["..."]      a range, a slice, Ellipsis
    ["a", dtype, shape, base64]       a NumPy array of numbers or times
    ["p", dtype, values]              a pandas array of another dtype
    ["i", names, arrays]              a pandas index; a RangeIndex has a range for its array
    ["P", name, index, array]         a pandas Series
    ["F", columns, index, arrays]     a pandas DataFrame
    ["x", name, values]               a NamedTuple or dataclass of the set-up, its values in the order of its fields
    ["N", number, class, fields, values]  a NamedTuple of the answer: its values, and its number for its methods
    ["E", {...}]                      an exception: its classes' names, its text, its line, attributes that are scalars
    ["@", number, ...]                an object of the sender, and in the other direction ["@", number]
    ["$", number, ...]                an object of the receiver, and in the other direction ["$", number]
    ["M" | "m" | "R" | "C" | "L", ...]  to the answer: a method, module, random generator, clock, shared list

An instance of a subclass is sent as one of the class above. Data that breaks a bound, or that `encode` never makes,
raises ProtocolError. Decoding runs no code of the other side, and no constructor of the set-up.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import functools
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from types import EllipsisType
from typing import Any

from scalelab.answers.channel import MAX_FRAME_BYTES, ProtocolError, TooMuch
from scalelab.checks._world import NeverEnds
from scalelab.errors import ScalelabError

MAX_DEPTH = 40
MAX_VALUES = 4_000_000  # in containers, from one answer
MAX_TEXT = 10_000  # characters of an exception's text
MAX_KEYS = 20_000  # of a dict or set
MAX_EQUAL_HASHES = 32  # of them: n keys of one hash take n * n comparisons
MAX_UNREAD = 1_000  # items of a list that are not looked at for equal hashes: a check may make a set of it
MAX_DIGITS = 4_300  # of a Decimal written without an exponent; Python's own limit for an int
MAX_RANGE = 1_000_000  # items
MAX_GROUP_DEPTH = 6
MAX_GROUP = 50  # exceptions in a group
SCALARS = frozenset({int, float, bool, type(None), str})
DTYPES = {
    *("|b1", "|i1", "|u1"),
    *(f"{order}{kind}{size}" for order in "<>" for kind in "iuf" for size in (2, 4, 8)),
    *(f"{order}c{size}" for order in "<>" for size in (8, 16)),
    *(f"<{kind}8[{unit}]" for kind in "mM" for unit in ("D", "h", "m", "s", "ms", "us", "ns")),
}
PANDAS_DTYPES = {"object", "str", "string", "boolean", "category", "Float32", "Float64"} | {
    f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)
}
ERROR_MODULES = frozenset({"builtins", "asyncio", "aiohttp", "statistics", "concurrent", "_queue", "queue", "json"})
"""The packages whose exceptions an answer may raise. Those of this package mean something to the trusted side."""
ERRORS_FOR_ANSWERS: frozenset[type[BaseException]] = frozenset({NeverEnds})
"""The exceptions of this package that an answer may raise all the same: its process counts lines for the check."""
OF_THE_TRUSTED_SIDE = frozenset({"state", "right", "words", "idea", "detail", "run", "reason"})
"""Attributes of this package's exceptions; those of an answer do not get them."""


class Codec:
    """Values to data and back.

    `namespace` holds the set-up's names: its NamedTuples, dataclasses and exceptions have the same names on both sides.
    `refer` returns the reference to an object as data, `resolve` the object for such a reference. With `intern`, equal
    short texts become one object, as they are for an answer in the check's process.
    """

    def __init__(
        self,
        namespace: dict[str, Any],
        refer: Callable[[Any], list[Any]],
        resolve: Callable[[list[Any]], Any],
        *,
        intern: bool = False,
    ) -> None:
        self.namespace = namespace
        self.refer = refer
        self.resolve = resolve
        self.line: Callable[[BaseException], int | None] = lambda error: None
        self.record: Callable[[Any], list[Any] | None] = lambda value: None
        self.known: dict[str, type] = {}
        self.by_reference: tuple[type, ...] = ()
        self._intern = intern
        self._plain = SCALARS - {str} if intern else SCALARS
        self._values_decoded = 0
        self._encoders: dict[type, Callable[[Any, int], Any]] = {}  # by exact class
        self._error_classes: dict[tuple[type, str], type[BaseException]] = {}

    def add_records(self, names: dict[str, Any]) -> None:
        """Register the set-up's NamedTuples and dataclasses, whose instances are sent as a class name and values."""
        for name, value in names.items():
            if isinstance(value, type) and _is_record(value):
                self.known[name] = value

    # To data.

    def encode(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if kind in SCALARS:
            return value
        if depth > MAX_DEPTH:
            raise TooMuch(f"values are nested too deeply, more than {MAX_DEPTH} inside each other")
        if kind is list:
            return ["l", self._encode_all(value[:], depth + 1)]
        encoder = self._encoders.get(kind)
        if encoder is None:
            encoder = self._encoders[kind] = self._encoder(kind)
        return encoder(value, depth + 1)

    def _encoder(self, kind: type) -> Callable[[Any, int], Any]:
        """Return the function that encodes instances of a class."""
        if kind not in self.by_reference:
            for name, known in self.known.items():
                if kind is known:
                    return functools.partial(self._encode_record, name, _fields(known))
            for base in type.mro(kind):
                library = f"{base.__module__.partition('.')[0]}.{base.__qualname__}"
                if (encoder := ENCODERS.get(base) or LIBRARY_ENCODERS.get(library)) is not None:
                    return functools.partial(encoder, self)
        return lambda value, depth: self.refer(value)

    def _encode_all(self, values: list[Any], depth: int) -> list[Any]:
        return values if SCALARS.issuperset(map(type, values)) else [self.encode(value, depth) for value in values]

    def _encode_tuple(self, value: Any, depth: int) -> list[Any]:
        named = self.record(value) if type(value) is not tuple else None
        return [*(named or ["t"]), self._encode_all(list(tuple.__iter__(value)), depth)]

    def _encode_dict(self, value: Any, depth: int) -> list[Any]:
        keys, values = list(dict.keys(value)), list(dict.values(value))
        return ["d", self._encode_all(keys, depth), self._encode_all(values, depth)]

    def _encode_record(self, name: str, fields: Sequence[str], value: Any, depth: int) -> list[Any]:
        return ["x", name, self._encode_all([getattr(value, field) for field in fields], depth)]

    def _encode_decimal(self, value: Any, depth: int) -> list[Any]:
        return ["D", Decimal.__str__(value)] if _is_short(value) else self.refer(value)

    def _encode_range(self, value: Any, depth: int) -> list[Any]:
        return ["r", value.start, value.stop, value.step] if _is_small(value) else self.refer(value)

    def _encode_scalar(self, value: Any, depth: int) -> Any:
        """Encode a NumPy scalar."""
        item = value.item()
        return self.encode(item, depth) if type(item) in (bool, int, float, complex) else self.refer(value)

    def _encode_array(self, value: Any, depth: int) -> list[Any]:
        if value.dtype.str not in DTYPES:
            return self.refer(value)
        return ["a", value.dtype.str, list(value.shape), _base64(value.tobytes())]

    def _encode_column(self, column: Any, depth: int) -> list[Any] | None:
        """Encode the values of a pandas Series or Index; return None if their dtype cannot be sent."""
        if getattr(column.dtype, "str", None) in DTYPES:
            return self._encode_array(column.to_numpy(), depth)
        if str(column.dtype) not in PANDAS_DTYPES:
            return None
        missing = sys.modules["pandas"].NA
        return ["p", str(column.dtype), self._encode_all([None if item is missing else item for item in column], depth)]

    def _encode_index(self, value: Any, depth: int) -> list[Any]:
        if type(value).__name__ == "RangeIndex":
            arrays = [self.encode(range(value.start, value.stop, value.step), depth)]
        else:
            arrays = [self._encode_column(value.get_level_values(n), depth) for n in range(value.nlevels)]
        names = self._encode_all(list(value.names), depth)
        return self._whole(value, ["i", names, arrays], arrays)

    def _encode_series(self, value: Any, depth: int) -> list[Any]:
        index, array = self._encode_index(value.index, depth), self._encode_column(value, depth)
        return self._whole(value, ["P", self.encode(value.name, depth), index, array], [array], index)

    def _encode_frame(self, value: Any, depth: int) -> list[Any]:
        columns, index = self._encode_index(value.columns, depth), self._encode_index(value.index, depth)
        arrays = [self._encode_column(value.iloc[:, n], depth) for n in range(value.shape[1])]
        return self._whole(value, ["F", columns, index, arrays], arrays, columns, index)

    def _whole(self, value: Any, data: list[Any], arrays: list[Any], *indexes: list[Any]) -> list[Any]:
        """Return the data of a pandas object, or a reference to it if a part of it cannot be sent."""
        return self.refer(value) if None in arrays or any(index[0] != "i" for index in indexes) else data

    def error(self, error: BaseException, depth: int = 1) -> list[Any]:
        """Return an exception as data: its name, its classes, its text, and its line in the answer's cell."""
        is_group = isinstance(error, BaseExceptionGroup)
        try:
            text = str(error.message if is_group else error)[:MAX_TEXT]  # type: ignore[attr-defined]
        except BaseException:
            text = ""
        facts: dict[str, Any] = {
            "name": type(error).__name__[:100],
            "kinds": [f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__][:20],
            "text": text,
            "line": self.line(error),
            "attributes": {
                name: value for name, value in vars(error).items() if name[:1] != "_" and type(value) in SCALARS
            },
        }
        if type(error).__module__ == "builtins" and len(error.args) < 5 and SCALARS.issuperset(map(type, error.args)):
            facts["args"] = list(error.args)
        if is_group and depth <= MAX_GROUP_DEPTH:
            facts["inside"] = [self.error(inside, depth + 1) for inside in error.exceptions[:MAX_GROUP]]  # type: ignore[attr-defined]
        if isinstance(error, SyntaxError):
            facts["syntax"] = [error.lineno or 0, str(error.msg)[:1000], str(error.text or "")[:1000]]
        return ["E", facts]

    # From data.

    def decode(self, data: Any, depth: int = 0) -> Any:
        """Return the value that data stands for. Raises ProtocolError for what `encode` never makes."""
        kind = type(data)
        if kind is str:
            return sys.intern(data) if self._intern and len(data) < 64 else data
        if kind in SCALARS:
            return data
        if kind is not list or not data or depth > MAX_DEPTH + 1:
            raise ProtocolError("not a value")
        try:
            return DECODERS[data[0]](self, depth + 1, *data[1:])
        except ProtocolError:
            raise
        except Exception as error:  # one of many, such as a wrong number of parts or a key that cannot be hashed
            raise ProtocolError(f"not a value: {_clean(str(error)[:80])}") from None

    def _decode_all(self, data: Any, depth: int) -> list[Any]:
        if type(data) is not list:
            raise ProtocolError("not a list of values")
        self._values_decoded += len(data)
        if self._values_decoded > MAX_VALUES:
            raise TooMuch(f"too many values: more than {MAX_VALUES:,} in all")
        plain = self._plain.issuperset(map(type, data))
        values = data[:] if plain else [self.decode(item, depth) for item in data]
        if len(values) > MAX_UNREAD:
            hashes = {repr(value): hashed for value in values if (hashed := _chosen_hash(value)) is not None}
            if max(Counter(hashes.values()).values(), default=0) > MAX_EQUAL_HASHES:
                raise ProtocolError("too many values with the same hash")
        return values

    def _decode_keys(self, depth: int, data: Any) -> list[Any]:
        keys = self._decode_all(data, depth)
        if len(keys) > MAX_KEYS:
            raise TooMuch(f"too many keys: more than {MAX_KEYS:,} in one dict or set")
        if {str}.issuperset(map(type, keys)):  # their hashes cannot be chosen
            return keys
        if len(keys) > MAX_EQUAL_HASHES and max(Counter(map(hash, keys)).values()) > MAX_EQUAL_HASHES:
            raise ProtocolError("too many keys with the same hash")
        return keys

    def _decode_dict(self, depth: int, keys: Any, values: Any) -> dict[Any, Any]:
        return dict(zip(self._decode_keys(depth, keys), self._decode_all(values, depth), strict=True))

    def _decode_decimal(self, depth: int, text: str) -> Decimal:
        value = Decimal(_typed(text, str) if len(text) <= MAX_DIGITS + 10 else "")
        if not _is_short(value):
            raise ProtocolError("too many digits")
        return value

    def _decode_range(self, depth: int, *parts: int) -> range:
        value = range(*_all_typed(parts, int))
        if not _is_small(value):
            raise ProtocolError("a range too long")
        return value

    def _decode_slice(self, depth: int, start: Any, stop: Any, step: Any) -> slice:
        return slice(*self._decode_all([start, stop, step], depth))

    def _decode_array(self, depth: int, dtype: str, shape: list[int], data: str) -> Any:
        numpy = importlib.import_module("numpy")
        if (
            dtype not in DTYPES
            or len(shape) > 8
            or not all(type(n) is int and 0 <= n <= MAX_FRAME_BYTES for n in shape)
        ):
            raise ProtocolError("not an array")
        return numpy.frombuffer(_bytes(data), "|u1" if dtype == "|b1" else dtype).reshape(shape).astype(dtype)

    def _decode_column(self, depth: int, dtype: str, values: list[Any]) -> Any:
        if dtype not in PANDAS_DTYPES:
            raise ProtocolError("not an array")
        return importlib.import_module("pandas").array(self._decode_all(values, depth), dtype=dtype)

    def _decode_index(self, depth: int, names: Any, arrays: Any) -> Any:
        pandas = importlib.import_module("pandas")
        names, arrays = self._decode_all(names, depth), self._decode_all(arrays, depth)
        if len(arrays) != 1:
            return pandas.MultiIndex.from_arrays(arrays, names=names)
        if type(arrays[0]) is range:
            return pandas.RangeIndex(arrays[0], name=names[0])
        return pandas.Index(arrays[0], dtype=arrays[0].dtype, name=names[0])

    def _decode_series(self, depth: int, name: Any, index: Any, array: Any) -> Any:
        pandas = importlib.import_module("pandas")
        name, index, array = self._decode_all([name, index, array], depth)
        return pandas.Series(array, index=_typed(index, pandas.Index), name=name, dtype=array.dtype)

    def _decode_frame(self, depth: int, columns: Any, index: Any, arrays: Any) -> Any:
        pandas = importlib.import_module("pandas")
        arrays = self._decode_all(arrays, depth)
        index = self.decode(index, depth)
        if not all(array.ndim == 1 and len(array) == len(index) for array in arrays):
            raise ProtocolError("columns of different lengths")
        series = {n: pandas.Series(array, index=index, dtype=array.dtype) for n, array in enumerate(arrays)}
        frame = pandas.DataFrame(series, index=_typed(index, pandas.Index))
        frame.columns = self.decode(columns, depth)
        return frame

    def _decode_record(self, depth: int, name: str, data: Any) -> Any:
        kind, values = self.known[name], self._decode_all(data, depth)
        fields = _fields(kind)
        if len(values) != len(fields):
            raise ProtocolError("not the fields of that record")
        if issubclass(kind, tuple):
            return tuple.__new__(kind, values)
        record = object.__new__(kind)
        for field, value in zip(fields, values, strict=True):
            object.__setattr__(record, field, value)
        return record

    def _decode_answers_record(self, depth: int, number: Any, kind: Any, fields: Any, values: Any) -> Any:
        return self.resolve(["N", number, kind, fields, tuple(self._decode_all(values, depth))])

    def _decode_error(self, depth: int, facts: dict[str, Any]) -> BaseException:
        """Make an exception of the first of its classes that is known here, without any code of the answer."""
        base = next(filter(None, map(self._known_error, facts["kinds"][:20])), Exception)
        name = facts["name"] if _typed(facts["name"], str)[:100].isidentifier() else base.__name__
        text = checked_text(facts["text"])
        args = _all_typed(facts.get("args", [text])[:5], *SCALARS)
        if issubclass(base, BaseExceptionGroup):
            inside = self._decode_all(facts.get("inside", [])[:MAX_GROUP], depth)
            args = [text, _all_typed(inside, BaseException) or [Exception("?")]]
        error: BaseException = _built_in(base).__new__(self._error_class(base, name[:100]), *args)
        line = facts.get("line")
        vars(error).update(
            {
                name: value
                for name, value in list(facts.get("attributes", {}).items())[:20]
                if name[:1] != "_"
                and type(value) in SCALARS
                and name not in OF_THE_TRUSTED_SIDE
                and not hasattr(BaseExceptionGroup, name)
            },
            answers_line=line if type(line) is int and 0 < line < 10**6 else None,
            answers_text=text,
        )
        if isinstance(error, SyntaxError) and "syntax" in facts:
            error.lineno, error.msg, error.text = map(_typed, facts["syntax"], (int, str, str))
        return error

    def _error_class(self, base: type[BaseException], name: str) -> type[BaseException]:
        """Return a subclass of a known class for an answer's exception, whose `str` is the answer's text."""
        made = self._error_classes.get((base, name))
        if made is None:
            body = {"__module__": base.__module__, "__repr__": BaseException.__repr__}
            if not issubclass(base, BaseExceptionGroup):
                body["__str__"] = lambda self: self.answers_text
            made = self._error_classes[base, name] = type(name, (base,), body)
        return made

    def _known_error(self, name: str) -> type[BaseException] | None:
        """Return the class of this name if an answer may raise it.

        The class that is found decides, not the module that the name claims: modules also hold other modules' classes.
        """
        module, _, short = _typed(name, str).rpartition(".")
        known: Any = None
        if module == "__main__":
            known = self.namespace.get(short)
        elif module in sys.modules and module.partition(".")[0] in {*ERROR_MODULES, "scalelab"}:
            known = vars(sys.modules[module]).get(short)
        if not isinstance(known, type) or not issubclass(known, BaseException):
            return None
        if known in ERRORS_FOR_ANSWERS:
            return known
        if module == "__main__":
            return known if known.__module__ == module and not issubclass(known, ScalelabError) else None
        if issubclass(known, (StopIteration, StopAsyncIteration)):
            return RuntimeError  # as in a generator: it would end the check's loops silently
        # Exceptions that `except Exception` does not catch are only raised if the set-up has defined their class, or
        # for a cancellation.
        harmless = issubclass(known, (Exception, asyncio.CancelledError)) or known is BaseExceptionGroup
        return known if harmless and known.__module__.partition(".")[0] in ERROR_MODULES else None


def _is_record(kind: type) -> bool:
    """Whether a class of the set-up is a NamedTuple or a dataclass that consists of its fields."""
    if issubclass(kind, tuple):
        return hasattr(kind, "_fields")
    return dataclasses.is_dataclass(kind) and _built_in(kind) is object


def _built_in(kind: type) -> Any:
    """Return the built-in base of a class: its `__new__` makes instances without the set-up's code."""
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


@functools.cache
def _fields(kind: Any) -> Sequence[str]:
    return kind._fields if issubclass(kind, tuple) else [field.name for field in dataclasses.fields(kind)]


def _is_short(value: Decimal) -> bool:
    """Whether a Decimal is short if written without an exponent; an int of a billion digits would fill the memory."""
    exponent = Decimal.as_tuple(value).exponent
    return isinstance(exponent, str) or (abs(exponent) <= MAX_DIGITS and abs(Decimal.adjusted(value)) <= MAX_DIGITS)


def _is_small(value: range) -> bool:
    return not value or (value[-1] - value[0]) // value.step < MAX_RANGE


def _typed(value: Any, *kinds: Any) -> Any:
    if not isinstance(value, kinds):
        raise ProtocolError("not a value")
    return value


def _all_typed(values: Iterable[Any], *kinds: Any) -> list[Any]:
    return [_typed(value, *kinds) for value in values]


def _chosen_hash(value: Any) -> int | None:
    """Return the hash of a value whose hash can be chosen with the value; None for others, such as text."""
    if type(value) is int:
        return hash(value) if abs(value) >= sys.hash_info.modulus else None
    if isinstance(value, (tuple, frozenset, range, complex, Decimal, Fraction)) or dataclasses.is_dataclass(value):
        with contextlib.suppress(TypeError):  # it cannot be hashed
            return hash(value)
    return None


def _base64(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode()


def _bytes(data: Any) -> bytes:
    return base64.b64decode(_typed(data, str), validate=True)


def _clean(text: str) -> str:
    """Escape lone surrogates, which streams cannot write."""
    return text.encode("utf-8", "backslashreplace").decode()


ENCODERS: dict[type, Callable[[Codec, Any, int], Any]] = {
    list: lambda codec, value, depth: ["l", codec._encode_all(list.copy(value), depth)],
    tuple: Codec._encode_tuple,
    dict: Codec._encode_dict,
    set: lambda codec, value, depth: ["s", codec._encode_all(list(set.__iter__(value)), depth)],
    frozenset: lambda codec, value, depth: ["f", codec._encode_all(list(frozenset.__iter__(value)), depth)],
    str: lambda codec, value, depth: str.__str__(value),
    int: lambda codec, value, depth: int.__int__(value),
    float: lambda codec, value, depth: float.__float__(value),
    bytes: lambda codec, value, depth: ["b", _base64(value)],
    bytearray: lambda codec, value, depth: ["B", _base64(value)],
    complex: lambda codec, value, depth: ["c", complex.real.__get__(value), complex.imag.__get__(value)],
    Fraction: lambda codec, value, depth: ["q", Fraction.numerator.__get__(value), Fraction.denominator.__get__(value)],
    Decimal: Codec._encode_decimal,
    range: Codec._encode_range,
    slice: lambda codec, value, depth: ["S", *codec._encode_all([value.start, value.stop, value.step], depth)],
    EllipsisType: lambda codec, value, depth: ["..."],
    BaseException: Codec.error,
}
LIBRARY_ENCODERS: dict[str, Callable[[Codec, Any, int], Any]] = {
    "numpy.generic": Codec._encode_scalar,
    "numpy.ndarray": Codec._encode_array,
    "pandas.Index": Codec._encode_index,
    "pandas.Series": Codec._encode_series,
    "pandas.DataFrame": Codec._encode_frame,
}
DECODERS: dict[str, Callable[..., Any]] = {
    "l": lambda codec, depth, values: codec._decode_all(values, depth),
    "t": lambda codec, depth, values: tuple(codec._decode_all(values, depth)),
    "s": lambda codec, depth, values: set(codec._decode_keys(depth, values)),
    "f": lambda codec, depth, values: frozenset(codec._decode_keys(depth, values)),
    "d": Codec._decode_dict,
    "b": lambda codec, depth, data: _bytes(data),
    "B": lambda codec, depth, data: bytearray(_bytes(data)),
    "c": lambda codec, depth, real, imag: complex(*_all_typed((real, imag), float)),
    "q": lambda codec, depth, numerator, denominator: Fraction(*_all_typed((numerator, denominator), int)),
    "D": Codec._decode_decimal,
    "r": Codec._decode_range,
    "S": Codec._decode_slice,
    "...": lambda codec, depth: ...,
    "a": Codec._decode_array,
    "p": Codec._decode_column,
    "i": Codec._decode_index,
    "P": Codec._decode_series,
    "F": Codec._decode_frame,
    "x": Codec._decode_record,
    "N": Codec._decode_answers_record,
    "E": Codec._decode_error,
    **{tag: functools.partial(lambda tag, codec, depth, *data: codec.resolve([tag, *data]), tag) for tag in "@$MmRCL"},
}


def unsendable(value: Any, error: Exception) -> Exception:
    """Return the error for an answer that gave its check a value which cannot be encoded; `error` is the reason."""
    name = type(value).__name__[:100]
    if isinstance(error, TooMuch):
        return ValueError(f"Your answer gave its check too much: {error}.")
    return TypeError(
        f"Your answer gave its check a value of the type {name}, which cannot be handed over. Give it numbers, text, "
        "lists, tuples, dicts or sets of them, or what the task asks for."
    )


def checked_time(value: Any, now: float) -> float | None:
    """Return None, or a finite number of seconds, at least `now`. Raises ProtocolError for other values."""
    if value is None:
        return None
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        raise ProtocolError("not a time")
    return max(float(value), now)


def checked_int(value: Any) -> int:
    """Return an int from 0 to 2**31. Raises ProtocolError for other values."""
    if type(value) is not int or not 0 <= value <= 2**31:
        raise ProtocolError("not a number in range")
    return value


def checked_text(value: Any, max_length: int = MAX_TEXT) -> str:
    """Return the first `max_length` characters of a text, without lone surrogates. Raises ProtocolError."""
    if not isinstance(value, str):
        raise ProtocolError("not a text")
    return _clean(value[:max_length])
