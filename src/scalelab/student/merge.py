"""Carry a student's work over into a newer notebook of the same exercise set, without losing anything.

The course's own cells come from the newer notebook. Answers are found as the grader finds them, by their cells' names
first; the student's own cells stay behind the same cell as before. Work that no longer has a place is returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from scalelab.exercises.answers import ExpectedAnswers, answers, wanted
from scalelab.exercises.released import checksum
from scalelab.notebooks.files import own_metadata
from scalelab.notebooks.format import Cell, Notebook, source_of
from scalelab.notebooks.untrusted import SubmittedCell, collapse_spaces, names_of

ANSWER, CHECK, PROMPT = "answer", "check", "prompt"
PROGRESS = "where-you-stand"
"""The id of the cell that shows the progress: it is ours, and rewritten each time."""


@dataclass(frozen=True)
class Leftover:
    """A student's cells, unchanged, that have no place in the newer notebook; `description` names them and says why."""

    description: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Updated:
    """The newer notebook with the student's work in it; `notes` tells the student what is new, in one line each."""

    notebook: Notebook
    notes: tuple[str, ...]
    leftovers: tuple[Leftover, ...]


@dataclass(frozen=True)
class Released:
    """A notebook as the course hands it out: its cells by name, in order, and the requirements of its exercises."""

    cells: Mapping[str, Cell]
    expected: ExpectedAnswers

    @property
    def exercises(self) -> tuple[str, ...]:
        return tuple(self.expected.wanted)

    def text(self, name: str) -> str:
        """Return a cell's text with white space normalised; it is empty if no cell has this name."""
        return collapse_spaces(self.expected.cells.get(name, ""))

    def is_unmodified(self, name: str, cell: Cell) -> bool:
        """Return whether a cell's text is as handed out: in this release or, if it lacks the cell, by its checksum."""
        if name in self.cells:
            return collapse_spaces(source_of(cell)) == self.text(name)
        try:
            return bool(cell["metadata"]["nbgrader"]["checksum"] == checksum(cell))
        except (KeyError, TypeError):
            return False


def released(notebook: Notebook | None) -> Released:
    """Return the contents that a student notebook hands out; None hands out nothing."""
    cells = {str(cell.get("id")): cell for cell in (notebook or {}).get("cells", [])}
    texts = {name: source_of(cell) for name, cell in cells.items()}
    exercises = [name for name, cell in cells.items() if own_metadata(cell).get("role") == ANSWER]
    definitions = {name: wanted(texts[name], texts.get(f"{name}-{CHECK}", "")) for name in exercises}
    return Released(cells, ExpectedAnswers(definitions, texts))


def update(before: Notebook | None, notebook: Notebook, after: Notebook) -> Updated:
    """Return `after` with the student's work in `notebook`, which was made from `before` (None if that is unknown).

    If there are two candidates for an answer, neither is chosen. Everything that a student wrote is in the notebook or
    in `leftovers`.
    """
    return _Update(released(before), notebook["cells"], released(after)).updated(after)


@dataclass(eq=False)
class _StudentCell:
    """A cell of the student's; `name` is its name in the newer set, or else its former name (`removed`), or empty."""

    content: Cell
    name: str = ""
    removed: bool = False
    used: bool = False
    source: str = field(init=False)

    def __post_init__(self) -> None:
        self.source = source_of(self.content)

    @property
    def is_code(self) -> bool:
        return self.content.get("cell_type") == "code"


class _Update:
    """Carries the student's cells over, one after another, into a newer release."""

    def __init__(self, before: Released, cells: Sequence[Cell], after: Released) -> None:
        self.before, self.after = before, after
        self.renamed = _renamed(before, after)
        self.old_names = {new: old for old, new in self.renamed.items()}
        self.cells = [cell for cell in self._with_names(cells) if cell.name != PROGRESS]
        self.notes: list[str] = []
        self.leftovers: list[Leftover] = []

    def updated(self, after: Notebook) -> Updated:
        answered = {name: self._answer(name) for name in self.after.exercises}
        placed = {
            name: answered.get(name) or [self._course_cell(name, cell)] for name, cell in self.after.cells.items()
        }
        follow: dict[str, list[Cell]] = {}
        anchor = ""
        for cell in self.cells:
            if cell.name and not cell.removed:
                anchor = cell.name
            elif not cell.name and not cell.used:
                follow.setdefault(anchor, []).append(cell.content)
        cells = follow.get("", [])
        for name, own in placed.items():
            cells = [*cells, *own, *follow.get(name, [])]
        self._keep_removed()
        return Updated({**after, "cells": list(_with_own_ids(cells))}, tuple(self.notes), tuple(self.leftovers))

    def _with_names(self, cells: Sequence[Cell]) -> Iterator[_StudentCell]:
        """Yield the cells with their names: from their metadata or, if an editor lost these, from their text."""
        named = [self._name(cell) for cell in cells]
        assigned = {name for name, _ in named}
        by_text: dict[str, set[str]] = {}
        for release in (self.before, self.after):
            for name in release.cells:
                by_text.setdefault(release.text(name), set()).add(self._current_name(name))
        for cell, (name, removed) in zip(cells, named, strict=True):
            alike = by_text.get(collapse_spaces(source_of(cell)), set()) - assigned
            if not name and len(alike) == 1 and collapse_spaces(source_of(cell)):
                (by_its_text,) = alike
                yield _StudentCell(cell, by_its_text, by_its_text not in self.after.cells)
            else:
                yield _StudentCell(cell, name, removed)

    def _name(self, cell: Cell) -> tuple[str, bool]:
        """Return a cell's name, and whether the newer release has no cell of that name."""
        names = names_of(cell)
        if PROGRESS in names:
            return PROGRESS, True
        for name in map(self._current_name, names):
            if name in self.after.cells:
                return name, False
        for name in names:
            if name in self.before.cells:
                return name, True
        nbgrader = (cell.get("metadata") or {}).get("nbgrader")
        by_course = isinstance(nbgrader, dict) and (nbgrader.get("locked") or nbgrader.get("solution"))
        return (names[0], True) if by_course and names else ("", False)

    def _current_name(self, name: str) -> str:
        """Return the present name of a cell, which begins with the name of its exercise, perhaps a new one."""
        exercise, dash, part = name.partition("-")
        return self.renamed.get(exercise, exercise) + dash + part

    def _answer(self, name: str) -> list[Cell]:
        """Return the cells for the answer's place: the student's answer (several if they differ), or the starter."""
        old = self.old_names.get(name, name)
        due = self.after.cells[name]
        known = old in self.before.cells
        carriers = [cell for cell in self.cells if cell.name == name and not cell.removed]
        code = _distinct([cell for cell in carriers if cell.is_code and cell.source.strip()])
        if not code and (unnamed := self._unnamed_answer(name) if known else None):
            code = [unnamed]
        for cell in carriers:
            cell.used = cell.is_code
            if not cell.is_code and cell.source.strip():
                description = f"{name}: a cell of its answer's name that is not a code cell"
                self.leftovers.append(Leftover(description, (cell.content,)))
        self._note_changes(name, old, known=known, answered=bool(code))
        for cell in code:
            cell.used = True
        work = [cell for cell in code if not self.before.is_unmodified(old, cell.content)]
        if not work:
            return [due]
        if len(work) > 1:
            self.notes.append(f"{name}: {len(work)} different cells hold its answer, all kept; delete all but one.")
        first, *more = work
        answer = {**due, "source": first.content["source"]} | _outputs_of(first.content)
        return [answer, *(cell.content for cell in more)]

    def _unnamed_answer(self, name: str) -> _StudentCell | None:
        """Return the cell without a name that the grader would take as the answer, or None."""
        unused = [cell for cell in self.cells if not cell.removed and not cell.used]
        submitted = [
            SubmittedCell((cell.name,) if cell.name else (), str(cell.content.get("cell_type", "")), cell.source)
            for cell in unused
        ]
        answer = answers(self.after.expected, submitted)[name]
        if answer.source is None:
            return None
        return next((cell for cell in unused if not cell.name and cell.is_code and cell.source == answer.source), None)

    def _course_cell(self, name: str, cell: Cell) -> Cell:
        """Return a cell of the course's own, with the student's outputs if the student's cell has the same text.

        If the student has changed its text, the changed cell is kept.
        """
        old = self._former_name(name)
        outputs: dict[str, Any] = {}
        for student_cell in (known for known in self.cells if known.name == name and not known.removed):
            if collapse_spaces(student_cell.source) == self.after.text(name):
                outputs = outputs or _outputs_of(student_cell.content)
            elif not self.before.is_unmodified(old, student_cell.content):
                changes = f"{name}: your changes to a cell of the course's own"
                self.leftovers.append(Leftover(changes, (student_cell.content,)))
        return {**cell, **outputs} if cell.get("cell_type") == "code" else cell

    def _former_name(self, name: str) -> str:
        exercise, dash, part = name.partition("-")
        return self.old_names.get(exercise, exercise) + dash + part

    def _note_changes(self, name: str, old: str, *, known: bool, answered: bool) -> None:
        if not self.before.cells:
            return
        if not known:
            self.notes.append(f"{name}: a new exercise.")
            return
        if old != name:
            self.notes.append(f"{name}: was called {old}.")
        if not answered:
            self.notes.append(f"{name}: your notebook had no answer cell; there is one again, with the starter.")
        if self.before.text(f"{old}-{PROMPT}") != self.after.text(f"{name}-{PROMPT}"):
            self.notes.append(f"{name}: reworded; read it again.")
        if self.before.text(f"{old}-{CHECK}") != self.after.text(f"{name}-{CHECK}"):
            self.notes.append(f"{name}: its check has changed; run it again.")

    def _keep_removed(self) -> None:
        """Add the student's work in parts that the newer release no longer has to the leftovers."""
        removed = [cell for cell in self.cells if cell.removed and cell.source.strip()]
        exercises = dict.fromkeys(cell.name.partition("-")[0] for cell in removed)
        for exercise in exercises:
            parts = [cell for cell in removed if cell.name.partition("-")[0] == exercise]
            if any(cell.name == exercise for cell in parts) and exercise in self.before.expected.wanted:
                self.notes.append(f"{exercise}: no longer in the course.")
            written = [cell for cell in parts if not self.before.is_unmodified(cell.name, cell.content)]
            if written:
                prompt = [cell for cell in parts if cell.name == f"{exercise}-{PROMPT}" and cell not in written]
                cells = tuple(cell.content for cell in (*prompt, *written))
                self.leftovers.append(
                    Leftover(f"{exercise}: your work on a part that is no longer in the course", cells)
                )


def _renamed(before: Released, after: Released) -> dict[str, str]:
    """Return the new name of each renamed exercise by its old name: one with the same starter or the same prompt.

    An exercise that matches two others does not count as renamed.
    """
    old = [name for name in before.exercises if name not in after.cells]
    new = [name for name in after.exercises if name not in before.cells]

    def alike(former: str, current: str) -> bool:
        same_starter = before.text(former) == after.text(current)
        return same_starter or before.text(f"{former}-{PROMPT}") == after.text(f"{current}-{PROMPT}")

    pairs = [(former, current) for former in old for current in new if alike(former, current)]
    matches = Counter(name for pair in pairs for name in pair)  # no name is both an old and a new one
    return {former: current for former, current in pairs if matches[former] == matches[current] == 1}


def _distinct(cells: Sequence[_StudentCell]) -> list[_StudentCell]:
    return list({cell.source: cell for cell in reversed(cells)}.values())[::-1]


def _outputs_of(cell: Cell) -> dict[str, Any]:
    """Return the outputs and the execution count of a code cell."""
    outputs = cell.get("outputs")
    return {"outputs": outputs if isinstance(outputs, list) else [], "execution_count": cell.get("execution_count")}


def _with_own_ids(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Yield the cells, each with a unique id, as the format requires."""
    seen: set[str] = set()
    for cell in cells:
        name = cell.get("id")
        yield cell if isinstance(name, str) and name not in seen else {**cell, "id": (name := uuid4().hex[:8])}
        seen.add(str(name))
