"""What a reference asks for, so that `course.answers` finds the answers to its questions in a submission."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from scalelab.course import answers as course_answers
from scalelab.course.answers import Answer, Asked
from scalelab.course.handed_in import Cell
from scalelab.course.notebooks import text_of
from scalelab.grading.merge import Reference


def asked(reference: Reference) -> Asked:
    """Return what the reference asks for; an answer must define what its solution defines and its checks use."""
    return Asked(
        wanted={
            question.exercise: course_answers.wanted(
                question.solution, text_of(question.visible["source"]), text_of(question.hidden["source"])
            )
            for question in reference.questions
        },
        cells={str(cell["id"]): text_of(cell["source"]) for cell in reference.notebook["cells"]},
    )


def answers(reference: Reference, cells: Sequence[Cell]) -> dict[str, Answer]:
    """Return the answer to every question of the reference (`course.answers.answers`)."""
    return course_answers.answers(asked(reference), cells)


def marks(reference: Reference) -> frozenset[str]:
    """Return by what a notebook of this set is recognised: its answers' names, and its prompts' and checks' text."""
    return course_answers.marks(asked(reference))


def digest_of_answers(given: Mapping[str, Answer]) -> str:
    """Return a hash of the answers, and of why there is none where there is none."""
    parts = {name: [answer.source, answer.state, answer.reason] for name, answer in given.items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
