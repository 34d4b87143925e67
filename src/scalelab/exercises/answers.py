"""Find the answer to every exercise in a notebook: by its cell's name or, if that is lost, by position and content."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from scalelab.exercises.source import HINTS
from scalelab.notebooks.untrusted import Cell, squeezed

LARGEST_ANSWER = 100_000
MISSING = "missing"
DUPLICATED = "duplicated"
AMBIGUOUS = "ambiguous"
TOO_LONG = "too long"
NAME = re.compile(r"[A-Za-z_]\w*")
DEFINITION = re.compile(r"(?:async[ \t]+def|def|class)[ \t]+(\w+)")
AGAIN = "Put the answer into its own cell of a fresh copy of the notebook, and hand in again."


@dataclass(frozen=True)
class Asked:
    """The requirements of an exercise set.

    `wanted` maps each exercise, in order, to the names that an answer must define; `cells` maps the name of every cell
    to its text.
    """

    wanted: Mapping[str, frozenset[str]]
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """The answer to an exercise: its source, or None if there is nothing to run.

    `reason` then says why, and `state` is `MISSING`, `DUPLICATED`, `AMBIGUOUS` or `TOO_LONG`. `note` is set if the
    answer was not found by its cell's name alone, or if another cell could answer too.
    """

    source: str | None
    reason: str = ""
    state: str = ""
    note: str = ""


def answers(asked: Asked, cells: Sequence[Cell]) -> dict[str, Answer]:
    """Return the answer to every exercise; nothing else of a notebook is used.

    The answer is in the cell that has the exercise's name. If no code cell has it, the answer is the one code cell
    without a name that defines the names that the checks use, or else the one at the answer's place. If there are two
    candidates, neither is chosen.
    """
    laid_out = _LaidOut(asked, cells)
    return {exercise: _answer(exercise, laid_out) for exercise in asked.wanted}


def marks(asked: Asked) -> frozenset[str]:
    """Return the marks of a notebook of this set: its answers' names, and the text of its prompts and checks."""
    return frozenset((*asked.wanted, *_anchors(asked)))


@dataclass(frozen=True)
class _Placed:
    """A cell of any type, its number in the notebook (from 1), and its name in the set (empty if it has none)."""

    number: int
    name: str
    cell: Cell

    @property
    def is_code(self) -> bool:
        return self.cell.type == "code"

    @cached_property
    def defines(self) -> frozenset[str]:
        return defined(self.cell.source)

    def answers(self, wanted: Collection[str]) -> bool:
        return bool(wanted) and self.defines.issuperset(wanted)


class _LaidOut:
    """A notebook's cells, compared with the set that they were made from."""

    def __init__(self, asked: Asked, cells: Sequence[Cell]) -> None:
        self.cells = _named(asked, cells)
        self.wanted = asked.wanted
        self.carried = {placed.name for placed in self.cells if placed.is_code and placed.cell.source.strip()}
        self.free = [one for one in self.cells if not one.name and one.is_code and one.cell.source.strip()]
        self.places: dict[int, set[str]] = {}
        for name in self.wanted:
            for number in self._place(name):
                self.places.setdefault(number, set()).add(name)

    def defining(self, exercise: str) -> list[_Placed]:
        """Return the code cells without a name that define the names that the exercise asks for.

        A cell is left out if it stands only at another answer's place and defines the names for that one.
        """
        return [one for one in self.free if one.answers(self.wanted[exercise]) and not self._settled(one, exercise)]

    def standing(self, exercise: str) -> list[_Placed]:
        """Return the code cells without a name that stand at the answer's place and answer no other exercise."""
        others = [wanted for name, wanted in self.wanted.items() if name != exercise]
        return [
            one
            for one in self.free
            if self.places.get(one.number) == {exercise} and not any(one.answers(wanted) for wanted in others)
        ]

    def rivals(self, one: _Placed, exercise: str) -> list[str]:
        """Return the other unanswered exercises that ask for one of the same names and could claim this cell too."""
        if exercise in self.places.get(one.number, ()):
            return []
        return [
            name
            for name, wanted in self.wanted.items()
            if name != exercise
            and name not in self.carried
            and wanted & self.wanted[exercise]
            and one in self.defining(name)
        ]

    def _settled(self, one: _Placed, exercise: str) -> bool:
        places = self.places.get(one.number, set())
        return exercise not in places and any(one.answers(self.wanted[name]) for name in places)

    def _place(self, exercise: str) -> Iterable[int]:
        """Yield the numbers of the cells without a name right after the prompt and hints, or right before the check."""
        above = {f"{exercise}-prompt", *(f"{exercise}-hint-{number}" for number in range(1, HINTS + 1))}
        yield from _beside(self.cells, above)
        yield from _beside(self.cells[::-1], {f"{exercise}-check"})


def _named(asked: Asked, cells: Sequence[Cell]) -> list[_Placed]:
    """Return each cell with its name in the set: from its metadata, or from its text for a prompt or check."""
    names = [next((name for name in cell.names if name in asked.cells), "") for cell in cells]
    anchors = {text: name for text, name in _anchors(asked).items() if name not in names}
    return [
        _Placed(number, name or anchors.get(squeezed(cell.source), ""), cell)
        for number, (name, cell) in enumerate(zip(names, cells, strict=True), start=1)
    ]


def _beside(cells: Sequence[_Placed], anchors: Collection[str]) -> Iterable[int]:
    """Yield the numbers of the cells without a name that come between one of `anchors` and the next named cell."""
    follows = False
    for placed in cells:
        if placed.name:
            follows = placed.name in anchors
        elif follows:
            yield placed.number


def _answer(name: str, laid_out: _LaidOut) -> Answer:
    mine = [placed for placed in laid_out.cells if placed.name == name]
    code = _distinct(placed for placed in mine if placed.is_code)
    if not code:
        return _searched(name, mine, laid_out)
    if len(code) > 1:
        return Answer(
            None,
            f"{len(code)} different cells ({_numbers(code)} of the notebook) hold this answer; one is due: "
            "keep the one that counts, delete the others, and hand in again.",
            DUPLICATED,
        )
    others = [one for one in laid_out.defining(name) if one.cell.source != code[0].cell.source]
    note = f"Cell {others[0].number} could answer it, too; the answer's own cell was judged." if others else ""
    return _found(code[0], note)


def _searched(name: str, mine: Sequence[_Placed], laid_out: _LaidOut) -> Answer:
    """Return the answer if its name is on no code cell that has content; `mine` are the other cells with the name."""
    retyped = [one for one in _distinct(mine) if one.answers(laid_out.wanted[name])]
    candidates = retyped or _distinct(laid_out.defining(name))
    if not candidates and not mine:
        candidates = _distinct(laid_out.standing(name))
    if not candidates:
        return Answer(None, _lacking(mine), MISSING)
    first = candidates[0]
    if len(candidates) > 1:
        reason = f"No code cell carries this answer's name, and {len(candidates)} could be it ({_numbers(candidates)})."
        return Answer(None, f"{reason} {AGAIN}", AMBIGUOUS)
    if retyped:
        return _found(first, f"The answer's cell is of the type {first.cell.type}; its text was judged as code.")
    if rivals := laid_out.rivals(first, name):
        reason = (
            f"No cell carries this answer's name, and cell {first.number} could answer {', '.join(rivals)} as well."
        )
        return Answer(None, f"{reason} {AGAIN}", AMBIGUOUS)
    lost = "is empty" if mine else "is not in the notebook under its name"
    return _found(first, f"The answer's cell {lost}; cell {first.number} was judged for it.")


def _lacking(mine: Sequence[_Placed]) -> str:
    if not mine:
        return "The answer cell is not in the notebook."
    other = next((placed.cell.type for placed in mine if placed.cell.source.strip()), "")
    return f"The answer cell is {other}, not code." if other else "The answer cell is empty."


def _found(placed: _Placed, note: str) -> Answer:
    source = placed.cell.source
    if len(source) > LARGEST_ANSWER:
        reason = f"The answer has {len(source):,} characters; expected {LARGEST_ANSWER:,} at most."
        return Answer(None, reason, TOO_LONG, note)
    return Answer(source, note=note)


def _distinct(cells: Iterable[_Placed]) -> list[_Placed]:
    """Return the cells that are not empty; of identical ones, only the first."""
    by_source: dict[str, _Placed] = {}
    for placed in cells:
        if placed.cell.source.strip():
            by_source.setdefault(placed.cell.source, placed)
    return list(by_source.values())


def _numbers(cells: Sequence[_Placed], most: int = 5) -> str:
    shown = ", ".join(str(placed.number) for placed in cells[:most])
    return f"numbers {shown}{' …' if len(cells) > most else ''}"


def _anchors(asked: Asked) -> dict[str, str]:
    """Return the names of the prompts and visible checks by their text, except texts that occur twice."""
    names = {f"{exercise}-{role}" for exercise in asked.wanted for role in ("prompt", "check")}
    found: dict[str, list[str]] = {}
    for name, source in asked.cells.items():
        if name in names and (text := squeezed(source)):
            found.setdefault(text, []).append(name)
    return {text: ids[0] for text, ids in found.items() if len(ids) == 1}


def wanted(solution: str, *checks: str) -> frozenset[str]:
    """Return the names that an answer must define: those that the solution defines and the checks use."""
    return defined(solution) & set(NAME.findall(" ".join(checks)))


def defined(source: str) -> frozenset[str]:
    """Return the names that code defines at its top level.

    A student's text is scanned line by line and never parsed: the cost depends only on its length, and names are found
    even if a later line is not valid Python.
    """
    names: set[str] = set()
    for line in source.splitlines():
        if definition := DEFINITION.match(line):
            names.add(definition[1])
            continue
        left, sign, right = line.partition("=")
        if sign and not right.startswith("=") and not line[0].isspace():
            targets = left.partition(":")[0].strip().removeprefix("(").removesuffix(")").removesuffix(",")
            parts = [part.strip().removeprefix("*") for part in targets.split(",")]
            if all(map(str.isidentifier, parts)):
                names.update(parts)
    return frozenset(names)
