"""Values to data and back: a value arrives equal and of its type; data that `encode` never makes is refused."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import math
import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st
from hypothesis.extra import pandas as pd_st
from remote_answer import remote

from scalelab.answers import codec
from scalelab.answers.channel import ProtocolError
from scalelab.answers.codec import (
    DTYPES,
    MAX_DEPTH,
    MAX_EQUAL_HASHES,
    MAX_KEYS,
    MAX_VALUES,
    Codec,
    checked_int,
    checked_text,
    checked_time,
)
from scalelab.checks import NeverEnds, Unmet

CODE_THAT_RAN: list[str] = []


class Pair(NamedTuple):
    a: Any
    b: Any = None


@dataclasses.dataclass(frozen=True)
class Careful:
    value: Any
    doubled: Any = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        CODE_THAT_RAN.append("a constructor")


class Unit(Exception):
    def __init__(self, size: int, name: str) -> None:
        super().__init__(f"{size} {name}")
        CODE_THAT_RAN.append("an exception's constructor")
        self.size = size


class Crash(BaseException):
    pass


Unit.__module__ = Crash.__module__ = "__main__"  # as classes of the set-up are

SETUP = {
    "Pair": Pair,
    "Careful": Careful,
    "Unit": Unit,
    "Crash": Crash,
    "Imported": KeyboardInterrupt,
    "OfThisPackage": Unmet,
}


def make_codec() -> Codec:
    made = Codec(SETUP, lambda value: ["@", type(value).__name__], lambda data: ("reference", *data[1:]))
    made.add_records(SETUP)
    return made


def sent(value: Any) -> Any:
    """Return a value as it arrives in the other process."""
    return make_codec().decode(json.loads(json.dumps(make_codec().encode(value))))


def decoded(data: Any) -> Any:
    return make_codec().decode(json.loads(json.dumps(data)))


def same(left: Any, right: Any) -> bool:
    """Whether two values are of one type and equal at every depth; NaN equals NaN, and -0.0 is not 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, slice):
        return same([left.start, left.stop, left.step], [right.start, right.stop, right.step])
    return repr(left) == repr(right) if isinstance(left, (float, complex, Decimal)) else bool(left == right)


def in_order(data: Any) -> Any:
    """Return data in which the values of sets have an order of their own."""
    if not isinstance(data, list):
        return data
    parts = [in_order(part) for part in data]
    return [data[0], sorted(parts[1], key=json.dumps)] if data[:1] in (["s"], ["f"]) else parts


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))  # with lone surrogates
    | st.binary()
    | st.builds(bytearray, st.binary())
    | st.complex_numbers()
    | st.fractions()
    | st.decimals()
    | st.just(...)
    | st.builds(range, st.integers(-(10**30), 10**30), st.integers(0, 99).map(lambda n: 10**30 + n), st.just(10**29))
)
keys = st.recursive(
    st.booleans() | st.integers() | st.text() | st.binary() | st.fractions(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=2) | st.tuples(inner, inner).map(Pair._make),
    max_leaves=2,
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=3)
        | st.sets(keys, max_size=3)
        | st.frozensets(keys, max_size=3)
        | st.tuples(inner, inner).map(Pair._make)
        | st.builds(slice, inner, inner, inner)
    ),
    max_leaves=6,
)
arrays = np_st.arrays(
    st.sampled_from(sorted(DTYPES)).map(np.dtype), np_st.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)
frames = pd_st.data_frames(
    [
        pd_st.column("count", dtype=np.int64),
        pd_st.column("share", dtype=np.float32),
        pd_st.column("name", elements=st.text(st.characters(codec="utf-8"), max_size=3) | st.none(), dtype=object),
        pd_st.column("when", dtype=np.dtype("datetime64[ns]")),
    ],
    index=pd_st.range_indexes(max_size=4) | pd_st.indexes(elements=st.integers(0, 9), max_size=4),
)


@given(values)
def test_a_value_arrives_as_it_was(value: Any) -> None:
    assert same(sent(value), value)


@given(values)
def test_what_was_decoded_encodes_to_the_same_data(value: Any) -> None:
    data = make_codec().encode(value)
    assert json.dumps(in_order(make_codec().encode(make_codec().decode(data)))) == json.dumps(in_order(data))


@given(arrays)
def test_an_array_arrives_with_its_dtype_and_shape(array: Any) -> None:
    arrived = sent(array)
    assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
    assert arrived.tobytes() == array.tobytes()
    assert arrived.flags.writeable


@settings(max_examples=30)
@given(frames)
def test_a_frame_arrives_with_its_index_and_columns(frame: Any) -> None:
    pd.testing.assert_frame_equal(sent(frame), frame)
    pd.testing.assert_series_equal(sent(frame["name"]), frame["name"])


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"n": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["key", "part"])),
        pd.DataFrame({("a", 1): [1], ("b", 2): [2]}),
        pd.DataFrame({"maybe": pd.array([1, None], dtype="Int64"), "kind": pd.array(["x", "y"], dtype="category")}),
        pd.DataFrame({"text": ["a", None], "when": pd.date_range("2020", periods=2)}).set_index("when"),
        pd.DataFrame(),
        pd.DataFrame([[1, 2], [3, 4]], columns=["same", "same"]),
    ],
    ids=range(6),
)
def test_frames_of_all_kinds(frame: Any) -> None:
    pd.testing.assert_frame_equal(sent(frame), frame, check_freq=False)


def test_a_value_survives_the_way_through_a_real_process() -> None:
    with remote(
        ["from typing import Any, NamedTuple\nclass Pair(NamedTuple):\n    a: Any\n    b: Any = None"],
        "def same(value):\n    return value",
        ["same"],
    ) as namespace:
        pair, same_there = namespace["Pair"], namespace["same"]

        @settings(max_examples=60)
        @given(values.map(lambda value: to_pairs(value, pair)))
        def there_and_back(value: Any) -> None:
            assert same(same_there(value), value)

        there_and_back()
        frame = pd.DataFrame({"a": np.arange(3), "b": ["x", "y", "z"]})
        pd.testing.assert_frame_equal(same_there(frame), frame)
        assert same_there([np.arange(3.0)])[0].tolist() == [0.0, 1.0, 2.0]
        assert same_there({"counts": Counter("aab")}) == {"counts": {"a": 2, "b": 1}}


def to_pairs(value: Any, pair: Any) -> Any:
    """Return a value in which each Pair is one of another class."""
    if isinstance(value, Pair):
        return pair(*(to_pairs(part, pair) for part in value))
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(to_pairs(part, pair) for part in value)
    if isinstance(value, dict):
        return {to_pairs(key, pair): to_pairs(part, pair) for key, part in value.items()}
    return (
        slice(*(to_pairs(part, pair) for part in (value.start, value.stop, value.step)))
        if isinstance(value, slice)
        else value
    )


# Subclasses, and objects that lie.


class Hostile:
    """Methods that report that they ran."""

    def _ran(self, *args: Any) -> Any:
        CODE_THAT_RAN.append("a method of a subclass")
        raise AssertionError

    __iter__ = __len__ = items = keys = values = copy = __str__ = __repr__ = __int__ = __float__ = _ran
    __getitem__ = __index__ = __bool__ = __contains__ = __class__ = property(_ran)  # type: ignore[assignment]


@pytest.mark.parametrize(
    "plain",
    [[1, [2]], (1, 2), {"a": 1}, {1, 2}, frozenset({1}), "text", 7, 2.5, b"ab", bytearray(b"x"), 1j, Decimal("1.50")],
    ids=lambda plain: type(plain).__name__,
)
def test_a_subclass_arrives_as_its_plain_class_and_none_of_its_code_runs(plain: Any) -> None:
    kind: Any = type(plain)
    CODE_THAT_RAN.clear()
    assert same(sent(type("Liar", (Hostile, kind), {})(plain)), plain)
    assert not CODE_THAT_RAN


def test_the_standard_librarys_subclasses_arrive_as_plain_values() -> None:
    level = enum.IntEnum("level", "LOW")
    assert same(sent([level.LOW, Counter("aab"), OrderedDict(a=1)]), [1, {"a": 2, "b": 1}, {"a": 1}])
    assert same(sent(defaultdict(list, {1: [2]})), {1: [2]})
    assert same(
        sent([np.float64(2.5), np.float32(0.5), np.int8(3), np.bool_(True), np.complex64(1j)]), [2.5, 0.5, 3, True, 1j]
    )


# Records and exceptions.


def test_a_record_arrives_without_its_constructor() -> None:
    record = Careful(3)
    CODE_THAT_RAN.clear()
    assert sent([record, Pair(1, [2])]) == [record, Pair(1, [2])]
    assert not CODE_THAT_RAN


def test_an_exception_arrives_with_its_class_text_arguments_and_attributes() -> None:
    original = Unit(3, "metres")
    CODE_THAT_RAN.clear()
    error = sent(original)
    assert isinstance(error, Unit)
    assert (str(error), type(error).__name__, error.size) == ("3 metres", "Unit", 3)
    assert not CODE_THAT_RAN
    error = sent(KeyError("k", 2))
    assert isinstance(error, KeyError)
    assert error.args == ("k", 2)
    error = sent(FileNotFoundError(2, "no such file"))
    assert isinstance(error, FileNotFoundError)
    assert error.errno == 2
    error = sent(ExceptionGroup("two", [ValueError("a"), ExceptionGroup("inner", [KeyError("b")])]))
    assert isinstance(error, ExceptionGroup)
    assert [type(inside).__name__ for inside in error.exceptions] == ["ValueError", "ExceptionGroup"]
    with pytest.raises(SyntaxError) as caught:
        compile("a b", "<answer>", "exec")
    error = sent(caught.value)
    assert (error.lineno, error.text.strip()) == (1, "a b")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_an_exception_that_no_check_catches_arrives_as_one_that_it_does(kind: type[BaseException]) -> None:
    error = sent(kind("stop"))
    assert isinstance(error, Exception)
    assert type(error).__name__ == kind.__name__


def test_the_set_ups_own_crash_arrives_as_one() -> None:
    assert isinstance(sent(Crash("of the disk")), Crash)


@pytest.mark.parametrize(
    "name",
    [
        "scalelab.checks._side.AnswerEnded",
        "scalelab.checks.AnswerEnded",
        "scalelab.checks.Unmet",
        "scalelab.checks.Deadlock",
        "scalelab.checks._run.Ended",
        "scalelab.errors.ScalelabError",
        "__main__.OfThisPackage",
        "scalelab.checks._verdict.CheckFailed",
        "scalelab.answers.channel.ProtocolError",
        "scalelab.checks._world.Ended",
        "builtins.print",
        "builtins.object",
        "os.error",
        "__main__.Pair",
        "__main__.Imported",
    ],
)
def test_only_known_and_harmless_exceptions_are_made(name: str) -> None:
    error = decoded(["E", {"name": "Own", "kinds": [name], "text": "why"}])
    assert type(error).__mro__[1:] == Exception.__mro__


def test_the_end_of_an_iteration_ends_no_loop_of_the_check() -> None:
    for kind in (StopIteration, StopAsyncIteration):
        error = sent(kind("6"))
        assert isinstance(error, RuntimeError)
        assert (type(error).__name__, str(error)) == (kind.__name__, "6")


def test_an_endless_answer_that_was_counted_arrives_as_one() -> None:
    assert isinstance(sent(NeverEnds("more than 9 lines have run")), NeverEnds)


def test_an_exception_has_no_attribute_that_the_judge_reads() -> None:
    attributes = dict.fromkeys(("state", "right", "words", "idea", "detail", "run", "reason", "status"), 7)
    error = decoded(["E", {"name": "E", "kinds": ["builtins.ValueError"], "text": "", "attributes": attributes}])
    assert set(vars(error)) == {"status", "answers_line", "answers_text"}


def test_an_exceptions_attributes_replace_nothing_of_its_class() -> None:
    attributes = {
        "with_traceback": 1,
        "add_note": 2,
        "__class__": 3,
        "_x": 4,
        "args": 5,
        "split": 6,
        "fine": 7,
        "list": [],
    }
    error = decoded(["E", {"name": "Own", "kinds": ["builtins.ValueError"], "text": "why", "attributes": attributes}])
    assert error.with_traceback(None) is error
    assert error.args == ("why",)
    assert set(vars(error)) == {"fine", "answers_line", "answers_text"}
    assert str(decoded(["E", {"name": "E", "kinds": [], "text": "\ud800"}])) == "\\ud800"


# What is refused.

EQUAL_HASHES = [number * (2**61 - 1) for number in range(MAX_EQUAL_HASHES + 1)]
ARRAY = "AAAAAAAA8D8="  # one float


REFUSED = """
[] | {} | {"a": 1} | [1] | [[]] | [null] | ["eval", "1"] | ["l"] | ["l", 1] | ["l", "ab"] | ["l", [], 1] | ["t", {}]
["d", [1], []] | ["d", [["l", []]], [1]] | ["s", [["l", []]]] | ["b", "?"] | ["b", "YWJ"] | ["b", 1] | ["B", "é"]
["c", 1, 2] | ["c", "1", "2"] | ["q", 1, 0] | ["q", 1.5, 2] | ["q", true, "2"] | ["D", 1] | ["D", "x"] | ["S", 1]
["D", "1e999999999"] | ["D", "1e-999999999"] | ["r", 0, 9, 0] | ["r", 0, 1.5, 1] | ["r", 0, 1000000000000, 1] | ["r"]
["a", "<f8", [2], "AAAAAAAA8D8="] | ["a", "<f8", [-1], "AAAAAAAA8D8="] | ["a", "<f8", [1.0], "AAAAAAAA8D8="]
["a", "<f8", [true], "AAAAAAAA8D8="] | ["a", "O", [1], "AAAAAAAA8D8="] | ["a", "<U2", [1], "AAAAAAAA8D8="]
["a", ["<f8"], [1], "AAAAAAAA8D8="] | ["a", "V8", [1], "AAAAAAAA8D8="] | ["a", "<f8", [0, 1000000000000000000], ""]
["a", "<f8", [1, 1, 1, 1, 1, 1, 1, 1, 1], "AAAAAAAA8D8="] | ["a", "<f8", [1], "no base64"] | ["a", "<f8"]
["p", "Sparse[int]", [1]] | ["p", "period[D]", [1]] | ["p", "Int64", ["x"]] | ["p", ["object"], [1]]
["i", [null], []] | ["i", [], [["p", "object", [1]]]] | ["i", [null], [1]] | ["P", null, 1, ["p", "Int64", [1]]]
["F", ["i", [null], [["r", 0, 2, 1]]], ["i", [null], [["r", 0, 1, 1]]], [["p", "Int64", [1]]]] | ["F", 1, 1, [1]]
["x", "Pair", []] | ["x", "Pair", [1, 2, 3]] | ["x", "Unit", [1]] | ["x", "Other", []] | ["x", ["Pair"], [1, 2]]
["E", {}] | ["E", []] | ["E", {"name": 1, "kinds": [], "text": ""}] | ["E", {"name": "E", "kinds": [], "text": 1}]
["E", {"name": "E", "kinds": [1], "text": ""}] | ["E", {"name": "E", "kinds": [], "text": "", "args": [[]]}]
["E", {"name": "E", "kinds": ["builtins.SyntaxError"], "text": "", "syntax": ["1", 2, 3]}] | ["N", 1, 2, [], 3]
"""


@pytest.mark.parametrize("text", REFUSED.replace("\n", " | ").strip(" |").split(" | "))
def test_data_that_is_never_sent_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        make_codec().decode(json.loads(text))


def test_keys_that_would_take_quadratic_time_are_refused() -> None:
    equal_hashes = [number * (2**61 - 1) for number in range(MAX_EQUAL_HASHES + 1)]
    for data in (["d", equal_hashes, equal_hashes], ["s", equal_hashes], ["s", list(range(MAX_KEYS + 1))]):
        with pytest.raises(ProtocolError, match="too many keys"):
            make_codec().decode(data)
    squares = {(row, column): 0 for row in range(-50, 50) for column in range(-50, 50)}
    assert sent(squares) == squares
    with pytest.raises(ProtocolError, match="too many digits"):
        make_codec().decode(["D", "0." + "1" * 4_305])


@pytest.mark.parametrize(
    "value",
    [
        lambda number: tuple(-1 - (number >> place & 1) for place in range(16)),
        lambda number: Decimal(number * (2**61 - 1)),
        lambda number: number * (2**61 - 1),
        lambda number: Fraction(number * (2**61 - 1)),
        lambda number: frozenset([Decimal(number * (2**61 - 1))]),
    ],
)
def test_a_long_list_whose_set_would_take_quadratic_time_is_refused(value: Callable[[int], Any]) -> None:
    values = [value(number) for number in range(2_000)]
    with pytest.raises(ProtocolError, match=r"too many (values|keys) with the same hash"):
        sent(values)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(), st.text(max_size=3)) | st.decimals() | st.fractions(), max_size=40))
def test_a_long_list_of_ordinary_values_is_read(values: list[Any]) -> None:
    long = values * 50 + list(itertools.product(range(-20, 20), range(-20, 20))) + list(range(2_000))
    assert list(map(repr, sent(long))) == list(map(repr, long))


def test_a_value_that_is_too_deep_or_holds_itself_is_refused_on_both_sides() -> None:
    deep: Any = []
    for _ in range(MAX_DEPTH + 3):
        deep = [deep]
    circle: list[Any] = []
    circle.append(circle)
    for value in (deep, circle, {"a": circle}):
        with pytest.raises(ProtocolError, match="too deep"):
            make_codec().encode(value)
    data: Any = 1
    for _ in range(MAX_DEPTH + 3):
        data = ["l", [data]]
    with pytest.raises(ProtocolError):
        make_codec().decode(data)


def test_the_values_of_all_messages_together_are_bounded() -> None:
    bounded, most = make_codec(), MAX_VALUES // 1000
    for _ in range(most):
        bounded.decode(["l", [0] * 1000])
    with pytest.raises(ProtocolError, match="too many values"):
        bounded.decode(["l", [0] * 1000])


def test_values_that_would_cost_too_much_on_the_other_side_stay_where_they_are() -> None:
    for value in (Decimal("1e999999999"), Decimal("1e-999999999"), range(10**12), range(0, -(10**12), -1)):
        assert sent(value) == ("reference", type(value).__name__)
    for value in (Decimal("NaN"), Decimal("-Infinity"), Decimal("-0.00"), Decimal("1e4000"), range(10**6), range(9, 3)):
        assert same(sent(value), value)


def test_what_is_not_data_is_named() -> None:
    tz = pd.Series(pd.date_range("2020", periods=1, tz="UTC"))
    for value in (object(), len, int, np.array(["a"]), np.array([None]), tz, pd.DataFrame({"a": tz}), memoryview(b"a")):
        assert sent(value) == ("reference", type(value).__name__)


def test_a_flat_list_is_copied_and_not_shared_with_its_data() -> None:
    data = ["l", [1, 2]]
    make_codec().decode(data).append(3)
    values = [1, 2]
    encoded = make_codec().encode(values)
    values.append(3)
    assert data == encoded == ["l", [1, 2]]


def test_equal_short_texts_are_one_object_for_an_answer_only() -> None:
    text, answers = "".join(["a b"]), Codec({}, list, list, intern=True)
    assert answers.decode(json.loads('"a b"')) is answers.decode(["l", [json.loads('"a b"')]])[0]
    assert make_codec().decode(text) is text


def test_numbers_times_and_texts_are_checked() -> None:
    assert (checked_int(5), checked_text("a\ud800b", 2), checked_time(None, 1.0), checked_time(0.5, 1.0)) == (
        5,
        "a\\ud800",
        None,
        1.0,
    )
    for wrong in (-1, True, 1.0, "1", None, 2**40):
        with pytest.raises(ProtocolError):
            checked_int(wrong)
    for wrong in (math.nan, math.inf, True, "1", 10**400):
        with pytest.raises(ProtocolError):
            checked_time(wrong, 0.0)
    with pytest.raises(ProtocolError):
        checked_text(b"a")


def test_the_modules_docstring_names_all_tags() -> None:
    documented = set(re.findall(r'"(\w|\.\.\.|@|\$)"', str(codec.__doc__)))
    assert documented == set(codec.DECODERS)
