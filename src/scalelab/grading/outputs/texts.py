"""A reference's texts for students and instructors: titles, hints, readings, and messages for wrong ideas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scalelab.exercises.reference import Question, Reference
from scalelab.notebooks.format import heading_of, source_of, unfolded


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
    cells = {str(cell.get("id")): source_of(cell) for cell in reference.notebook["cells"]}
    title = reference.notebook.get("metadata", {}).get("title", reference.slug)
    return SetTexts(str(title), {question.exercise: _question(question, cells) for question in reference.questions})


def _question(question: Question, cells: Mapping[str, str]) -> QuestionTexts:
    name = question.exercise
    return QuestionTexts(
        title=heading_of(cells.get(f"{name}-prompt", ""), name),
        hint=unfolded(cells.get(f"{name}-hint-1", "")),
        reading=cells.get(f"{name}-reading", ""),
        wrong=dict(question.wrong),
        visible_points=question.visible_points,
        hidden_points=question.hidden_points,
    )
