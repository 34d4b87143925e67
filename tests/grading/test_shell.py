"""A warm kernel's shell takes no cell that awaits for one that does not, and tells cells apart."""

from __future__ import annotations

import ast
import inspect
import warnings
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scalelab.course.exercises import read_set, sources
from scalelab.course.find import find_course
from scalelab.grading.shell import Compiler, may_await

PIECES = (
    "x = 1\n",
    "await x\n",
    "async with x:\n",
    "async for y in x:\n",
    "async \\\nfor y in x: pass\n",
    "[y async for y in x]\n",
    "async def f():\n",
    "async  def g(): await x\n",
    "def h(a=await x):\n",
    "@(await x)\n",
    "class C:\n",
    "lambda: 3\n",
    "if x:\n",
    "    ",
    "        await x\n",
    "    return 1\n",
    "    pass\n",
    "'''",
    "# await\n",
    "\r",
    "\n",
)


def awaits(source: str) -> bool:
    """Return what Python itself says of a cell; one that it cannot compile does not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(source, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError):
        return False
    return bool(code.co_flags & inspect.CO_COROUTINE)


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
@example("async def f():\n    pass\nawait f()\n")
@example("@(await x)\ndef f():\n    pass\n")
@example("def f(a=await x):\n    pass\n")
@example("def f(\n  a=await x): pass\n")
@example("x = 1\r\rasync def f():\r    pass\rawait f()\r")
def test_no_cell_that_awaits_is_taken_for_one_that_does_not(source: str) -> None:
    assert may_await(source) or not awaits(source)


@pytest.mark.parametrize("path", sources(find_course(Path(__file__).parent)), ids=lambda path: path.stem)
def test_neither_is_a_cell_of_the_course(path: Path) -> None:
    for exercise in read_set(path).exercises:
        for source in (exercise.solution, exercise.check, exercise.hidden, *(one.source for one in exercise.wrongs)):
            assert may_await(source) or not awaits(source)


def test_functions_that_await_need_not_be_compiled_to_see_that_their_cell_does_not() -> None:
    assert not may_await("x = 1\n\n\n@cache\nasync def f(a=1):\n    async with x:\n        await a\n\n\nf(x)\n")


def test_cells_have_names_of_their_own() -> None:
    first, second = (Compiler().get_code_name(source, source, 1) for source in ("x = 1", "x = 2"))
    assert first != second
    assert first == Compiler().get_code_name("x = 1", "x = 1", 2)
    assert first.endswith(".py")
