"""In the grader every answer of every set gets the verdict, and the words, that it gets in a student's notebook."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_answer import judged, local, names_of, remote, started

from scalelab.exercises.source import Exercise, ExerciseSet, read_set
from scalelab.grading.judging.assemble import _given
from scalelab.grading.judging.boxes import ADDRESS
from scalelab.grading.judging.fork_server import fork_server

SETS = [read_set(path) for path in sorted((Path(__file__).parents[2] / "solutions").glob("[0-9][0-9]_*.md"))]


def answers(exercise: Exercise) -> dict[str, str]:
    """Return the sources of all answers that the set knows, by name."""
    wrong = {wrong.name: wrong.source for wrong in exercise.wrongs}
    return {"reference": exercise.solution, "starter": exercise.starter, **wrong}


CASES = [
    pytest.param(
        *(exercises, exercise, role, source),
        id=f"{exercises.slug}-{exercise.id}-{name}-{role}",
        marks=pytest.mark.proven_by(f"solutions/{exercises.slug}.md"),
    )
    for exercises in SETS
    for exercise in exercises.exercises
    for name, source in answers(exercise).items()
    for role in ("check", "hidden")
]


@pytest.fixture(scope="module")
def forked() -> Iterator[Callable[[str], Any]]:
    """Yield a function that returns how to start an answer's process for a set."""
    with fork_server({exercises.slug: exercises.setup for exercises in SETS}, boxed=False) as environment:
        yield lambda slug: lambda setup: started(environment[ADDRESS], slug)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(("exercises", "exercise", "role", "source"), CASES)
def test_the_same_words_in_notebook_and_grader(
    forked: Callable[[str], Any], exercises: ExerciseSet, exercise: Exercise, role: str, source: str
) -> None:
    check = exercise.check if role == "check" else f"{_given(exercise.check)}\n{exercise.hidden}"
    case = (exercises.setup, source, names_of(exercise), check)
    gc.collect()  # a coroutine that an earlier answer forgot would be noticed in this run
    apart = judged(functools.partial(remote, start=forked(exercises.slug)), *case)
    assert apart == judged(local, *case)


SHADOWED = ("abs", "all", "len", "list", "max", "min", "print", "range", "round", "sorted", "sum", "zip")
PLANTED = """
import sys
import numpy as np
import pandas as pd

class Same:
    def __eq__(self, other):
        return True

    __hash__ = None

print(Same() == 1, np.arange(3))
print("a warning", file=sys.stderr)
"""


@pytest.mark.parametrize("role", ["check", "hidden"])
@pytest.mark.parametrize(
    ("exercises", "exercise"),
    [
        pytest.param(
            *(exercises, exercise),
            id=f"{exercises.slug}-{exercise.id}",
            marks=pytest.mark.proven_by(f"solutions/{exercises.slug}.md"),
        )
        for exercises in SETS
        for exercise in exercises.exercises
    ],
)
def test_what_else_a_cell_does_costs_nothing(
    forked: Callable[[str], Any], exercises: ExerciseSet, exercise: Exercise, role: str
) -> None:
    used = "".join([exercise.solution, *exercises.setup])  # shadowed, it would be missing in a notebook as well
    shadowed = "".join(f"{name} = 0\n" for name in SHADOWED if name not in used)
    source = f"%%time\n{exercise.solution}\n{PLANTED}\n{shadowed}"
    check = exercise.check if role == "check" else f"{_given(exercise.check)}\n{exercise.hidden}"
    start = functools.partial(remote, start=forked(exercises.slug))
    outcome = judged(start, exercises.setup, source, names_of(exercise), check)
    assert outcome.passed, outcome
