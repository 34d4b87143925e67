"""Find the answer to every exercise in a notebook: by its cell's name or, if that is lost, by position and content."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from scalelab.exercises.source import HINTS
from scalelab.notebooks.untrusted import SubmittedCell, collapse_spaces

LARGEST_ANSWER = 100_000
MISSING = "missing"
DUPLICATED = "duplicated"
AMBIGUOUS = "ambiguous"
TOO_LONG = "too long"
NAME = re.compile(r"[A-Za-z_]\w*")
DEFINITION = re.compile(r"(?:async[ \t]+def|def|class)[ \t]+(\w+)")
HAND_IN_AGAIN = "Put the answer into its own cell of a fresh copy of the notebook, and hand in again."


@dataclass(frozen=True)
class ExpectedAnswers:
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


def answers(expected: ExpectedAnswers, cells: Sequence[SubmittedCell]) -> dict[str, Answer]:
    """Return the answer to every exercise; nothing else of a notebook is used.

    The answer is in the cell that has the exercise's name. If no code cell has it, the answer is the one code cell
    without a name that defines the names that the checks use, or else the one at the answer's place. If there are two
    candidates, neither is chosen.
    """
    finder = _AnswerFinder(expected, cells)
    return {exercise: _answer_to(exercise, finder) for exercise in expected.wanted}


def marks(expected: ExpectedAnswers) -> frozenset[str]:
    """Return the marks of a notebook of this set: its answers' names, and the text of its prompts and checks."""
    return frozenset((*expected.wanted, *_anchors(expected)))


@dataclass(frozen=True)
class _CellAt:
    """A cell of any type, its number in the notebook (from 1), and its name in the set (empty if it has none)."""

    number: int
    name: str
    type: str
    source: str

    @property
    def is_code(self) -> bool:
        return self.type == "code"

    @cached_property
    def defines(self) -> frozenset[str]:
        return defined(self.source)

    def answers(self, wanted: Collection[str]) -> bool:
        return bool(wanted) and self.defines.issuperset(wanted)


class _AnswerFinder:
    """Finds answers among the cells of a notebook, by comparison with the exercise set."""

    def __init__(self, expected: ExpectedAnswers, cells: Sequence[SubmittedCell]) -> None:
        self.cells = _with_names(expected, cells)
        self.wanted = expected.wanted
        self.named = {cell.name for cell in self.cells if cell.is_code and cell.source.strip()}
        self.unnamed = [cell for cell in self.cells if not cell.name and cell.is_code and cell.source.strip()]
        self.places: dict[int, set[str]] = {}
        for name in self.wanted:
            for number in self._place(name):
                self.places.setdefault(number, set()).add(name)

    def defining(self, exercise: str) -> list[_CellAt]:
        """Return the code cells without a name that define the names that the exercise asks for.

        A cell is left out if it is only at another answer's place and defines the names for that one.
        """
        return [
            cell
            for cell in self.unnamed
            if cell.answers(self.wanted[exercise]) and not self._answers_another(cell, exercise)
        ]

    def at_place(self, exercise: str) -> list[_CellAt]:
        """Return the code cells without a name that are at the answer's place and answer no other exercise."""
        other_answers = [wanted for name, wanted in self.wanted.items() if name != exercise]
        return [
            cell
            for cell in self.unnamed
            if self.places.get(cell.number) == {exercise} and not any(cell.answers(wanted) for wanted in other_answers)
        ]

    def rivals(self, cell: _CellAt, exercise: str) -> list[str]:
        """Return the other unanswered exercises that ask for one of the same names and could claim this cell too."""
        if exercise in self.places.get(cell.number, ()):
            return []
        return [
            name
            for name, wanted in self.wanted.items()
            if name != exercise
            and name not in self.named
            and wanted & self.wanted[exercise]
            and cell in self.defining(name)
        ]

    def _answers_another(self, cell: _CellAt, exercise: str) -> bool:
        places = self.places.get(cell.number, set())
        return exercise not in places and any(cell.answers(self.wanted[name]) for name in places)

    def _place(self, exercise: str) -> Iterable[int]:
        """Yield the numbers of the cells without a name right after the prompt and hints, or right before the check."""
        above = {f"{exercise}-prompt", *(f"{exercise}-hint-{number}" for number in range(1, HINTS + 1))}
        yield from _beside(self.cells, above)
        yield from _beside(self.cells[::-1], {f"{exercise}-check"})


def _with_names(expected: ExpectedAnswers, cells: Sequence[SubmittedCell]) -> list[_CellAt]:
    """Return each cell with its name in the set: from its metadata, or from its text for a prompt or check."""
    names = [next((name for name in cell.names if name in expected.cells), "") for cell in cells]
    anchors = {text: name for text, name in _anchors(expected).items() if name not in names}
    return [
        _CellAt(number, name or anchors.get(collapse_spaces(cell.source), ""), cell.type, cell.source)
        for number, (name, cell) in enumerate(zip(names, cells, strict=True), start=1)
    ]


def _beside(cells: Sequence[_CellAt], anchors: Collection[str]) -> Iterable[int]:
    """Yield the numbers of the cells without a name that come between one of `anchors` and the next named cell."""
    follows = False
    for cell in cells:
        if cell.name:
            follows = cell.name in anchors
        elif follows:
            yield cell.number


def _answer_to(name: str, finder: _AnswerFinder) -> Answer:
    named = [cell for cell in finder.cells if cell.name == name]
    code = _distinct(cell for cell in named if cell.is_code)
    if not code:
        return _search(name, named, finder)
    if len(code) > 1:
        return Answer(
            None,
            f"{len(code)} different cells ({_in_words(code)} of the notebook) hold this answer; expected one: "
            "keep the one that counts, delete the others, and hand in again.",
            DUPLICATED,
        )
    rivals = [cell for cell in finder.defining(name) if cell.source != code[0].source]
    note = f"Cell {rivals[0].number} could answer it, too; the answer's own cell was judged." if rivals else ""
    return _accepted(code[0], note)


def _search(name: str, named: Sequence[_CellAt], finder: _AnswerFinder) -> Answer:
    """Return the answer if its name is on no code cell that has content; `named` are the other cells with the name."""
    retyped = [cell for cell in _distinct(named) if cell.answers(finder.wanted[name])]
    candidates = retyped or _distinct(finder.defining(name))
    if not candidates and not named:
        candidates = _distinct(finder.at_place(name))
    if not candidates:
        return Answer(None, _missing_reason(named), MISSING)
    first = candidates[0]
    if len(candidates) > 1:
        reason = (
            f"No code cell carries this answer's name, and {len(candidates)} could be it ({_in_words(candidates)})."
        )
        return Answer(None, f"{reason} {HAND_IN_AGAIN}", AMBIGUOUS)
    if retyped:
        return _accepted(first, f"The answer's cell is of the type {first.type}; its text was judged as code.")
    if rivals := finder.rivals(first, name):
        reason = (
            f"No cell carries this answer's name, and cell {first.number} could answer {', '.join(rivals)} as well."
        )
        return Answer(None, f"{reason} {HAND_IN_AGAIN}", AMBIGUOUS)
    lost = "is empty" if named else "is not in the notebook under its name"
    return _accepted(first, f"The answer's cell {lost}; cell {first.number} was judged for it.")


def _missing_reason(named: Sequence[_CellAt]) -> str:
    if not named:
        return "The answer cell is not in the notebook."
    other = next((cell.type for cell in named if cell.source.strip()), "")
    return f"The answer cell is {other}, not code." if other else "The answer cell is empty."


def _accepted(cell: _CellAt, note: str) -> Answer:
    source = cell.source
    if len(source) > LARGEST_ANSWER:
        reason = f"The answer has {len(source):,} characters; expected {LARGEST_ANSWER:,} at most."
        return Answer(None, reason, TOO_LONG, note)
    return Answer(source, note=note)


def _distinct(cells: Iterable[_CellAt]) -> list[_CellAt]:
    """Return the cells that are not empty; of identical ones, only the first."""
    by_source: dict[str, _CellAt] = {}
    for cell in cells:
        if cell.source.strip():
            by_source.setdefault(cell.source, cell)
    return list(by_source.values())


def _in_words(cells: Sequence[_CellAt], limit: int = 5) -> str:
    numbers = ", ".join(str(cell.number) for cell in cells[:limit])
    return f"numbers {numbers}{' …' if len(cells) > limit else ''}"


def _anchors(expected: ExpectedAnswers) -> dict[str, str]:
    """Return the names of the prompts and visible checks by their text, except texts that occur twice."""
    names = {f"{exercise}-{role}" for exercise in expected.wanted for role in ("prompt", "check")}
    names_by_text: dict[str, list[str]] = {}
    for name, source in expected.cells.items():
        if name in names and (text := collapse_spaces(source)):
            names_by_text.setdefault(text, []).append(name)
    return {text: ids[0] for text, ids in names_by_text.items() if len(ids) == 1}


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
        before, sign, after = line.partition("=")
        if sign and not after.startswith("=") and not line[0].isspace():
            targets = before.partition(":")[0].strip().removeprefix("(").removesuffix(")").removesuffix(",")
            parts = [part.strip().removeprefix("*") for part in targets.split(",")]
            if all(map(str.isidentifier, parts)):
                names.update(parts)
    return frozenset(names)
