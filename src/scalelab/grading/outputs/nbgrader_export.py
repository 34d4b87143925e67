"""Write an exercise set as an nbgrader assignment, for instructors who grade with nbgrader."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from scalelab.exercises.released import reference, student
from scalelab.exercises.source import ExerciseSet
from scalelab.notebooks.files import write_atomically
from scalelab.notebooks.format import Cell, Notebook, source_of, written

CONFIG = "nbgrader_config.py"
KERNEL_SPEC = Path("jupyter", "kernels", "python3", "kernel.json")
BEGIN = "### BEGIN HIDDEN TESTS"
END = "### END HIDDEN TESTS"
STANDS_FOR_HIDDEN = "# Further checks run here when you are graded."

SETTINGS = '''\
"""nbgrader's settings for exercise sets of this course, written by scalelab."""

import os
from pathlib import Path

from nbgrader.converters import GenerateAssignment
from nbgrader.preprocessors import ClearSolutions

c = get_config()

# A source notebook holds the starters, not the solutions: students get it as it is.
c.GenerateAssignment.preprocessors = [
    step for step in GenerateAssignment.preprocessors.default() if step is not ClearSolutions
]

# The notebooks in exercises/ have no cells for the hidden checks: nbgrader puts them back before it grades.
c.OverwriteCells.add_missing_cells = True

# Answers run on the Python that has the course's packages, not on nbgrader's own.
os.environ["JUPYTER_PATH"] = str(Path(__file__).resolve().parent / "jupyter")
'''


def export(exercises: ExerciseSet, folder: Path) -> Path:
    """Write the set into nbgrader's course folder: `source/SET/SET.ipynb`, with the settings and the kernel it needs.

    Next steps in that folder: `nbgrader generate_assignment SET`, students' files into
    `submitted/STUDENT/SET/SET.ipynb`, `nbgrader autograde SET`, `nbgrader export`. Students can hand in nbgrader's
    release or our own student notebook. Returns the notebook's path; existing settings are kept.
    """
    path = folder / "source" / exercises.slug / f"{exercises.slug}.ipynb"
    write_atomically(path, written(source_notebook(exercises)))
    if not (folder / CONFIG).exists():
        write_atomically(folder / CONFIG, SETTINGS)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": argv, "display_name": "Python 3", "language": "python"}
    write_atomically(folder / KERNEL_SPEC, json.dumps(kernel, indent=1) + "\n")
    return path


def source_notebook(exercises: ExerciseSet) -> Notebook:
    """Return nbgrader's source notebook: the student notebook, with the hidden checks in cells of their own."""
    notebook = student(exercises)
    hidden = {cell["id"]: cell for cell in reference(exercises, {}, "")["cells"] if cell["id"].endswith("-hidden")}
    cells: list[Cell] = []
    for cell in notebook["cells"]:
        cells.append(cell)
        if (name := cell["id"].removesuffix("-check")) != cell["id"]:
            cells.append(_marked(hidden[f"{name}-hidden"]))
    return {**notebook, "cells": cells}


def _marked(hidden: Cell) -> Cell:
    """Return a hidden check between nbgrader's markers: a release keeps only the line before them."""
    source = "\n".join([STANDS_FOR_HIDDEN, BEGIN, source_of(hidden), END])
    # Other metadata of a hidden check, such as the wrong ideas that it recognises, are not for students.
    return {**hidden, "metadata": {"nbgrader": hidden["metadata"]["nbgrader"]}, "source": source.splitlines(True)}
