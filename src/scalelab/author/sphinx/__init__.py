"""The Sphinx extension of the book: theme, chapter heads, claims pages, syllabus, maths without a script."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from scalelab.author.sphinx import (
    anchors,
    boxes,
    cached_runs,
    checkpoints,
    claims_pages,
    explorables,
    maths,
    notebook_downloads,
    page_head,
    pages,
    progress,
    servers,
    sharing,
    syllabus,
)

PACKAGE = Path(__file__).parent


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_theme("scalebook", str(PACKAGE / "theme"))
    for extension in (cached_runs, notebook_downloads, explorables):
        app.setup_extension(extension.__name__)
    parts = (anchors, boxes, checkpoints, page_head, maths, claims_pages, pages, progress, servers, sharing, syllabus)
    for part in parts:
        part.setup(app)
    return {"env_version": _version(), "parallel_read_safe": True, "parallel_write_safe": True}


def _version() -> int:
    """Return a number that changes with this package's code, so that Sphinx then reads every page again."""
    code = b"".join(path.read_bytes() for path in sorted(PACKAGE.glob("*.py")))
    return int(hashlib.sha256(code).hexdigest()[:8], 16)
