"""The start page of a workspace: the course, how long each chapter takes, and the student's progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from scalelab.student.status import PASSED, TRIED, UNTOUCHED, ExerciseStatus, next_exercise, total

BAR = 10
LEGEND = "○ untouched · ◐ tried · ● passed its check"


@dataclass(frozen=True)
class Row:
    """A chapter of the workspace and its exercises, by their paths there (`exercises` is empty if it has none)."""

    number: str
    title: str
    minutes: int
    chapter: str
    exercises: str
    statuses: Sequence[ExerciseStatus]


def start_page(title: str, rows: Sequence[Row]) -> str:
    """Return the page as Markdown."""
    points, possible = total(status for row in rows for status in row.statuses)
    lines = [
        f"# {title}",
        "",
        _next(rows),
        "",
        f"**{total_line(rows)}** `{bar(points, possible)}`",
        "",
        "| | chapter | minutes | exercises | points | |",
        "|---|---|---:|---|---:|---|",
    ]
    for row in rows:
        got, of = total(row.statuses)
        signs = "".join(status.sign for status in row.statuses)
        exercises = f"[{signs}]({quote(row.exercises)})" if row.exercises else ""
        cells = (f"{row.number}", f"[{row.title}]({quote(row.chapter)})", str(row.minutes), exercises)
        lines.append(
            f"| {' | '.join(cells)} | {f'{got} of {of}' if of else ''} | {f'`{bar(got, of)}`' if of else ''} |"
        )
    lines += [
        "",
        f"{LEGEND}. The points are those of the checks that you see; your grade adds checks on other inputs.",
        "",
        "**How to work.** Read a chapter and run its cells with Shift+Enter: it asks you to predict before you see. "
        "Then open its exercises: write into the cell below a prompt, run it, and run the check after it. What you do "
        "is saved every few seconds, and an update of the course keeps it.",
        "",
        "**To hand in,** in a terminal (File, New, Terminal):",
        "",
        "    scalelab submit-check exercises/NAME.ipynb",
        "",
        "It runs your answers as the grader does, says what passes, and writes the file to hand in. "
        "`scalelab progress` shows this page's table there, and `scalelab reset EXERCISE` brings back an exercise.",
        "",
        "*This is how far you were when the page was opened. Reload it in your browser (F5) to see it anew.*",
    ]
    return "\n".join(lines) + "\n"


def total_line(rows: Sequence[Row]) -> str:
    """Return the overall progress in one line."""
    statuses = [status for row in rows for status in row.statuses]
    points, possible = total(statuses)
    passed = sum(status.state == PASSED for status in statuses)
    return f"{passed} of {len(statuses)} exercises passed, {points} of {possible} points"


def bar(points: int, possible: int) -> str:
    """Return a bar such as `■■■□□□□□□□`; it is full only for all points, and empty only for none."""
    filled = round(BAR * points / possible) if possible else 0
    filled = min(max(filled, int(points > 0)), BAR - int(points < possible))
    return "■" * filled + "□" * (BAR - filled)


def progress_markdown(statuses: Sequence[ExerciseStatus]) -> str:
    """Return the progress in one exercise set as Markdown."""
    points, possible = total(statuses)
    count = {state: sum(status.state == state for status in statuses) for state in (PASSED, TRIED, UNTOUCHED)}
    head = f"**{points} of {possible} points** `{bar(points, possible)}` · " + " · ".join(
        f"{number} {state}" for state, number in count.items()
    )
    lines = [head, "", "| | exercise | points | |", "|---|---|---:|---|"]
    lines += [
        f"| {status.sign} | {_cell(status.title)} | {status.points} of {status.max} | {_cell(status.note)} |"
        for status in statuses
    ]
    return "\n".join(lines)


def table(rows: Sequence[Row], *, every: bool) -> list[str]:
    """Return the lines of the table for a terminal; if `every` is true, each exercise has its own line."""
    lines = []
    for row in rows:
        got, of = total(row.statuses)
        points = f"{got:>3} of {of:<3} {bar(got, of)}" if of else ""
        lines.append(f"{row.number}  {row.title:<52.52} {row.minutes:>4} min  {points}".rstrip())
        if every:
            for status in row.statuses:
                note = f"  ({status.note})" if status.note else ""
                lines.append(
                    f"    {status.sign} {status.exercise:<20} {status.points} of {status.max}  {status.title}{note}"
                )
        elif row.statuses:
            lines.append("    " + " ".join(f"{status.sign} {status.exercise}" for status in row.statuses))
    return lines


def _next(rows: Sequence[Row]) -> str:
    begun = [row for row in rows if any(status.state != UNTOUCHED for status in row.statuses)]
    for row in (*begun, *rows):
        following = next_exercise(row.statuses)
        if following is not None and row in begun:
            return (
                f"**Go on with** [{following.title}]({quote(row.exercises)}), in the exercises to chapter {row.number}."
            )
        if following is not None or not row.statuses:
            return f"**Begin with** [chapter {row.number}, {row.title}]({quote(row.chapter)})."
    return "**You have passed every check.** Hand in what you have not, and go back to what surprised you."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
