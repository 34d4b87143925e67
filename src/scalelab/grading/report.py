"""What a grade is, and how grades are kept: JSON per submission, one CSV, a table on the screen."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalelab.course.sync import write_atomically
from scalelab.grading.judge import NOT_JUDGED, Verdict
from scalelab.grading.merge import Answer, Question, Reference
from scalelab.grading.submissions import BadInput, Submission, digest_of_answers, printable

FORM = 1
CSV = "grades.csv"
EARLIER = "earlier"
HEADER = ("student", "exercises", "file", "total", "max")
STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class QuestionGrade:
    """The points of one question, and what a student is told about it.

    `state` is the judge's, or `missing` or `duplicated`; `points` is None where nothing could be judged, through no
    fault of the answer. `feedback` is what the failing visible check showed, or why nothing ran. Of a hidden check only
    whether it passed, and the author's words for the wrong ideas that it recognised, are told. `ideas` names these and
    those that the visible check recognised.
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


@dataclass(frozen=True)
class Grade:
    """One submission's grade. `file` is its path below the folder of submissions."""

    student: str
    exercises: str
    file: str
    questions: tuple[QuestionGrade, ...]
    answers_digest: str
    reference_digest: str

    @property
    def total(self) -> int:
        return sum(question.points or 0 for question in self.questions)

    @property
    def max(self) -> int:
        return sum(question.max for question in self.questions)


def grade_of(
    reference: Reference, submission: Submission, answers: Mapping[str, Answer], verdicts: Mapping[str, Verdict]
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
    )


def _question(question: Question, answer: Answer, verdict: Verdict | None) -> QuestionGrade:
    if verdict is None:
        return QuestionGrade(question.exercise, answer.state, 0, question.points, 0, 0, answer.reason, (), ())
    visible = question.visible_points * verdict.visible
    hidden = question.hidden_points * verdict.hidden
    recognised = [[(name, message) for name, message in question.wrong if message in said] for said in verdict.said]
    return QuestionGrade(
        exercise=question.exercise,
        state=verdict.state,
        points=None if verdict.state == NOT_JUDGED else visible + hidden,
        max=question.points,
        visible_points=visible,
        hidden_points=hidden,
        feedback="\n".join(filter(None, (verdict.text, verdict.visible_text))),
        hidden_feedback=tuple(message for _, message in recognised[1]),
        ideas=tuple(dict.fromkeys(name for found in recognised for name, _ in found)),
    )


class Keeper:
    """Writes into the folder of grades. What a file held before is moved below `earlier/`, never lost."""

    def __init__(self, out: Path) -> None:
        self.out = out
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(f"{out} is a file; expected a folder for the grades, which may not exist yet.") from error
        except OSError as error:
            raise BadInput(f"{out} cannot be made ({error.strerror}); name a folder for the grades.") from error
        if not os.access(out, os.W_OK):
            raise BadInput(f"{out} cannot be written to; name another folder for the grades.")
        runs = [int(path.name) for path in (out / EARLIER).glob("*") if path.name.isdecimal()]
        self._earlier = out / EARLIER / str(max(runs, default=0) + 1)

    def keep(self, grade: Grade) -> Path:
        """Write one grade to `OUT/SET/STUDENT.json`, as a whole."""
        path = self.out / grade.exercises / f"{grade.student}.json"
        data = {"form": FORM, "total": grade.total, "max": grade.max, **asdict(grade)}
        self._write(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        return path

    def write_csv(self) -> Path:
        """Write `OUT/grades.csv` from every grade in OUT, those of earlier runs included, and return its path."""
        rows = [row for path in sorted(self.out.glob("*/*.json")) if (row := _row(path)) is not None]
        questions = list(dict.fromkeys(name for _, points in rows for name in points))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*HEADER, *questions])
        for head, points in rows:
            writer.writerow(map(_safe, [*head, *(points.get(name) for name in questions)]))
        self._write(self.out / CSV, text.getvalue())
        return self.out / CSV

    def _write(self, path: Path, text: str) -> None:
        # File names and outputs may hold halves of letters, which UTF-8 has no bytes for.
        text = text.encode("utf-8", "replace").decode()
        if path.exists():
            if path.read_bytes() == text.encode():
                return
            earlier = self._earlier / path.relative_to(self.out)
            earlier.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(earlier, path.read_text(encoding="utf-8", errors="replace"))
        write_atomically(path, text)


def _row(path: Path) -> tuple[list[Any], dict[str, Any]] | None:
    """Return the values of `HEADER` and the points by question, or None where the file holds no grade of ours."""
    try:
        data = json.loads(path.read_bytes())
        return [data[name] for name in HEADER], {one["exercise"]: one["points"] for one in data["questions"]}
    except (ValueError, KeyError, TypeError, OSError):
        return None


def _safe(value: Any) -> str:
    """Return a CSV cell that no spreadsheet takes for a formula; None, which is not judged, is empty."""
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(STARTS_A_FORMULA) else text


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
