"""A student's progress in an exercise set, read from the notebook itself: its answers, and the verdicts of its checks.

In the workspace's kernels, `run_tracker` saves each verdict with a check's output, and with it a digest of each cell
that had run. If this is not the digest of the answer's present text, the answer has changed since. Nothing here is a
grade: the grader runs the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalelab.notebooks.format import Cell, Notebook, heading_of, source_of
from scalelab.notebooks.untrusted import names_of, ran_in
from scalelab.student.merge import CHECK, PROMPT, Released
from scalelab.student.run_tracker import digest

UNTOUCHED = "untouched"
TRIED = "tried"
PASSED = "passed"
SIGNS = {UNTOUCHED: "○", TRIED: "◐", PASSED: "●"}


@dataclass(frozen=True)
class ExerciseStatus:
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
    """State of a running kernel that may not be in the file yet: the `checks` and `ran` of `run_tracker`."""

    checks: Mapping[str, Mapping[str, str] | None]
    ran: Mapping[str, str]


def statuses(notebook: Notebook | None, release: Released, live: Live | None = None) -> list[ExerciseStatus]:
    """Return the state of each exercise of `release` in a student's notebook; without one, all are untouched."""
    cells: dict[str, list[Cell]] = {}
    for cell in (notebook or {}).get("cells", []):
        name = next((name for name in names_of(cell) if name in release.cells), "")
        cells.setdefault(name, []).append(cell)
    return [_status(name, cells, release, live) for name in release.exercises]


def total(statuses: Iterable[ExerciseStatus]) -> tuple[int, int]:
    """Return the points achieved and the points possible."""
    all_statuses = list(statuses)
    return sum(status.points for status in all_statuses), sum(status.max for status in all_statuses)


def next_exercise(statuses: Sequence[ExerciseStatus]) -> ExerciseStatus | None:
    """Return the first exercise that has not passed, or None."""
    return next((status for status in statuses if status.state != PASSED), None)


def _status(name: str, cells: Mapping[str, Sequence[Cell]], release: Released, live: Live | None) -> ExerciseStatus:
    check = release.cells.get(f"{name}-{CHECK}", {})
    possible = int(check.get("metadata", {}).get("nbgrader", {}).get("points", 0))
    state, note = _state(name, cells, release, live)
    title = heading_of(release.expected.cells.get(f"{name}-{PROMPT}", ""), name)
    return ExerciseStatus(name, title, state, possible if state == PASSED else 0, possible, note)


def _state(name: str, cells: Mapping[str, Sequence[Cell]], release: Released, live: Live | None) -> tuple[str, str]:
    answers = [cell for cell in cells.get(name, ()) if cell.get("cell_type") == "code"]
    if not answers:
        return UNTOUCHED, "its answer cell is not in the notebook" if cells else ""
    answer = answers[-1]
    check = next(iter(cells.get(f"{name}-{CHECK}", ())), {})
    current = digest(source_of(answer))
    if live is not None and f"{name}-{CHECK}" in live.checks:
        ran_before = live.checks[f"{name}-{CHECK}"]
        passed = ran_before is not None
        ran_cells: Any = ran_before
        current = live.ran.get(str(answer.get("id")), current)  # the file may be older
    elif "verdict" in (saved := ran_in(check)):
        passed = isinstance(saved["verdict"], dict) and saved["verdict"].get("passed") is True
        ran_cells = saved.get("ran")
    elif check.get("outputs"):
        return TRIED, "its check ran elsewhere; run both here, or `scalelab submit-check`, to be sure of which answer"
    else:
        return (UNTOUCHED, "") if release.is_unmodified(name, answer) else (TRIED, "its check has not run")
    if not passed:
        note = "its check says what is missing"
    elif check and source_of(check).strip() and not release.is_unmodified(f"{name}-{CHECK}", check):
        note = "its check has another text than the course's; `scalelab reset` brings it back"
    elif not isinstance(ran_cells, dict) or ran_cells.get(str(answer.get("id"))) != current:
        note = "changed since it passed; run the answer and its check again"
    else:
        return PASSED, ""
    return TRIED, note
