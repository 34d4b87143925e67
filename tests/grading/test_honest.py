"""What honest students write beside a right answer costs no point: not of its own question, and not of another."""

from __future__ import annotations

import ast
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from scalelab.exercises.reference import Question, Reference, read_reference
from scalelab.grading.judging.fork_server import sandbox_missing
from scalelab.grading.judging.judge import Judge, judging
from scalelab.grading.judging.results import PASSED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="answers' processes are forked on Linux alone")

SOLUTIONS = Path(__file__).parents[2] / "solutions"
SETS = sorted(path.stem for path in SOLUTIONS.glob("*.ipynb"))
IN_DEPTH = "08_asyncio"
"""The set whose answers get one line each; those of the others get a line of each kind at once."""
PRINTS = (
    "print('here')",
    "print()",
    "print(locals())",
    "print('no line end', end='', flush=True)",
    "print('✓ all is well')",
    "print('✗ not yet')",
    "print('x' * 10_000)",
    "print('\\x1b[31mred\\x1b[0m')",
    "import sys; sys.stdout.write('written\\n')",
    "import pprint; pprint.pprint({'a': 1})",
    "display('shown')",
    "import sys; sys.stdout.flush(); print('é', '\\u2028')",
)
WARNINGS = (
    "import warnings; warnings.warn('mind this')",
    "import warnings; warnings.warn('old', DeprecationWarning, stacklevel=2)",
    "import sys; print('to stderr', file=sys.stderr)",
    "import sys; sys.stderr.write('to stderr')",
    "import logging; logging.warning('logged')",
    "import logging; logging.basicConfig(level=logging.DEBUG); logging.debug('logged')",
    "import logging; logging.getLogger('mine').error('logged')",
    "import numpy; numpy.float64(1) / numpy.float64(0)",
    "import numpy; numpy.array([1.0]) / numpy.array([0.0])",
    "import traceback; traceback.print_stack()",
    "import sys, traceback; traceback.print_exception(ValueError('caught'))",
    "open('/dev/null')",
)
SHADOWS = (
    *("max = 0", "min = 0", "sum = 0", "list = [1, 2]", "str = 'a'", "range = 5", "set = {1}", "dict = {}", "len = 3"),
    *("sorted = None", "print = 0", "id = 7", "type = 'x'", "input = 1", "object = 1", "isinstance = 2", "zip = 0"),
)
BESIDES = (
    "%timeit sum(range(10))",
    "%time 1 + 1",
    "!pip install numpy",
    "%pip install aiohttp",
    "%matplotlib inline",
    "%load_ext autoreload\n%autoreload 2",
    "%config InlineBackend.figure_format = 'retina'",
    "len?",
    "import math, pandas, logging, pathlib, pickle, pprint, warnings, traceback, multiprocessing, unittest.mock",
    "from dataclasses import dataclass\n@dataclass(order=True)\nclass Point:\n    x: int = 0",
    "class Point:\n    def __eq__(self, other):\n        return True\n    def __hash__(self):\n        return 1",
    "class Box:\n    def __lt__(self, other):\n        return True\n    def __bool__(self):\n        return False",
    "class Bag:\n    def __getattr__(self, name):\n        return 1\n    def __len__(self):\n        return 0",
    "text = 'a text with __dict__, __globals__ and sys._getframe in it'\nkind = text.__class__.__name__",
    "import inspect, gc, ctypes, sys\nframe = sys._getframe()",
    "get_ipython()",
    "try:\n    1 / 0\nexcept ZeroDivisionError:\n    pass",
)
TOPS = ("%%time", "%%capture", "%matplotlib inline", "# -*- coding: utf-8 -*-\nfrom __future__ import annotations")


def in_functions(source: str, line: str) -> str:
    """Return the source with the line at the top of each of its functions; at its end if it has none."""
    tree = ast.parse(source)
    functions = [one for one in ast.walk(tree) if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for function in functions:
        function.body[:0] = ast.parse(line).body
    return ast.unparse(tree) if functions else at_the_end(source, line)


def at_the_end(source: str, line: str) -> str:
    return f"{source}\n\n{line}"


def at_the_top(source: str, line: str) -> str:
    return f"{line}\n{source}"


def uses(source: str, name: str) -> bool:
    """Whether an answer uses a built-in name itself: then it may not shadow it, in a notebook either."""
    return name in {one.id for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Name)}


Case = tuple[Callable[[str, str], str], str]
CASES: dict[str, Case] = {
    **{f"print: {line}": (in_functions, line) for line in PRINTS},
    **{f"warning: {line}": (in_functions, line) for line in WARNINGS},
    **{f"shadow: {line}": (at_the_end, line) for line in SHADOWS},
    **{f"beside: {line}": (at_the_end, line) for line in BESIDES},
    **{f"top: {line}": (at_the_top, line) for line in TOPS},
}


@pytest.fixture(scope="module")
def references() -> dict[str, Reference]:
    return {slug: read_reference(SOLUTIONS / f"{slug}.ipynb") for slug in SETS}


@pytest.fixture(scope="module")
def judge(references: dict[str, Reference]) -> Iterator[Judge]:
    with judging(references.values(), sandbox=not sandbox_missing(), cpu_s=10.0) as made:
        yield made


def fits(question: Question, case: str) -> bool:
    kind, _, line = case.partition(": ")
    if kind in ("print", "warning"):
        return "def " in question.solution
    return kind != "shadow" or not uses(question.solution, line.partition(" ")[0])


@pytest.fixture(scope="module")
def lost(judge: Judge, references: dict[str, Reference]) -> dict[str, str]:
    """Return which case of which question lost points, and why; each submission has a case for every question."""
    reference = references[IN_DEPTH]
    left = {question.exercise: [] for question in reference.questions}  # type: dict[str, list[str]]
    for case in CASES:
        fitting = [question for question in reference.questions if fits(question, case)]
        min((left[question.exercise] for question in fitting), key=len).append(case)
    submissions = [
        {
            question.exercise: CASES[case][0](question.solution, CASES[case][1])
            for question, case in zip(reference.questions, cases, strict=True)
            if case
        }
        for cases in itertools.zip_longest(*left.values())
    ]
    assert sum(map(len, submissions)) == len(CASES)
    lost = {}
    for number, results in judge.judge(reference, submissions, threading.Event()):
        for exercise, result in results.items():
            if result.state != PASSED:
                lost[left[exercise][number]] = f"{exercise}: {result}"
    return lost


@pytest.mark.parametrize("case", CASES)
def test_what_stands_beside_a_right_answer_costs_nothing(lost: Mapping[str, str], case: str) -> None:
    assert case not in lost, lost[case]


@pytest.mark.parametrize("slug", SETS)
def test_all_at_once_costs_nothing_in_any_set(judge: Judge, references: dict[str, Reference], slug: str) -> None:
    reference = references[slug]
    answers = {}
    for question in reference.questions:
        source = question.solution
        for line in (PRINTS[0], WARNINGS[0], WARNINGS[2]):
            source = in_functions(source, line)
        shadows = [line for line in SHADOWS if fits(question, f"shadow: {line}")]
        for line in (*shadows[:4], BESIDES[0], BESIDES[2], BESIDES[8], BESIDES[10]):
            source = at_the_end(source, line)
        answers[question.exercise] = at_the_top(source, TOPS[0])
    ((_, results),) = judge.judge(reference, [answers], threading.Event())
    lost = {name: result for name, result in results.items() if result.state != PASSED}
    assert not lost
