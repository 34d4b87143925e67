"""Find in a submission the answer to every question."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from scalelab.grading.merge import Reference
from scalelab.grading.submissions import Cell


@dataclass(frozen=True)
class Answer:
    """A question's answer: its source, or None and why there is none to run."""

    source: str | None
    reason: str = ""
    state: str = ""


def answers(reference: Reference, cells: Collection[Cell]) -> dict[str, Answer]:
    """Return the answer to every question, matched by grade_id; nothing else of a submission is used."""
    return {question.exercise: _answer(question.exercise, cells) for question in reference.questions}


def _answer(name: str, cells: Collection[Cell]) -> Answer:
    mine = [cell for cell in cells if cell.name == name]
    code = list(dict.fromkeys(cell.source for cell in mine if cell.type == "code"))
    if not mine:
        return Answer(None, "The answer cell is not in the notebook.", "missing")
    if not code:
        return Answer(None, f"The answer cell is {mine[0].type}, not code.", "missing")
    if len(code) > 1:
        return Answer(
            None, f"{len(code)} different cells hold this answer; one is due: keep it, remove the others.", "duplicated"
        )
    if not code[0].strip():
        return Answer(None, "The answer cell is empty.", "missing")
    return Answer(code[0])
