"""IPython's transformer of cells, which need not search for magics what is Python already; and the tree of such a cell.

What is kept for the next to ask is out of the reach of an answer in the same process: `lru_cache` holds it, whose
entries Python code cannot set.
"""

from __future__ import annotations

import ast
import codeop
import re
from functools import lru_cache

from IPython.core.inputtransformer2 import TransformerManager

SPECIAL = re.compile(r"[%!?]|^\s*[,;/]", re.MULTILINE)
"""What a cell has somewhere that is no Python, and IPython's all the same."""
WARNED_OF = re.compile(r"""\\[^\r\n\\'"abfnrtv0-3xNuU]|\d\w*\.?(?:and|else|for|if|in|is|not|or)\b""")
"""What a cell has somewhere of which Python warns when it parses it."""
FLAGS: int = codeop.Compile().flags
"""How IPython compiles a cell, unless one before has imported from `__future__`."""


@lru_cache(maxsize=1)
def parsed(source: str) -> ast.Module | None:
    """Return the tree of a cell, or None where it is no Python, or has to be parsed where Python's warning is shown."""
    if WARNED_OF.search(source):
        return None
    try:
        tree: ast.Module = compile(source, "<cell>", "exec", FLAGS | ast.PyCF_ONLY_AST, True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree


class PlainPython(TransformerManager):
    """IPython takes every cell apart into tokens, up to a dozen times, to find what is no Python, and ipykernel asks
    for that twice. A cell without IPython's signs, or one that parses, holds none of it: the result is the same.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._once = lru_cache(maxsize=1)(super().transform_cell)

    def transform_cell(self, cell: str) -> str:
        """Return a cell as Python."""
        return self._once(cell)

    def do_token_transforms(self, lines: list[str]) -> list[str]:
        """Return the lines with magics, `!commands` and `help?` as calls."""
        source = "".join(lines)
        if not SPECIAL.search(source) or parsed(source) is not None:
            return lines
        transformed: list[str] = super().do_token_transforms(lines)  # type: ignore[no-untyped-call]
        return transformed
