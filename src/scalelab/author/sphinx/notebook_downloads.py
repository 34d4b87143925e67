"""The `.ipynb` download of a chapter, with the outputs of the published run, ready to open in JupyterLab.

On a cache hit, myst-nb (1.4.0) writes the notebook without the cached outputs, and with the front matter of the page
as its metadata. This extension writes the notebook from the cache instead.
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

METADATA_KEYS = ("kernelspec", "language_info", "widgets")
SOURCES = "_sources"


def write_executed_notebook(app: Sphinx, doctree: nodes.document) -> None:
    """Replace the notebook that myst-nb wrote by the executed notebook."""
    docname = app.env.docname
    path = _myst_nb_path(app, docname)
    if not docname.startswith("chapters/") or not path.is_file():
        return
    notebook = recall(find_course(Path(app.srcdir)), read_chapter(Path(app.env.doc2path(docname))))
    if notebook is None:
        return
    notebook.metadata = {key: notebook.metadata[key] for key in METADATA_KEYS if key in notebook.metadata}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # myst-nb draws new ones at every reading, and the same book would differ
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def copy_for_download(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Copy the notebook to `_sources/`, and pass its path there to the template as `ipynb_source`."""
    source = _myst_nb_path(app, pagename)
    if doctree is None or not pagename.startswith(("chapters/", "exercises/")) or not source.is_file():
        return
    target = Path(app.outdir, SOURCES, f"{pagename}.ipynb")
    ensuredir(target.parent)
    shutil.copyfile(source, target)
    context["ipynb_source"] = f"{pagename}.ipynb"


def _myst_nb_path(app: Sphinx, docname: str) -> Path:
    return Path(app.env.mystnb_config.output_folder, f"{docname}.ipynb")  # type: ignore[attr-defined]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", write_executed_notebook)
    app.connect("html-page-context", copy_for_download)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
