"""The `.ipynb` download of a chapter: with the outputs of the published run, and ready to open in JupyterLab.

On a cache hit myst-nb (1.4.0) writes the notebook as it was before the outputs were merged, with the page's front
matter as its metadata. This extension writes it again, from the cache.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.osutil import ensuredir

from scalelab.author.execute import recall
from scalelab.course import find_course, read_chapter

KEPT = ("kernelspec", "language_info", "widgets")
SOURCES = "_sources"


def mend(app: Sphinx, doctree: nodes.document) -> None:
    """Write the executed notebook over the one that myst-nb left."""
    docname = app.env.docname
    left = _written_by_myst_nb(app, docname)
    if not docname.startswith("chapters/") or not left.is_file():
        return
    notebook = recall(find_course(Path(app.srcdir)), read_chapter(Path(app.env.doc2path(docname))))
    if notebook is None:
        return
    notebook.metadata = {key: notebook.metadata[key] for key in KEPT if key in notebook.metadata}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # myst-nb draws new ones at every reading, and the same book would differ
    nbformat.write(notebook, left)  # type: ignore[no-untyped-call]


def offer(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document) -> None:
    """Put the notebook beside the page, and tell the template where: `ipynb_source`, below `_sources/`."""
    written = _written_by_myst_nb(app, pagename)
    if doctree is None or not pagename.startswith(("chapters/", "exercises/")) or not written.is_file():
        return
    target = Path(app.outdir, SOURCES, f"{pagename}.ipynb")
    ensuredir(target.parent)
    shutil.copyfile(written, target)
    context["ipynb_source"] = f"{pagename}.ipynb"


def _written_by_myst_nb(app: Sphinx, docname: str) -> Path:
    return Path(app.env.mystnb_config.output_folder, f"{docname}.ipynb")  # type: ignore[attr-defined]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", mend)
    app.connect("html-page-context", offer)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
