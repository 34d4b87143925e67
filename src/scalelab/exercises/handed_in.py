"""Find the answers to a reference's questions in a submission, with `course.answers`."""

from __future__ import annotations

import builtins
import hashlib
import json
import re
import symtable
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from scalelab.exercises import answers as course_answers
from scalelab.exercises.answers import Answer, ExpectedAnswers
from scalelab.exercises.reference import Reference
from scalelab.notebooks.format import text_of
from scalelab.notebooks.untrusted import HandedIn, NoNotebook, SubmittedCell, short

LARGEST_READ = 20_000
"""An answer with more characters is not searched for names; it is judged all the same."""
IMPORTS = re.compile(r"^(?:from[ \t]+\S+[ \t]+)?import[ \t]+(.+)", re.MULTILINE)


def asked(reference: Reference) -> ExpectedAnswers:
    """Return the cells' text, and the names that each answer must define: its solution's, if its checks use them."""
    return ExpectedAnswers(
        wanted={
            question.exercise: course_answers.wanted(
                question.solution, text_of(question.visible["source"]), text_of(question.hidden["source"])
            )
            for question in reference.questions
        },
        cells={str(cell["id"]): text_of(cell["source"]) for cell in reference.notebook["cells"]},
    )


def answers(reference: Reference, cells: Sequence[SubmittedCell]) -> dict[str, Answer]:
    """Return the answer to every question of the reference (`course.answers.answers`)."""
    return course_answers.answers(asked(reference), cells)


def marks(reference: Reference) -> frozenset[str]:
    """Return the marks of this set's notebooks: its answers' names, and its prompts' and checks' text."""
    return course_answers.marks(asked(reference))


def digest_of_answers(given: Mapping[str, Answer]) -> str:
    """Return a hash of the answers, and of the reason for each that is missing."""
    parts = {name: [answer.source, answer.state, answer.reason] for name, answer in given.items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def from_other_cells(reference: Reference, cells: Sequence[SubmittedCell], answer: Answer) -> list[str]:
    """Return a sentence for each name that an answer uses, but only another cell of the notebook defines."""
    course_cells = {str(cell["id"]) for cell in reference.notebook["cells"]}
    others = [cell for cell in cells if cell.type == "code" and cell.source != answer.source]
    own = _bound("\n".join(cell.source for cell in others if not course_cells.intersection(cell.names)))
    course = _bound("\n".join(cell.source for cell in others if course_cells.intersection(cell.names)))
    given = _bound("\n".join(text_of(cell["source"]) for cell in reference.setup)) | set(vars(builtins))
    missing = _free_names(answer.source or "") - given
    in_own = "`{}` stands in a cell of your own: move it into the answer. Answers alone are graded."
    in_course = "`{}` stands in another of the course's cells: define it in this answer, too. Each is graded alone."
    return [(in_own if name in own else in_course).format(name) for name in sorted(missing & (own | course))]


def _bound(source: str) -> set[str]:
    """Return the names that cells define or import at their top level."""
    imported = re.split(r"\s*,\s*", ",".join(IMPORTS.findall(source)))
    return set(course_answers.defined(source)) | {name.split()[-1].partition(".")[0] for name in imported if name}


def _free_names(source: str) -> set[str]:
    """Return the names that an answer reads and does not bind; none if it is too long, or not valid Python."""
    try:
        tables = [symtable.symtable(source, "answer", "exec")] if len(source) <= LARGEST_READ else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    read, bound = set(), set()
    for table in tables:
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_referenced():
                read.add(symbol.get_name())
            if symbol.is_global() and (symbol.is_assigned() or symbol.is_imported()):
                bound.add(symbol.get_name())
    return read - bound


def recognise(handed_in: HandedIn, sets: Mapping[str, Collection[str]]) -> str:
    """Return a notebook's exercise set: by its metadata or, if these name no set of the course, by its cells.

    Raises NoNotebook if no set of this course fits, or if two fit equally well.
    """
    claimed = handed_in.exercises
    if claimed in sets:
        return claimed
    marks = {mark for cell in handed_in.cells for mark in cell.marks}
    fits = Counter({slug: len(marks & set(own)) for slug, own in sets.items()}).most_common(2)
    known = ", ".join(sorted(sets))
    if not fits or fits[0][1] == 0:
        what = f"is for the unknown exercise set {short(claimed)!r}" if claimed else "holds no exercise of this course"
        raise NoNotebook(f"{what}; expected one of {known}")
    if len(fits) == 2 and fits[0][1] == fits[1][1]:
        raise NoNotebook(f"fits {fits[0][0]} and {fits[1][0]} alike; its metadata do not say which")
    return fits[0][0]
