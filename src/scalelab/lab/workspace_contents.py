"""The files of a workspace, as JupyterLab sees them: start page and exercise notebooks show the student's progress."""

from __future__ import annotations

from typing import Any

import nbformat
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from traitlets import Instance

from scalelab.course import Course
from scalelab.notebooks.files import stored_notebook
from scalelab.student.status_pages import refresh, with_progress
from scalelab.student.workspace import START, Workspace


class WorkspaceContents(AsyncLargeFileManager):
    """A workspace's files; their progress is renewed when a file is opened or an exercise notebook is saved."""

    course = Instance(Course)
    workspace = Instance(Workspace)

    async def get(
        self,
        path: str,
        content: bool = True,
        type: str | None = None,
        format: str | None = None,
        require_hash: bool = False,
    ) -> dict[str, Any]:
        if content and path.strip("/") == START:
            refresh(self.course, self.workspace)
        model = await super().get(path, content, type, format, require_hash)  # type: ignore[no-untyped-call]
        assert isinstance(model, dict)
        out = self._handed_out(path)
        if content and out is not None and isinstance(model.get("content"), dict):
            model["content"] = nbformat.from_dict(with_progress(model["content"], out))  # type: ignore[no-untyped-call]
        return model

    async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
        saved = await super().save(model, path)  # type: ignore[no-untyped-call]
        assert isinstance(saved, dict)
        if self._handed_out(path) is not None:
            refresh(self.course, self.workspace)
        return saved

    def _handed_out(self, path: str) -> dict[str, Any] | None:
        """Return the exercise set at a path as it was handed out, or None if the path is not an exercise set."""
        folder, _, name = path.strip("/").rpartition("/")
        if folder != self.workspace.exercises.name or not name.endswith(".ipynb"):
            return None
        return stored_notebook(self.workspace.handed_out / folder / name)
