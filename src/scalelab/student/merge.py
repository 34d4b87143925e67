"""Carry a student's work over into a newer notebook of the same exercise set, without losing anything.

The course's own cells come from the newer notebook. Answers are found as the grader finds them, by their cells' names
first; the student's own cells stay behind the same cell as before. Work that no longer has a place is returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from scalelab.exercises.answers import Asked, answers, wanted
from scalelab.exercises.released import checksum
from scalelab.notebooks.files import own_metadata
from scalelab.notebooks.format import Cell, Notebook, text_of
from scalelab.notebooks.untrusted import Cell as Seen
from scalelab.notebooks.untrusted import names_of, squeezed

ANSWER, CHECK, PROMPT = "answer", "check", "prompt"
PROGRESS = "where-you-stand"
"""The id of the cell that shows the progress: it is ours, and rewritten each time."""


@dataclass(frozen=True)
class Kept:
    """A student's cells, unchanged, that have no place in the newer notebook; `what` describes them and says why."""

    what: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Updated:
    """The newer notebook with the student's work in it; `notes` tells the student what is new, in one line each."""

    notebook: Notebook
    notes: tuple[str, ...]
    kept: tuple[Kept, ...]


@dataclass(frozen=True)
class Released:
    """A notebook as the course hands it out: its cells by name, in order, and the requirements of its exercises."""

    cells: Mapping[str, Cell]
    asked: Asked

    @property
    def exercises(self) -> tuple[str, ...]:
        return tuple(self.asked.wanted)

    def text(self, name: str) -> str:
        """Return a cell's text with white space normalised; it is empty if no cell has this name."""
        return squeezed(self.asked.cells.get(name, ""))

    def untouched(self, name: str, cell: Cell) -> bool:
        """Return whether a cell's text is as handed out: in this release or, if it lacks the cell, by its checksum."""
        if name in self.cells:
            return squeezed(source_of(cell)) == self.text(name)
        try:
            return bool(cell["metadata"]["nbgrader"]["checksum"] == checksum(cell))
        except (KeyError, TypeError):
            return False


def released(notebook: Notebook | None) -> Released:
    """Return the contents that a student notebook hands out; None hands out nothing."""
    cells = {str(cell.get("id")): cell for cell in (notebook or {}).get("cells", [])}
    texts = {name: source_of(cell) for name, cell in cells.items()}
    exercises = [name for name, cell in cells.items() if own_metadata(cell).get("role") == ANSWER]
    return Released(
        cells, Asked({name: wanted(texts[name], texts.get(f"{name}-{CHECK}", "")) for name in exercises}, texts)
    )


def source_of(cell: Cell) -> str:
    """Return a cell's text."""
    return text_of(cell.get("source"))


def update(before: Notebook | None, mine: Notebook, after: Notebook) -> Updated:
    """Return `after` with the student's work in `mine`, which was made from `before` (None if that is unknown).

    If there are two candidates for an answer, neither is chosen. Everything that a student wrote is in the notebook or
    in `kept`.
    """
    return _Update(released(before), mine["cells"], released(after)).updated(after)


@dataclass(eq=False)
class _Mine:
    """A cell of the student's; `name` is its name in the newer set, or else its former name (`gone`), or empty."""

    cell: Cell
    name: str = ""
    gone: bool = False
    used: bool = False
    source: str = field(init=False)

    def __post_init__(self) -> None:
        self.source = source_of(self.cell)

    @property
    def is_code(self) -> bool:
        return self.cell.get("cell_type") == "code"


class _Update:
    """Carries the student's cells over, one after another, into a newer release."""

    def __init__(self, before: Released, cells: Sequence[Cell], after: Released) -> None:
        self.before, self.after = before, after
        self.renamed = _renamed(before, after)
        self.old_names = {new: old for old, new in self.renamed.items()}
        self.mine = [mine for mine in self._named(cells) if mine.name != PROGRESS]
        self.notes: list[str] = []
        self.kept: list[Kept] = []

    def updated(self, after: Notebook) -> Updated:
        answered = {name: self._answer(name) for name in self.after.exercises}
        placed = {name: answered.get(name) or [self._ours(name, cell)] for name, cell in self.after.cells.items()}
        follow: dict[str, list[Cell]] = {}
        anchor = ""
        for mine in self.mine:
            if mine.name and not mine.gone:
                anchor = mine.name
            elif not mine.name and not mine.used:
                follow.setdefault(anchor, []).append(mine.cell)
        cells = follow.get("", [])
        for name, own in placed.items():
            cells = [*cells, *own, *follow.get(name, [])]
        self._keep_what_is_gone()
        return Updated({**after, "cells": list(_with_own_ids(cells))}, tuple(self.notes), tuple(self.kept))

    def _named(self, cells: Sequence[Cell]) -> Iterator[_Mine]:
        """Yield the cells with their names: from their metadata or, if an editor lost these, from their text."""
        named = [self._name(cell) for cell in cells]
        taken = {name for name, _ in named}
        by_text: dict[str, set[str]] = {}
        for release in (self.before, self.after):
            for name in release.cells:
                by_text.setdefault(release.text(name), set()).add(self._now(name))
        for cell, (name, gone) in zip(cells, named, strict=True):
            alike = by_text.get(squeezed(source_of(cell)), set()) - taken
            if not name and len(alike) == 1 and squeezed(source_of(cell)):
                (by_its_text,) = alike
                yield _Mine(cell, by_its_text, by_its_text not in self.after.cells)
            else:
                yield _Mine(cell, name, gone)

    def _name(self, cell: Cell) -> tuple[str, bool]:
        """Return a cell's name, and whether the newer release has no cell of that name."""
        names = names_of(cell)
        if PROGRESS in names:
            return PROGRESS, True
        for name in map(self._now, names):
            if name in self.after.cells:
                return name, False
        for name in names:
            if name in self.before.cells:
                return name, True
        nbgrader = (cell.get("metadata") or {}).get("nbgrader")
        ours = isinstance(nbgrader, dict) and (nbgrader.get("locked") or nbgrader.get("solution"))
        return (names[0], True) if ours and names else ("", False)

    def _now(self, name: str) -> str:
        """Return the present name of a cell, which begins with the name of its exercise, perhaps a new one."""
        exercise, dash, part = name.partition("-")
        return self.renamed.get(exercise, exercise) + dash + part

    def _answer(self, name: str) -> list[Cell]:
        """Return the cells for the answer's place: the student's answer (several if they differ), or the starter."""
        old = self.old_names.get(name, name)
        due = self.after.cells[name]
        known = old in self.before.cells
        carriers = [mine for mine in self.mine if mine.name == name and not mine.gone]
        code = _distinct([mine for mine in carriers if mine.is_code and mine.source.strip()])
        if not code and (found := self._found(name) if known else None):
            code = [found]
        for mine in carriers:
            mine.used = mine.is_code
            if not mine.is_code and mine.source.strip():
                self.kept.append(Kept(f"{name}: a cell of its answer's name that is no code", (mine.cell,)))
        self._tell(name, old, known=known, found=bool(code))
        for mine in code:
            mine.used = True
        work = [mine for mine in code if not self.before.untouched(old, mine.cell)]
        if not work:
            return [due]
        if len(work) > 1:
            self.notes.append(f"{name}: {len(work)} different cells hold its answer, all kept; delete all but one.")
        first, *others = work
        answer = {**due, "source": first.cell["source"]} | _shown(first.cell)
        return [answer, *(mine.cell for mine in others)]

    def _found(self, name: str) -> _Mine | None:
        """Return the cell without a name that the grader would take as the answer, or None."""
        there = [mine for mine in self.mine if not mine.gone and not mine.used]
        seen = [
            Seen((mine.name,) if mine.name else (), str(mine.cell.get("cell_type", "")), mine.source) for mine in there
        ]
        answer = answers(self.after.asked, seen)[name]
        if answer.source is None:
            return None
        return next((one for one in there if not one.name and one.is_code and one.source == answer.source), None)

    def _ours(self, name: str, cell: Cell) -> Cell:
        """Return a cell of the course's own, with the student's outputs if the student's cell has the same text.

        If the student has changed its text, the changed cell is kept.
        """
        old = self._before(name)
        outputs: dict[str, Any] = {}
        for mine in (mine for mine in self.mine if mine.name == name and not mine.gone):
            if squeezed(mine.source) == self.after.text(name):
                outputs = outputs or _shown(mine.cell)
            elif not self.before.untouched(old, mine.cell):
                self.kept.append(Kept(f"{name}: your changes to a cell of the course's own", (mine.cell,)))
        return {**cell, **outputs} if cell.get("cell_type") == "code" else cell

    def _before(self, name: str) -> str:
        exercise, dash, part = name.partition("-")
        return self.old_names.get(exercise, exercise) + dash + part

    def _tell(self, name: str, old: str, *, known: bool, found: bool) -> None:
        if not self.before.cells:
            return
        if not known:
            self.notes.append(f"{name}: a new exercise.")
            return
        if old != name:
            self.notes.append(f"{name}: was called {old}.")
        if not found:
            self.notes.append(f"{name}: your notebook had no answer cell; there is one again, with the starter.")
        if self.before.text(f"{old}-{PROMPT}") != self.after.text(f"{name}-{PROMPT}"):
            self.notes.append(f"{name}: reworded; read it again.")
        if self.before.text(f"{old}-{CHECK}") != self.after.text(f"{name}-{CHECK}"):
            self.notes.append(f"{name}: its check has changed; run it again.")

    def _keep_what_is_gone(self) -> None:
        gone = [mine for mine in self.mine if mine.gone and mine.source.strip()]
        exercises = dict.fromkeys(mine.name.partition("-")[0] for mine in gone)
        for exercise in exercises:
            parts = [mine for mine in gone if mine.name.partition("-")[0] == exercise]
            if any(mine.name == exercise for mine in parts) and exercise in self.before.asked.wanted:
                self.notes.append(f"{exercise}: no longer in the course.")
            wrote = [mine for mine in parts if not self.before.untouched(mine.name, mine.cell)]
            if wrote:
                prompt = [mine for mine in parts if mine.name == f"{exercise}-{PROMPT}" and mine not in wrote]
                cells = tuple(mine.cell for mine in (*prompt, *wrote))
                self.kept.append(Kept(f"{exercise}: your work on what is no longer in the course", cells))


def _renamed(before: Released, after: Released) -> dict[str, str]:
    """Return the new name of each renamed exercise by its old name: one with the same starter or the same prompt.

    An exercise that matches two others does not count as renamed.
    """
    old = [name for name in before.exercises if name not in after.cells]
    new = [name for name in after.exercises if name not in before.cells]

    def alike(one: str, other: str) -> bool:
        return before.text(one) == after.text(other) or before.text(f"{one}-{PROMPT}") == after.text(
            f"{other}-{PROMPT}"
        )

    pairs = [(one, other) for one in old for other in new if alike(one, other)]
    return {
        one: other
        for one, other in pairs
        if sum(one == first for first, _ in pairs) == 1 and sum(other == second for _, second in pairs) == 1
    }


def _distinct(cells: Sequence[_Mine]) -> list[_Mine]:
    return list({mine.source: mine for mine in reversed(cells)}.values())[::-1]


def _shown(cell: Cell) -> dict[str, Any]:
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
