"""Point myst-nb to the chapters executed with this version of the library; read pages again after a new execution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

from scalelab.author.execute import executed_at
from scalelab.author.execution_cache import cache_path
from scalelab.course import chapters, find_course


def set_cache_path(app: Sphinx, config: Config) -> None:
    # When this value changes, Sphinx reads every page again.
    config.nb_execution_cache_path = str(cache_path(find_course(Path(app.srcdir))))


def executed_since(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the chapters that were executed again after Sphinx read them."""
    course = find_course(Path(app.srcdir))
    read = {docname: data.get("exec_data", {}) for docname, data in getattr(env, "nb_metadata", {}).items()}
    pages = {f"chapters/{chapter.slug}": chapter for chapter in chapters(course)}
    return [
        docname
        for docname, chapter in pages.items()
        if docname in read and read[docname].get("mtime") != executed_at(course, chapter)
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", set_cache_path)
    app.connect("env-get-outdated", executed_since)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
