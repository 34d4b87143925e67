"""Find submissions, read them without trusting a byte, and say whose they are and what they answer."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalelab.course.notebooks import text_of
from scalelab.errors import ScalelabError

LARGEST_MB = 50
CHECKPOINTS = ".ipynb_checkpoints"


class BadInput(ScalelabError):
    """What the command was given cannot be graded at all."""


class NoNotebook(ScalelabError):
    """A file holds no notebook; the message says why, without the file's name."""


@dataclass(frozen=True)
class Cell:
    """All that is taken from a submission's cell. `name` is its grade_id, or its cell id where that is lost."""

    name: str
    type: str
    source: str


@dataclass(frozen=True)
class Submission:
    """One notebook that was handed in: whose, for which exercise set, and its cells."""

    path: Path
    file: str
    student: str
    exercises: str
    cells: tuple[Cell, ...]
    modified: float


@dataclass(frozen=True)
class Refused:
    """A file that is not graded, and why."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.file)}: {self.reason}"


def find(
    folder: Path, sets: Mapping[str, Collection[str]], leave_out: Path | None = None
) -> tuple[list[Submission], list[Refused]]:
    """Return the submissions in `folder` (or the one file), and the files that are none.

    `sets` gives the answer cells' ids of every exercise set; `leave_out` is a folder that is not searched.
    A file directly in `folder` belongs to the student that its name says, a file further down to the student that the
    first folder below `folder` says; a folder that has the name of an exercise set is passed over. Of two files of one
    student for one set the newest counts.
    Raises BadInput where there is no such folder, or no file in it.
    """
    if not folder.exists():
        raise BadInput(f"{folder} does not exist; expected a folder of submissions (.ipynb), or one of them.")
    paths = [folder] if folder.is_file() else list(_files(folder, leave_out))
    if not paths:
        raise BadInput(f"{folder} holds no file; expected notebooks (.ipynb), in it or in folders per student.")
    found: list[Submission] = []
    refused: list[Refused] = []
    for path in paths:
        file = _whole(path.name if path == folder else path.relative_to(folder).as_posix())
        try:
            claimed, cells = read(path)
            exercises = recognise(claimed, cells, sets)
        except NoNotebook as error:
            refused.append(Refused(file, str(error)))
            continue
        student = _whole(_student(folder, path, sets))
        found.append(Submission(path, file, student, exercises, cells, path.stat().st_mtime))
    return _newest(found, refused), refused


def read(path: Path) -> tuple[str, tuple[Cell, ...]]:
    """Return the exercise set that the notebook says it answers ('' for none), and its cells. Raises NoNotebook."""
    if path.suffix.lower() != ".ipynb":
        raise NoNotebook("is no notebook; expected a file that ends in .ipynb")
    try:
        size = path.stat().st_size
        if size == 0:
            raise NoNotebook("is empty; ask for the file again")
        if size > LARGEST_MB * 2**20:
            raise NoNotebook(f"is larger than {LARGEST_MB} MB; ask for it with its outputs cleared")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise NoNotebook(f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise NoNotebook("is no notebook: its text is no JSON; perhaps it was cut off or renamed") from error
    if not isinstance(data, dict) or not isinstance(data.get("nbformat"), int):
        raise NoNotebook("is no notebook: it is JSON, and not what Jupyter writes")
    if data["nbformat"] < 4:
        version = data["nbformat"]
        raise NoNotebook(f"is a notebook of format {version}; expected 4: open it in JupyterLab, save it, hand it in")
    raw = data.get("cells")
    cells = tuple(_cells(raw)) if isinstance(raw, list) else ()
    if not cells:
        raise NoNotebook("is a notebook without cells")
    own = _mapping(_mapping(data.get("metadata")).get("scalelab"))
    claimed = own.get("exercises")
    return claimed if isinstance(claimed, str) else "", cells


def recognise(claimed: str, cells: tuple[Cell, ...], sets: Mapping[str, Collection[str]]) -> str:
    """Return the set that a notebook answers: by its metadata, or, where they are lost, by the cells that it holds.

    Raises NoNotebook where it is no set of this course, or where two fit.
    """
    if claimed in sets:
        return claimed
    names = {cell.name for cell in cells}
    fits = Counter({slug: len(names & set(answers)) for slug, answers in sets.items()}).most_common(2)
    known = ", ".join(sorted(sets))
    if not fits or fits[0][1] == 0:
        what = f"is for the exercise set {printable(claimed)!r}" if claimed else "holds no exercise"
        raise NoNotebook(f"{what}, which this course does not have; expected one of {known}")
    if len(fits) == 2 and fits[0][1] == fits[1][1]:
        raise NoNotebook(f"fits {fits[0][0]} and {fits[1][0]} alike; its metadata do not say which")
    return fits[0][0]


def digest_of_answers(answers: Mapping[str, str]) -> str:
    """Return a hash of the answers' sources."""
    return hashlib.sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()


def printable(text: str) -> str:
    """Return `text` without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _files(folder: Path, leave_out: Path | None) -> Iterator[Path]:
    """Yield the files below `folder` in order, without hidden ones and Jupyter's checkpoints."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name != CHECKPOINTS
            and (leave_out is None or Path(here, name).resolve() != leave_out.resolve())
        )
        yield from (Path(here, name) for name in sorted(names) if not name.startswith("."))


def _student(folder: Path, path: Path, sets: Collection[str]) -> str:
    if path == folder:
        return path.parent.resolve().name if path.stem in sets else path.stem
    parents = [part for part in path.relative_to(folder).parts[:-1] if part not in sets]
    return parents[0] if parents else path.stem


def _newest(found: list[Submission], refused: list[Refused]) -> list[Submission]:
    """Keep one submission per student and set, and say which was left out for which."""
    kept: dict[tuple[str, str], Submission] = {}
    for submission in sorted(found, key=lambda one: (one.modified, one.file)):
        key = (submission.student, submission.exercises)
        if key in kept:
            reason = f"is older than {printable(submission.file)}, of the same student for the same set; not graded"
            refused.append(Refused(kept[key].file, reason))
        kept[key] = submission
    return sorted(kept.values(), key=lambda one: (one.exercises, one.student))


def _cells(raw: list[Any]) -> Iterator[Cell]:
    for cell in map(_mapping, raw):
        nbgrader = _mapping(_mapping(cell.get("metadata")).get("nbgrader"))
        names = [name for name in (nbgrader.get("grade_id"), cell.get("id")) if isinstance(name, str) and name]
        kind = cell.get("cell_type")
        if isinstance(kind, str):
            yield Cell(names[0] if names else "", kind, _whole(text_of(cell.get("source"))))


def _whole(text: str) -> str:
    """Return `text` with a ? for each half of a letter, which JSON and file names may hold and UTF-8 may not."""
    return text.encode("utf-8", "replace").decode()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
