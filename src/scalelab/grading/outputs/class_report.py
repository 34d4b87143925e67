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
MOST_BARS = 13
MOST_IDEAS = 20
MOST_CASES = 200
MOST_NOTES = 20

_Thing = TypeVar("_Thing", str, tuple[str, str], tuple[tuple[str, str], ...])


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
    names = list(dict.fromkeys(one.exercise for grade in grades for one in grade.questions))
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
        states=_counted(one.state for grade in grades for one in grade.questions),
        questions=questions,
        everybody_solved=tuple(one.exercise for one in judged if one.solved == one.judged),
        nobody_solved=tuple(one.exercise for one in judged if not one.solved),
        ideas=tuple(_ideas(grades, texts)),
        cases=tuple(_cases(grades)),
        notes=_counted(note for grade in grades for note in set(grade.notes)),
        seconds=_middle_and_high([grade.seconds for grade in grades]),
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
        one=figures,
        titles=titles,
        bars=_bars(figures),
        ideas=figures.ideas[:MOST_IDEAS],
        cases=figures.cases[:MOST_CASES],
        notes=list(figures.notes.items())[:MOST_NOTES],
    )


def _question(name: str, grades: Sequence[Grade], texts: SetTexts) -> QuestionFigures:
    mine = [one for grade in grades for one in grade.questions if one.exercise == name]
    points = [one.points for one in mine if one.points is not None]
    return QuestionFigures(
        exercise=name,
        title=texts.questions[name].title if name in texts.questions else name,
        max=max(one.max for one in mine),
        points=dict(sorted(Counter(points).items())),
        open=len(mine) - len(points),
        states=_counted(one.state for one in mine),
        mean=_rounded(fmean(points)) if points else None,
        seconds=_middle_and_high([one.seconds for one in mine if one.seconds]),
    )


def _ideas(grades: Iterable[Grade], texts: SetTexts) -> Iterable[Idea]:
    """Yield the wrong ideas, the most common first; a student counts once for each."""
    counts = _counted((one.exercise, idea) for grade in grades for one in grade.questions for idea in set(one.ideas))
    for (exercise, name), students in counts.items():
        words = texts.questions[exercise].wrong if exercise in texts.questions else {}
        yield Idea(exercise, name, words.get(name, name), students)


def _cases(grades: Iterable[Grade]) -> Iterable[Case]:
    open_cases = [(grade.student, one) for grade in grades for one in grade.questions if one.points is None]
    for student, one in sorted(open_cases, key=lambda case: case[0]):
        yield Case(student, one.exercise, one.state, _reason(one))


def _reason(one: QuestionGrade) -> str:
    """Return the reason why an answer could not be judged; of a long one the end, which matters most."""
    text = on_one_line(one.reason, longest=10_000)
    return text if len(text) <= 300 else f"…{text[-299:]}"


def _bars(figures: ClassFigures) -> list[tuple[str, int]]:
    """Return the distribution of totals: each range of points as a label, and its number of students."""
    width = math.ceil((figures.max + 1) / MOST_BARS)
    bars = []
    for first in range(0, figures.max + 1, width):
        last = min(first + width - 1, figures.max)
        label = str(first) if first == last else f"{first}–{last}"
        bars.append((label, sum(figures.totals.get(points, 0) for points in range(first, last + 1))))
    return bars


def _counted(things: Iterable[_Thing]) -> dict[_Thing, int]:
    """Return the number of each item, the most common first; ties are sorted by the item."""
    return dict(sorted(Counter(things).items(), key=lambda one: (-one[1], one[0])))


def _middle_and_high(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile (nearest rank); zeros if `seconds` is empty."""
    if not seconds:
        return 0.0, 0.0
    return _rounded(median(seconds), 3), _rounded(sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1], 3)


def _rounded(value: float, digits: int = 2) -> float:
    return round(value, digits)
