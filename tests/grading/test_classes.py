"""A made class holds what it is said to hold, and the benchmark that grades it runs and adds up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from classes import BLANK, ENDLESS, HONEST, MISSING, RAISES, RIGHT, UNTOUCHED, WRONG, Paper, hand_in
from peers import Nbval

from scalelab.course import Course
from scalelab.exercises.source import ExerciseSet, read_set
from scalelab.grading.batch import grade
from tiny import cell, load, quiet_sync, source, tiny_course

STUDENTS = 25


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Course:
    course = tiny_course(tmp_path_factory.mktemp("tiny") / "course")
    quiet_sync(course)
    return course


@pytest.fixture(scope="module")
def exercises(tiny: Course) -> ExerciseSet:
    return read_set(source(tiny))


@pytest.fixture(scope="module")
def papers(exercises: ExerciseSet, tmp_path_factory: pytest.TempPathFactory) -> list[Paper]:
    return hand_in(exercises, tmp_path_factory.mktemp("class"), STUDENTS, seed=8)


def kinds(papers: list[Paper]) -> Counter[str]:
    return Counter(answer.kind for paper in papers for answer in paper.answers.values())


def test_a_class_has_the_stated_shares(papers: list[Paper], exercises: ExerciseSet) -> None:
    answers = STUDENTS * len(exercises.exercises)
    assert answers == 100  # so that every share is a whole number of answers
    assert kinds(papers) == {kind: round(share * answers) for kind, share in HONEST.items()}


def test_shares_that_are_no_whole_numbers_are_rounded(exercises: ExerciseSet, tmp_path: Path) -> None:
    shares = {RIGHT: 1 / 3, WRONG: 1 / 3, BLANK: 1 / 3}
    counts = kinds(hand_in(exercises, tmp_path, 2, seed=1, shares=shares))
    assert sorted(counts.values()) == [2, 3, 3]
    with pytest.raises(ValueError, match=r"sum to 0\.9"):
        hand_in(exercises, tmp_path / "other", 2, seed=1, shares={RIGHT: 0.9})


def test_who_is_right_once_is_likelier_to_be_right_again(papers: list[Paper]) -> None:
    right = [sum(answer.kind == RIGHT for answer in paper.answers.values()) for paper in papers]
    mean = sum(right) / STUDENTS
    share = mean / len(papers[0].answers)
    alike = sum((one - mean) ** 2 for one in right) / STUDENTS
    assert alike > 1.5 * len(papers[0].answers) * share * (1 - share)  # a coin for every answer would give 1


def test_the_same_seed_makes_the_same_class(papers: list[Paper], exercises: ExerciseSet, tmp_path: Path) -> None:
    again = hand_in(exercises, tmp_path / "again", STUDENTS, seed=8)
    assert [paper.path.read_bytes() for paper in again] == [paper.path.read_bytes() for paper in papers]
    other = hand_in(exercises, tmp_path / "other", STUDENTS, seed=9)
    assert [paper.answers for paper in other] != [paper.answers for paper in papers]


def test_answers_are_what_their_kinds_say(papers: list[Paper], exercises: ExerciseSet) -> None:
    by_id = {one.id: one for one in exercises.exercises}
    for paper in papers:
        ids = {one["id"] for one in load(paper.path)["cells"]}
        for name, answer in paper.answers.items():
            assert (name in ids) == (answer.kind != MISSING)
            text = "".join(cell(load(paper.path), name)["source"]) if name in ids else None
            assert text == answer.source
            one = by_id[name]
            own = f"# {paper.student}\n"
            if answer.kind == WRONG:
                assert answer.source in {own + wrong.source for wrong in one.wrongs if wrong.name == answer.idea}
            elif answer.kind == RAISES:
                assert answer.source is not None
                assert answer.source.startswith(f"{own}raise ")
            else:
                sources = {RIGHT: own + one.solution, UNTOUCHED: one.starter, BLANK: "", MISSING: None}
                assert answer.source == sources[answer.kind]


def test_a_share_of_the_students_has_one_endless_answer(exercises: ExerciseSet, tmp_path: Path) -> None:
    papers = hand_in(exercises, tmp_path, 20, seed=8, endless=0.1)
    counts = [sum(answer.kind == ENDLESS for answer in paper.answers.values()) for paper in papers]
    assert sorted(counts, reverse=True) == [1, 1, *[0] * 18]


def test_a_submission_is_a_notebook_that_was_run(papers: list[Paper]) -> None:
    for paper in papers[:3]:
        notebook = nbformat.read(paper.path, as_version=4)
        nbformat.validate(notebook)
        code = [one for one in notebook.cells if one.cell_type == "code"]
        assert [one.execution_count for one in code] == list(range(1, len(code) + 1))
        assert any(one.outputs for one in code)


def test_nbval_alone_gives_the_points_that_we_give(tiny: Course, exercises: ExerciseSet, tmp_path: Path) -> None:
    papers = hand_in(exercises, tmp_path / "submissions", 2, seed=8)
    nbval = Nbval(tiny, exercises, papers, tmp_path / "nbval")
    nbval.grade(30.0)
    ours = grade(tmp_path / "submissions", tmp_path / "grades", course=tiny, report=str)
    assert nbval.points() == {one.student: {q.exercise: q.points for q in one.questions} for one in ours.grades}


def test_the_benchmark_runs(course: Course, tiny: Course) -> None:
    script = course.root / "benchmarks" / "grading.py"
    options = ["--sets=01_tiny", "--students=2", "--rounds=1", "--only=scalelab", "--class=2", "--timeout=2"]
    run = subprocess.run(
        [sys.executable, str(script), "--course", str(tiny.root), *options],
        cwd=tiny.root,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert re.search(r"^01_tiny( +\d+\.\d\d){2} +\d+( +\d+\.\d\d){2}$", run.stdout, re.MULTILINE), run.stdout
    assert "\n8 of 8 answers graded as they were made\n" in run.stdout
    assert re.search(r"^\d+ s, .* memory at most [1-9]\d+ MiB", run.stdout, re.MULTILINE), run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 120
