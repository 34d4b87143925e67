"""IPython's transformer of cells, which need not search for magics what is Python already.

What is kept of a cell for the next to ask cannot be changed by an answer in the same process: it is text, and
`lru_cache` holds it, whose entries Python code cannot set.
"""

from __future__ import annotations

import ast
import codeop
import re
from collections.abc import Iterator
from functools import lru_cache

from IPython.core.inputtransformer2 import TransformerManager

SPECIAL = re.compile(r"[%!?]|^\s*[,;/]", re.MULTILINE)
"""What a cell has somewhere that is no Python, and IPython's all the same."""
WARNED_OF = re.compile(r"""\\[^\r\n\\'"abfnrtv0-3xNuU]|\d\w*\.?(?:and|else|for|if|in|is|not|or)\b""")
"""What a cell has somewhere of which Python warns when it parses it."""
FLAGS: int = codeop.Compile().flags | ast.PyCF_ONLY_AST


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
        if not SPECIAL.search(source) or outside_of_functions(source) is not None:
            return lines
        transformed: list[str] = super().do_token_transforms(lines)  # type: ignore[no-untyped-call]
        return transformed


@lru_cache(maxsize=1)
def outside_of_functions(source: str) -> str | None:
    """Return the lines of a cell but for the bodies of its functions.

    None where it is no Python, where Python would warn of it, which it shall do once, or where lines are hard to tell.
    """
    if WARNED_OF.search(source) or "\r" in source:
        return None
    try:
        tree: ast.Module = compile(source, "<cell>", "exec", FLAGS, True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    lines = source.split("\n")
    return "\n".join(line for statement in tree.body for line in _without_body(statement, lines))


def _without_body(statement: ast.stmt, lines: list[str]) -> Iterator[str]:
    if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from lines[statement.lineno - 1 : statement.end_lineno]
        return
    first = min((decorator.lineno for decorator in statement.decorator_list), default=statement.lineno)
    body = statement.body[0]
    yield from lines[first - 1 : body.lineno - 1]
    if lines[body.lineno - 1][: body.col_offset].strip():
        yield lines[body.lineno - 1]
