"""A student's progress, as a workspace shows it: on its start page, and in each exercise notebook."""

from __future__ import annotations

from dataclasses import replace

from scalelab.checks._help import Taken, help_taken
from scalelab.checks._help import in_words as help_in_words
from scalelab.course import Course, chapters
from scalelab.notebooks.files import stored_notebook, write_atomically
from scalelab.notebooks.format import Notebook
from scalelab.student.merge import PROGRESS, released
from scalelab.student.start_page import Row, progress_markdown, start_page
from scalelab.student.status import ExerciseStatus, statuses
from scalelab.student.workspace import START, Workspace, title_of

SHOW = (
    "# Where you stand. Run this cell to see it anew.\nfrom scalelab.student.status_cell import progress\n\nprogress()"
)


def rows(course: Course, workspace: Workspace) -> list[Row]:
    """Return a row for every chapter, with the progress in its exercises."""
    table = []
    for chapter in chapters(course):
        out = stored_notebook(workspace.handed_out / "exercises" / f"{chapter.slug}.ipynb")
        notebook = workspace.exercises / f"{chapter.slug}.ipynb"
        statuses_of_set = statuses(stored_notebook(notebook), released(out)) if out is not None else []
        help_by_exercise = help_taken(notebook)
        statuses_of_set = [
            replace(status, note=_note_with_help(status, help_by_exercise.get(status.exercise)))
            for status in statuses_of_set
        ]
        table.append(
            Row(
                chapter.number,
                chapter.title,
                chapter.minutes,
                f"chapters/{chapter.slug}.ipynb",
                f"exercises/{chapter.slug}.ipynb" if out is not None else "",
                statuses_of_set,
            )
        )
    return table


def _note_with_help(status: ExerciseStatus, exercise_help: Taken | None) -> str:
    """Return the note on an exercise's state, and on the help that was taken."""
    return "; ".join(filter(None, (status.note, help_in_words(exercise_help) if exercise_help else "")))


def refresh(course: Course, workspace: Workspace) -> None:
    """Rewrite the start page if its text has changed."""
    text = start_page(title_of(course), rows(course, workspace))
    path = workspace.root / START
    if not path.is_file() or path.read_bytes() != text.encode():
        write_atomically(path, text)


def with_progress(notebook: Notebook, out: Notebook | None) -> Notebook:
    """Return a student's notebook with an up-to-date progress cell after the introduction."""
    cells = [cell for cell in notebook["cells"] if cell.get("id") != PROGRESS]
    text = progress_markdown(statuses(notebook, released(out)))
    output = {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": text, "text/plain": text}}
    progress_cell = {
        "cell_type": "code",
        "id": PROGRESS,
        "metadata": {"deletable": False},
        "source": SHOW,
        "execution_count": None,
        "outputs": [output],
    }
    index = next((number for number, cell in enumerate(cells, start=1) if cell.get("id") == "intro"), 0)
    return {**notebook, "cells": [*cells[:index], progress_cell, *cells[index:]]}
