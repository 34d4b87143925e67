"""What an answer gives its check: values that cannot be handed over, or are too large, and the end of an iteration."""

from __future__ import annotations

from typing import Any

import pytest
from remote_answer import judged, local, remote

SETUP = ["import asyncio, threading\nfrom scalelab import checks"]
CHECK = """
with checks.verdict("use") as expect:
    got = use()
    expect(got == 3, "it is 3", otherwise="It is not.", saw=got)
"""
IN_A_RUN = """
with checks.verdict("use") as expect:
    run = checks.run(use)
    expect(run.result == 3, "it is 3", otherwise="It is not.", saw=run.result)
"""
IN_TURNS = """
with checks.verdict("use") as expect:
    run = checks.interleave(use)
    expect(run.result == 3, "it is 3", otherwise="It is not.", saw=run.result)
"""
EACH = """
with checks.verdict("use") as expect:
    got = checks.call_each(use, [1, 2, 3])
    expect(got == [1], "it is 1", otherwise="It is not.", saw=got)
"""
ODD = """
class Odd(type):
    def __dir__(cls):
        raise RuntimeError("no")
class Kind(metaclass=Odd):
    pass
"""


def flat(text: str) -> str:
    return " ".join(text.split())


def said(source: str, check: str, where: Any = remote) -> str:
    outcome = judged(where, SETUP, source, ["use"], check)
    assert not outcome.passed, outcome
    return flat(outcome.printed)


@pytest.mark.parametrize(
    ("definition", "check"),
    [("def use():", CHECK), ("async def use():", IN_A_RUN), ("def use():", IN_TURNS)],
    ids=["called", "awaited", "in turns"],
)
def test_a_value_that_cannot_be_handed_over_is_named(definition: str, check: str) -> None:
    text = said(f"{ODD}{definition}\n    return Kind()", check)
    assert "Your answer gave its check a value of the type Kind, which cannot be handed over. Give it numbers" in text
    text = said(f"{definition}\n    return ['x' * 1000] * 5_000", check)
    assert "Your answer gave its check too much: a value takes 4.8 MB as text; at most 4 MB are allowed." in text


def test_what_disturbs_the_conversation_is_told_in_plain_words() -> None:
    protocol = "from scalelab.answers import process_threads\nME = process_threads._turns[0].process\n"
    text = said(f"{protocol}def use():\n    ME.channel._socket.sendall(bytes([0, 0, 0, 1, 65]))\n    return 3", CHECK)
    assert "✗ your answer runs until its check is over Your answer disturbed the conversation with its check" in text
    assert "Return values, and call only the functions that you are given." in text


@pytest.mark.parametrize("where", [remote, local])
def test_the_end_of_an_iteration_ends_no_loop_of_the_check(where: Any) -> None:
    text = said("def use(n):\n    if n == 1:\n        return 1\n    raise StopIteration", EACH, where)
    assert "✗ the check can use the answer" in text
    assert "It was raised in line 4 of your cell: `raise StopIteration`" in text
    assert "`next` found no value" in text


def test_an_answer_cannot_say_that_calls_have_given_fewer_results() -> None:
    source = """
from scalelab.checks import _side
def use(n):
    return 1
_side._call_each = lambda function, calls, most: [1]
"""
    assert "RuntimeError: 3 calls have not given 3 results" in said(source, EACH)


@pytest.mark.parametrize("where", [local, remote], ids=["notebook", "grader"])
def test_an_annotation_is_a_value_as_in_a_notebook(where: Any) -> None:
    source = "def use(number: 1 + 1 = 2):\n    return 1 + use.__annotations__['number']"
    assert judged(where, SETUP, source, ["use"], CHECK).passed


def test_a_library_that_a_thread_imports_is_no_part_of_the_answer() -> None:
    """Importing it takes more steps than a run may have, and its functions keep the turn."""
    source = """
import sys, threading

def use():
    assert "statistics" not in sys.modules
    assert "xml.etree.ElementTree" not in sys.modules
    import statistics, xml.etree.ElementTree
    numbers = list(range(40_000))
    statistics.pvariance(numbers)
    return 3
"""
    check = IN_TURNS.replace("run.result == 3,", "run.result == 3 and run.steps < 100,")
    outcome = judged(remote, SETUP, source, ["use"], check)
    assert outcome.passed, outcome
