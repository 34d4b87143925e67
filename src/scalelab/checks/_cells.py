"""The cells that a notebook's kernel has run: whether a check sees its answer as it is on the screen.

A kernel keeps what earlier runs of a cell have defined. So after a cell fails, or after a function gets another name, a
check would see the older answer, and pass; the grader, which starts afresh, would not.
"""

from __future__ import annotations

import inspect
import linecache
import re
import symtable
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any

LARGEST_READ = 20_000
"""Code with more characters is not searched for names."""
MOST_TOLD = 8
"""Names that are told."""
IN_A_CELL_OF_YOUR_OWN = "`{}` stands in a cell of your own: move it into the answer. Answers alone are graded."
IN_ANOTHER_CELL = "`{}` stands in another of the course's cells: define it in this answer, too. Each is graded alone."
SEES_THE_LATEST = "this check sees your latest answer"
OWN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8}")
"""The ids that JupyterLab gives to new cells; cells of the course have names."""


@dataclass(frozen=True)
class CellRun:
    """The last run of a cell: its code, and the error that ended it ("" if none)."""

    source: str
    error: str = ""


runs: dict[str, CellRun] = {}
"""The last run of each cell in this kernel, by the cell's id; a workspace's kernel keeps it (`student.run_tracker`)."""
definers: dict[str, str] = {}
"""The cell that has bound a name last, by the name."""


def note_run(cell: str, source: str, error: str) -> None:
    """Note that a cell has run."""
    runs[cell] = CellRun(source, error)
    if not error:
        definers.update(dict.fromkeys(bound_names(source), cell))


def older_answer(exercise: str, check: FrameType) -> str:
    """Return words if the check of an exercise would see what an earlier run of its answer has defined; else "".

    check: the frame that has opened the verdict; names that its callers in the same namespace read count as well.
    """
    namespace, names_read = check.f_globals, _names_read(check)
    advice = "This check would have seen an older answer: {}, and then run this check again."
    run = runs.get(exercise)
    if run is None:
        name = _older_function(names_read, namespace)
        failed = f"Your last run of the cell that defines `{name}` failed."
        return f"{failed} {advice.format('mend that cell, run it')}" if name else ""
    if run.error:
        return f"Your last run of this cell failed: {run.error}\n{advice.format('mend the cell, run it')}"
    now = bound_names(run.source)
    lost = [name for name in names_read if definers.get(name) == exercise and name not in now]
    if not lost:
        return ""
    names = ", ".join(f"`{name}`" for name in sorted(lost))
    mend = advice.format("compare the names with the task, run the cell")
    return f"Your last run of this cell did not define {names}. {mend}"


def from_other_cells(exercise: str) -> list[str]:
    """Return a sentence for each name that the answer takes from another cell than its own and the set-up's."""
    run = runs.get(exercise)
    if run is None:
        return []
    cells = {name: definers[name] for name in free_names(run.source) if definers.get(name, exercise) != exercise}
    own = {name for name, cell in cells.items() if OWN_ID.fullmatch(cell)}
    given = bound_names("\n".join(run.source for cell, run in runs.items() if cell.startswith("setup-")))
    course = {name for name, cell in cells.items() if not cell.startswith("setup-") and not cell.endswith("-check")}
    return sentences(own, course - own, given)


def sentences(own: Iterable[str], course: Iterable[str], given: Iterable[str] = ()) -> list[str]:
    """Return a sentence for each name that an answer takes from cells of its author's, or from others of the course.

    `given` are the names that every answer has.
    """
    given, own = set(given), set(own)
    names = sorted((own | set(course)) - given)[:MOST_TOLD]
    return [(IN_A_CELL_OF_YOUR_OWN if name in own else IN_ANOTHER_CELL).format(name) for name in names]


def free_names(source: str) -> set[str]:
    """Return the names that code reads and does not bind; none if it is too long, or not valid Python."""
    read, bound = set(), set()
    for symbol in _symbols(source):
        if symbol.is_global() and symbol.is_referenced():
            read.add(symbol.get_name())
        if symbol.is_global() and (symbol.is_assigned() or symbol.is_imported()):
            bound.add(symbol.get_name())
    return read - bound


def bound_names(source: str) -> set[str]:
    """Return the names that code binds at its top level; none if it is too long, or not valid Python."""
    return {
        symbol.get_name()
        for symbol in _symbols(source)
        if symbol.is_global() and (symbol.is_assigned() or symbol.is_imported())
    }


def _symbols(source: str) -> list[symtable.Symbol]:
    """Return the symbols of code and of all functions and classes in it."""
    try:
        tables = [symtable.symtable(source, "cell", "exec")] if len(source) <= LARGEST_READ else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    for table in tables:
        tables += table.get_children()
    return [symbol for table in tables for symbol in table.get_symbols()]


def _names_read(frame: FrameType | None) -> set[str]:
    """Return the names that the cells of a frame and of its callers in the same namespace read.

    IPython compiles each statement of a cell by itself, so a frame's own code has only a part of them.
    """
    namespace, files = frame and frame.f_globals, set()
    while frame is not None:
        if frame.f_globals is namespace:
            files.add(frame.f_code.co_filename)
        frame = frame.f_back
    return set().union(*(free_names("".join(linecache.getlines(file))) for file in files))


def _older_function(names: Iterable[str], namespace: dict[str, Any]) -> str:
    """Return the name of a function that a later cell should have defined anew, and has not: its run has failed.

    For kernels that do not note their runs. IPython keeps the text of all cells, also of those that fail.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    cells = (
        [cell.strip() for cell in namespace.get("In", ())[:-1]] if shell is not None else []
    )  # the last is the check
    for name in names:
        value = inspect.unwrap(namespace[name]) if callable(namespace.get(name)) else None
        methods = vars(value).values() if inspect.isclass(value) else [value]
        code = next((method.__code__ for method in methods if inspect.isfunction(method)), None)
        if code is None:
            continue
        text = "".join(linecache.getlines(code.co_filename)).strip()
        ran = max((number for number, cell in enumerate(cells) if cell == text), default=len(cells))
        definition = re.compile(rf"^(?:async[ \t]+def|def|class)[ \t]+{re.escape(name)}\b", re.MULTILINE)
        if any(definition.search(cell) for cell in cells[ran + 1 :]):
            return name
    return ""
