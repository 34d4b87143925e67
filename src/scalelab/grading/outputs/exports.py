"""Write a class's grades in the columns that other systems read: nbgrader, Canvas and Moodle; and one row per question.

Other systems get only final totals. Students whose grade is not final (`Grade.final`) and students without a
submission have no row: an empty cell, or an unintended 0, would overwrite the other system's value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scalelab.grading.grades import Grade
from scalelab.grading.outputs.plain_text import csv_text
from scalelab.grading.submissions.roster import Person, Roster

NBGRADER_HEADER = (
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
    *("raw_score", "late_submission_penalty", "score", "max_score"),
)
CANVAS_HEADER = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
CANVAS_POINTS = "Points Possible"
QUESTIONS_HEADER = (
    *("student", "exercises", "question", "state", "points", "max", "visible_points", "hidden_points"),
    *("seconds", "ideas"),
)
MOODLE_KEYS = {"idnumber": "ID number", "email": "Email address"}
"""The columns of a roster by which Moodle finds a user, and Moodle's own headings for them."""


@dataclass(frozen=True)
class Export:
    """A file's text, and the students who are left out of it, each with the reason."""

    text: str
    left_out: Mapping[str, str]


def nbgrader_csv(grades: Iterable[Grade], roster: Roster | None = None) -> Export:
    """Return all sets in the columns of `nbgrader export`, a row per student and set.

    As in nbgrader's export, scores are floats and times are in UTC. Due dates and penalties for lateness are unknown:
    they are empty and 0. Unlike in nbgrader's, a student without a submission has no row with a score of 0.
    Source: https://github.com/jupyter/nbgrader/blob/main/nbgrader/plugins/export.py
    """
    rows, left_out = [], {}
    for grade in grades:
        if not grade.final:
            left_out[grade.student] = NOT_FINAL
            continue
        person = (roster or {}).get(grade.student, Person(grade.student))
        stamp = f"{grade.submitted_at:%Y-%m-%d %H:%M:%S}" if grade.submitted_at else ""
        names = (person.last_name, person.first_name, person.email)
        total, maximum = float(grade.total), float(grade.max)
        rows.append((grade.exercises, "", stamp, grade.student, *names, total, 0.0, total, maximum))
    return Export(csv_text(NBGRADER_HEADER, rows), left_out)


def canvas_csv(grades: Sequence[Grade], roster: Roster | None = None, assignment: int | None = None) -> Export:
    """Return one set for import into Canvas's gradebook; without the id `assignment`, Canvas makes a new assignment.

    The header and the row of possible points are those that Canvas itself exports and reads. Canvas finds a student by
    its own ID, else the SIS user id, else the login id, else the name; without a roster, the student's name in the
    submission is taken as the login id.
    Sources: https://community.canvaslms.com/t5/Instructor-Guide/How-do-I-import-grades-in-the-Gradebook/ta-p/807,
    https://github.com/instructure/canvas-lms/blob/master/lib/gradebook_importer.rb
    """
    name = grades[0].exercises
    column = name if assignment is None else f"{name} ({assignment})"
    rows: list[tuple[object, ...]] = [(f"    {CANVAS_POINTS}", "", "", "", "", max(grade.max for grade in grades))]
    left_out: dict[str, str] = {}
    for grade, person in _persons(grades, roster, left_out):
        displayed_name = ", ".join(filter(None, (person.last_name, person.first_name))) or person.student
        login = person.sis_login_id if roster else person.student
        if roster and not (person.canvas_id or person.sis_user_id or login):
            left_out[grade.student] = "the roster has no canvas_id, sis_user_id or sis_login_id for them"
        elif CANVAS_POINTS in displayed_name:
            left_out[grade.student] = "Canvas would take this name for its row of possible points"
        else:
            rows.append((displayed_name, person.canvas_id, person.sis_user_id, login, person.section, grade.total))
    return Export(csv_text((*CANVAS_HEADER, column), rows), left_out)


def moodle_csv(grades: Sequence[Grade], roster: Roster | None = None) -> Export:
    """Return one set for Moodle's import of grades from CSV, with points and a line of feedback.

    Every row has a key by which Moodle finds the user, because an unknown user ends the whole import: the ID number, or
    the email address if more students have one; without a roster, the student's name in the submission as user name.
    Every row has a grade, because feedback without one deletes the grade in Moodle.
    Source: https://docs.moodle.org/en/Grade_import (CSV import, note 3)
    """
    name = grades[0].exercises
    left_out: dict[str, str] = {}
    graded = list(_persons(grades, roster, left_out))
    key, heading = "student", "Username"
    if roster:
        key = max(MOODLE_KEYS, key=lambda column: sum(bool(getattr(person, column)) for _, person in graded))
        heading = MOODLE_KEYS[key]
    rows = []
    for grade, person in graded:
        if identity := getattr(person, key):
            names = (person.first_name, person.last_name)
            rows.append((identity, *names, grade.total, _feedback(grade)))
        else:
            left_out[grade.student] = f"the roster has no {key} for them, by which Moodle finds its users"
    return Export(csv_text((heading, "First name", "Last name", name, f"{name} (feedback)"), rows), left_out)


def questions_csv(grades: Iterable[Grade]) -> Export:
    """Return all sets with a row per question. Open points are empty; `; ` separates the ideas."""
    rows = [
        (
            *(
                grade.student,
                grade.exercises,
                question.exercise,
                question.state,
                question.points,
                question.max,
                question.visible_points,
            ),
            *(question.hidden_points, question.seconds, "; ".join(question.ideas)),
        )
        for grade in grades
        for question in grade.questions
    ]
    return Export(csv_text(QUESTIONS_HEADER, rows), {})


NOT_FINAL = "a question waits for a person, so the total is not final"


def _persons(
    grades: Iterable[Grade], roster: Roster | None, left_out: dict[str, str]
) -> Iterable[tuple[Grade, Person]]:
    """Yield each final grade with its person; students left out are added to `left_out`, with the reason."""
    for grade in grades:
        if not grade.final:
            left_out[grade.student] = NOT_FINAL
        elif roster and grade.student not in roster:
            left_out[grade.student] = "not in the roster"
        else:
            yield grade, (roster or {}).get(grade.student, Person(grade.student))


def _feedback(grade: Grade) -> str:
    """Return the total and each question's points on one line, which contains no text of the student's."""
    parts = (f"{question.exercise} {question.points}/{question.max}" for question in grade.questions)
    return f"{grade.total} of {grade.max} points: {', '.join(parts)}"
