"""The text of an explorable as JupyterLab and the built site load it: base, knobs and figure in one module.

The sources are several files, so that every figure shares one base and Python reads the same knobs. A widget's module
in JupyterLab has no address, so it cannot import a sibling; `bundle` therefore joins them and drops the imports. It
also leaves out the comments that fill lines: a fifth of what a reader would load.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from scalelab.errors import ScalelabError

FIGURE = "figure.js"
KNOBS = "knobs.json"
_IMPORT = re.compile(r"""^import\s.*?["'](?P<source>[^"']+)["'].*?;\n""", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^ *(?://[^\n]*|/\*\*.*?\*/)\n", re.MULTILINE | re.DOTALL)
_SOURCES = ["../base.js", f"./{KNOBS}"]


class BundleError(ScalelabError):
    """No explorable has that name, or its module does not import exactly the base and its own knobs."""


def names() -> list[str]:
    """Return the names of all explorables, sorted: the folders that hold a figure."""
    return sorted(folder.name for folder in files(__package__).iterdir() if folder.joinpath(FIGURE).is_file())


@cache
def bundle(name: str) -> str:
    """Return the explorable `name` as the text of one ES module that imports nothing.

    Raises BundleError if no explorable has that name, or if its module does not import the base and its knobs only.
    """
    figure = read(name, FIGURE)
    sources = [match["source"] for match in _IMPORT.finditer(figure)]
    if sources != _SOURCES:
        raise BundleError(
            f"{name}/{FIGURE}: expected one import from each of {_SOURCES}, got {sources}. "
            "Put what several figures share into base.js."
        )
    base = files(__package__).joinpath("base.js").read_text("utf-8")
    return _COMMENT.sub("", f"{base}const KNOBS = {read(name, KNOBS).strip()};\n{_IMPORT.sub('', figure)}")


@cache
def stylesheet() -> str:
    """Return the CSS that all explorables share."""
    return files(__package__).joinpath("explorables.css").read_text("utf-8")


def read(name: str, file: str) -> str:
    """Return the text of a file in an explorable's folder. Raises BundleError if no explorable has that name."""
    if name not in names():
        raise BundleError(f"expected the name of an explorable ({', '.join(names())}), got {name!r}")
    return files(__package__).joinpath(name, file).read_text("utf-8")
