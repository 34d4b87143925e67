"""The text of an explorable as JupyterLab and the built site load it: the shared base and the figure, in one module.

The sources are two files, so that every figure shares one base. A widget's module in JupyterLab has no address, so it
cannot import a sibling; `bundle` therefore sets the figure's text below the base's, and leaves its import out.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from scalelab.errors import ScalelabError

BASE = "base"
_IMPORT = re.compile(r"""^import\s.*?from\s+["'](?P<source>[^"']+)["'];\n""", re.MULTILINE | re.DOTALL)


class BundleError(ScalelabError):
    """An explorable of that name does not exist, or its module imports something else than the base."""


def names() -> list[str]:
    """The explorables there are, sorted."""
    here = files(__package__)
    return sorted(stem for file in here.iterdir() if (stem := file.name.removesuffix(".js")) not in {file.name, BASE})


@cache
def bundle(name: str) -> str:
    """Return the explorable `name` as the text of one ES module that imports nothing.

    Raises BundleError when there is none of that name, or when it imports anything but the base, in one statement.
    """
    if name not in names():
        raise BundleError(f"expected the name of an explorable ({', '.join(names())}), came {name!r}")
    figure = _read(f"{name}.js")
    sources = [found["source"] for found in _IMPORT.finditer(figure)]
    if sources != [f"./{BASE}.js"]:
        raise BundleError(
            f'{name}.js: expected one import, from "./{BASE}.js", came {sources}. Put what is shared into {BASE}.js.'
        )
    return f"{_read(f'{BASE}.js')}\n{_IMPORT.sub('', figure)}"


@cache
def stylesheet() -> str:
    """Return the CSS that all explorables share."""
    return _read("explorables.css")


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
