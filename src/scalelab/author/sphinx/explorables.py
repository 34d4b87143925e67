"""Explorable figures on the built pages: modules and style beside the other static files, the loader where needed.

What JupyterLab loads and what a page loads is the same text, made by `scalelab.explorables.bundle`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from scalelab.explorables import bundle, names, stylesheet

FOLDER = "explorables"
MARK = 'class="sl-explorable"'
STATE = "ipywidgets_state"  # myst-nb's key for the saved widgets of a page


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", _write_files)
    app.connect("doctree-read", _drop_saved_widgets)
    app.connect("html-page-context", _add_loader)
    return {"env_version": int(_version(), 16), "parallel_read_safe": True, "parallel_write_safe": True}


def _files() -> dict[str, str]:
    return {"explorables.css": stylesheet(), **{f"{name}.js": bundle(name) for name in names()}}


def _version() -> str:
    return hashlib.sha256("".join(_files().values()).encode()).hexdigest()[:8]


def _write_files(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    folder = Path(app.outdir, "_static", FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _files().items():
        folder.joinpath(name).write_text(text, "utf-8", newline="\n")


def _drop_saved_widgets(app: Sphinx, doctree: nodes.document) -> None:
    """Leave the explorables' saved widgets out of the page: its loader needs no kernel's state."""
    metadata: dict[str, dict[str, Any]] = getattr(app.env, "nb_metadata", {})
    scripts: dict[str, tuple[str | None, dict[str, str]]] = metadata.get(app.env.docname, {}).get("js_files", {})
    if STATE not in scripts:
        return
    address, attributes = scripts[STATE]
    saved = json.loads(attributes["body"])
    models = saved["state"]
    for key in [key for key, model in models.items() if _is_explorable(model)]:
        layout = models.pop(key)["state"]["layout"]
        models.pop(layout.removeprefix("IPY_MODEL_"), None)
    if models:
        scripts[STATE] = (address, {**attributes, "body": json.dumps(saved).replace("</", "<\\/")})
        return
    for key in [key for key in scripts if key.startswith("ipywidgets_")]:
        del scripts[key]


def _is_explorable(model: dict[str, Any]) -> bool:
    return str(model["state"].get("_anywidget_id", "")).startswith("scalelab.explorables.")


def _add_loader(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    if MARK in context.get("body", ""):
        app.add_css_file(f"{FOLDER}/explorables.css")
        app.add_js_file("explorables.js", type="module", **{"data-explorables": _version()})  # type: ignore[arg-type]
