"""What the book adds to Sphinx: theme, chapter heads, checkpoints, claims page, syllabus, maths without a script."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from . import anchors, boxes, checkpoints, head, maths, measured, pages, progress, sharing, syllabus

HERE = Path(__file__).parent


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_theme("scalebook", str(HERE / "theme"))
    for part in (anchors, boxes, checkpoints, head, maths, measured, pages, progress, sharing, syllabus):
        part.setup(app)
    return {"env_version": _version(), "parallel_read_safe": True, "parallel_write_safe": True}


def _version() -> int:
    """A number that changes with this package's code, so that Sphinx then reads every page again."""
    code = b"".join(path.read_bytes() for path in sorted(HERE.glob("*.py")))
    return int(hashlib.sha256(code).hexdigest()[:8], 16)
