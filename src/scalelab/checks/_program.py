"""Turn lines that a student has put in order into a program that can be run."""

from __future__ import annotations

import itertools
import linecache
from typing import Any

from scalelab.checks import _side
from scalelab.checks._run import Unmet

_numbers = itertools.count(1)


def assemble(program: str, **names: Any) -> dict[str, Any]:
    """Run the lines of `program`, with `names` given, and return the names that they define.

    Raises Unmet, in words, where Python cannot read the lines or they fail.
    """
    right = "the lines are a program"
    if not isinstance(program, str):
        raise Unmet(right, f"The answer should be text, and is a {type(program).__name__}.")
    file = f"<program {next(_numbers)}>"
    linecache.cache[file] = (len(program), None, program.splitlines(keepends=True), file)
    namespace = dict(names)
    try:
        if _side.current is not None:
            return _side.current.assemble(program, file, namespace)
        exec(compile(program, file, "exec", dont_inherit=True), namespace)
    except SyntaxError as error:
        line = f" line {error.lineno}: `{(error.text or '').strip()}`" if error.lineno else ""
        raise Unmet(right, f"Python cannot read{line} ({error.msg}). Which line must stand right above it?") from None
    except _side.AnswerEnded:
        raise
    except Exception as error:
        raise Unmet(right, "", detail=f"Running the lines raised {type(error).__name__}: {error}") from None
    return namespace
