"""Put a submission's answers into the reference: every other cell of the notebooks that are judged is ours."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from scalelab.course.notebooks import Cell, Notebook, text_of
from scalelab.course.stored import own_metadata, stored_notebook
from scalelab.errors import ScalelabError
from scalelab.grading import guard

VISIBLE, HIDDEN = "check", "hidden"
PROLOGUE, EPILOGUE = "prologue", "epilogue"


class BadReference(ScalelabError):
    """A reference notebook is not there, or not what `scalelab course sync` writes."""


@dataclass(frozen=True)
class Question:
    """One exercise of a reference: its cells, points, and per wrong idea the words that its failing check shows."""

    exercise: str
    answer: Cell
    visible: Cell
    hidden: Cell
    wrong: tuple[tuple[str, str], ...]

    def check(self, role: str) -> Cell:
        """Return the check of the role "check" or "hidden"."""
        return {VISIBLE: self.visible, HIDDEN: self.hidden}[role]

    @property
    def visible_points(self) -> int:
        return int(self.visible["metadata"]["nbgrader"]["points"])

    @property
    def hidden_points(self) -> int:
        return int(self.hidden["metadata"]["nbgrader"]["points"])

    @property
    def points(self) -> int:
        return self.visible_points + self.hidden_points

    @property
    def solution(self) -> str:
        """The reference's own answer."""
        return text_of(self.answer["source"])


@dataclass(frozen=True)
class Reference:
    """An executed reference, split into what every question needs and the questions."""

    slug: str
    digest: str
    setup: tuple[Cell, ...]
    questions: tuple[Question, ...]
    notebook: Notebook

    @property
    def points(self) -> int:
        return sum(question.points for question in self.questions)


def read_reference(path: Path) -> Reference:
    """Return the reference in a file. Raises BadReference."""
    notebook = stored_notebook(path)
    own = own_metadata(notebook)
    if notebook is None or "digest" not in own:
        raise BadReference(f"{path} is no reference; run `scalelab course sync`.")
    try:
        roles = {role: {} for role in ("answer", "check", "hidden")}  # type: dict[str, dict[str, Cell]]
        setup = []
        for cell in notebook["cells"]:
            place = cell["metadata"].get("scalelab", {})
            if place.get("role") == "setup":
                setup.append(cell)
            elif place.get("role") in roles:
                roles[place["role"]][place["exercise"]] = cell
        questions = tuple(
            Question(
                exercise=name,
                answer=answer,
                visible=roles["check"][name],
                hidden=roles["hidden"][name],
                wrong=tuple(
                    (wrong["name"], wrong["message"]) for wrong in roles["check"][name]["metadata"]["scalelab"]["wrong"]
                ),
            )
            for name, answer in roles["answer"].items()
        )
        unrun = [cell["id"] for role in ("check", "hidden") for cell in roles[role].values() if not cell["outputs"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadReference(f"{path} is no reference ({error!r} reading it); run `scalelab course sync`.") from error
    if unrun or not questions:
        lacks = f"has no output of {', '.join(unrun)}" if unrun else "has no question"
        raise BadReference(f"{path} {lacks}; run `scalelab course sync`.")
    return Reference(str(own["exercises"]), str(own["digest"]), tuple(setup), questions, notebook)


def notebook(reference: Reference, answers: Mapping[str, str], role: str) -> Notebook:
    """Return the notebook in which the answers (sources by exercise) meet their checks of one role.

    role: "check" or "hidden". Its cells: all of the set-up, then per question the answer and the check, and last a look
    at all that judges; where that is the only question, there is such a look before and after its check.
    """
    setup = "\n".join([*(text_of(cell["source"]) for cell in reference.setup), guard.prologue()])
    prologue, epilogue = _ours(PROLOGUE, setup), _ours(EPILOGUE, guard.cell(), guard.EXPECTED)
    cells = [prologue]
    for question in reference.questions:
        if question.exercise in answers:
            # What nbval would compare with must be our own; an answer's output is compared with nothing.
            cells.append(question.answer | _unrun(answers[question.exercise]))
            cells.append(_guarded(question, role, whole=len(answers) == 1))
    if len(answers) > 1:
        cells.append(epilogue)
    return copy.deepcopy({**reference.notebook, "cells": cells})


def _ours(name: str, source: str, printed: str = "") -> Cell:
    """Return a cell of ours, of which a reference knows nothing, with what it prints where that is compared."""
    place = {"role": "guard" if printed else "setup"}
    cell: Cell = {"cell_type": "code", "id": name, "metadata": {"scalelab": place}, **_unrun(source)}
    if printed:
        cell |= {"execution_count": 1, "outputs": [{"name": "stdout", "output_type": "stream", "text": printed}]}
    return cell


def _guarded(question: Question, role: str, *, whole: bool) -> Cell:
    """Return a check with a look at the machinery before and after it, and what it takes over from a visible one."""
    check = question.check(role)
    given = text_of(question.visible["source"]) if role == HIDDEN else ""
    source = _between_looks(text_of(check["source"]), given, whole=whole)
    printed = "".join(text_of(output["text"]) for output in check["outputs"])
    stream = {"name": "stdout", "output_type": "stream", "text": f"{guard.EXPECTED}{printed}{guard.EXPECTED}"}
    return check | {"source": source, "outputs": [stream]}


@lru_cache(maxsize=1024)  # it parses the checks, which are the same for every submission
def _between_looks(check: str, given: str, *, whole: bool) -> str:
    source = f"{_given(given)}\n{check}" if given else check
    look = guard.cell(source, whole=whole)
    return f"{look}\n{source}\n{look}"


def _given(check: str) -> str:
    """Return what a visible check defines before its verdict begins: its hidden check may use that.

    Of a check without such a beginning it is what the check imports and defines.
    """
    body = ast.parse(check).body
    verdict = next((place for place, one in enumerate(body) if isinstance(one, ast.With)), None)
    defines = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    taken = body[:verdict] if verdict is not None else [one for one in body if isinstance(one, defines)]
    return "\n".join(ast.get_source_segment(check, one) or "" for one in taken)


def _unrun(source: str) -> Cell:
    return {"source": source, "execution_count": None, "outputs": []}
