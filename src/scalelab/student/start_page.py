"""The start page of a workspace: the course, how long each chapter takes, and the student's progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from scalelab.student.status import PASSED, TRIED, UNTOUCHED, Standing, next_exercise, total

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
    standings: Sequence[Standing]


def start_page(title: str, rows: Sequence[Row]) -> str:
    """Return the page as Markdown."""
    points, most = total(one for row in rows for one in row.standings)
    lines = [
        f"# {title}",
        "",
        _next(rows),
        "",
        f"**{total_line(rows)}** `{bar(points, most)}`",
        "",
        "| | chapter | minutes | exercises | points | |",
        "|---|---|---:|---|---:|---|",
    ]
    for row in rows:
        got, of = total(row.standings)
        signs = "".join(one.sign for one in row.standings)
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
    everything = [one for row in rows for one in row.standings]
    points, most = total(everything)
    passed = sum(one.state == PASSED for one in everything)
    return f"{passed} of {len(everything)} exercises passed, {points} of {most} points"


def bar(points: int, most: int) -> str:
    """Return a bar such as `■■■□□□□□□□`; it is full only for all points, and empty only for none."""
    filled = round(BAR * points / most) if most else 0
    filled = min(max(filled, int(points > 0)), BAR - int(points < most))
    return "■" * filled + "□" * (BAR - filled)


def in_words(standings: Sequence[Standing]) -> str:
    """Return the progress in one exercise set as Markdown."""
    points, most = total(standings)
    count = {state: sum(one.state == state for one in standings) for state in (PASSED, TRIED, UNTOUCHED)}
    head = f"**{points} of {most} points** `{bar(points, most)}` · " + " · ".join(
        f"{number} {state}" for state, number in count.items()
    )
    lines = [head, "", "| | exercise | points | |", "|---|---|---:|---|"]
    lines += [
        f"| {one.sign} | {_cell(one.title)} | {one.points} of {one.max} | {_cell(one.note)} |" for one in standings
    ]
    return "\n".join(lines)


def table(rows: Sequence[Row], *, every: bool) -> list[str]:
    """Return the lines of the table for a terminal; if `every` is true, each exercise has its own line."""
    lines = []
    for row in rows:
        got, of = total(row.standings)
        points = f"{got:>3} of {of:<3} {bar(got, of)}" if of else ""
        lines.append(f"{row.number}  {row.title:<52.52} {row.minutes:>4} min  {points}".rstrip())
        if every:
            for one in row.standings:
                note = f"  ({one.note})" if one.note else ""
                lines.append(f"    {one.sign} {one.exercise:<20} {one.points} of {one.max}  {one.title}{note}")
        elif row.standings:
            lines.append("    " + " ".join(f"{one.sign} {one.exercise}" for one in row.standings))
    return lines


def _next(rows: Sequence[Row]) -> str:
    begun = [row for row in rows if any(one.state != UNTOUCHED for one in row.standings)]
    for row in (*begun, *rows):
        following = next_exercise(row.standings)
        if following is not None and row in begun:
            return (
                f"**Go on with** [{following.title}]({quote(row.exercises)}), in the exercises to chapter {row.number}."
            )
        if following is not None or not row.standings:
            return f"**Begin with** [chapter {row.number}, {row.title}]({quote(row.chapter)})."
    return "**You have passed every check.** Hand in what you have not, and go back to what surprised you."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
