"""Looks at the machinery that judges an answer, which say whether the answer has changed it.

`prologue` is a cell after the set-up; `cell` stands before and after each check, in the check's own cell: an answer's
function can also change something while a check calls it. What it prints is compared as what a check prints: by nbval,
in another process. What happens in the kernel is in `watch`; what an answer could do to that is the business of
`screen`.
"""

from __future__ import annotations

import ast

from scalelab.grading.bindings import loaded

EXPECTED = "untouched\n"
"""What a look prints after an honest answer."""
TOUCHED = " is not what it was before the answer ran\n"
"""How the line ends that it prints otherwise."""
WATCH = "scalelab.grading.watch"
"""The module that kernels need for it; warm ones import it once, as the last of all."""


def prologue() -> str:
    """Return the source of the cell that follows the set-up; it prints nothing."""
    return _call("begin()")


def cell(check: str = "", *, whole: bool = True) -> str:
    """Return the source of a look, which says whether an answer kept its hands off what `check`, a source, needs.

    Not `whole` leaves out what is far from the check: for where a whole look comes later.
    """
    return _call(f"look({sorted(loaded(ast.walk(ast.parse(check))))}{'' if whole else ', False'})")


def _call(what: str) -> str:
    """Return a call that leaves no name behind."""
    return f'__import__("{WATCH}", fromlist=["look"]).{what}'
