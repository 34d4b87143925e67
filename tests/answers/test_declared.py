"""Types that a check declares for the arguments of a function that it gives away.

No annotations of the future here: those are texts, which declare nothing.
"""

import dataclasses
import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
from remote_answer import judged, remote

from scalelab.answers.declared import check_types

SETUP = [
    """
import asyncio
from scalelab import checks
"""
]
CHECK = """
asked = []
def value(row: int):
    asked.append(row)
    return row % 7
async def send(row: int):
    asked.append(row)
    return row * 7919
with checks.verdict("use") as expect:
    expect(use(value) == 3, "the remainder is 3", otherwise="It is not.")
    run = checks.run(lambda: fetch(send))
    expect(run.result == 7919 * 10, "the product is right", otherwise="It is not.")
    expect(asked == [10, 10], "only numbers were asked for", otherwise="No.", saw=asked)
"""


@dataclasses.dataclass
class Row:
    number: int


def of_int(row: int) -> None: ...
def of_float(row: float) -> None: ...
def of_either(row: int | None = None) -> None: ...
def of_list(row: list[int]) -> None: ...
def of_dict(row: dict[str, int]) -> None: ...
def of_many(*row: int, **rest: str) -> None: ...
def of_class(row: Row, draw: random.Random | None = None) -> None: ...
def of_function(row: Callable[[], int]) -> None: ...
def of_any(row: Any) -> None: ...
def of_both(first: int, second: int) -> None: ...
def of_nothing(row) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "good", "bad"),
    [
        (of_int, [1, True, 10**30], ["1", 1.0, None, [1]]),
        (of_float, [1, 2.5], ["1", None]),
        (of_either, [1, None], ["1", 1.5]),
        (of_list, [[], [1, 2]], [["x"], [1, "x"], (1,), "x"]),
        (of_dict, [{}, {"a": 1}], [[], "x"]),
        (of_many, [1], ["x"]),
        (of_class, [Row(1)], [1, {"number": 1}]),
        (of_function, [len], [1, "len"]),
        (of_any, [1, "x", None], []),
        (of_nothing, [1, "x", None], []),
    ],
)
def test_an_argument_of_another_type_is_refused(function: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        check_types(function, [value], {})
    for value in bad:
        with pytest.raises(TypeError, match=r"of_\w+\(\) expects .* for 'row', and got "):
            check_types(function, [value], {})


def test_arguments_by_name_are_looked_at_too() -> None:
    check_types(of_many, [], {"note": "x"})
    with pytest.raises(TypeError, match="for 'rest', and got int: 5"):
        check_types(of_many, [], {"note": 5})
    with pytest.raises(TypeError, match="missing a required argument"):
        check_types(of_int, [], {"other": 5})


def test_a_method_declares_its_arguments() -> None:
    class Store:
        def price(self, item: str) -> float:
            return len(item)

    check_types(Store().price, ["boots"], {})
    with pytest.raises(TypeError, match=r"price\(\) expects str"):
        check_types(Store().price, [5], {})


def test_an_object_that_can_be_called_and_a_part_of_a_function_declare_theirs() -> None:
    class Calls:
        def __call__(self, item: int) -> None: ...

    for function in (Calls(), functools.partial(of_both, 1)):
        check_types(function, [5], {})
        with pytest.raises(TypeError, match=r"expects int for '(item|second)', and got str"):
            check_types(function, ["5"], {})


def test_an_honest_answer_notices_nothing() -> None:
    source = "def use(value):\n    return value(10)\nasync def fetch(send):\n    return await send(row=10)"
    outcome = judged(remote, SETUP, source, ["use", "fetch"], CHECK)
    assert outcome.passed, outcome


@pytest.mark.parametrize("argument", ["'%700000000d'", "'x' * 60_000", "[0] * 9", "1.5"])
def test_a_function_of_the_check_does_not_run_with_another_type(argument: str) -> None:
    source = f"""
def use(value):
    try:
        value({argument})
    except TypeError as error:
        assert "value() expects int for 'row', and got" in str(error), error
    return value(10)

async def fetch(send):
    try:
        await send({argument})
    except TypeError as error:
        assert "send() expects int for 'row', and got" in str(error), error
    return await send(10)
"""
    outcome = judged(remote, SETUP, source, ["use", "fetch"], CHECK)
    assert outcome.passed, outcome
