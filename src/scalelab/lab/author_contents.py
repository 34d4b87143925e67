"""Save text notebooks from JupyterLab with new cells, but never with another front matter.

Jupytext rewrites the front matter of a text notebook from the parts that it understands. In this course, a chapter's
front matter holds the title, principle and objectives that its author wrote, and a plain page has none.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

from scalelab.course import FRONT_MATTER

GENERATED = re.compile(r"(?:exercises|solutions)/[^/]+\.ipynb")


def keep_front_matter(before: str, after: str) -> str:
    """Return `after` with the front matter of `before`, or without any, if only the one of `after` is Jupytext's."""
    written = FRONT_MATTER.match(after)
    if written is None or not _by_jupytext(written.group(1)):
        return after
    original = FRONT_MATTER.match(before)
    if original is not None and _by_jupytext(original.group(1)):
        return after
    head = before[: original.end()] if original else ""
    body = before[len(head) :]
    gap = body[: len(body) - len(body.lstrip("\n"))]
    return head + gap + after[written.end() :].lstrip("\n")


def _by_jupytext(front_matter: str) -> bool:
    data = yaml.safe_load(front_matter)
    return isinstance(data, dict) and ("jupytext" in data or "jupytext" in (data.get("jupyter") or {}))


class CourseContents(AsyncLargeFileManager):
    """The files of the course; Jupytext's server extension adds its reading and writing of text notebooks on top.

    Generated files can be opened but not saved: an answer belongs in a workspace, a change in the source.
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
                before = None  # A new file keeps the front matter that its author gave it.
            if before is not None:
                model = model | {"content": keep_front_matter(before["content"], model["content"])}
        saved = await super().save(model, path)  # type: ignore[no-untyped-call]
        assert isinstance(saved, dict)
        return saved
