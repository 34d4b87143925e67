"""A student's workspace: where it is, what may be one, and who has it open.

`DIR/chapters` and `DIR/exercises` are the student's. `DIR/.scalelab` is ours: what was handed out last, so that an
update can tell the student's work from the course's, and every file as it was before we wrote it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scalelab.course.find import RECORD, Course
from scalelab.course.lock import free
from scalelab.course.stored import write_atomically
from scalelab.errors import ScalelabError

FORM = 1
"""Counts up when a workspace keeps its things in another way."""
VARIABLE = "SCALELAB_WORKSPACE"
START = "start.md"
TO_HAND_IN = "to_hand_in"
LOCK = "lock"
SERVER = "server.json"


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
    if record_of(folder) is None:
        raise WorkspaceError(f"{folder} is no workspace; `scalelab start` makes one.")
    return Workspace(folder)


def record_of(folder: Path) -> dict[str, Any] | None:
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


def refuse_other(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError(f"{folder} is no folder; name a new or an empty one: `scalelab start DIR`.")
    if folder.is_dir() and any(path != folder / RECORD.parent for path in folder.iterdir()):
        raise WorkspaceError(
            f"{folder} holds files and is no workspace; nothing was written. Name a new or an empty folder: "
            "`scalelab start DIR`."
        )


def title_of(course: Course) -> str:
    data = yaml.safe_load((course.root / "_config.yml").read_text(encoding="utf-8"))
    return str(data.get("title", course.root.name)) if isinstance(data, dict) else course.root.name


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
def in_our_words(folder: Path) -> Iterator[None]:
    """Say in our words what the system refuses."""
    try:
        yield
    except OSError as error:
        raise WorkspaceError(
            f"{error.filename or folder} cannot be written ({error.strerror or error}). Name a folder that you may "
            "write to: `scalelab start DIR`."
        ) from error


def _last_used(course: Course) -> Path:
    return course.root / ".jupyter" / "workspace"


def remember(course: Course, folder: Path) -> None:
    try:
        write_atomically(_last_used(course), f"{folder}\n")
    except OSError:
        return  # a course that others own, too


def shown(workspace: Workspace, path: Path) -> str:
    return path.relative_to(workspace.root).as_posix()
