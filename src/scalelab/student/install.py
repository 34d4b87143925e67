"""Put the course into a workspace, update it there, and reset exercises, without losing any work of a student."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from scalelab.course import RECORD, Chapter, Course, chapters
from scalelab.notebooks.files import stored_notebook, unused_path, write_atomically
from scalelab.notebooks.format import Cell, Notebook, source_of, written
from scalelab.notebooks.lock import free
from scalelab.notebooks.untrusted import NoNotebook, names_of, read
from scalelab.student.merge import CHECK, Leftover, released, update
from scalelab.student.status_pages import refresh, with_progress
from scalelab.student.workspace import (
    FORM,
    LOCK,
    AlreadyOpen,
    Workspace,
    WorkspaceError,
    check_folder_is_usable,
    open_notebooks,
    record_of,
    remember,
    title_of,
    translate_os_errors,
)

KERNEL_NAMED = "Scalable Python"
IGNORE_ALL = "# Your work: no part of any repository around it.\n*\n"


@contextmanager
def opened(course: Course, folder: Path, report: Callable[[str], None] = print) -> Iterator[Workspace]:
    """Make `folder` a workspace of the course, or update it if it is one already, and hold it open meanwhile.

    The student's work stays in its notebook or, if it no longer has a place there, goes into a file beside it, which a
    message names. Raises AlreadyOpen if another process has the workspace open, and WorkspaceError.
    """
    with ExitStack() as stack:
        with translate_os_errors(folder):
            record = record_of(folder)
            if record is None:
                check_folder_is_usable(folder)
            elif record.get("title") != title_of(course):
                raise WorkspaceError(
                    f"{folder} is the workspace of another course, {record.get('title')!r}. Name another folder: "
                    "`scalelab start DIR`."
                )
            workspace = Workspace(folder)
            if not stack.enter_context(free(workspace.own / LOCK)):
                raise AlreadyOpen(workspace)
            _bring_up_to_date(course, workspace, record, report)
        yield workspace


def prepare(course: Course, folder: Path, report: Callable[[str], None] = print) -> Workspace:
    """Make or update a workspace, as `opened` does, and return it."""
    with opened(course, folder, report) as workspace:
        return workspace


def _bring_up_to_date(
    course: Course, workspace: Workspace, record: dict[str, Any] | None, report: Callable[[str], None]
) -> None:
    folder = workspace.root
    says = {"form": FORM, "title": title_of(course), "course": str(course.root)}
    if record is None:  # first, so that the next start continues if this one is interrupted
        write_atomically(folder / RECORD, json.dumps(says, indent=1) + "\n")
    if record is None and _in_a_repository(folder):
        write_atomically(folder / ".gitignore", IGNORE_ALL)
    digests = (record or {}).get("chapters", {})
    say = report if record is not None else _quiet
    for chapter in chapters(course):
        digest = _digest(course, chapter)
        if digests.get(chapter.slug) != digest or not _chapter(workspace, chapter).exists():
            _place_chapter(course, workspace, chapter, say)
        digests[chapter.slug] = digest
    for path in sorted(course.exercises.glob("*.ipynb")):
        _place_exercises(workspace, path, say)
    write_atomically(folder / RECORD, json.dumps(says | {"chapters": digests}, indent=1) + "\n")
    refresh(course, workspace)
    remember(course, folder)
    report(f"{'Your workspace' if record is None else 'Your workspace, up to date'}: {folder}")


def reset(course: Course, workspace: Workspace, wanted: str, report: Callable[[str], None] = print) -> None:
    """Bring back the starter of an exercise, and save the old answer.

    wanted: the exercise's name (`turns`), with the set's number if two sets have an exercise of that name (`08/turns`).
    Raises WorkspaceError if there is no such exercise, if there are two, and if the notebook is open.
    """
    part, _, name = wanted.rpartition("/")
    matches = []
    available = []
    for path in sorted((workspace.handed_out / "exercises").glob("*.ipynb")):
        names = released(stored_notebook(path)).exercises
        available += [f"{path.stem}: {', '.join(names)}"]
        if name in names and path.stem.startswith(part):
            matches.append(path)
    if not matches:
        raise WorkspaceError(f"No exercise is called {wanted!r}. There are\n  " + "\n  ".join(available))
    if len(matches) > 1:
        choices = " or ".join(f"{path.stem.partition('_')[0]}/{name}" for path in matches)
        raise WorkspaceError(f"Two exercises are called {name!r}; say {choices}.")
    with translate_os_errors(workspace.root):
        path = workspace.exercises / matches[0].name
        _check_not_open(workspace, path)
        out = stored_notebook(matches[0])
        assert out is not None
        notebook = _readable(workspace, path, report)
        if notebook is None:
            write_atomically(path, written(with_progress(out, out)))
            report(f"{workspace.relative(path)}: put back as the course has it.")
            return
        release = released(out)
        old = [cell for cell in notebook["cells"] if name in names_of(cell)[:1] and source_of(cell).strip()]
        answered = [cell for cell in old if not release.is_unmodified(name, cell)]
        cells = [cell for cell in notebook["cells"] if cell not in old]
        unchecked: Cell = {"outputs": [], "execution_count": None}
        cells = [cell | unchecked if f"{name}-{CHECK}" in names_of(cell)[:1] else cell for cell in cells]
        updated = update(out, {**notebook, "cells": [*cells, release.cells[name]]}, out)
        _save(workspace, path)
        leftovers = [Leftover(f"{name}: your answer, before it was reset", tuple(answered))] if answered else []
        beside = _write_leftovers(workspace, path, [*leftovers, *updated.leftovers])
        write_atomically(path, written(with_progress(updated.notebook, out)))
        refresh(course, workspace)
        report(f"{name}: brought back in {workspace.relative(path)}.")
        for leftover in (*leftovers, *updated.leftovers):
            report(f"  {leftover.description}; kept in {workspace.relative(beside)}.")


def _place_exercises(workspace: Workspace, path: Path, report: Callable[[str], None]) -> None:
    """Put an exercise set into the workspace, and carry over the student's work that is already there."""
    new = stored_notebook(path)
    if new is None:
        raise WorkspaceError(f"{path} is not a notebook; mend the course with `scalelab course sync`.")
    new["metadata"]["kernelspec"]["display_name"] = KERNEL_NAMED
    target = workspace.exercises / path.name
    handed_out = workspace.handed_out / "exercises" / path.name
    old = stored_notebook(handed_out)
    current = written(new)
    if old is not None and written(old) == current and target.exists():
        _readable(workspace, target, report)
        if target.exists():
            return
    notebook = _readable(workspace, target, report)
    if notebook is None:
        write_atomically(target, written(with_progress(new, new)))
        report(f"{workspace.relative(target)}: {'new' if old is None else 'was not there; put back'}.")
    else:
        updated = update(old, notebook, new)
        _save(workspace, target)
        beside = _write_leftovers(workspace, target, updated.leftovers)
        write_atomically(target, written(with_progress(updated.notebook, new)))
        report(f"{workspace.relative(target)}: updated, with your answers.")
        for note in updated.notes:
            report(f"  {note}")
        for leftover in updated.leftovers:
            report(f"  {leftover.description}; kept in {workspace.relative(beside)}.")
    write_atomically(handed_out, current)


def _place_chapter(course: Course, workspace: Workspace, chapter: Chapter, report: Callable[[str], None]) -> None:
    """Put a chapter into the workspace; if the student has changed it, keep the changed version beside it."""
    from scalelab.student.chapter_notebooks import chapter_notebook  # noqa: PLC0415 (slow to import, rarely needed)

    new = chapter_notebook(course, chapter)
    new["metadata"]["kernelspec"]["display_name"] = KERNEL_NAMED
    target = _chapter(workspace, chapter)
    handed_out = workspace.handed_out / "chapters" / target.name
    notebook = _readable(workspace, target, report)
    old = stored_notebook(handed_out)
    if notebook is not None and _texts(notebook) not in (_texts(old), _texts(new)):
        backup = _backup_path(target, "yours")
        os.replace(target, backup)
        report(f"{workspace.relative(target)}: updated; your own version is kept in {workspace.relative(backup)}.")
    elif notebook is None or _texts(notebook) != _texts(new):
        report(f"{workspace.relative(target)}: {'new' if old is None else 'updated'}.")
    if notebook is None or _texts(notebook) != _texts(new):
        write_atomically(target, written(new))
    write_atomically(handed_out, written(new))


def _readable(workspace: Workspace, path: Path, report: Callable[[str], None]) -> Notebook | None:
    """Return the notebook in a file, or None if there is none; move an unreadable file aside, and report that."""
    if not os.path.lexists(path):
        return None
    if (notebook := stored_notebook(path)) is not None:
        return notebook
    reason = "is not a notebook of format 4"
    try:
        read(path)
    except NoNotebook as error:
        reason = str(error)
    backup = _backup_path(path, "broken")
    os.replace(path, backup)
    report(
        f"{workspace.relative(path)} {reason.partition(';')[0]}. It is kept as {backup.name}, and a fresh one takes "
        "its place. An older state may lie in .ipynb_checkpoints beside it."
    )
    return None


def _write_leftovers(workspace: Workspace, path: Path, leftovers: Sequence[Leftover]) -> Path:
    """Add the cells that have no place to the notebook for such cells beside `path`; return that notebook's path."""
    beside = path.with_name(f"{path.stem}.kept.ipynb")
    if not leftovers:
        return beside
    notebook = _readable(workspace, beside, _quiet) or {
        "cells": [_markdown(f"# Kept from {path.name}\n\nNothing here runs with the exercises or is handed in.")],
        "metadata": {"kernelspec": {"name": "python3", "display_name": KERNEL_NAMED, "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    known = set(_texts(notebook))
    for leftover in leftovers:
        cells = [_plain(cell) for cell in leftover.cells]
        if not known.issuperset(_texts({"cells": cells})):  # otherwise an interrupted update has kept them
            notebook["cells"].append(_markdown(f"## {leftover.description}\n\n{time.strftime('%Y-%m-%d %H:%M')}"))
            notebook["cells"] += cells
    write_atomically(beside, written(notebook))
    return beside


def _plain(cell: Cell) -> Cell:
    """Return a cell with its text alone, so that it is never taken for an answer."""
    if cell.get("cell_type") != "code":
        return _markdown(source_of(cell))
    return {
        "cell_type": "code",
        "id": uuid4().hex[:8],
        "metadata": {},
        "source": source_of(cell),
        "execution_count": None,
        "outputs": [],
    }


def _markdown(text: str) -> Cell:
    return {"cell_type": "markdown", "id": uuid4().hex[:8], "metadata": {}, "source": text}


def _save(workspace: Workspace, path: Path) -> None:
    """Copy a notebook before it is overwritten."""
    workspace.saved.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, _backup_path(workspace.saved / path.name, time.strftime("%Y-%m-%d-%H%M%S")))


def _check_not_open(workspace: Workspace, path: Path) -> None:
    """Raise WorkspaceError if JupyterLab has the notebook open: it would overwrite our changes, or ask."""
    if workspace.relative(path) in open_notebooks(workspace):
        raise WorkspaceError(
            f"{workspace.relative(path)} is open in JupyterLab, perhaps with changes that are not saved. Save it, then "
            "File, Close and Shut Down Notebook, and run this again."
        )


def _in_a_repository(folder: Path) -> bool:
    return any((above / ".git").exists() for above in folder.parents)


def _digest(course: Course, chapter: Chapter) -> str:
    """Return a hash of a chapter notebook's sources: the chapter's text, our conversion, and the references."""
    files = [chapter.path, Path(__file__).with_name("chapter_notebooks.py"), course.root / "book" / "references.bib"]
    texts = [path.read_bytes().replace(b"\r\n", b"\n") for path in files if path.is_file()]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _chapter(workspace: Workspace, chapter: Chapter) -> Path:
    return workspace.chapters / f"{chapter.slug}.ipynb"


def _texts(notebook: Notebook | None) -> list[tuple[Any, str]]:
    return [(cell.get("cell_type"), source_of(cell)) for cell in (notebook or {}).get("cells", [])]


def _backup_path(path: Path, word: str) -> Path:
    """Return `NAME.WORD.ipynb`, or with a number if that name is taken."""
    return unused_path(path.parent, f"{path.stem}.{word}", path.suffix, separator="-")


def _quiet(text: str) -> None:
    """Report nothing."""
