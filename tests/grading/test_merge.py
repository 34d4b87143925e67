"""Answers go into the reference, and nothing else of a submission does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab.exercises.answers import Answer
from scalelab.exercises.handed_in import answers
from scalelab.exercises.reference import BadReference, Reference, read_reference
from scalelab.exercises.released import reference as reference_notebook
from scalelab.exercises.released import student
from scalelab.exercises.source import Exercise, ExerciseSet, Wrong
from scalelab.grading.grades import grade_of
from scalelab.grading.judging.assemble import assembled, checks_of
from scalelab.grading.judging.results import FAILED, PASSED, CheckResult, Result
from scalelab.grading.submissions.layouts import Submission
from scalelab.notebooks.format import text_of, written
from scalelab.notebooks.untrusted import HandedIn, read
from tiny import FOLDER, cell, load

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
NAMES = ["add", "sort_it", "b2", "mend"]
EXERCISES = st.builds(
    Exercise,
    id=st.sampled_from(NAMES),
    kind=st.just("write"),
    line=st.just(0),
    prompt=TEXT,
    hints=st.tuples(TEXT, TEXT, TEXT),
    starter=TEXT,
    solution=TEXT.map(lambda text: f"{text}\nanswer"),
    check=TEXT.map(repr),
    check_points=st.integers(1, 9),
    hidden=TEXT.map(repr),
    hidden_points=st.integers(1, 9),
    wrongs=st.lists(st.builds(Wrong, st.just("wrong"), TEXT, TEXT), max_size=1).map(tuple),
    reading=TEXT,
)
SETS = st.builds(
    ExerciseSet,
    slug=st.just("01_tiny"),
    title=TEXT,
    minutes=st.just(1),
    intro=TEXT,
    setup=st.lists(TEXT, max_size=2).map(tuple),
    exercises=st.lists(EXERCISES, min_size=1, max_size=4, unique_by=lambda one: one.id).map(tuple),
)
ANN = Submission("ann.ipynb", "ann", "01_tiny", 0.0, HandedIn("", "", ()))
CHECK_RESULTS = st.builds(CheckResult, st.booleans())
RESULTS = st.builds(Result, st.sampled_from([PASSED, FAILED]), visible=CHECK_RESULTS, hidden=CHECK_RESULTS)
FULL = Result(PASSED, visible=CheckResult(passed=True), hidden=CheckResult(passed=True))


def reference_of(exercises: ExerciseSet, folder: Path) -> Reference:
    checks = [f"{one.id}-{role}" for one in exercises.exercises for role in ("check", "hidden")]
    path = folder / "reference.ipynb"
    path.write_text(
        written(reference_notebook(exercises, dict.fromkeys(checks, "✓\n"), "d")), encoding="utf-8", newline=""
    )
    return read_reference(path)


def handed_in(notebook: dict[str, Any], folder: Path) -> HandedIn:
    path = folder / "ann.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return read(path)


@settings(deadline=None)
@given(SETS)
def test_a_student_notebook_with_the_solutions_gets_full_points(
    tmp_path_factory: pytest.TempPathFactory, exercises: ExerciseSet
) -> None:
    folder = tmp_path_factory.getbasetemp()
    reference = reference_of(exercises, folder)
    own = student(exercises)
    for one in exercises.exercises:
        cell(own, one.id)["source"] = one.solution
    submission = handed_in(own, folder)
    given_answers = answers(reference, submission.cells)

    assert submission.exercises == "01_tiny"
    for question, one in zip(reference.questions, exercises.exercises, strict=True):
        assert given_answers[one.id] == Answer(one.solution)
        for check in checks_of(reference, {one.id: one.solution}):
            (placed,) = assembled(reference, [check])["cells"][1:]
            original = question.check(check.role)
            assert placed["source"].endswith("\n" + text_of(original["source"]))
            assert placed["outputs"] == original["outputs"]
    results = {one.id: FULL for one in exercises.exercises}
    grade = grade_of(reference, ANN, given_answers, results)
    assert grade.total == grade.max == sum(one.points for one in exercises.exercises)


@settings(deadline=None)
@given(SETS, st.data())
def test_no_answer_changes_a_locked_cell_or_a_point(
    tmp_path_factory: pytest.TempPathFactory, exercises: ExerciseSet, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    reference = reference_of(exercises, folder)
    before = written(reference.notebook)
    own = student(exercises)
    for one in own["cells"]:
        one["source"] = data.draw(TEXT)
        one["metadata"]["tags"] = ["nbval-skip", "raises-exception"]
        one["metadata"]["nbgrader"]["points"] = 100
    submission = handed_in(own, folder)
    given_answers = answers(reference, submission.cells)
    results = {}
    for question in reference.questions:
        name = question.exercise
        source = given_answers[name].source
        if source is not None:
            assert source == text_of(cell(own, name)["source"])
            results[name] = data.draw(RESULTS)
    sources = {name: answer.source for name, answer in given_answers.items() if answer.source is not None}
    merged = assembled(reference, checks_of(reference, sources))
    assert [one["id"] for one in merged["cells"]] == [
        "set-up",
        *(f"{name}-{role}" for name in sources for role in ("check", "hidden")),
    ]
    for one in merged["cells"][1:]:
        original = cell(reference.notebook, one["id"])
        assert one["source"].endswith("\n" + text_of(original["source"]))
        assert one["outputs"] == original["outputs"]
    assert written(reference.notebook) == before
    grade = grade_of(reference, ANN, given_answers, results)
    for question, one in zip(reference.questions, grade.questions, strict=True):
        result = results.get(question.exercise)
        expected = (
            (question.visible_points * result.visible.passed, question.hidden_points * result.hidden.passed)
            if result
            else (0, 0)
        )
        assert (one.visible_points, one.hidden_points) == expected
        assert (one.points, one.max) == (sum(expected), question.points)


@pytest.fixture(scope="module")
def tiny() -> Reference:
    return read_reference(FOLDER / "golden" / "reference.ipynb")


def test_the_reference_is_split_into_questions(tiny: Reference) -> None:
    assert (tiny.slug, tiny.points) == ("01_tiny", 10)
    assert [question.exercise for question in tiny.questions] == ["add", "last", "ordered", "mend"]
    add = tiny.questions[0]
    assert (add.visible_points, add.hidden_points, add.points) == (1, 2, 3)
    assert add.solution == "def add(a, b):\n    return a + b"
    assert add.wrong[0] == ("no-return", "Return the sum.")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda notebook: notebook["metadata"].pop("scalelab"), "is not a reference; run `scalelab course sync`"),
        (lambda notebook: cell(notebook, "add-check").update(outputs=[]), "has no output of add-check"),
        (lambda notebook: notebook["cells"].remove(cell(notebook, "add-hidden")), "is not a reference"),
        (lambda notebook: notebook["cells"].clear(), "has no question"),
    ],
)
def test_a_bad_reference_is_refused(tmp_path: Path, spoil: Any, words: str) -> None:
    notebook = load(FOLDER / "golden" / "reference.ipynb")
    spoil(notebook)
    path = tmp_path / "reference.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    with pytest.raises(BadReference, match=words) as caught:
        read_reference(path)
    assert "run `scalelab course sync`" in str(caught.value)
