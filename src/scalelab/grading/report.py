"""What a grade is, and the table of a class on the screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scalelab.grading.answers import Answer
from scalelab.grading.judge import NOT_JUDGED, Verdict
from scalelab.grading.merge import Question, Reference
from scalelab.grading.submissions import Submission, digest_of_answers, printable

FORM = 2
"""Counts up when the JSON of a grade changes its fields."""

SET_ASIDE = "set aside"
OPEN = frozenset({NOT_JUDGED, SET_ASIDE})
"""The states that give no points yet: the total of such a submission is not final."""


@dataclass(frozen=True)
class QuestionGrade:
    """The points of one question, and what a student is told about it.

    `state` is the judge's, or `missing`, `duplicated` or `set aside`. `points` is None where there are none yet: the
    answer could not be judged, through no fault of its own, or was set aside for a person to look at. `feedback` is
    what the failing visible check showed, or why nothing ran. Of a hidden check only whether it passed, and the
    author's words for the wrong ideas that it recognised, are told. `ideas` names these and those that the visible
    check recognised. `seconds` is how long judging took.
    """

    exercise: str
    state: str
    points: int | None
    max: int
    visible_points: int
    hidden_points: int
    feedback: str
    hidden_feedback: tuple[str, ...]
    ideas: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Grade:
    """One submission's grade.

    `file` is its path below the folder of submissions, `submitted` when it was last changed (seconds since 1970).
    `seconds` is how long judging it took, `notes` what the grader did about the file ("an answer was found by its
    text"), and `made_with` by what it was judged: the versions of `scalelab` and `python`, `sandbox` "yes" or "no".
    """

    student: str
    exercises: str
    file: str
    questions: tuple[QuestionGrade, ...]
    answers_digest: str
    reference_digest: str
    submitted: float
    seconds: float
    notes: tuple[str, ...]
    made_with: Mapping[str, str]

    @property
    def total(self) -> int:
        return sum(question.points or 0 for question in self.questions)

    @property
    def max(self) -> int:
        return sum(question.max for question in self.questions)

    @property
    def final(self) -> bool:
        """Whether every question has its points."""
        return all(question.points is not None for question in self.questions)


def grade_of(
    reference: Reference,
    submission: Submission,
    answers: Mapping[str, Answer],
    verdicts: Mapping[str, Verdict],
    *,
    seconds: float = 0.0,
    notes: Sequence[str] = (),
    made_with: Mapping[str, str] | None = None,
) -> Grade:
    """Return the grade that the verdicts give; a question without one has no answer to judge."""
    return Grade(
        student=submission.student,
        exercises=reference.slug,
        file=submission.file,
        questions=tuple(
            _question(question, answers[question.exercise], verdicts.get(question.exercise))
            for question in reference.questions
        ),
        answers_digest=digest_of_answers({name: answer.source or "" for name, answer in answers.items()}),
        reference_digest=reference.digest,
        submitted=submission.modified,
        seconds=round(seconds, 3),
        notes=tuple(notes),
        made_with=dict(made_with or {}),
    )


def _question(question: Question, answer: Answer, verdict: Verdict | None) -> QuestionGrade:
    if verdict is None:
        points = None if answer.state in OPEN else 0
        return QuestionGrade(question.exercise, answer.state, points, question.points, 0, 0, answer.reason, (), (), 0.0)
    visible = question.visible_points * verdict.visible
    hidden = question.hidden_points * verdict.hidden
    recognised = [[(name, message) for name, message in question.wrong if message in said] for said in verdict.said]
    return QuestionGrade(
        exercise=question.exercise,
        state=verdict.state,
        points=None if verdict.state in OPEN else visible + hidden,
        max=question.points,
        visible_points=visible,
        hidden_points=hidden,
        feedback="\n".join(filter(None, (verdict.text, verdict.visible_text))),
        hidden_feedback=tuple(message for _, message in recognised[1]),
        ideas=tuple(dict.fromkeys(name for found in recognised for name, _ in found)),
        seconds=round(float(getattr(verdict, "seconds", 0.0)), 3),
    )


def show_table(grades: Sequence[Grade], references: Sequence[Reference], report: Callable[[str], None]) -> None:
    """Print one table per exercise set: a line per student, a column per question, and the class's mean."""
    for reference in references:
        mine = sorted((grade for grade in grades if grade.exercises == reference.slug), key=lambda one: one.student)
        if not mine:
            continue
        names = [question.exercise for question in reference.questions]
        most = [str(question.points) for question in reference.questions]
        lines = [["student", *names, "total"], ["of", *most, str(reference.points)]]
        for grade in mine:
            points = {q.exercise: "?" if q.points is None else str(q.points) for q in grade.questions}
            lines.append([printable(grade.student), *(points[name] for name in names), str(grade.total)])
        means = [
            sum(q.points or 0 for grade in mine for q in grade.questions if q.exercise == name) / len(mine)
            for name in names
        ]
        lines.append(["mean", *(f"{mean:.1f}" for mean in means), f"{sum(means):.1f}"])
        report(f"\n{reference.slug}")
        for line in _aligned(lines):
            report(line)


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if index == 0 else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
