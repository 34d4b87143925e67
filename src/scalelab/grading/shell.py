"""ipykernel's kernel for warm kernels: what comes of a cell is the same, but it is taken apart once.

IPython and ipykernel search a cell for magics twice, compile it twice to see whether it awaits, parse it again, and
hash it in Python for a name. All that takes longer than most answers.
"""

from __future__ import annotations

import ast
import os
import re
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from ipykernel.compiler import XCachingCompiler, get_tmp_directory
from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell
from traitlets import Instance, Type

from scalelab.grading.plain_python import FLAGS, PlainPython, parsed

AWAITS = re.compile(r"\bawait\b|\basync\b(?!\s+def\b)")
"""What code has somewhere that awaits."""


class Compiler(XCachingCompiler):
    """ipykernel's compiler of cells, which takes the tree of a cell that has been parsed."""

    def ast_parse(self, source: str, filename: str = "<unknown>", symbol: str = "exec") -> ast.AST:
        """Return the tree of a cell, as `ast.parse` does."""
        tree = parsed(source) if (self.flags, symbol) == (FLAGS, "exec") else None
        return super().ast_parse(source, filename, symbol) if tree is None else tree

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        """Return what a cell is called in tracebacks: a file's name, as ipykernel's own, by a faster hash."""
        folder: str = get_tmp_directory()  # type: ignore[no-untyped-call]
        return os.path.join(folder, f"{blake2b(raw_code.encode(), digest_size=4).hexdigest()}.py")


class Shell(ZMQInteractiveShell):
    """ipykernel's shell, which compiles a cell to see whether it awaits only where it may."""

    input_transformer_manager = Instance(PlainPython, ())

    def should_run_async(
        self, raw_cell: str, *, transformed_cell: str | None = None, preprocessing_exc_tuple: Any = None
    ) -> bool:
        """Return whether a cell awaits at its top."""
        if preprocessing_exc_tuple is None and transformed_cell is not None and not may_await(transformed_cell):
            return False
        awaits: bool = super().should_run_async(
            raw_cell, transformed_cell=transformed_cell, preprocessing_exc_tuple=preprocessing_exc_tuple
        )
        return awaits


class Kernel(IPythonKernel):
    """ipykernel's kernel with this shell and compiler."""

    shell_class = Type(Shell)
    compiler_class = Type(Compiler)


@lru_cache(maxsize=1)
def may_await(source: str) -> bool:
    """Return whether a cell may await outside of functions; where that cannot be told at once, it may."""
    if not AWAITS.search(source):
        return False
    tree = parsed(source)
    if tree is None or "\r" in source:  # which ends a line, too
        return True
    lines = source.split("\n")
    return any(AWAITS.search("\n".join(lines[first - 1 : last])) for first, last in map(_own_lines, tree.body))


def _own_lines(statement: ast.stmt) -> tuple[int, int]:
    """Return the first and last line of a statement; of a function, of what stands before its body."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        first = min((decorator.lineno for decorator in statement.decorator_list), default=statement.lineno)
        return first, statement.body[0].lineno
    assert statement.end_lineno is not None
    return statement.lineno, statement.end_lineno
