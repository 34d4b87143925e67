"""nbgrader itself takes our exercises: it validates them, and gives the points that we give."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from classes import BLANK, MISSING, RAISES, RIGHT, UNTOUCHED, WRONG, Paper, hand_in, notebook
from peers import Nbgrader, Points, nbgrader_command

from scalelab.course import Course
from scalelab.exercises.released import student
from scalelab.exercises.source import ExerciseSet, read_set, sources
from scalelab.grading.batch import Summary, grade
from scalelab.grading.outputs.exports import nbgrader_csv
from scalelab.grading.outputs.nbgrader_export import STANDS_FOR_HIDDEN, source_notebook
from scalelab.notebooks.format import text_of, written
from tiny import SLUG, load, quiet_sync, save, source, tiny_course

TIMEOUT = 30.0
SHARES = {RIGHT: 0.4, WRONG: 0.3, UNTOUCHED: 0.1, BLANK: 0.1, RAISES: 0.05, MISSING: 0.05}
FROM_RELEASE = "with-the-notebook-of-nbgrader"


@dataclass(frozen=True)
class Graded:
    """One class, graded by both."""

    exercises: ExerciseSet
    papers: list[Paper]
    nbgrader: Nbgrader
    ours: Summary


@pytest.fixture(scope="module")
def installed(course: Course) -> None:
    """Skip where nbgrader's environment is not there; where CI is set, fail: there nothing may be left out."""
    if not nbgrader_command(course).exists():
        reason = "nbgrader is not here: `make nbgrader` installs it into an environment of its own"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and CI is set; `.ci/run` does it", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def graded(installed: None, course: Course, tmp_path_factory: pytest.TempPathFactory) -> Graded:
    root = tmp_path_factory.mktemp("nbgrader")
    tiny = tiny_course(root / "course")
    quiet_sync(tiny)
    exercises = read_set(source(tiny))
    submissions = root / "submissions"
    papers = hand_in(exercises, submissions, 5, seed=8, shares=SHARES)
    nbgrader = Nbgrader(course, exercises, root / "nbgrader")
    released = load(nbgrader.released)
    for cell in released["cells"]:
        for one in exercises.exercises:
            if cell["id"] == one.id:
                cell["source"] = one.solution
    save(submissions / FROM_RELEASE / SLUG / f"{SLUG}.ipynb", released)
    nbgrader.collect(submissions)
    nbgrader.autograde(TIMEOUT)
    ours = grade(submissions, root / "grades", course=tiny, timeout=TIMEOUT, report=str)
    return Graded(exercises, papers, nbgrader, ours)


def our_points(summary: Summary) -> Points:
    return {one.student: {q.exercise: float(q.points or 0) for q in one.questions} for one in summary.grades}


def test_both_give_the_same_points(graded: Graded) -> None:
    kinds = {answer.kind for paper in graded.papers for answer in paper.answers.values()}
    assert kinds == set(SHARES)
    waiting = [
        (one.student, q.exercise, q.feedback) for one in graded.ours.grades for q in one.questions if q.points is None
    ]
    assert waiting == []
    ours = our_points(graded.ours)
    assert len(ours) == len(graded.papers) + 1
    assert graded.nbgrader.points() == ours


def test_right_answers_in_the_notebook_that_nbgrader_released_get_all_points(graded: Graded) -> None:
    full = {one.id: one.points for one in graded.exercises.exercises}
    assert our_points(graded.ours)[FROM_RELEASE] == full
    assert graded.nbgrader.points()[FROM_RELEASE] == full


def test_what_nbgrader_releases_is_our_student_notebook_and_a_line_per_hidden_check(graded: Graded) -> None:
    released = [text_of(cell["source"]) for cell in load(graded.nbgrader.released)["cells"]]
    assert released.count(STANDS_FOR_HIDDEN) == len(graded.exercises.exercises)
    ours = [text_of(cell["source"]) for cell in student(graded.exercises)["cells"]]
    assert [text for text in released if text != STANDS_FOR_HIDDEN] == ours


def test_nothing_of_a_hidden_check_is_released(graded: Graded) -> None:
    text = graded.nbgrader.released.read_text(encoding="utf-8")
    for one in graded.exercises.exercises:
        for line in one.hidden.splitlines():
            if line.strip() and line not in one.check and line not in one.starter:
                assert json.dumps(line)[1:-1] not in text
        for wrong in one.wrongs:
            assert wrong.message in one.check or wrong.message not in text


def test_our_table_for_nbgrader_is_what_nbgrader_exports(graded: Graded) -> None:
    graded.nbgrader.run("export")
    exported = (graded.nbgrader.folder / "grades.csv").read_text(encoding="utf-8")
    ours = nbgrader_csv(graded.ours.grades).text
    assert rows(exported) == rows(ours)
    assert len(rows(ours)) == len(graded.papers) + 2


def rows(text: str) -> list[tuple[str, ...]]:
    """Return a table's header, and its rows by student, without the times: nbgrader knows none of copied files."""
    header, *others = csv.reader(io.StringIO(text))
    time = header.index("timestamp")
    return [tuple(header), *sorted(tuple([*row[:time], *row[time + 1 :]]) for row in others)]


def test_answered_rightly_every_set_passes_nbgraders_validation(graded: Graded, course: Course, tmp_path: Path) -> None:
    paths = []
    for path in sources(course):
        exercises = read_set(path)
        answered = notebook(exercises, {one.id: one.solution for one in exercises.exercises})
        paths.append(tmp_path / f"{exercises.slug}.ipynb")
        paths[-1].write_text(written(answered), encoding="utf-8")
    said = graded.nbgrader.run("validate", *map(str, paths))
    assert said.count("Success! Your notebook passes all the tests.") == len(paths), said


def test_a_starter_fails_nbgraders_validation(graded: Graded, tmp_path: Path) -> None:
    path = tmp_path / "starter.ipynb"
    path.write_text(written(student(graded.exercises)), encoding="utf-8")
    assert f"VALIDATION FAILED ON {len(graded.exercises.exercises)} CELL(S)!" in graded.nbgrader.run(
        "validate", str(path)
    )


def test_a_source_notebook_keeps_the_order_and_every_point(course: Course) -> None:
    for path in sources(course):
        exercises = read_set(path)
        cells = source_notebook(exercises)["cells"]
        order = [cell["id"] for cell in cells if cell["metadata"]["nbgrader"]["grade"]]
        assert order == [f"{one.id}-{role}" for one in exercises.exercises for role in ("check", "hidden")]
        assert sum(cell["metadata"]["nbgrader"].get("points", 0) for cell in cells) == sum(
            one.points for one in exercises.exercises
        )
        assert len({cell["id"] for cell in cells}) == len(cells)
