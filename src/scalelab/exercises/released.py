"""Turn an exercise set into its two notebooks: the student's, and the reference that nbval compares with.

Both are plain JSON objects, and their text depends on the arguments alone: it is the same on every Python version and
platform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from scalelab.exercises.source import HINTS, KERNEL, Exercise, ExerciseSet
from scalelab.notebooks.format import Cell, Notebook, digest_of_sources, lines_of, source_of

NBVAL_COMPARES = "nbval-check-output"
RUN_ALL_GOES_ON = "raises-exception"
SCHEMA_VERSION = 3


def student(exercises: ExerciseSet) -> Notebook:
    """Return the notebook that a student gets: starters in the answer cells, visible checks, no outputs."""
    cells = list(_head(exercises))
    for exercise in exercises.exercises:
        cells += _before_the_answer(exercise)
        cells.append(_answer(exercise, exercise.starter))
        check = _check(exercise, "check", exercise.check, exercise.check_points)
        check["metadata"]["tags"] = [RUN_ALL_GOES_ON]
        cells += [check, _locked(f"{exercise.id}-reading", exercise.reading)]
    for cell in cells:
        _as_released(cell)
    return _notebook(exercises, cells, {"sources": digest_of_sources(cells)})


def reference(exercises: ExerciseSet, outputs: Mapping[str, str], digest: str) -> Notebook:
    """Return the reference: solutions in the answer cells, visible and hidden checks with their printed `outputs`.

    `outputs` maps the id of a check cell to its printed text; `digest` identifies the sources that the outputs were
    made from.
    """
    cells = list(_head(exercises))
    for exercise in exercises.exercises:
        cells += _before_the_answer(exercise)
        cells.append(_answer(exercise, exercise.solution))
        for role, source, points in (
            ("check", exercise.check, exercise.check_points),
            ("hidden", exercise.hidden, exercise.hidden_points),
        ):
            cell = _check(exercise, role, source, points)
            cell["metadata"]["tags"] = [NBVAL_COMPARES]
            wrongs = [{"name": wrong.name, "message": wrong.message} for wrong in exercise.wrongs]
            cell["metadata"]["scalelab"] = {"role": role, "exercise": exercise.id, "wrong": wrongs}
            cells.append(cell)
        cells.append(_locked(f"{exercise.id}-reading", exercise.reading))
    for number, cell in enumerate((cell for cell in cells if cell["cell_type"] == "code"), start=1):
        cell["execution_count"] = number
        if printed := outputs.get(cell["id"]):
            cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines_of(printed)}]
    return _notebook(exercises, cells, {"digest": digest})


def _head(exercises: ExerciseSet) -> Iterator[Cell]:
    yield _locked("intro", exercises.intro)
    for number, source in enumerate(exercises.setup, start=1):
        cell = _code(f"setup-{number}", source, locked=True)
        cell["metadata"]["scalelab"] = {"role": "setup"}
        yield cell


def _before_the_answer(exercise: Exercise) -> Iterator[Cell]:
    yield _locked(f"{exercise.id}-prompt", exercise.prompt)
    for number, hint in enumerate(exercise.hints, start=1):
        # The blank lines let Markdown work inside the HTML element.
        folded = f"<details><summary>Hint {number} of {HINTS}</summary>\n\n{hint}\n\n</details>"
        yield _locked(f"{exercise.id}-hint-{number}", folded)


def _answer(exercise: Exercise, source: str) -> Cell:
    cell = _code(exercise.id, source, solution=True)
    cell["metadata"]["scalelab"] = {"role": "answer", "exercise": exercise.id, "kind": exercise.kind}
    return cell


def _check(exercise: Exercise, role: str, source: str, points: int) -> Cell:
    cell = _code(f"{exercise.id}-{role}", source, grade=True, locked=True)
    cell["metadata"]["nbgrader"]["points"] = points
    cell["metadata"]["scalelab"] = {"role": role, "exercise": exercise.id}
    return cell


def _code(grade_id: str, source: str, **kind: bool) -> Cell:
    cell = _cell("code", grade_id, source, kind)
    return {**cell, "execution_count": None, "outputs": []}


def _locked(grade_id: str, source: str) -> Cell:
    return _cell("markdown", grade_id, source, {"locked": True})


def _cell(cell_type: str, grade_id: str, source: str, kind: Mapping[str, bool]) -> Cell:
    nbgrader = {
        "grade": False,
        "grade_id": grade_id,
        "locked": False,
        "schema_version": SCHEMA_VERSION,
        "solution": False,
        "task": False,
        **kind,
    }
    return {"cell_type": cell_type, "id": grade_id, "metadata": {"nbgrader": nbgrader}, "source": lines_of(source)}


def checksum(cell: Cell) -> str:
    """Return the checksum that nbgrader gives a released cell: of its text, its type and its nbgrader metadata."""
    nbgrader = cell["metadata"]["nbgrader"]
    parts = [source_of(cell), cell["cell_type"]]
    parts += [str(nbgrader[key]) for key in ("grade", "solution", "locked")]
    parts.append(nbgrader["grade_id"])
    if nbgrader["grade"]:
        parts.append(str(float(nbgrader["points"])))
    return hashlib.md5("".join(parts).encode(), usedforsecurity=False).hexdigest()


def _as_released(cell: Cell) -> None:
    """Add the metadata of nbgrader's own release: a checksum, the cell's type, and locks that JupyterLab respects."""
    nbgrader = cell["metadata"]["nbgrader"]
    nbgrader["checksum"] = checksum(cell)
    nbgrader["cell_type"] = cell["cell_type"]
    cell["metadata"]["deletable"] = False
    if not nbgrader["solution"]:
        cell["metadata"]["editable"] = False


def _notebook(exercises: ExerciseSet, cells: list[Cell], own: dict[str, str]) -> Notebook:
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": dict(KERNEL),
            "language_info": {"name": "python"},
            "scalelab": {"exercises": exercises.slug, **own},
            "title": exercises.title,
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
