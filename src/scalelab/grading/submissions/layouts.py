"""Find submissions, read them as untrusted data, and determine the student and the exercise set of each."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from scalelab.errors import ScalelabError
from scalelab.exercises.handed_in import recognise
from scalelab.notebooks.untrusted import HandedIn, NoNotebook, escape_surrogates, printable, read

CHECKPOINTS = ".ipynb_checkpoints"


class BadInput(ScalelabError):
    """Nothing can be graded, because the command's input is invalid."""


@dataclass(frozen=True)
class Submission:
    """One notebook that was handed in: its student, its exercise set, and its last change (seconds since 1970).

    `contents` is the file as it was found. `older` names the same student's older files for the set, which are not
    graded.
    """

    file: str
    student: str
    exercises: str
    modified: float
    contents: HandedIn = field(compare=False, repr=False)
    older: tuple[str, ...] = ()


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
    """Return the submissions in `folder` (or the one file), and the files that are refused.

    `sets` gives the marks of every exercise set (`answers.marks`); `leave_out` is a folder that is not searched.
    A file directly in `folder` belongs to the student whose name it has; a file further down, to the student after whom
    the first folder below `folder` is named, not counting folders named after an exercise set. Of two files of one
    student for one set, the newer counts. No link is followed: it could lead to another student's work, or out of
    `folder`. Raises BadInput if there is no such folder, or no file in it.
    """
    if not os.path.lexists(folder):
        raise BadInput(f"{folder} does not exist; expected a folder of submissions (.ipynb), or one of them.")
    refused: list[Refused] = []
    paths = _files(folder, leave_out, refused) if folder.is_dir() else iter([folder])
    submissions: list[Submission] = []
    for path in paths:
        file = _file(folder, path)
        try:
            modified = path.lstat().st_mtime
            contents = read(path)
            exercises = recognise(contents, sets)
        except NoNotebook as error:
            refused.append(Refused(file, str(error)))
        except OSError as error:
            refused.append(Refused(file, f"cannot be read ({error.strerror})"))
        else:
            student = escape_surrogates(_student(folder, path, sets))
            submissions.append(Submission(file, student, exercises, modified, contents))
    if not submissions and not refused:
        raise BadInput(f"{folder} holds no file; expected notebooks (.ipynb), in it or in folders per student.")
    return _newest(submissions, refused), refused


def _files(folder: Path, leave_out: Path | None, refused: list[Refused]) -> Iterator[Path]:
    """Yield files and links below `folder`, in order, except for hidden ones, Jupyter's checkpoints and `leave_out`.

    A folder that cannot be listed is added to `refused`.
    """
    own = None if leave_out is None else leave_out.resolve()
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            refused.append(Refused(_file(folder, current), f"is a folder that cannot be listed ({error.strerror})"))
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name == CHECKPOINTS:
                continue
            path = Path(entry.path)
            if not entry.is_dir(follow_symlinks=False):
                yield path
            elif own is None or path.resolve() != own:
                folders.append(path)
        pending += reversed(folders)


def _file(folder: Path, path: Path) -> str:
    return escape_surrogates(path.name if path == folder else path.relative_to(folder).as_posix())


def _student(folder: Path, path: Path, sets: Collection[str]) -> str:
    if path == folder:
        return path.parent.resolve().name if path.stem in sets else path.stem
    parents = [part for part in path.relative_to(folder).parts[:-1] if part not in sets]
    return parents[0] if parents else path.stem


def _newest(submissions: list[Submission], refused: list[Refused]) -> list[Submission]:
    """Return the newest submission per student and set, and add the others to `refused`."""
    newest: dict[tuple[str, str], Submission] = {}
    for newer in sorted(submissions, key=lambda submission: (submission.modified, submission.file)):
        key = (newer.student, newer.exercises)
        older = newest.get(key)
        if older is None:
            newest[key] = newer
            continue
        age = "is older than" if older.modified < newer.modified else "has the same time as, and a name before,"
        reason = f"{age} {printable(newer.file)}, of the same student for the same set; not graded"
        refused.append(Refused(older.file, reason))
        newest[key] = replace(newer, older=(*older.older, older.file))
    return sorted(newest.values(), key=lambda submission: (submission.exercises, submission.student))
