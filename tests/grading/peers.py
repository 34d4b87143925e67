"""Other graders, on the same submissions as ours: nbgrader in its own environment, and nbval alone."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

from classes import Paper

from scalelab.course import Course
from scalelab.exercises.source import ExerciseSet
from scalelab.grading.outputs.nbgrader_export import export
from scalelab.running.kernel import jupyter_environment

Points = dict[str, dict[str, float]]
"""The points of every student's questions, by student and exercise."""

SCORES = """
    SELECT submitted_assignment.student_id, base_cell.name, grade.auto_score FROM grade
    JOIN base_cell ON base_cell.id = grade.cell_id
    JOIN submitted_notebook ON submitted_notebook.id = grade.notebook_id
    JOIN submitted_assignment ON submitted_assignment.id = submitted_notebook.assignment_id
"""


def nbgrader_command(course: Course) -> Path:
    """Return where `make nbgrader` puts the command."""
    return course.root / ".venv-nbgrader" / "bin" / "nbgrader"


class Nbgrader:
    """An nbgrader course of one assignment, made from an exercise set and released as an instructor does it."""

    def __init__(self, course: Course, exercises: ExerciseSet, folder: Path) -> None:
        self.command = nbgrader_command(course)
        self.slug = exercises.slug
        self.folder = folder
        export(exercises, folder)
        self.run("generate_assignment", self.slug)

    @property
    def released(self) -> Path:
        return self.folder / "release" / self.slug / f"{self.slug}.ipynb"

    def collect(self, submissions: Path) -> None:
        """Take the folder of submissions as what was handed in."""
        (self.folder / "submitted").symlink_to(submissions, target_is_directory=True)

    def autograde(self, timeout: float) -> None:
        """Grade all that was handed in, anew; `timeout` is in seconds per cell."""
        self.run("autograde", self.slug, "--force", f"--Execute.timeout={timeout:g}")

    def points(self) -> Points:
        """Return what the gradebook holds, visible and hidden checks of a question together."""
        points: Points = {}
        with closing(sqlite3.connect(self.folder / "gradebook.db")) as database:
            for student, cell, score in database.execute(SCORES):
                questions = points.setdefault(student, {})
                exercise = cell.removesuffix("-check").removesuffix("-hidden")
                questions[exercise] = questions.get(exercise, 0.0) + score
        return points

    def run(self, *arguments: str) -> str:
        """Run nbgrader in the course's folder, and return what it says. Raises RuntimeError where it fails."""
        # nbgrader starts alembic by its name.
        path = os.pathsep.join([str(self.command.parent), os.environ["PATH"]])
        return _run([str(self.command), *arguments], self.folder, os.environ | {"PATH": path})


class Nbval:
    """One pytest with `--nbval-lax` over one notebook per student: the executed reference with the answers in it."""

    def __init__(self, course: Course, exercises: ExerciseSet, papers: Sequence[Paper], folder: Path) -> None:
        self.folder = folder
        self.papers = papers
        folder.mkdir(parents=True)
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        reference = (course.solutions / f"{exercises.slug}.ipynb").read_text(encoding="utf-8")
        self.code = [cell for cell in json.loads(reference)["cells"] if cell["cell_type"] == "code"]
        for paper in papers:
            notebook = json.loads(reference)
            for cell in notebook["cells"]:
                if cell["id"] in paper.answers:
                    cell["source"] = paper.answers[cell["id"]].source or ""
            (folder / f"{paper.student}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")

    def grade(self, timeout: float) -> None:
        """Run every notebook; `timeout` is in seconds per cell."""
        command = [
            *(sys.executable, "-m", "pytest", "-c", "pytest.ini", "--rootdir", ".", "-p", "nbval.plugin"),
            *("-p", "no:cacheprovider", "-q", "--tb=no", "--nbval-lax", f"--nbval-cell-timeout={timeout:g}"),
            *("--junit-xml=junit.xml", *(f"{paper.student}.ipynb" for paper in self.papers)),
        ]
        environment = jupyter_environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
        # 1 says that some cells failed.
        _run(command, self.folder, environment, fine=(0, 1))

    def points(self) -> Points:
        """Return the points of the check cells that passed."""
        points: Points = {paper.student: dict.fromkeys(paper.answers, 0.0) for paper in self.papers}
        for case in ElementTree.parse(self.folder / "junit.xml").iter("testcase"):
            metadata = self.code[int(case.attrib["name"].removeprefix("Cell "))]["metadata"]
            if metadata["scalelab"]["role"] in {"check", "hidden"} and len(case) == 0:
                student = case.attrib["classname"].removesuffix(".ipynb")
                points[student][metadata["scalelab"]["exercise"]] += metadata["nbgrader"]["points"]
        return points


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str], fine: Sequence[int] = (0,)) -> str:
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    said = run.stdout + run.stderr
    if run.returncode not in fine:
        raise RuntimeError(f"{' '.join(command[:4])} … ended with {run.returncode}:\n{said[-4000:]}")
    return said
