"""A student's workspace: chapters and exercises as notebooks in a folder of their own, which updates never overwrite.

`DIR/chapters` and `DIR/exercises` are the student's. `DIR/.scalelab` is ours: what was handed out last, so that an
update can tell the student's work from the course's, and every file as it was before we wrote it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from scalelab._help import Taken, help_taken, in_words
from scalelab.course.find import RECORD, Chapter, Course, chapters
from scalelab.course.handed_in import NoNotebook, names_of, read
from scalelab.course.lock import free
from scalelab.course.notebooks import Cell, Notebook, written
from scalelab.course.standing import Standing, standings
from scalelab.course.start_page import Row, start_page
from scalelab.course.start_page import in_words as standings_in_words
from scalelab.course.sync import stored_notebook, write_atomically
from scalelab.course.updating import CHECK, PROGRESS, Kept, released, source_of, update
from scalelab.errors import ScalelabError

FORM = 1
"""Counts up when a workspace keeps its things in another way."""
VARIABLE = "SCALELAB_WORKSPACE"
START = "start.md"
TO_HAND_IN = "to_hand_in"
LOCK = "lock"
SERVER = "server.json"
KERNEL_NAMED = "Scalable Python"
SHOW = "from scalelab.course.progress_here import progress\n\nprogress()"
IGNORE_ALL = "# Your work: no part of any repository around it.\n*\n"


class WorkspaceError(ScalelabError):
    """A folder cannot be used as a workspace; the message says why, and what to do."""


class AlreadyOpen(WorkspaceError):
    """Another process has the workspace open, at `link`."""

    def __init__(self, workspace: Workspace) -> None:
        self.link = served_at(workspace)["link"]
        super().__init__(f"{workspace.root} is open already: {self.link or 'it is about to start'}")


@dataclass(frozen=True)
class Workspace:
    """The folders of one workspace."""

    root: Path

    @property
    def chapters(self) -> Path:
        return self.root / "chapters"

    @property
    def exercises(self) -> Path:
        return self.root / "exercises"

    @property
    def to_hand_in(self) -> Path:
        return self.root / TO_HAND_IN

    @property
    def own(self) -> Path:
        return self.root / RECORD.parent

    @property
    def handed_out(self) -> Path:
        """Each notebook as the course handed it out last."""
        return self.own / "handed out"

    @property
    def saved(self) -> Path:
        """Each notebook as it was before an update or a reset wrote it."""
        return self.own / "saved"


def workspace_folder(course: Course, named: Path | None = None) -> Path:
    """Return the folder of the workspace: the one named, the one you are in, the one last used, or beside the course.

    `SCALELAB_WORKSPACE` names one, too.
    """
    if named is not None:
        return named.expanduser().resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / RECORD).is_file():
            return folder
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser().resolve()
    try:
        last = Path(_last_used(course).read_text(encoding="utf-8").strip())
    except OSError:
        last = Path()
    return last if (last / RECORD).is_file() else course.root.with_name(f"{course.root.name}-workspace")


def existing_workspace(course: Course, named: Path | None = None) -> Workspace:
    """Return the workspace. Raises WorkspaceError where there is none, or where it is a newer version's."""
    folder = workspace_folder(course, named)
    if _record(folder) is None:
        raise WorkspaceError(f"{folder} is no workspace; `scalelab start` makes one.")
    return Workspace(folder)


@contextmanager
def opened(course: Course, folder: Path, report: Callable[[str], None] = print) -> Iterator[Workspace]:
    """Make `folder` the workspace of the course, or bring the one that it is up to date, and have it open meanwhile.

    What a student wrote stays: in its notebook, or, where that has no place for it, in a file beside it that is named.
    Raises AlreadyOpen where another process has it open, and WorkspaceError.
    """
    with ExitStack() as stack:
        with _as_ours(folder):
            record = _record(folder)
            if record is None:
                _refuse_other(folder)
            elif record.get("title") != _title(course):
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
    """Make a workspace, or bring it up to date, as `opened` does; return it."""
    with opened(course, folder, report) as workspace:
        return workspace


def _bring_up_to_date(
    course: Course, workspace: Workspace, record: dict[str, Any] | None, report: Callable[[str], None]
) -> None:
    folder = workspace.root
    says = {"form": FORM, "title": _title(course), "course": str(course.root)}
    if record is None:  # at once: what is cut off now goes on at the next start
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
    _remember(course, folder)
    report(f"{'Your workspace' if record is None else 'Your workspace, up to date'}: {folder}")


def rows(course: Course, workspace: Workspace) -> list[Row]:
    """Return every chapter with where its exercises stand."""
    found = []
    for chapter in chapters(course):
        out = stored_notebook(workspace.handed_out / "exercises" / f"{chapter.slug}.ipynb")
        mine = workspace.exercises / f"{chapter.slug}.ipynb"
        stand = standings(stored_notebook(mine), released(out)) if out is not None else []
        taken = help_taken(mine)
        stand = [replace(one, note=_noted(one, taken.get(one.exercise))) for one in stand]
        found.append(
            Row(
                chapter.number,
                chapter.title,
                chapter.minutes,
                f"chapters/{chapter.slug}.ipynb",
                f"exercises/{chapter.slug}.ipynb" if out is not None else "",
                stand,
            )
        )
    return found


def _noted(one: Standing, taken: Taken | None) -> str:
    """Return the note on where an exercise stands, and the help that was taken."""
    return "; ".join(filter(None, (one.note, in_words(taken) if taken else "")))


def refresh(course: Course, workspace: Workspace) -> None:
    """Write the start page anew, where it would change."""
    text = start_page(_title(course), rows(course, workspace))
    path = workspace.root / START
    if not path.is_file() or path.read_bytes() != text.encode():
        write_atomically(path, text)


def with_progress(notebook: Notebook, out: Notebook | None) -> Notebook:
    """Return a student's notebook whose cell on the progress, behind the introduction, shows where it stands."""
    cells = [cell for cell in notebook["cells"] if cell.get("id") != PROGRESS]
    text = standings_in_words(standings(notebook, released(out)))
    output = {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": text, "text/plain": text}}
    cell = {
        "cell_type": "code",
        "id": PROGRESS,
        "metadata": {"deletable": False, "jupyter": {"source_hidden": True}},
        "source": SHOW,
        "execution_count": None,
        "outputs": [output],
    }
    place = next((number for number, one in enumerate(cells, start=1) if one.get("id") == "intro"), 0)
    return {**notebook, "cells": [*cells[:place], cell, *cells[place:]]}


def reset(course: Course, workspace: Workspace, wanted: str, report: Callable[[str], None] = print) -> None:
    """Bring back the starter of an exercise (`turns`, or `08/turns` where two sets have one), the old answer saved.

    Raises WorkspaceError where there is no such exercise, where two are called so, and where the notebook is open.
    """
    part, _, name = wanted.rpartition("/")
    found = []
    everything = []
    for path in sorted((workspace.handed_out / "exercises").glob("*.ipynb")):
        names = released(stored_notebook(path)).exercises
        everything += [f"{path.stem}: {', '.join(names)}"]
        if name in names and path.stem.startswith(part):
            found.append(path)
    if not found:
        raise WorkspaceError(f"No exercise is called {wanted!r}. There are\n  " + "\n  ".join(everything))
    if len(found) > 1:
        ways = " or ".join(f"{path.stem.partition('_')[0]}/{name}" for path in found)
        raise WorkspaceError(f"Two exercises are called {name!r}; say {ways}.")
    with _as_ours(workspace.root):
        path = workspace.exercises / found[0].name
        _refuse_open(workspace, path)
        out = stored_notebook(found[0])
        assert out is not None
        mine = _readable(workspace, path, report)
        if mine is None:
            write_atomically(path, written(with_progress(out, out)))
            report(f"{_shown(workspace, path)}: put back as the course has it.")
            return
        release = released(out)
        old = [cell for cell in mine["cells"] if name in names_of(cell)[:1] and source_of(cell).strip()]
        answered = [cell for cell in old if not release.untouched(name, cell)]
        cells = [cell for cell in mine["cells"] if cell not in old]
        unchecked: Cell = {"outputs": [], "execution_count": None}
        cells = [cell | unchecked if f"{name}-{CHECK}" in names_of(cell)[:1] else cell for cell in cells]
        brought = update(out, {**mine, "cells": [*cells, release.cells[name]]}, out)
        _save(workspace, path)
        kept = [Kept(f"{name}: your answer, before it was reset", tuple(answered))] if answered else []
        beside = _keep(workspace, path, [*kept, *brought.kept])
        write_atomically(path, written(with_progress(brought.notebook, out)))
        refresh(course, workspace)
        report(f"{name}: brought back in {_shown(workspace, path)}.")
        for one in (*kept, *brought.kept):
            report(f"  {one.what}; kept in {_shown(workspace, beside)}.")


def _place_exercises(workspace: Workspace, path: Path, report: Callable[[str], None]) -> None:
    """Put a set into the workspace, with the work of the student that is there already."""
    new = stored_notebook(path)
    if new is None:
        raise WorkspaceError(f"{path} is no notebook; mend the course with `scalelab course sync`.")
    new["metadata"]["kernelspec"]["display_name"] = KERNEL_NAMED
    here = workspace.exercises / path.name
    handed_out = workspace.handed_out / "exercises" / path.name
    old = stored_notebook(handed_out)
    current = written(new)
    if old is not None and written(old) == current and here.exists():
        _readable(workspace, here, report)
        if here.exists():
            return
    mine = _readable(workspace, here, report)
    if mine is None:
        write_atomically(here, written(with_progress(new, new)))
        report(f"{_shown(workspace, here)}: {'new' if old is None else 'was not there; put back'}.")
    else:
        updated = update(old, mine, new)
        _save(workspace, here)
        kept = _keep(workspace, here, updated.kept)
        write_atomically(here, written(with_progress(updated.notebook, new)))
        report(f"{_shown(workspace, here)}: updated, with your answers.")
        for note in updated.notes:
            report(f"  {note}")
        for one in updated.kept:
            report(f"  {one.what}; kept in {_shown(workspace, kept)}.")
    write_atomically(handed_out, current)


def _place_chapter(course: Course, workspace: Workspace, chapter: Chapter, report: Callable[[str], None]) -> None:
    """Put a chapter into the workspace; one that the student has changed is kept beside it."""
    from scalelab.course.chapter_notebooks import chapter_notebook  # noqa: PLC0415 (takes a second, and is rarely due)

    new = chapter_notebook(course, chapter)
    new["metadata"]["kernelspec"]["display_name"] = KERNEL_NAMED
    here = _chapter(workspace, chapter)
    handed_out = workspace.handed_out / "chapters" / here.name
    mine = _readable(workspace, here, report)
    old = stored_notebook(handed_out)
    if mine is not None and _texts(mine) not in (_texts(old), _texts(new)):
        kept = _free_name(here, "yours")
        os.replace(here, kept)
        report(f"{_shown(workspace, here)}: updated; your own version is kept in {_shown(workspace, kept)}.")
    elif mine is None or _texts(mine) != _texts(new):
        report(f"{_shown(workspace, here)}: {'new' if old is None else 'updated'}.")
    if mine is None or _texts(mine) != _texts(new):
        write_atomically(here, written(new))
    write_atomically(handed_out, written(new))


def _readable(workspace: Workspace, path: Path, report: Callable[[str], None]) -> Notebook | None:
    """Return the notebook in a file; None where there is no file. One that cannot be read is moved aside, and named."""
    if not os.path.lexists(path):
        return None
    try:
        read(path)
        if (notebook := stored_notebook(path)) is not None:
            return notebook
        reason = "is no notebook of the format 4"
    except NoNotebook as error:
        reason = str(error)
    kept = _free_name(path, "broken")
    os.replace(path, kept)
    report(
        f"{_shown(workspace, path)} {reason.partition(';')[0]}. It is kept as {kept.name}, and a fresh one takes its "
        "place. An older state may lie in .ipynb_checkpoints beside it."
    )
    return None


def _keep(workspace: Workspace, path: Path, kept: Sequence[Kept]) -> Path:
    """Add what has no place to the notebook beside `path` that keeps such things; return its path."""
    beside = path.with_name(f"{path.stem}.kept.ipynb")
    if not kept:
        return beside
    notebook = _readable(workspace, beside, _quiet) or {
        "cells": [_markdown(f"# Kept from {path.name}\n\nNothing here runs with the exercises or is handed in.")],
        "metadata": {"kernelspec": {"name": "python3", "display_name": KERNEL_NAMED, "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    known = set(_texts(notebook))
    for one in kept:
        cells = [_plain(cell) for cell in one.cells]
        if not known.issuperset(_texts({"cells": cells})):  # else an update that was cut off has kept them
            notebook["cells"].append(_markdown(f"## {one.what}\n\n{time.strftime('%Y-%m-%d %H:%M')}"))
            notebook["cells"] += cells
    write_atomically(beside, written(notebook))
    return beside


def _plain(cell: Cell) -> Cell:
    """Return a cell's text alone, so that nothing takes it for an answer."""
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
    """Copy a notebook as it is before we write it."""
    workspace.saved.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, _free_name(workspace.saved / path.name, time.strftime("%Y-%m-%d-%H%M%S")))


def _refuse_open(workspace: Workspace, path: Path) -> None:
    """Raise where the notebook is open in the workspace's JupyterLab: it would write over what we write, or ask."""
    if path.relative_to(workspace.root).as_posix() in open_notebooks(workspace):
        raise WorkspaceError(
            f"{_shown(workspace, path)} is open in JupyterLab, perhaps with changes that are not saved. Save it, then "
            "File, Close and Shut Down Notebook, and run this again."
        )


def open_notebooks(workspace: Workspace) -> set[str]:
    """Return the notebooks that have a kernel in the workspace's JupyterLab; none where that is not running.

    Raises WorkspaceError where it does not answer.
    """
    from urllib.request import ProxyHandler, Request, build_opener  # noqa: PLC0415 (only where one is open)

    with free(workspace.own / LOCK) as nobody:
        if nobody:
            return set()
    served = served_at(workspace)
    try:
        request = Request(f"{served['address']}api/sessions", headers={"Authorization": f"token {served['token']}"})
        with build_opener(ProxyHandler({})).open(request, timeout=10) as answer:
            return {str(session.get("path")) for session in json.load(answer)}
    except (OSError, ValueError) as error:
        raise WorkspaceError(
            f"JupyterLab has {workspace.root} open and does not answer ({error}); end it first."
        ) from error


def say_where(workspace: Workspace, address: str, token: str, link: str) -> None:
    """Leave word of where the workspace is open, for this user alone."""
    write_atomically(
        workspace.own / SERVER, json.dumps({"address": address, "token": token, "link": link}) + "\n", 0o600
    )


def served_at(workspace: Workspace) -> dict[str, str]:
    """Return where the workspace is, or was, open: the server's address, its token, and the link; "" where unknown."""
    try:
        data = json.loads((workspace.own / SERVER).read_text(encoding="utf-8"))
        return {name: str(data[name]) for name in ("address", "token", "link")}
    except (OSError, ValueError, KeyError, TypeError):
        return dict.fromkeys(("address", "token", "link"), "")


@contextmanager
def _as_ours(folder: Path) -> Iterator[None]:
    """Say in our words what the system refuses."""
    try:
        yield
    except OSError as error:
        raise WorkspaceError(
            f"{error.filename or folder} cannot be written ({error.strerror or error}). Name a folder that you may "
            "write to: `scalelab start DIR`."
        ) from error


def _record(folder: Path) -> dict[str, Any] | None:
    """Return what a workspace says of itself; None where the folder is none. Raises WorkspaceError."""
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, NotADirectoryError):
            raise WorkspaceError(f"{folder} is no folder; name a new or an empty one: `scalelab start DIR`.") from error
        data = {}
    if not isinstance(data, dict) or not isinstance(data.get("form"), int):
        raise WorkspaceError(
            f"{folder / RECORD} cannot be read. Your notebooks are as they were: move that one file away, copy them "
            "somewhere, and start in a new folder: `scalelab start DIR`."
        )
    if data["form"] > FORM:
        raise WorkspaceError(
            f"{folder} was made by a newer version of the course, and is left as it is. Update the course (`git pull`, "
            "then `make lab`), or start in another folder: `scalelab start DIR`."
        )
    return data


def _refuse_other(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError(f"{folder} is no folder; name a new or an empty one: `scalelab start DIR`.")
    if folder.is_dir() and any(path != folder / RECORD.parent for path in folder.iterdir()):
        raise WorkspaceError(
            f"{folder} holds files and is no workspace; nothing was written. Name a new or an empty folder: "
            "`scalelab start DIR`."
        )


def _in_a_repository(folder: Path) -> bool:
    return any((above / ".git").exists() for above in folder.parents)


def _title(course: Course) -> str:
    data = yaml.safe_load((course.root / "_config.yml").read_text(encoding="utf-8"))
    return str(data.get("title", course.root.name)) if isinstance(data, dict) else course.root.name


def _digest(course: Course, chapter: Chapter) -> str:
    """Return a hash of what a chapter's notebook is made from: its text, our conversion, the references."""
    files = [chapter.path, Path(__file__).with_name("chapter_notebooks.py"), course.root / "book" / "references.bib"]
    texts = [path.read_bytes().replace(b"\r\n", b"\n") for path in files if path.is_file()]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _chapter(workspace: Workspace, chapter: Chapter) -> Path:
    return workspace.chapters / f"{chapter.slug}.ipynb"


def _texts(notebook: Notebook | None) -> list[tuple[Any, str]]:
    return [(cell.get("cell_type"), source_of(cell)) for cell in (notebook or {}).get("cells", [])]


def _free_name(path: Path, word: str) -> Path:
    """Return `NAME.WORD.ipynb`, or with a number where that is taken."""
    number, kept = 1, path.with_name(f"{path.stem}.{word}{path.suffix}")
    while os.path.lexists(kept):
        number += 1
        kept = path.with_name(f"{path.stem}.{word}-{number}{path.suffix}")
    return kept


def _shown(workspace: Workspace, path: Path) -> str:
    return path.relative_to(workspace.root).as_posix()


def _last_used(course: Course) -> Path:
    return course.root / ".jupyter" / "workspace"


def _remember(course: Course, folder: Path) -> None:
    try:
        write_atomically(_last_used(course), f"{folder}\n")
    except OSError:
        return  # a course that others own, too


def _quiet(text: str) -> None:
    """Say nothing."""
