"""What JupyterLab saves into a text notebook: its cells, and never another front matter.

Jupytext writes the front matter of a text notebook anew, from what it understands of it. In this course that is a
chapter's title, principle and objectives, written by its author, and in a plain page there is none at all.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

from scalelab.course.find import FRONT_MATTER

GENERATED = re.compile(r"(?:exercises|solutions)/[^/]+\.ipynb")


def keep_front_matter(before: str, after: str) -> str:
    """Return `after` with the front matter that `before` has, or without any, where Jupytext wrote the one it has."""
    written = FRONT_MATTER.match(after)
    if written is None or not _by_jupytext(written.group(1)):
        return after
    kept = FRONT_MATTER.match(before)
    if kept is not None and _by_jupytext(kept.group(1)):
        return after
    head = before[: kept.end()] if kept else ""
    body = before[len(head) :]
    gap = body[: len(body) - len(body.lstrip("\n"))]
    return head + gap + after[written.end() :].lstrip("\n")


def _by_jupytext(front_matter: str) -> bool:
    data = yaml.safe_load(front_matter)
    return isinstance(data, dict) and ("jupytext" in data or "jupytext" in (data.get("jupyter") or {}))


class CourseContents(AsyncLargeFileManager):
    """The files of the course; Jupytext's server extension puts its reading and writing of text notebooks on top.

    What is generated opens and is not saved: an answer belongs into a workspace, a change into the source.
    """

    async def get(self, path: str, *args: Any, **options: Any) -> dict[str, Any]:
        model = await super().get(path, *args, **options)  # type: ignore[no-untyped-call]
        assert isinstance(model, dict)
        return model | {"writable": False} if GENERATED.fullmatch(path.strip("/")) else model

    async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
        if GENERATED.fullmatch(path.strip("/")):
            raise HTTPError(
                403,
                f"{path} is generated from solutions/*.md by `scalelab course sync`. Answer it in a workspace of your "
                "own: `scalelab start`.",
            )
        if path.endswith(".md") and isinstance(model.get("content"), str):
            try:
                before = await super().get(path, type="file", format="text")  # type: ignore[no-untyped-call]
            except HTTPError:
                before = None  # A new file has what its author gives it.
            if before is not None:
                model = model | {"content": keep_front_matter(before["content"], model["content"])}
        saved = await super().save(model, path)  # type: ignore[no-untyped-call]
        assert isinstance(saved, dict)
        return saved
