"""JupyterLab's layout when a workspace is first opened: the table of contents on the left, and room for the page."""

from __future__ import annotations

import json
from pathlib import Path

from scalelab.notebooks.files import write_atomically

DEFAULT = "default-37a8.jupyterlab-workspace"
"""The file in which JupyterLab keeps the layout of its workspace `default`: that name, and a hash of it."""
TOC = "@jupyterlab/toc:plugin"
LAYOUT = {
    "main": {"dock": {"type": "tab-area", "currentIndex": 0, "widgets": []}},
    "down": {"size": 0, "widgets": []},
    "left": {
        "collapsed": False,
        "visible": True,
        "current": TOC,
        "widgets": ["filebrowser", "running-sessions", TOC],
    },
    "right": {"collapsed": True, "visible": True, "widgets": ["jp-property-inspector", "debugger-sidebar"]},
    "relativeSizes": [0.2, 0.8, 0],
    "top": {"simpleVisibility": True},
}


def lay_out(folder: Path) -> None:
    """Write our layout into JupyterLab's folder for layouts, unless one is there, which the user may have changed."""
    path = folder / DEFAULT
    if not path.exists():
        write_atomically(path, json.dumps({"data": {"layout-restorer:data": LAYOUT}, "metadata": {"id": "default"}}))
