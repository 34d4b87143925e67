"""Check a notebook before it is handed in: run each answer alone, as the grader does, report, and write the file.

The visible checks judge, with the course's own text. The notebook's own outputs and progress give no points, as in
grading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scalelab.checks._help import Taken, help_taken, in_words
from scalelab.checks._verdict import Verdict
from scalelab.console import count
from scalelab.course import RECORD, Course
from scalelab.errors import ScalelabError
from scalelab.exercises.answers import Answer
from scalelab.exercises.handed_in import answers, digest_of_answers, from_other_cells, marks, recognise
from scalelab.exercises.reference import Question, Reference, references_of
from scalelab.notebooks.files import own_metadata, stored_notebook, write_atomically
from scalelab.notebooks.format import Cell, Notebook, printed_by, source_of, written
from scalelab.notebooks.untrusted import CHECKSUM, HandedIn, NoNotebook, names_of, read
from scalelab.running.isolated import CellRunner
from scalelab.student.merge import CHECK, PROGRESS, Released, released
from scalelab.student.python_file import Task
from scalelab.student.status import PASSED as PASSED_BEFORE
from scalelab.student.status import statuses
from scalelab.student.watch import IMPORTS, Judge, Result
from scalelab.student.workspace import TO_HAND_IN

HELP = "help-taken"
"""The id of the cell that lists the help taken."""
LOST = (
    "In your notebook its check passed. Something that ran there is missing here: try the menu",
    "Kernel, Restart Kernel and Run All Cells.",
)
LONGEST_OUTPUT = 2_000
SHOWN_LINES = 30  # of a check's message


class NotToHandIn(ScalelabError):
    """A file cannot be handed in; the message says why, and what to do."""


@dataclass(frozen=True)
class Checked:
    """The result of `submit_check`: the visible checks' points by exercise, the file, and its answers' checksum."""

    exercises: str
    points: Mapping[str, int]
    file: Path
    checksum: str


def submit_check(course: Course, path: Path, report: Callable[[str], None] = print) -> Checked:
    """Run the answers in a notebook as the grader does, with the visible checks, and write the file to hand in.

    The file goes into the folder `to_hand_in` of the workspace, or one beside the notebook. Raises NotToHandIn, and
    BadReference if a reference of the course is missing or out of date.
    """
    path = path.resolve()
    references = references_of(course)
    handed_in, notebook = _read(path)
    try:
        reference = references[recognise(handed_in, {slug: marks(known) for slug, known in references.items()})]
    except NoNotebook as error:
        raise NotToHandIn(f"{path.name} {error}.") from error
    given = answers(reference, handed_in.cells)
    runnable = {name: answer.source for name, answer in given.items() if answer.source is not None}
    report(f"{reference.slug}: {count(len(runnable), 'answer')} as saved in {path.name}, each alone in a fresh Python.")
    results = _results(reference, runnable)
    release = released(stored_notebook(course.exercises / f"{reference.slug}.ipynb"))
    passed_before = {status.exercise for status in statuses(notebook, release) if status.state == PASSED_BEFORE}
    for question in reference.questions:
        name = question.exercise
        for line in _lines(question, given[name], results.get(name), release):
            report(line)
        if name in results and not results[name].passed:
            own = from_other_cells(reference, handed_in.cells, given[name])
            for line in own or (LOST if name in passed_before else []):
                report(f"      {line}")
    points = {
        question.exercise: question.visible_points * results.get(question.exercise, Result(False, "")).passed
        for question in reference.questions
    }
    visible = sum(question.visible_points for question in reference.questions)
    report(f"\n{sum(points.values())} of {visible} points by the checks that you see.")
    report(f"Those that you do not see give up to {reference.points - visible} more.")
    checksum = digest_of_answers(given)
    file = _folder(path) / f"{reference.slug}.ipynb"
    write_atomically(file, written(_to_hand_in(notebook, checksum, help_taken(path))))
    if answers(reference, read(file).cells) != given:
        raise NotToHandIn(f"{file} does not hold the answers of {path.name}; hand in {path.name} itself, and tell us.")
    report(f"Hand in {file}\n({file.stat().st_size / 1000:.0f} kB; checksum of its answers {checksum[:12]})")
    return Checked(reference.slug, points, file, checksum)


def _results(reference: Reference, sources: Mapping[str, str]) -> dict[str, Result]:
    """Return the results of the visible checks for these answers, by exercise.

    The answers are the student's own, on the student's machine: they run with the same rights as in JupyterLab.
    """
    before = [source_of(cell) for cell in reference.setup]
    with CellRunner(IMPORTS) as runner:
        judge = Judge(runner)
        return {
            question.exercise: judge.result(
                before, Task(question.exercise, "", sources[question.exercise], source_of(question.visible))
            )
            for question in reference.questions
            if question.exercise in sources
        }


def _read(path: Path) -> tuple[HandedIn, Notebook]:
    """Return a notebook as the grader would read it, and the notebook itself; its outputs may have any size."""
    if not path.exists():
        raise NotToHandIn(f"{path} does not exist; name a notebook of your workspace's folder exercises.")
    notebook = stored_notebook(path)
    try:
        if notebook is None:
            read(path)
            raise NoNotebook("is a notebook of another format; open it in JupyterLab, save it, and try again")
        with TemporaryDirectory(prefix="scalelab-") as folder:
            small = Path(folder, f"{path.stem}.ipynb")
            write_atomically(small, written(_to_hand_in(notebook, "", {})))
            return read(small), notebook
    except NoNotebook as error:
        raise NotToHandIn(f"{path.name} {error}.") from error


def _lines(question: Question, answer: Answer, result: Result | None, release: Released) -> Iterator[str]:
    name, points = question.exercise, question.visible_points
    if result is None:
        yield f"  ✗ {name}: 0 of {points}. {answer.reason}"
    elif result.passed:
        yield f"  ✓ {name}: {points} of {points}.{f' {answer.note}' if answer.note else ''}"
    elif name in release.cells and release.is_unmodified(name, {"source": answer.source}):
        yield f"  ○ {name}: 0 of {points}. Not answered yet."
    else:
        yield f"  ✗ {name}: 0 of {points}."
        yield from (f"      {line}" for line in faults(result))


def faults(result: Result) -> list[str]:
    """Return the lines of a check's message, without expectations that hold, and at most SHOWN_LINES."""
    expectations = Verdict.from_data(result.verdict).expectations if result.verdict else ()
    held = {str(expectation) for expectation in expectations if expectation.held}
    lines = [line for line in result.message.splitlines() if line not in held]
    more = len(lines) - SHOWN_LINES
    last = [f"… and {count(more, 'more line')}; run the check in JupyterLab to see all."] if more > 0 else []
    return [*lines[:SHOWN_LINES], *last]


def _folder(path: Path) -> Path:
    root = next((folder for folder in path.parents if (folder / RECORD).is_file()), path.parent)
    return root / TO_HAND_IN


def _to_hand_in(notebook: Notebook, checksum: str, help_by_exercise: Mapping[str, Taken]) -> Notebook:
    """Return the notebook to hand in: its cells without the progress cell, and only the printed output of checks.

    A last cell tells the instructor which help was taken; no grade depends on it.
    """
    own = own_metadata(notebook)
    cells = [_small(cell) for cell in notebook["cells"] if cell.get("id") not in (PROGRESS, HELP)]
    descriptions = {name: in_words(help_used) for name, help_used in sorted(help_by_exercise.items())}
    if lines := [f"- {name}: {description}" for name, description in descriptions.items() if description]:
        source = "\n".join(["Help that was taken, as this machine noted it:", "", *lines])
        cells.append({"cell_type": "markdown", "id": HELP, "metadata": {}, "source": source})
    metadata = notebook["metadata"] if isinstance(notebook.get("metadata"), dict) else {}
    return {**notebook, "cells": cells, "metadata": {**metadata, "scalelab": {**own, CHECKSUM: checksum}}}


def _small(cell: Cell) -> Cell:
    if cell.get("cell_type") != "code":
        return cell
    is_check = any(name.endswith(f"-{CHECK}") for name in names_of(cell))
    return {**cell, "outputs": _printed(cell) if is_check else []}


def _printed(cell: Cell) -> Sequence[dict[str, Any]]:
    text = printed_by(cell)
    if not text:
        return []
    cut = text if len(text) <= LONGEST_OUTPUT else f"{text[:LONGEST_OUTPUT]}…\n"
    return [{"output_type": "stream", "name": "stdout", "text": cut}]
