"""Find in a notebook the answer to every exercise: by its cell's name, and where that is lost by place and text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from scalelab.course.exercises import HINTS
from scalelab.course.handed_in import Cell, squeezed

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
    """What an exercise set asks for.

    `wanted` gives by exercise, in order, the names that an answer must define; `cells` the text of every cell by its
    name.
    """

    wanted: Mapping[str, frozenset[str]]
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """A question's answer: its source, or None and why there is none to run (`reason` in words, `state` in one).

    `note` says what was done to find it, where its cell does not simply carry its name.
    """

    source: str | None
    reason: str = ""
    state: str = ""
    note: str = ""


def answers(asked: Asked, cells: Sequence[Cell]) -> dict[str, Answer]:
    """Return the answer to every exercise; nothing else of a notebook is used.

    A cell that carries the exercise's name holds the answer. Where no code does, the answer is the one code cell
    without a name that defines what the checks use, or else the one that stands where the answer belongs. Between two
    candidates nothing is guessed.
    """
    laid_out = _LaidOut(asked, cells)
    return {exercise: _answer(exercise, laid_out) for exercise in asked.wanted}


def marks(asked: Asked) -> frozenset[str]:
    """Return by what a notebook of this set is recognised: its answers' names, and its prompts' and checks' text."""
    return frozenset((*asked.wanted, *_anchors(asked)))


@dataclass(frozen=True)
class _Placed:
    """A code cell or other, its number in the notebook (from 1), and the name that the set knows it by, or ""."""

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
    """A notebook's cells beside the set that they were made from."""

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
        """Return the code cells without a name that define what the exercise asks for.

        Left out are those that stand where another answer belongs, and define what that one asks for.
        """
        return [one for one in self.free if one.answers(self.wanted[exercise]) and not self._settled(one, exercise)]

    def standing(self, exercise: str) -> list[_Placed]:
        """Return the code cells without a name that stand where the answer belongs, and answer no other exercise."""
        others = [wanted for name, wanted in self.wanted.items() if name != exercise]
        return [
            one
            for one in self.free
            if self.places.get(one.number) == {exercise} and not any(one.answers(wanted) for wanted in others)
        ]

    def rivals(self, one: _Placed, exercise: str) -> list[str]:
        """Return the other exercises without an answer that ask for the same names, and could claim this cell, too."""
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
        """Yield the numbers of the cells without a name that follow the prompt and its hints, or precede the check."""
        above = {f"{exercise}-prompt", *(f"{exercise}-hint-{number}" for number in range(1, HINTS + 1))}
        yield from _beside(self.cells, above)
        yield from _beside(self.cells[::-1], {f"{exercise}-check"})


def _named(asked: Asked, cells: Sequence[Cell]) -> list[_Placed]:
    """Name each cell as the set does: by its metadata, and a prompt or check that lost them by its text."""
    names = [next((name for name in cell.names if name in asked.cells), "") for cell in cells]
    anchors = {text: name for text, name in _anchors(asked).items() if name not in names}
    return [
        _Placed(number, name or anchors.get(squeezed(cell.source), ""), cell)
        for number, (name, cell) in enumerate(zip(names, cells, strict=True), start=1)
    ]


def _beside(cells: Sequence[_Placed], anchors: Collection[str]) -> Iterable[int]:
    """Yield the numbers of the cells without a name that come next after one of `anchors`."""
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
    """Return the answer to the exercise, of which no code cell carries the name; `mine` are other cells that do."""
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
    """Return the cells that are not empty, of identical ones the first."""
    by_source: dict[str, _Placed] = {}
    for placed in cells:
        if placed.cell.source.strip():
            by_source.setdefault(placed.cell.source, placed)
    return list(by_source.values())


def _numbers(cells: Sequence[_Placed], most: int = 5) -> str:
    shown = ", ".join(str(placed.number) for placed in cells[:most])
    return f"numbers {shown}{' …' if len(cells) > most else ''}"


def _anchors(asked: Asked) -> dict[str, str]:
    """Return the prompts and visible checks by their text, without those that two exercises share."""
    names = {f"{exercise}-{role}" for exercise in asked.wanted for role in ("prompt", "check")}
    found: dict[str, list[str]] = {}
    for name, source in asked.cells.items():
        if name in names and (text := squeezed(source)):
            found.setdefault(text, []).append(name)
    return {text: ids[0] for text, ids in found.items() if len(ids) == 1}


def wanted(solution: str, *checks: str) -> frozenset[str]:
    """Return the names that an answer must define: the solution defines them, and the checks use them."""
    return defined(solution) & set(NAME.findall(" ".join(checks)))


def defined(source: str) -> frozenset[str]:
    """Return the names that code defines at its top level.

    A student's text is looked at line by line and never parsed: no text costs more than its length, and the names are
    found also where a line further down is no Python.
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
