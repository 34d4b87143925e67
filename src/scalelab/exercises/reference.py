"""Read the executed reference of an exercise set: its set-up cells and its questions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import scalelab
from scalelab.course import Course
from scalelab.errors import ScalelabError
from scalelab.exercises.source import sources
from scalelab.notebooks.files import own_metadata, stored_notebook
from scalelab.notebooks.format import Cell, Notebook, source_of

VISIBLE, HIDDEN = "check", "hidden"
CHECKS = Path(scalelab.__file__).parent / "checks"


FORM = "1"
"""Increase it when references are executed in another way, so that none of the recorded digests holds."""


class BadReference(ScalelabError):
    """A reference notebook is missing, invalid or out of date, or its solutions do not pass here."""


@dataclass(frozen=True)
class Question:
    """One exercise of a reference: its cells and points, and each wrong idea with the message of its failing check."""

    exercise: str
    answer: Cell
    visible: Cell
    hidden: Cell
    wrong: tuple[tuple[str, str], ...]

    def check(self, role: str) -> Cell:
        """Return the check cell with the role "check" or "hidden"."""
        return {VISIBLE: self.visible, HIDDEN: self.hidden}[role]

    @property
    def visible_points(self) -> int:
        return int(self.visible["metadata"]["nbgrader"]["points"])

    @property
    def hidden_points(self) -> int:
        return int(self.hidden["metadata"]["nbgrader"]["points"])

    @property
    def points(self) -> int:
        return self.visible_points + self.hidden_points

    @property
    def solution(self) -> str:
        """The reference's own answer."""
        return source_of(self.answer)


@dataclass(frozen=True)
class Reference:
    """An executed reference: the set-up cells that every question needs, and the questions."""

    slug: str
    digest: str
    setup: tuple[Cell, ...]
    questions: tuple[Question, ...]
    notebook: Notebook

    @property
    def points(self) -> int:
        return sum(question.points for question in self.questions)

    @property
    def sources(self) -> dict[str, str]:
        """The reference's own answers, by exercise."""
        return {question.exercise: question.solution for question in self.questions}


def read_reference(path: Path) -> Reference:
    """Return the reference in a file. Raises BadReference if it is not an executed reference."""
    notebook = stored_notebook(path)
    own = own_metadata(notebook)
    if notebook is None or "digest" not in own:
        raise BadReference(f"{path} is not a reference; run `scalelab course sync`.")
    try:
        roles = {role: {} for role in ("answer", "check", "hidden")}  # type: dict[str, dict[str, Cell]]
        setup = []
        for cell in notebook["cells"]:
            place = cell["metadata"].get("scalelab", {})
            if place.get("role") == "setup":
                setup.append(cell)
            elif place.get("role") in roles:
                roles[place["role"]][place["exercise"]] = cell
        questions = tuple(
            Question(
                exercise=name,
                answer=answer,
                visible=roles["check"][name],
                hidden=roles["hidden"][name],
                wrong=tuple(
                    (wrong["name"], wrong["message"]) for wrong in roles["check"][name]["metadata"]["scalelab"]["wrong"]
                ),
            )
            for name, answer in roles["answer"].items()
        )
        unrun = [cell["id"] for role in ("check", "hidden") for cell in roles[role].values() if not cell["outputs"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise BadReference(f"{path} is not a reference ({error!r} reading it); run `scalelab course sync`.") from error
    if unrun or not questions:
        lacks = f"has no output of {', '.join(unrun)}" if unrun else "has no question"
        raise BadReference(f"{path} {lacks}; run `scalelab course sync`.")
    return Reference(str(own["exercises"]), str(own["digest"]), tuple(setup), questions, notebook)


def digest_of(source: Path) -> str:
    """Return a hash of a reference's sources, its own and `scalelab.checks`, which is the same for all line endings."""
    digest = hashlib.sha256(FORM.encode())
    files = sorted(path for path in CHECKS.rglob("*") if path.suffix == ".py")
    for name, path in [("", source), *((path.relative_to(CHECKS).as_posix(), path) for path in files)]:
        text = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name} {len(text)} ".encode() + text)
    return digest.hexdigest()


def references_of(course: Course) -> dict[str, Reference]:
    """Return the references by set. Raises BadReference if there is none, or if one differs from its source."""
    paths = sorted(course.solutions.glob("*.ipynb"))
    if not paths:
        raise BadReference(f"{course.solutions} holds no reference; run `scalelab course sync`.")
    references = {reference.slug: reference for reference in map(read_reference, paths)}
    for source in sources(course):
        reference = references.get(source.stem)
        if reference is not None and reference.digest != digest_of(source):
            raise BadReference(
                f"solutions/{source.stem}.ipynb was executed from another state of solutions/{source.name} or of "
                "scalelab.checks; run `scalelab course sync`."
            )
    return references
