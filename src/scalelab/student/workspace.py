"""A student's workspace: its folder, which folders can be one, and which process has it open.

`DIR/chapters` and `DIR/exercises` are the student's. `DIR/.scalelab` is ours: it holds each notebook as it was last
handed out, so that an update can tell the student's work from the course's, and each exercise notebook as it was before
an update or a reset.
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

from scalelab.course import RECORD, Course
from scalelab.errors import ScalelabError
from scalelab.notebooks.files import write_atomically
from scalelab.notebooks.lock import free

FORM = 1
"""Increase it when a workspace stores its files in another way."""
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
        """The folder that holds each notebook as the course handed it out last."""
        return self.own / "handed out"

    @property
    def saved(self) -> Path:
        """The folder that holds each exercise notebook as it was before an update or a reset."""
        return self.own / "saved"

    def relative(self, path: Path) -> str:
        """Return a path relative to the workspace, the same on every platform."""
        return path.relative_to(self.root).as_posix()


def workspace_folder(course: Course, named: Path | None = None) -> Path:
    """Return the folder of the workspace.

    This is the first of: `named`, the workspace around the working directory, the folder in `SCALELAB_WORKSPACE`, the
    workspace used last, and a folder beside the course.
    """
    if named is not None:
        return named.expanduser().resolve()
    start = Path.cwd().resolve()
    for folder in (start, *start.parents):
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
    """Return the workspace. Raises WorkspaceError if there is none, or if a newer version of the course made it."""
    folder = workspace_folder(course, named)
    if record_of(folder) is None:
        raise WorkspaceError(f"{folder} is not a workspace; `scalelab start` makes one.")
    return Workspace(folder)


def record_of(folder: Path) -> dict[str, Any] | None:
    """Return the record that a workspace keeps of itself, or None if the folder has none.

    Raises WorkspaceError if the record cannot be read, or if a newer version of the course made it.
    """
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, NotADirectoryError):
            raise WorkspaceError(
                f"{folder} is not a folder; name a new or an empty one: `scalelab start DIR`."
            ) from error
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


def check_folder_is_usable(folder: Path) -> None:
    """Raise WorkspaceError unless a new workspace can be made in `folder`: it is missing or empty."""
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError(f"{folder} is not a folder; name a new or an empty one: `scalelab start DIR`.")
    if folder.is_dir() and any(path != folder / RECORD.parent for path in folder.iterdir()):
        raise WorkspaceError(
            f"{folder} holds files and is not a workspace; nothing was written. Name a new or an empty folder: "
            "`scalelab start DIR`."
        )


def title_of(course: Course) -> str:
    data = yaml.safe_load((course.root / "_config.yml").read_text(encoding="utf-8"))
    return str(data.get("title", course.root.name)) if isinstance(data, dict) else course.root.name


def open_notebooks(workspace: Workspace) -> set[str]:
    """Return the paths of the notebooks with a kernel in the workspace's JupyterLab; none if it is not running.

    Raises WorkspaceError if JupyterLab does not answer.
    """
    from urllib.request import ProxyHandler, Request, build_opener  # noqa: PLC0415 (only if one is open)

    with free(workspace.own / LOCK) as is_closed:
        if is_closed:
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


def write_server_info(workspace: Workspace, address: str, token: str, link: str) -> None:
    """Store the address at which the workspace is open, readable by this user alone."""
    write_atomically(
        workspace.own / SERVER, json.dumps({"address": address, "token": token, "link": link}) + "\n", 0o600
    )


def served_at(workspace: Workspace) -> dict[str, str]:
    """Return the address, the token and the link of the workspace's last server, each empty if unknown."""
    try:
        data = json.loads((workspace.own / SERVER).read_text(encoding="utf-8"))
        return {name: str(data[name]) for name in ("address", "token", "link")}
    except (OSError, ValueError, KeyError, TypeError):
        return dict.fromkeys(("address", "token", "link"), "")


@contextmanager
def translate_os_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError into a WorkspaceError that says what to do."""
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
        return  # the course's folder may not be writable for this user
