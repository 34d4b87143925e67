"""Write the notebooks of every exercise set from its source: the student's, and the executed reference."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from scalelab.console import count
from scalelab.course import Course
from scalelab.errors import ScalelabError
from scalelab.exercises.reference import digest_of
from scalelab.exercises.released import reference, student
from scalelab.exercises.source import Exercise, ExerciseSet, read_set, sources
from scalelab.notebooks.files import own_metadata, stored_notebook, unused_path, write_atomically
from scalelab.notebooks.format import Notebook, digest_of_sources, printed_by, source_of, text_of, written
from scalelab.running.isolated import family
from scalelab.running.notebook import run_notebook

ANSI = re.compile(r"\x1b\[[0-9;]*m")
CELL_TIMEOUT = 60


class StudentWork(ScalelabError):
    """A student notebook that would be overwritten holds answers."""


class ReferenceFailed(ScalelabError):
    """A solution does not run, or does not pass its own checks."""


def sync(course: Course, *, force: bool = False, report: Callable[[str], None] = print) -> list[Path]:
    """Write exercises/NN_*.ipynb and solutions/NN_*.ipynb from each solutions/NN_*.md; return the files that changed.

    A reference is executed only if its source or `scalelab.checks` has changed since it was last executed, or if an
    output is missing. `force` overwrites a student notebook that holds answers, and keeps the old one beside it as
    `.bak`. Raises SourceError and StudentWork before anything is written, and ReferenceFailed.
    """
    sets = [(path, read_set(path, name=relative_path(course, path))) for path in sources(course)]
    edited = [course.exercises / f"{path.stem}.ipynb" for path, exercises in sets if _would_lose(course, exercises)]
    if edited and not force:
        raise StudentWork(
            "\n".join(
                f"{relative_path(course, path)} holds answers, and its source has changed since." for path in edited
            )
            + "\nNothing was written. Hand in or move the file and run `scalelab course sync` again; or run "
            "`scalelab course sync --force`, which keeps the old file beside the new one as .ipynb.bak."
        )
    changed = []
    for path, exercises in sets:
        changed += _sync_reference(course, path, exercises, report=report)
        changed += _sync_student(course, exercises, force=force, report=report)
    report(f"{count(len(sets), 'exercise set')}, {count(len(changed), 'file')} written.")
    return changed


def relative_path(course: Course, path: Path) -> str:
    """Return a file's path relative to the course, the same on every platform."""
    return path.relative_to(course.root).as_posix() if path.is_relative_to(course.root) else str(path)


def stored_outputs(notebook: Notebook | None) -> dict[str, str]:
    """Return the printed text of each cell of a reference, by cell id."""
    return {str(cell.get("id")): printed_by(cell) for cell in (notebook or {}).get("cells", [])}


def _has_answers(notebook: Notebook | None) -> bool:
    """Return whether a person changed a cell; a file that is not one of our notebooks counts as changed."""
    return notebook is None or own_metadata(notebook).get("sources") != digest_of_sources(notebook["cells"])


def _would_lose(course: Course, exercises: ExerciseSet) -> bool:
    path = course.exercises / f"{exercises.slug}.ipynb"
    if not path.exists():
        return False
    old = stored_notebook(path)
    return _has_answers(old) and own_metadata(old).get("sources") != own_metadata(student(exercises))["sources"]


def _sync_student(course: Course, exercises: ExerciseSet, *, force: bool, report: Callable[[str], None]) -> list[Path]:
    path = course.exercises / f"{exercises.slug}.ipynb"
    text = written(student(exercises))
    if path.exists():
        if path.read_bytes() == text.encode():
            return []
        if _has_answers(stored_notebook(path)):
            if not force:
                report(f"{relative_path(course, path)}: holds answers; kept as it is.")
                return []
            backup = unused_path(path.parent, f"{path.name}.bak")
            os.replace(path, backup)
            report(f"{relative_path(course, backup)}: the notebook with answers, kept.")
    write_atomically(path, text)
    report(f"{relative_path(course, path)}: written.")
    return [path]


def _sync_reference(
    course: Course, source: Path, exercises: ExerciseSet, *, report: Callable[[str], None]
) -> list[Path]:
    path = course.solutions / f"{exercises.slug}.ipynb"
    digest = digest_of(source)
    old = stored_notebook(path)
    outputs = stored_outputs(old)
    checks = [f"{exercise.id}-{role}" for exercise in exercises.exercises for role in ("check", "hidden")]
    current = own_metadata(old).get("digest") == digest and all(outputs.get(check) for check in checks)
    if not current:
        report(f"{relative_path(course, path)}: executing {len(exercises.exercises)} solutions …")
        outputs = execute(exercises, relative_path(course, source))
    text = written(reference(exercises, outputs, digest))
    if path.exists() and path.read_bytes() == text.encode():
        return []
    write_atomically(path, text)
    report(f"{relative_path(course, path)}: written.")
    return [path]


def execute(exercises: ExerciseSet, name: str) -> dict[str, str]:
    """Run the reference in a kernel and return the printed text of each check cell, by id; `name` is for messages.

    Raises ReferenceFailed.
    """
    notebook = nbformat.from_dict(reference(exercises, {}, ""))  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        cell.source = source_of(cell)
    with family() as own:
        work = own.folder / "work"
        work.mkdir()
        failed = run_notebook(notebook, folder=work, environment=own.environment, timeout=CELL_TIMEOUT)
    if failed is not None:
        index, error = failed
        raise ReferenceFailed(_failure_message(notebook.cells[index], name, error)) from error
    outputs: dict[str, str] = {}
    for exercise in exercises.exercises:
        for role in ("check", "hidden"):
            outputs |= {f"{exercise.id}-{role}": _printed(notebook, exercise, role, name)}
    return outputs


def _printed(notebook: nbformat.NotebookNode, exercise: Exercise, role: str, name: str) -> str:
    cell = next(cell for cell in notebook.cells if cell.id == f"{exercise.id}-{role}")
    if any(output.get("name") != "stdout" for output in cell.outputs):
        kinds = " and ".join(sorted({output.get("name") or output.output_type for output in cell.outputs}))
        raise ReferenceFailed(
            f"{name}, exercise {exercise.id}: the {role} cell shows {kinds}; expected printed text alone. "
            "Print its verdict, and nothing to stderr."
        )
    if not cell.outputs:
        raise ReferenceFailed(
            f"{name}, exercise {exercise.id}: the {role} cell prints nothing, so nbval would pass every answer. "
            "Print what was checked."
        )
    return printed_by(cell)


def _failure_message(cell: nbformat.NotebookNode, name: str, error: BaseException) -> str:
    """Return a message on the cell that ended the execution, with its output."""
    metadata = cell.metadata.get("scalelab", {})
    location = f"exercise {metadata['exercise']}, its {metadata['role']} cell" if "exercise" in metadata else cell.id
    location = location.replace("its answer cell", "its solution")
    if isinstance(error, CellTimeoutError):
        failure = f"ran longer than {CELL_TIMEOUT} s"
    elif isinstance(error, DeadKernelError):
        failure = "ended its kernel"
    else:
        lines = [text_of(output.get("text") or output.get("traceback")) for output in cell.outputs]
        failure = "failed with\n" + ANSI.sub("", "\n".join(filter(None, lines)) or str(error)).strip()
    advice = "Correct it and run `scalelab course sync` again; its notebooks are as they were."
    return f"{name}, {location}: {failure}\n{advice}"
