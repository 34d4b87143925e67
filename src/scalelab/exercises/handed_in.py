"""Find the answers to a reference's questions in a submission, with `course.answers`."""

from __future__ import annotations

import builtins
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from scalelab.checks._cells import LARGEST_READ, free_names, sentences
from scalelab.exercises import answers as course_answers
from scalelab.exercises.answers import Answer, ExpectedAnswers
from scalelab.exercises.reference import Reference
from scalelab.notebooks.format import source_of
from scalelab.notebooks.untrusted import HandedIn, NoNotebook, SubmittedCell, short

MOST_READ = 500
"""Cells that are searched for names that an answer lacks."""
IMPORTS = re.compile(r"^(?:from[ \t]+\S+[ \t]+)?import[ \t]+(.+)", re.MULTILINE)


def asked(reference: Reference) -> ExpectedAnswers:
    """Return the cells' text, and the names that each answer must define: its solution's, if its checks use them."""
    return ExpectedAnswers(
        wanted={
            question.exercise: course_answers.wanted(
                question.solution, source_of(question.visible), source_of(question.hidden)
            )
            for question in reference.questions
        },
        cells={str(cell["id"]): source_of(cell) for cell in reference.notebook["cells"]},
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
    other_cells = [cell for cell in cells if cell.type == "code" and cell.source != answer.source]
    searched = list(itertools.islice((cell for cell in other_cells if len(cell.source) <= LARGEST_READ), MOST_READ))
    own = _bound("\n".join(cell.source for cell in searched if not course_cells.intersection(cell.names)))
    course = _bound("\n".join(cell.source for cell in searched if course_cells.intersection(cell.names)))
    given = _bound("\n".join(source_of(cell) for cell in reference.setup)) | set(vars(builtins))
    missing = free_names(answer.source or "")
    return sentences(missing & own, missing & course, given)


def _bound(source: str) -> set[str]:
    """Return the names that cells define or import at their top level."""
    imported = [name.split() for name in ",".join(IMPORTS.findall(source)).split(",")]
    return set(course_answers.defined(source)) | {names[-1].partition(".")[0] for names in imported if names}


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
        problem = (
            f"is for the unknown exercise set {short(claimed)!r}" if claimed else "holds no exercise of this course"
        )
        raise NoNotebook(f"{problem}; expected one of {known}")
    if len(fits) == 2 and fits[0][1] == fits[1][1]:
        raise NoNotebook(f"fits {fits[0][0]} and {fits[1][0]} alike; its metadata do not say which")
    return fits[0][0]
