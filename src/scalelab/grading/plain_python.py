"""IPython's input transformer for a warm kernel: what is Python already needs none of its search for magics."""

from __future__ import annotations

import ast
import re
import warnings

from IPython.core.inputtransformer2 import TransformerManager

SPECIAL = re.compile(r"[%!?]|^\s*[,;/]", re.MULTILINE)
"""What a cell has somewhere that is no Python, and IPython's all the same."""


class PlainPython(TransformerManager):
    """IPython takes every cell apart into tokens, up to a dozen times, to find what is no Python.

    A cell without these signs, or one that parses, holds none of that, so that the result is the same.
    """

    def do_token_transforms(self, lines: list[str]) -> list[str]:
        """Return the lines with magics, `!commands` and `help?` as calls."""
        source = "".join(lines)
        if not SPECIAL.search(source):
            return lines
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns when it is compiled
                ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            transformed: list[str] = super().do_token_transforms(lines)  # type: ignore[no-untyped-call]
            return transformed
        return lines
