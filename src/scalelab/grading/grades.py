"""Grades, their JSON, and the printed table of a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from scalelab.checks._verdict import Expectation, Verdict, first_lines, recognised
from scalelab.exercises.answers import Answer
from scalelab.exercises.handed_in import digest_of_answers, from_other_cells
from scalelab.exercises.reference import Question, Reference
from scalelab.grading.judging.results import NOT_JUDGED, PASSED, CheckResult, Result
from scalelab.grading.submissions.layouts import Submission
from scalelab.notebooks.untrusted import SubmittedCell, printable

FORM = 3
"""The version of a grade's JSON; it increases when fields change."""

MAX_LINES = 40
PRINTED_CHARACTERS = 4_000
"""The most characters of an answer's printed output that are kept."""
LONGEST_NAME = 32


@dataclass(frozen=True)
class QuestionGrade:
    """The points of one question, and the feedback on it for the student.

    `state` is one of `judging.results`, or of `course.answers` if there is no answer to judge. `points` is None if the
    answer could not be judged, through no fault of its own. `reason` says why nothing ran, what ended the question
    early, or which names the answer uses from other cells. `expectations` are those of the visible check,
    `never_awaited` the coroutines that were never awaited in it, and `printed` is the answer's output during it.
    `feedback` is the reason as text and, if the visible check failed, its verdict. Of a hidden check, students see only
    whether it passed, and the author's messages for the wrong ideas that it recognised. `ideas` names the wrong ideas
    that either check recognised. `seconds` is the time that judging took, `note` the grader's remark about it.
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
    reason: str = ""
    expectations: tuple[Expectation, ...] = ()
    never_awaited: tuple[str, ...] = ()
    printed: str = ""
    note: str = ""


@dataclass(frozen=True)
class Grade:
    """One submission's grade.

    `file` is the path below the folder of submissions, `submitted` the time of its last change (seconds since 1970).
    `seconds` is the time that judging took, `notes` are the grader's remarks on the file ("an answer was found by its
    text"). `made_with` has versions, `timeout` (processor time per check, in seconds), and `sandbox`, "yes" or "no".
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

    @property
    def submitted_at(self) -> datetime | None:
        """The time of the file's last change, in UTC; None if the file system gives none, or an impossible one."""
        try:
            return datetime.fromtimestamp(int(self.submitted), UTC) if self.submitted > 0 else None
        except (ValueError, OverflowError, OSError):
            return None


def grade_of(
    reference: Reference,
    submission: Submission,
    answers: Mapping[str, Answer],
    results: Mapping[str, Result],
    *,
    cells: Sequence[SubmittedCell] = (),
    seconds: float = 0.0,
    notes: Sequence[str] = (),
    made_with: Mapping[str, str] | None = None,
) -> Grade:
    """Return the grade of a submission from its results by exercise; a question without one has no answer to judge.

    `cells` are the submission's: if an answer fails, its reason lists the names that it uses from other cells.
    """
    return Grade(
        student=submission.student,
        exercises=reference.slug,
        file=submission.file,
        questions=tuple(
            _question(reference, question, answers[question.exercise], results.get(question.exercise), cells)
            for question in reference.questions
        ),
        answers_digest=digest_of_answers(answers),
        reference_digest=reference.digest,
        submitted=submission.modified,
        seconds=round(seconds, 3),
        notes=tuple(notes),
        made_with=dict(made_with or {}),
    )


def as_json(grade: Grade) -> dict[str, Any]:
    """Return a grade as it is kept in its JSON file; `schemas/grade.schema.json` documents each field."""
    return {"form": FORM, "total": grade.total, "max": grade.max, "final": grade.final, **asdict(grade)}


def from_json(data: Any) -> Grade:
    """Return the grade in the data of a JSON file, which may lack the fields that an earlier form did not have.

    Raises KeyError, TypeError or ValueError if the data are not a grade.
    """
    if not isinstance(data, dict):
        raise TypeError(f"a grade is an object, not {type(data).__name__}")
    if not isinstance(made_with := data.get("made_with", {}), dict):
        raise TypeError(f"`made_with` is an object, not {type(made_with).__name__}")
    return Grade(
        student=str(data["student"]),
        exercises=str(data["exercises"]),
        file=str(data["file"]),
        questions=tuple(_question_from(question) for question in data["questions"]),
        answers_digest=str(data["answers_digest"]),
        reference_digest=str(data["reference_digest"]),
        submitted=float(data.get("submitted", 0)),
        seconds=float(data.get("seconds", 0)),
        notes=tuple(map(str, data.get("notes", ()))),
        made_with={str(name): str(value) for name, value in made_with.items()},
    )


def _question_from(data: dict[str, Any]) -> QuestionGrade:
    return QuestionGrade(
        exercise=str(data["exercise"]),
        state=str(data["state"]),
        points=None if data["points"] is None else int(data["points"]),
        max=int(data["max"]),
        visible_points=int(data["visible_points"]),
        hidden_points=int(data["hidden_points"]),
        feedback=str(data["feedback"]),
        hidden_feedback=tuple(map(str, data["hidden_feedback"])),
        ideas=tuple(map(str, data["ideas"])),
        seconds=float(data.get("seconds", 0)),
        reason=str(data.get("reason", data["feedback"])),
        expectations=tuple(map(Expectation.from_data, data.get("expectations", ()))),
        never_awaited=tuple(map(str, data.get("never_awaited", ()))),
        printed=str(data.get("printed", "")),
        note=str(data.get("note", "")),
    )


def _question(
    reference: Reference, question: Question, answer: Answer, result: Result | None, cells: Sequence[SubmittedCell]
) -> QuestionGrade:
    if result is None:
        reason = answer.reason
        return QuestionGrade(
            question.exercise, answer.state, 0, question.points, 0, 0, reason, (), (), 0.0, reason=reason
        )
    visible_points = question.visible_points * result.visible.passed
    hidden_points = question.hidden_points * result.hidden.passed
    name_hints = from_other_cells(reference, cells, answer) if result.state not in {PASSED, NOT_JUDGED} else []
    reason = "\n".join(filter(None, (result.reason, *name_hints)))
    verdict = result.visible.verdict or Verdict(question.exercise, ())
    printed = "\n".join(filter(None, (*verdict.printed, result.printed.rstrip())))
    if result.printed.strip():  # the verdict in a notebook shows this output, too
        verdict = replace(verdict, printed=(*verdict.printed, first_lines(result.printed)))
    failed_verdict = verdict if verdict.expectations and not result.visible.passed else ""
    visible_ideas, hidden_ideas = _ideas(result.visible, question), _ideas(result.hidden, question)
    messages = dict(question.wrong)
    return QuestionGrade(
        exercise=question.exercise,
        state=result.state,
        points=None if result.state == NOT_JUDGED else visible_points + hidden_points,
        max=question.points,
        visible_points=visible_points,
        hidden_points=hidden_points,
        feedback="\n".join(filter(None, (reason, str(failed_verdict)))),
        hidden_feedback=tuple(messages[name] for name in hidden_ideas if name in messages),
        ideas=tuple(dict.fromkeys([*visible_ideas, *hidden_ideas])),
        seconds=round(result.seconds, 3),
        reason=reason,
        expectations=verdict.expectations,
        never_awaited=verdict.never_awaited,
        printed=printed if len(printed) <= PRINTED_CHARACTERS else f"{printed[:PRINTED_CHARACTERS]}\n…",
        note=result.note,
    )


def _ideas(check: CheckResult, question: Question) -> list[str]:
    return recognised(check.verdict.expectations, question.wrong) if check.verdict else []


def show_table(
    grades: Sequence[Grade],
    references: Sequence[Reference],
    report: Callable[[str], None],
    *,
    table: str = "grades.csv",
) -> None:
    """Print one table per exercise set: a line per student, a column per question, and the class's mean.

    A question without points yet is a `?`, and is not in the mean. For a large class, only the first lines are printed;
    `table` is the name of the file that has all of them.
    """
    for reference in references:
        of_set = sorted(
            (grade for grade in grades if grade.exercises == reference.slug), key=lambda grade: grade.student
        )
        if not of_set:
            continue
        names = [question.exercise for question in reference.questions]
        maxima = [str(question.points) for question in reference.questions]
        lines = [["student", *names, "total"], ["of", *maxima, str(reference.points)]]
        lines += [_line(grade, names) for grade in of_set[:MAX_LINES]]
        means = [_mean([q.points for grade in of_set for q in grade.questions if q.exercise == name]) for name in names]
        total = f"{sum(mean for mean in means if mean is not None):.1f}"
        lines.append(["mean", *("?" if mean is None else f"{mean:.1f}" for mean in means), total])
        *lines_shown, mean_line = _aligned(lines)
        more = [f"… and {len(of_set) - MAX_LINES} more, all in {table}"] if len(of_set) > MAX_LINES else []
        for line in (f"\n{reference.slug}", *lines_shown, *more, mean_line):
            report(line)


def _line(grade: Grade, names: Sequence[str]) -> list[str]:
    student = printable(grade.student)
    short = student if len(student) <= LONGEST_NAME else f"{student[: LONGEST_NAME - 1]}…"
    points = {q.exercise: "?" if q.points is None else str(q.points) for q in grade.questions}
    total = str(grade.total) if grade.final else f"{grade.total}+?"
    return [short, *(points.get(name, "") for name in names), total]


def _mean(points: Sequence[int | None]) -> float | None:
    known = [value for value in points if value is not None]
    return sum(known) / len(known) if known else None


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if index == 0 else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
