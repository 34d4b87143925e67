"""Report on a class's exercises from its grades: points per question, wrong ideas, open cases, and time taken."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any, TypeVar

from scalelab.grading.grades import Grade, QuestionGrade
from scalelab.grading.outputs.html import page
from scalelab.grading.outputs.plain_text import on_one_line
from scalelab.grading.outputs.texts import SetTexts

FORM = 1
MAX_BARS = 13
MAX_IDEAS = 20
MAX_CASES = 200
MAX_NOTES = 20

_Item = TypeVar("_Item", str, tuple[str, str], tuple[tuple[str, str], ...])


@dataclass(frozen=True)
class Idea:
    """A wrong idea, its check's message about it, and the number of students who had it."""

    exercise: str
    name: str
    message: str
    students: int


@dataclass(frozen=True)
class Case:
    """An answer that a person must look at: its student, and the reason."""

    student: str
    exercise: str
    state: str
    reason: str


@dataclass(frozen=True)
class QuestionFigures:
    """The figures of one question in a class.

    `points` maps points to numbers of students; `open` is the number of students without points yet, who are not in
    `mean`. `seconds` are the median and the 95th percentile of the time that judging the question took.
    """

    exercise: str
    title: str
    max: int
    points: Mapping[int, int]
    open: int
    states: Mapping[str, int]
    mean: float | None
    seconds: tuple[float, float]

    @property
    def judged(self) -> int:
        return sum(self.points.values())

    @property
    def solved(self) -> int:
        return self.points.get(self.max, 0)


@dataclass(frozen=True)
class ClassFigures:
    """The figures of one exercise set in a class; `totals`, `mean` and `median` are of final grades only.

    `states` counts the answers to all questions by state; `seconds` are the median and the 95th percentile of the time
    that judging a submission took.
    """

    exercises: str
    title: str
    max: int
    submissions: int
    final: int
    totals: Mapping[int, int]
    mean: float | None
    median: float | None
    states: Mapping[str, int]
    questions: tuple[QuestionFigures, ...]
    everybody_solved: tuple[str, ...]
    nobody_solved: tuple[str, ...]
    ideas: tuple[Idea, ...]
    cases: tuple[Case, ...]
    notes: Mapping[str, int]
    seconds: tuple[float, float]
    made_with: tuple[tuple[Mapping[str, str], int], ...]


def class_figures(grades: Sequence[Grade], texts: SetTexts) -> ClassFigures:
    """Return the figures of one exercise set from its grades; expects at least one grade."""
    names = list(dict.fromkeys(question.exercise for grade in grades for question in grade.questions))
    questions = tuple(_question(name, grades, texts) for name in names)
    totals = sorted(grade.total for grade in grades if grade.final)
    judged = [question for question in questions if question.judged]
    made_with = _counted(tuple(sorted(grade.made_with.items())) for grade in grades)
    return ClassFigures(
        exercises=grades[0].exercises,
        title=texts.title,
        max=max(grade.max for grade in grades),
        submissions=len(grades),
        final=len(totals),
        totals=dict(sorted(Counter(totals).items())),
        mean=_rounded(fmean(totals)) if totals else None,
        median=median(totals) if totals else None,
        states=_counted(question.state for grade in grades for question in grade.questions),
        questions=questions,
        everybody_solved=tuple(question.exercise for question in judged if question.solved == question.judged),
        nobody_solved=tuple(question.exercise for question in judged if not question.solved),
        ideas=tuple(_ideas(grades, texts)),
        cases=tuple(_cases(grades)),
        notes=_counted(note for grade in grades for note in set(grade.notes)),
        seconds=_median_and_p95([grade.seconds for grade in grades]),
        made_with=tuple((dict(pairs), count) for pairs, count in made_with.items()),
    )


def as_json(figures: ClassFigures) -> dict[str, Any]:
    """Return the figures as the data of `OUT/class/SET.json`."""
    return {"form": FORM, **asdict(figures)}


def class_page(figures: ClassFigures) -> str:
    """Return the report on a class, as HTML that makes no request and runs no script."""
    titles = {question.exercise: question.title for question in figures.questions}
    return page(
        "class.html.j2",
        figures=figures,
        titles=titles,
        bars=_bars(figures),
        ideas=figures.ideas[:MAX_IDEAS],
        cases=figures.cases[:MAX_CASES],
        notes=list(figures.notes.items())[:MAX_NOTES],
    )


def _question(name: str, grades: Sequence[Grade], texts: SetTexts) -> QuestionFigures:
    answered = [question for grade in grades for question in grade.questions if question.exercise == name]
    points = [question.points for question in answered if question.points is not None]
    return QuestionFigures(
        exercise=name,
        title=texts.questions[name].title if name in texts.questions else name,
        max=max(question.max for question in answered),
        points=dict(sorted(Counter(points).items())),
        open=len(answered) - len(points),
        states=_counted(question.state for question in answered),
        mean=_rounded(fmean(points)) if points else None,
        seconds=_median_and_p95([question.seconds for question in answered if question.seconds]),
    )


def _ideas(grades: Iterable[Grade], texts: SetTexts) -> Iterable[Idea]:
    """Yield the wrong ideas, the most common first; a student counts once for each."""
    counts = _counted(
        (question.exercise, idea) for grade in grades for question in grade.questions for idea in set(question.ideas)
    )
    for (exercise, name), students in counts.items():
        messages = texts.questions[exercise].wrong if exercise in texts.questions else {}
        yield Idea(exercise, name, messages.get(name, name), students)


def _cases(grades: Iterable[Grade]) -> Iterable[Case]:
    open_cases = [
        (grade.student, question) for grade in grades for question in grade.questions if question.points is None
    ]
    for student, question in sorted(open_cases, key=lambda case: case[0]):
        yield Case(student, question.exercise, question.state, _reason(question))


def _reason(question: QuestionGrade) -> str:
    """Return the reason why an answer could not be judged; of a long one the end, which matters most."""
    text = on_one_line(question.reason, longest=10_000)
    return text if len(text) <= 300 else f"…{text[-299:]}"


def _bars(figures: ClassFigures) -> list[tuple[str, int]]:
    """Return the distribution of totals: each range of points as a label, and its number of students."""
    width = math.ceil((figures.max + 1) / MAX_BARS)
    bars = []
    for first in range(0, figures.max + 1, width):
        last = min(first + width - 1, figures.max)
        label = str(first) if first == last else f"{first}–{last}"
        bars.append((label, sum(figures.totals.get(points, 0) for points in range(first, last + 1))))
    return bars


def _counted(items: Iterable[_Item]) -> dict[_Item, int]:
    """Return the number of each item, the most common first; ties are sorted by the item."""
    return dict(sorted(Counter(items).items(), key=lambda item: (-item[1], item[0])))


def _median_and_p95(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile (nearest rank); zeros if `seconds` is empty."""
    if not seconds:
        return 0.0, 0.0
    return _rounded(median(seconds), 3), _rounded(sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1], 3)


def _rounded(value: float, digits: int = 2) -> float:
    return round(value, digits)
