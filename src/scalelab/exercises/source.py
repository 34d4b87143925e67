"""Read an exercise set from its one source, `solutions/NN_slug.md`, into plain frozen data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from scalelab.course import Course, FrontMatterError, front_matter
from scalelab.errors import ScalelabError

KINDS = ("trace", "parsons", "fill in", "write", "repair")
HINTS = 3
EXERCISE_ID = re.compile(r"[a-z][a-z0-9_]{0,47}")
WRONG_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
RESERVED = frozenset({"intro", "student", "exercises", "file", "total", "max"})
"""Ids that are taken by other cells or by the columns of a grade table."""
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
SETUP = "setup"
PROMPT = "prompt"
# The roles of cells in an exercise, in order, each with the cell type and the metadata keys that it needs.
ROLES: dict[str, tuple[str, tuple[str, ...]]] = {
    PROMPT: ("markdown", ("exercise", "kind")),
    "hint": ("markdown", ()),
    "starter": ("code", ()),
    "solution": ("code", ()),
    "check": ("code", ("points",)),
    "hidden": ("code", ("points",)),
    "wrong": ("code", ("name", "message")),
    "reading": ("markdown", ()),
}
ORDER = tuple(ROLES)
ONCE = ("starter", "solution", "check", "hidden", "reading")


@dataclass(frozen=True)
class Problem:
    """One broken rule: the file, the place in it (a line, an exercise, or empty), the rule, and how to mend it."""

    file: str
    where: str
    rule: str
    mend: str

    def __str__(self) -> str:
        place = f"{self.file}, {self.where}" if self.where else self.file
        return f"{place}: {self.rule}; {self.mend}."


class SourceError(ScalelabError):
    """The source of an exercise set breaks its form; `problems` gives each broken rule, its place and its mend."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Wrong:
    """A plausible wrong answer: the wrong idea's name, and the words that its failing check must show."""

    name: str
    message: str
    source: str


@dataclass(frozen=True)
class Exercise:
    """One exercise. Every text is a cell's source; points are whole numbers from 1."""

    id: str
    kind: str
    line: int
    prompt: str
    hints: tuple[str, ...]
    starter: str
    solution: str
    check: str
    check_points: int
    hidden: str
    hidden_points: int
    wrongs: tuple[Wrong, ...]
    reading: str

    @property
    def points(self) -> int:
        return self.check_points + self.hidden_points


@dataclass(frozen=True)
class ExerciseSet:
    """All exercises of one chapter, with the introduction and the set-up cells that they share."""

    slug: str
    title: str
    minutes: int
    intro: str
    setup: tuple[str, ...]
    exercises: tuple[Exercise, ...]


@dataclass(frozen=True)
class _Cell:
    line: int
    type: str
    role: str
    metadata: dict[str, Any]
    source: str


def sources(course: Course) -> list[Path]:
    """Return the source of every exercise set, in the order of their chapters."""
    return sorted(course.solutions.glob("[0-9][0-9]_*.md"))


def read_set(path: Path, *, name: str | None = None) -> ExerciseSet:
    """Return the exercise set at `path`; problems call the file `name` (default: its path). Raises SourceError."""
    return _Reader(path, name or str(path)).read()


class _Reader:
    """Collects every problem of one file, so that an author sees all of them at once."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.problems: list[Problem] = []

    def fault(self, where: str, rule: str, mend: str) -> None:
        self.problems.append(Problem(self.name, where, rule, mend))

    def read(self) -> ExerciseSet:
        header = self._header()
        cells = self._cells()
        if self.problems:
            raise SourceError(self.problems)
        starts = [index for index, cell in enumerate(cells) if cell.role == PROMPT]
        if not starts:
            self.fault("", "has no exercise", 'open one with a block break: +++ {"role": "prompt", "exercise": "…"}')
            raise SourceError(self.problems)
        intro, setup = self._head(cells[: starts[0]])
        exercises = [self._exercise(cells[begin:end]) for begin, end in pairwise([*starts, len(cells)])]
        seen: set[str] = set()
        for cell in (cells[start] for start in starts):
            name = str(cell.metadata["exercise"])
            if name in seen:
                self.fault(f"line {cell.line}", f"the exercise id {name!r} is used twice", "rename one")
            seen.add(name)
        if self.problems:
            raise SourceError(self.problems)
        return ExerciseSet(
            slug=self.path.stem,
            title=str(header["title"]),
            minutes=header["minutes"],
            intro=intro,
            setup=setup,
            exercises=tuple(exercise for exercise in exercises if exercise is not None),
        )

    def _header(self) -> dict[str, Any]:
        try:
            header = front_matter(self.path)
        except UnicodeDecodeError as error:
            rule = f"is not UTF-8 text ({error.reason} at byte {error.start})"
            raise SourceError([Problem(self.name, "", rule, "save it as UTF-8")]) from error
        except FrontMatterError as error:
            text = str(error).removeprefix(f"{self.path}: ").rstrip(".")
            rule, _, mend = text.partition("; ")
            mend = mend or "correct the lines between the two '---'"
            raise SourceError([Problem(self.name, "line 1", rule, mend)]) from error
        where = "front matter"
        wanted: dict[str, tuple[Callable[[Any], bool], str]] = {
            "title": (lambda value: isinstance(value, str) and bool(value.strip()), "the set's title"),
            "chapter": (lambda value: value == self.path.stem, self.path.stem),
            "minutes": (_is_positive, "a whole number of minutes, 1 or more"),
            "kernelspec": (lambda value: value == KERNEL, ", ".join(f"{key} {text}" for key, text in KERNEL.items())),
        }
        for key, (fits, expected) in wanted.items():
            if key not in header:
                self.fault(where, f"lacks the key {key}", f"set it to {expected}")
            elif not fits(header[key]):
                self.fault(where, f"{key} is {header[key]!r}", f"set it to {expected}")
        return header

    def _cells(self) -> list[_Cell]:
        # Importing it takes longer than most commands that only look for sets take.
        from jupytext.myst import MystMetadataParsingError, myst_to_notebook  # noqa: PLC0415

        text = self.path.read_text(encoding="utf-8")
        try:
            notebook = myst_to_notebook(text, add_source_map=True)
        except MystMetadataParsingError as error:
            rule = "the metadata of a cell is not valid: " + " ".join(str(error).split())
            self.fault("", rule, "write a JSON object after +++, or YAML between --- lines")
            return []
        cells: list[_Cell] = []
        for line, cell in zip(notebook.metadata["source_map"], notebook.cells, strict=True):
            metadata = dict(cell.metadata)
            role = metadata.pop("role", None)
            if role is None and not cells and cell.cell_type == "markdown":
                role = "intro"
            cells.append(_Cell(max(line, 1), cell.cell_type, str(role), metadata, cell.source))
            self._fits_role(cells[-1])
        return cells

    def _fits_role(self, cell: _Cell) -> None:
        where = f"line {cell.line}"
        known = {"intro": ("markdown", ()), SETUP: ("code", ()), **ROLES}
        if cell.role not in known:
            rule = f"a {cell.type} cell has no role" if cell.role == "None" else f"no role is called {cell.role!r}"
            self.fault(where, rule, f"give it one of {', '.join((SETUP, *ORDER))}")
            return
        kind, keys = known[cell.role]
        if cell.type != kind:
            self.fault(where, f"a {cell.role} is a {kind} cell, this one is {cell.type}", "change the cell or its role")
        for key in sorted(set(keys) - set(cell.metadata)):
            self.fault(where, f"a {cell.role} needs {key}", f"add {key} to the cell's metadata")
        for key in sorted(set(cell.metadata) - set(keys)):
            self.fault(where, f"a {cell.role} has no {key}", f"remove {key} from the cell's metadata")

    def _head(self, cells: list[_Cell]) -> tuple[str, tuple[str, ...]]:
        """Return the introduction and the set-up cells, which come before the first prompt."""
        for cell in cells:
            if cell.role not in {"intro", SETUP}:
                self.fault(f"line {cell.line}", f"a {cell.role} is before the first prompt", "move it below one")
        intro = [cell.source for cell in cells if cell.role == "intro"]
        if not intro:
            self.fault("line 1", "has no introduction", "begin with Markdown that says what the set is for")
        return "\n\n".join(intro), tuple(cell.source for cell in cells if cell.role == SETUP)

    def _exercise(self, cells: list[_Cell]) -> Exercise | None:
        """Return the exercise that these cells describe, the prompt first; None if a required cell is missing."""
        prompt = cells[0]
        name = prompt.metadata["exercise"]
        where = f"exercise {name} (line {prompt.line})"
        if not isinstance(name, str) or not EXERCISE_ID.fullmatch(name) or name in RESERVED:
            rule = f"the id {name!r} is not usable"
            reserved = ", ".join(sorted(RESERVED))
            self.fault(
                where, rule, f"use up to 48 lower-case letters, digits and _, a letter first, none of {reserved}"
            )
        if prompt.metadata["kind"] not in KINDS:
            self.fault(where, f"the kind {prompt.metadata['kind']!r} is unknown", f"use one of {', '.join(KINDS)}")
        for before, after in pairwise(cells):
            if after.role not in ORDER:
                self.fault(f"line {after.line}", f"a {after.role} cell is inside an exercise", "move it to the top")
            elif before.role in ORDER and ORDER.index(after.role) < ORDER.index(before.role):
                rule = f"a {after.role} comes after a {before.role}"
                self.fault(f"line {after.line}", rule, f"keep the order {', '.join(ORDER)}")
        by_role = {role: [cell for cell in cells if cell.role == role] for role in ORDER}
        for role in ONCE:
            if len(by_role[role]) != 1:
                mend = f"write one {role} cell" if not by_role[role] else "keep one of them"
                self.fault(where, f"has {len(by_role[role])} {role} cells, expected one", mend)
        if len(by_role["hint"]) != HINTS:
            self.fault(where, f"has {len(by_role['hint'])} hints, expected three", "write three, vague to precise")
        wrongs = tuple(self._wrongs(by_role["wrong"], where))
        if not all(by_role[role] for role in ONCE):
            return None
        return Exercise(
            id=str(name),
            kind=str(prompt.metadata["kind"]),
            line=prompt.line,
            prompt=prompt.source,
            hints=tuple(cell.source for cell in by_role["hint"]),
            starter=by_role["starter"][0].source,
            solution=by_role["solution"][0].source,
            check=by_role["check"][0].source,
            check_points=self._points(by_role["check"][0]),
            hidden=by_role["hidden"][0].source,
            hidden_points=self._points(by_role["hidden"][0]),
            wrongs=wrongs,
            reading=by_role["reading"][0].source,
        )

    def _wrongs(self, cells: list[_Cell], where: str) -> Iterator[Wrong]:
        seen: set[str] = set()
        for cell in cells:
            name, message = cell.metadata["name"], cell.metadata["message"]
            if not isinstance(name, str) or not WRONG_NAME.fullmatch(name):
                rule = f"the wrong answer's name {name!r} is not kebab-case"
                self.fault(f"line {cell.line}", rule, "write it-like-this")
            elif name in seen:
                self.fault(where, f"two wrong answers are called {name!r}", "rename one")
            if not isinstance(message, str) or not message.strip():
                rule = f"the wrong answer {name} has no message"
                self.fault(f"line {cell.line}", rule, "write the words that its failing check must show")
            seen.add(str(name))
            yield Wrong(str(name), str(message), cell.source)

    def _points(self, cell: _Cell) -> int:
        points = cell.metadata["points"]
        if not _is_positive(points):
            self.fault(f"line {cell.line}", f"points are {points!r}", "give a whole number from 1")
            return 0
        return int(points)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
