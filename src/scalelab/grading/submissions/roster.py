"""The roster of a class: an optional CSV with the names and ids by which other systems know each student."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from scalelab.grading.outputs.plain_text import on_one_line
from scalelab.grading.submissions.layouts import BadInput


@dataclass(frozen=True)
class Person:
    """A line of the roster. `student` is the student's name in submissions; fields that the roster lacks are empty."""

    student: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    canvas_id: str = ""
    sis_user_id: str = ""
    sis_login_id: str = ""
    section: str = ""
    idnumber: str = ""


COLUMNS = tuple(field.name for field in fields(Person))
UNIQUE = ("student", "email", "canvas_id", "sis_user_id", "sis_login_id", "idnumber")
"""Columns that no two persons may share: they would get each other's grades."""
DELIMITERS = ",;\t"

Roster = Mapping[str, Person]


def read_roster(path: Path) -> dict[str, Person]:
    """Return the persons of a roster by `student`.

    The file is UTF-8, its cells are separated by commas, semicolons or tabs, and its first line names the columns:
    `student`, and any of the other fields of `Person`; other columns are ignored. Raises BadInput if the file is not
    such a CSV or has no column `student`, and, with the line's number, if a line has no student or too many cells, or
    if two lines share a name or an id.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not in UTF-8; save it as “CSV UTF-8”.") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); expected a roster as CSV.") from error
    head = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(DELIMITERS, key=head.count), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        if names.count("student") != 1:
            raise BadInput(
                f"{path} has {'no' if 'student' not in names else 'more than one'} column student; it has "
                f"{', '.join(map(on_one_line, filter(None, names))) or 'none'}. Expected {', '.join(COLUMNS)}, of "
                "which only student is required."
            )
        reader.fieldnames = names
        return _persons(path, reader)
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: no CSV ({error}); save it as CSV again.") from error


def _persons(path: Path, reader: csv.DictReader[str]) -> dict[str, Person]:
    seen: dict[tuple[str, str], int] = {}
    persons = {}
    for row in reader:
        if None in row:
            raise BadInput(f"{path}, line {reader.line_num}: has more cells than the first line has columns.")
        person = Person(**{name: (row.get(name) or "").strip() for name in COLUMNS})
        if not person.student:
            raise BadInput(f"{path}, line {reader.line_num}: student is empty; expected the name submissions go by.")
        for name in UNIQUE:
            value = getattr(person, name)
            first = seen.setdefault((name, value), reader.line_num)
            if value and first != reader.line_num:
                printable_value = on_one_line(value)
                raise BadInput(f"{path}, lines {first} and {reader.line_num}: both have the {name} {printable_value}.")
        persons[person.student] = person
    return persons


def read_canvas_ids(pairs: Iterable[str], sets: Sequence[str]) -> dict[str, int]:
    """Return Canvas's assignment ids by exercise set, from texts of the form SET=NUMBER. Raises BadInput."""
    ids: dict[str, int] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name not in sets:
            raise BadInput(f"--canvas-id {pair}: this course has no set {name!r}; expected one of {', '.join(sets)}.")
        if not (number.isascii() and number.isdecimal()):
            raise BadInput(
                f"--canvas-id {pair}: expected SET=NUMBER, the number at the end of the assignment's address."
            )
        if ids.setdefault(name, int(number)) != int(number):
            raise BadInput(f"--canvas-id {pair}: {name} has the id {ids[name]} already.")
    return ids
