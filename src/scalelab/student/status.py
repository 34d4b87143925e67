"""A student's progress in an exercise set, read from the notebook itself: its answers, and the verdicts of its checks.

In the workspace's kernels, `remember` saves each verdict with a check's output, and with it a digest of each cell that
had run. If this is not the digest of the answer's present text, the answer has changed since. Nothing here is a grade:
the grader runs the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalelab.checks._help import ran_in
from scalelab.notebooks.format import Cell, Notebook
from scalelab.notebooks.untrusted import names_of
from scalelab.student.merge import CHECK, PROMPT, Released, source_of
from scalelab.student.run_tracker import digest

UNTOUCHED = "untouched"
TRIED = "tried"
PASSED = "passed"
SIGNS = {UNTOUCHED: "○", TRIED: "◐", PASSED: "●"}


@dataclass(frozen=True)
class Standing:
    """One exercise: its title, its state, and the points of its visible check, got and possible; `note` says why."""

    exercise: str
    title: str
    state: str
    points: int
    max: int
    note: str = ""

    @property
    def sign(self) -> str:
        return SIGNS[self.state]


@dataclass(frozen=True)
class Live:
    """State of a running kernel that may not be in the file yet: the `checks` and `ran` of `remember`."""

    checks: Mapping[str, Mapping[str, str] | None]
    ran: Mapping[str, str]


def standings(notebook: Notebook | None, release: Released, live: Live | None = None) -> list[Standing]:
    """Return the state of each exercise of `release` in a student's notebook; without one, all are untouched."""
    cells: dict[str, list[Cell]] = {}
    for cell in (notebook or {}).get("cells", []):
        name = next((name for name in names_of(cell) if name in release.cells), "")
        cells.setdefault(name, []).append(cell)
    return [_standing(name, cells, release, live) for name in release.exercises]


def total(all_standings: Iterable[Standing]) -> tuple[int, int]:
    """Return the points achieved and the points possible."""
    found = list(all_standings)
    return sum(one.points for one in found), sum(one.max for one in found)


def next_exercise(all_standings: Sequence[Standing]) -> Standing | None:
    """Return the first exercise that has not passed, or None."""
    return next((one for one in all_standings if one.state != PASSED), None)


def _standing(name: str, cells: Mapping[str, Sequence[Cell]], release: Released, live: Live | None) -> Standing:
    check = release.cells.get(f"{name}-{CHECK}", {})
    most = int(check.get("metadata", {}).get("nbgrader", {}).get("points", 0))
    state, note = _state(name, cells, release, live)
    return Standing(name, _title(name, release), state, most if state == PASSED else 0, most, note)


def _state(name: str, cells: Mapping[str, Sequence[Cell]], release: Released, live: Live | None) -> tuple[str, str]:
    mine = [cell for cell in cells.get(name, ()) if cell.get("cell_type") == "code"]
    if not mine:
        return UNTOUCHED, "its answer cell is not in the notebook" if cells else ""
    answer = mine[-1]
    check = next(iter(cells.get(f"{name}-{CHECK}", ())), {})
    current = digest(source_of(answer))
    if live is not None and f"{name}-{CHECK}" in live.checks:
        heard = live.checks[f"{name}-{CHECK}"]
        passed = heard is not None
        marks: Any = heard
        current = live.ran.get(str(answer.get("id")), current)  # the file may be older
    elif "verdict" in (saved := ran_in(check.get("outputs")) or {}):
        passed = isinstance(saved["verdict"], dict) and saved["verdict"].get("passed") is True
        marks = saved.get("ran")
    elif check.get("outputs"):
        return TRIED, "its check ran elsewhere; run both here, or `scalelab submit-check`, to be sure of which answer"
    else:
        return (UNTOUCHED, "") if release.untouched(name, answer) else (TRIED, "its check has not run")
    if not passed:
        note = "its check says what is missing"
    elif check and source_of(check).strip() and not release.untouched(f"{name}-{CHECK}", check):
        note = "its check has another text than the course's; `scalelab reset` brings it back"
    elif not isinstance(marks, dict) or marks.get(str(answer.get("id"))) != current:
        note = "changed since it passed; run the answer and its check again"
    else:
        return PASSED, ""
    return TRIED, note


def _title(name: str, release: Released) -> str:
    lines = str(release.asked.cells.get(f"{name}-{PROMPT}", "")).splitlines()
    heading = next((line for line in lines if line.startswith("#")), name)
    return heading.lstrip("#").strip() or name
