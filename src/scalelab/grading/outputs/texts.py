"""A reference's texts for students and instructors: titles, hints, readings, and messages for wrong ideas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from scalelab.exercises.reference import Question, Reference
from scalelab.notebooks.format import text_of

HEADING = re.compile(r"^#+\s*(.+?)\s*#*$", re.MULTILINE)
FOLDED = re.compile(r"<details><summary>.*?</summary>\s*(.*?)\s*</details>", re.DOTALL)


@dataclass(frozen=True)
class QuestionTexts:
    """One exercise's texts, as Markdown, and points; `wrong` maps a wrong idea's name to its check's message."""

    title: str
    hint: str
    reading: str
    wrong: Mapping[str, str]
    visible_points: int
    hidden_points: int


@dataclass(frozen=True)
class SetTexts:
    """An exercise set's title, and the texts of each exercise by its id."""

    title: str
    questions: Mapping[str, QuestionTexts]


def texts_of(reference: Reference) -> SetTexts:
    """Return the texts of a reference's cells; an exercise's title is its prompt's first heading, or else its id."""
    cells = {str(cell.get("id")): text_of(cell.get("source")) for cell in reference.notebook["cells"]}
    title = reference.notebook.get("metadata", {}).get("title", reference.slug)
    return SetTexts(str(title), {question.exercise: _question(question, cells) for question in reference.questions})


def _question(question: Question, cells: Mapping[str, str]) -> QuestionTexts:
    name = question.exercise
    heading = HEADING.search(cells.get(f"{name}-prompt", ""))
    hint = cells.get(f"{name}-hint-1", "")
    folded = FOLDED.fullmatch(hint.strip())
    return QuestionTexts(
        title=heading.group(1) if heading else name,
        hint=folded.group(1) if folded else hint,
        reading=cells.get(f"{name}-reading", ""),
        wrong=dict(question.wrong),
        visible_points=question.visible_points,
        hidden_points=question.hidden_points,
    )
