"""Write the outputs for other people and systems: feedback pages, exports, JUnit XML and class reports.

All outputs are made from the grades' JSON files, so they cover the whole class, even if this run continued another or
graded only a part of the class. Nothing here can lose a grade: if an output cannot be written, this is reported, and
the others are written.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from scalelab.console import count
from scalelab.exercises.reference import Reference
from scalelab.grading.grades import Grade, from_json
from scalelab.grading.outputs import class_report
from scalelab.grading.outputs.exports import Export, canvas_csv, moodle_csv, nbgrader_csv, questions_csv
from scalelab.grading.outputs.feedback import feedback_page
from scalelab.grading.outputs.junit import junit_xml
from scalelab.grading.outputs.plain_text import csv_text, on_one_line
from scalelab.grading.outputs.texts import SetTexts, texts_of
from scalelab.grading.submissions.roster import Roster
from scalelab.notebooks.files import write_atomically

LEFT_OUT = "left_out.csv"
NAMED = 10
"""The most students that a line of the report names."""


@dataclass(frozen=True)
class StoredGrade:
    """A grade in the folder; `name` is its file name without the ending, shared by the files made from it."""

    name: str
    grade: Grade


def stored_grades(out: Path) -> Iterator[StoredGrade]:
    """Yield the grades in `out`, by exercise set and file name; other files are ignored."""
    for path in sorted(out.glob("*/*.json")):
        try:
            grade = from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if grade.exercises == path.parent.name and grade.questions:
            yield StoredGrade(path.stem, grade)


def write_outputs(
    out: Path,
    references: Mapping[str, Reference],
    *,
    roster: Roster | None = None,
    canvas_ids: Mapping[str, int] | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Write all outputs from every grade in `out`, and report the students left out and the files not written.

    Per student `feedback/SET/STUDENT.html` and `junit/SET/STUDENT.xml`; per set `class/SET.html`, `class/SET.json`,
    `canvas/SET.csv` and `moodle/SET.csv`; for all `nbgrader.csv`, `questions.csv`, and `left_out.csv`, which lists
    who is missing from which of them, and why. `canvas_ids` are Canvas's assignment ids by set. A file that would not
    change is not written again.
    """
    sets: dict[str, list[StoredGrade]] = defaultdict(list)
    for stored in stored_grades(out):
        sets[stored.grade.exercises].append(stored)
    if not sets:
        return
    writer = _Writer(out, report)
    for slug, of_set in sets.items():
        texts = texts_of(references[slug]) if slug in references else SetTexts(slug, {})
        grades = [stored.grade for stored in of_set]
        writer.files(
            "page",
            {f"feedback/{slug}/{stored.name}.html": partial(feedback_page, stored.grade, texts) for stored in of_set},
        )
        writer.files(
            "JUnit file", {f"junit/{slug}/{stored.name}.xml": partial(junit_xml, stored.grade) for stored in of_set}
        )
        writer.files("class report", _class_files(slug, grades, texts))
        writer.export(f"canvas/{slug}.csv", partial(canvas_csv, grades, roster, (canvas_ids or {}).get(slug)))
        writer.export(f"moodle/{slug}.csv", partial(moodle_csv, grades, roster))
        submitted = {grade.student for grade in grades}
        absent = [student for student in roster or () if student not in submitted]
        writer.left_out |= {(slug, student): "in the roster, and handed nothing in" for student in absent}
    everyone = [stored.grade for of_set in sets.values() for stored in of_set]
    writer.export("nbgrader.csv", partial(nbgrader_csv, everyone, roster))
    writer.export("questions.csv", partial(questions_csv, everyone))
    writer.report_left_out()


def _class_files(slug: str, grades: Sequence[Grade], texts: SetTexts) -> dict[str, Callable[[], str]]:
    figures = cache(partial(class_report.class_figures, grades, texts))
    return {
        f"class/{slug}.html": lambda: class_report.class_page(figures()),
        f"class/{slug}.json": lambda: json.dumps(class_report.as_json(figures()), indent=1, ensure_ascii=False) + "\n",
    }


class _Writer:
    """Writes files below a folder; `left_out` gives, by file and student, the reason why a student is missing."""

    def __init__(self, out: Path, report: Callable[[str], None]) -> None:
        self.out = out
        self.report = report
        self.left_out: dict[tuple[str, str], str] = {}

    def files(self, kind: str, texts: Mapping[str, Callable[[], str]]) -> None:
        """Write each file with the text that its function makes; report how many failed, and the first error."""
        failed = [error for name, text in texts.items() if (error := self._write(name, text))]
        if failed:
            self.report(f"Not written: {len(failed)} of {count(len(texts), kind)}. The first: {failed[0]}")

    def export(self, name: str, make: Callable[[], Export]) -> None:
        """Write an export, and note the students who are left out of it."""
        made: list[Export] = []

        def text() -> str:
            made.append(make())
            return made[0].text

        self.files("export", {name: text})
        for export in made:
            self.left_out |= {(name, student): reason for student, reason in export.left_out.items()}

    def report_left_out(self) -> None:
        """Write to `left_out.csv` who is missing from which file, and why; report one line per reason."""
        rows = [(name, student, reason) for (name, student), reason in self.left_out.items()]
        self.files("export", {LEFT_OUT: lambda: csv_text(("where", "student", "reason"), rows)})
        for reason in dict.fromkeys(self.left_out.values()):
            places = list(dict.fromkeys(name for name, _, why in rows if why == reason))
            students = list(dict.fromkeys(on_one_line(student, 60) for _, student, why in rows if why == reason))
            more = f" and {len(students) - NAMED} more, all in {LEFT_OUT}" if len(students) > NAMED else ""
            self.report(f"Not in {', '.join(places)}: {', '.join(students[:NAMED])}{more} ({reason}).")

    def _write(self, name: str, make: Callable[[], str]) -> str:
        """Write a file if it would change; return the error with the file's name, or ""."""
        path = self.out / name
        try:
            # A name may contain lone surrogates, which UTF-8 cannot encode.
            data = make().encode("utf-8", "replace")
            if not path.is_file() or path.read_bytes() != data:
                write_atomically(path, data.decode())
        except Exception as error:
            return f"{on_one_line(name)} ({type(error).__name__}: {on_one_line(str(error))})"
        return ""
