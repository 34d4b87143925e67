"""What a grade is: its points and what is still open, its JSON, and the table of a class."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from made_up import MADE_WITH, SLUGS, class_of, grade_of_states, hostile, reference

import scalelab.grading
from scalelab.course.answers import Answer
from scalelab.grading.judge import FAILED, NOT_JUDGED, PASSED, SET_ASIDE, Verdict
from scalelab.grading.keeper import Keeper
from scalelab.grading.merge import Reference
from scalelab.grading.report import as_json, from_json, grade_of, show_table
from scalelab.grading.submissions import Submission

SCHEMA = Path(scalelab.grading.__file__).parent / "schemas" / "grade.schema.json"


@pytest.fixture(scope="module")
def asyncio_set() -> Reference:
    return reference("08_asyncio")


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def graded(one: Reference, states: dict[str, str]) -> dict[str, Any]:
    """Grade a submission whose questions have these states, the others passed; return the questions by exercise."""
    given = {question.exercise: Answer("pass") for question in one.questions}
    verdicts = {name: Verdict(PASSED, "", True, True) for name in given}
    for name, state in states.items():
        if state == SET_ASIDE:
            given[name] = Answer(None, "line 3 reads the frames of its callers", SET_ASIDE)
            del verdicts[name]
        else:
            verdicts[name] = Verdict(state, "words")
    submission = Submission(**made_up_submission())
    grade = grade_of(one, submission, given, verdicts, seconds=1.23456, notes=["a note"], made_with=MADE_WITH)
    assert (grade.seconds, grade.notes, grade.made_with) == (1.235, ("a note",), MADE_WITH)
    return {"grade": grade, **{question.exercise: question for question in grade.questions}}


def made_up_submission() -> dict[str, Any]:
    values = {"path": Path("ann.ipynb"), "file": "ann.ipynb", "student": "ann", "exercises": "08_asyncio"}
    defaults: dict[str, Any] = {"modified": 12.5}
    return {name: values.get(name, defaults.get(name, ())) for name in Submission.__dataclass_fields__}


@pytest.mark.parametrize("state", [SET_ASIDE, NOT_JUDGED])
def test_what_waits_for_a_person_has_no_points_and_leaves_the_total_open(asyncio_set: Reference, state: str) -> None:
    result = graded(asyncio_set, {"turns": state})
    assert result["turns"].points is None
    assert not result["grade"].final
    assert result["grade"].total == asyncio_set.points - asyncio_set.questions[0].points


def test_a_failed_question_has_points_so_the_total_is_final(asyncio_set: Reference) -> None:
    result = graded(asyncio_set, {"turns": FAILED})
    assert result["turns"].points == 0
    assert result["grade"].final


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("before", ["", "A few words before it, and more of them: "])
def test_a_wrong_idea_is_recognised_however_its_check_wraps_the_words(slug: str, before: str) -> None:
    one = reference(slug)
    given = {question.exercise: Answer("pass") for question in one.questions}
    submission = Submission(**made_up_submission())
    for place in range(max(len(question.wrong) for question in one.questions)):
        wrong = {question.exercise: question.wrong[place % len(question.wrong)] for question in one.questions}
        for width in (40, 71, 92):
            said = {name: textwrap.fill(before + message, width) for name, (_, message) in wrong.items()}
            verdicts = {name: Verdict(FAILED, said=(text, text)) for name, text in said.items()}
            for graded_one in grade_of(one, submission, given, verdicts).questions:
                name, message = wrong[graded_one.exercise]
                assert graded_one.ideas == (name,)
                assert graded_one.hidden_feedback == (message,)


@pytest.mark.parametrize("slug", SLUGS)
def test_json_of_a_class_is_what_the_schema_says(slug: str, validator: Draft202012Validator) -> None:
    for grade in class_of(reference(slug), 60):
        validator.validate(json.loads(json.dumps(as_json(grade))))


def test_a_kept_file_is_what_the_schema_says(
    tmp_path: Path, asyncio_set: Reference, validator: Draft202012Validator
) -> None:
    keeper = Keeper(tmp_path)
    grades = class_of(asyncio_set, 20)
    for grade in [*grades, replace(hostile(grades[0]), student="hostile")]:
        kept = json.loads(keeper.keep(grade).read_text(encoding="utf-8"))
        validator.validate(kept)


def test_the_schema_documents_every_field_and_refuses_others(
    asyncio_set: Reference, validator: Draft202012Validator
) -> None:
    data = as_json(grade_of_states(asyncio_set, [FAILED]))
    schema = validator.schema
    assert isinstance(schema, dict)
    question = schema["$defs"]["question"]
    assert set(data) == set(schema["properties"])
    assert set(data["questions"][0]) == set(question["properties"]) == set(question["required"])
    described = [*schema["properties"].values(), *question["properties"].values()]
    assert all(len(one["description"]) > 20 for one in described)
    wrong: list[dict[str, Any]] = [{**data, "extra": 1}, {**data, "total": "7"}]
    wrong += [{name: value for name, value in data.items() if name != left} for left in schema["required"]]
    wrong += [
        {**data, "questions": [{**data["questions"][0], **change}]}
        for change in ({"state": "lost"}, {"points": None}, {"state": "set aside"}, {"points": -1}, {"extra": 1})
    ]
    for one in wrong:
        assert not validator.is_valid(json.loads(json.dumps(one))), one


def test_a_grade_is_read_back_as_it_was(asyncio_set: Reference) -> None:
    for grade in class_of(asyncio_set, 40):
        assert from_json(json.loads(json.dumps(as_json(grade)))) == grade


def test_a_grade_of_the_first_form_is_read_without_what_it_lacks(asyncio_set: Reference) -> None:
    data = as_json(grade_of_states(asyncio_set, [FAILED])) | {"form": 1}
    for name in ("submitted", "seconds", "notes", "made_with", "final"):
        del data[name]
    data["questions"] = [{k: v for k, v in one.items() if k != "seconds"} for one in data["questions"]]
    assert (from_json(data).total, from_json(data).seconds, from_json(data).notes) == (data["total"], 0, ())


@pytest.mark.parametrize("data", [None, [], {}, {"questions": 3}, {"student": "a"}, "text"])
def test_what_holds_no_grade_is_said_to_hold_none(data: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_json(data)


def table(grades: list[Any], one: Reference) -> list[str]:
    said: list[str] = []
    show_table(grades, [one], said.append, table="GRADES/grades.csv")
    return said


def test_the_table_shows_points_and_question_marks_and_leaves_these_out_of_the_mean(asyncio_set: Reference) -> None:
    grades = [grade_of_states(asyncio_set, [SET_ASIDE], "ann"), grade_of_states(asyncio_set, [FAILED, FAILED], "ben")]
    _, _, most, ann, ben, mean = table(grades, asyncio_set)
    assert most.split() == ["of", "2", "2", "2", "3", "3", "4", "3", "4", "23"]
    assert ann.split() == ["ann", "?", "2", "2", "3", "3", "4", "3", "4", "21+?"]
    assert ben.split() == ["ben", "0", "0", "2", "3", "3", "4", "3", "4", "19"]
    assert mean.split()[:3] == ["mean", "0.0", "1.0"]


def test_the_table_of_a_large_class_stays_short_and_names_the_file_with_all(asyncio_set: Reference) -> None:
    said = table(class_of(asyncio_set, 1000), asyncio_set)
    assert len(said) < 50
    assert "… and 960 more, all in GRADES/grades.csv" in said
    assert said[-1].startswith("mean")


def test_a_long_or_hostile_name_does_not_break_the_table(asyncio_set: Reference) -> None:
    grades = [grade_of_states(asyncio_set, [], name) for name in ("x" * 250, "\x1b[2J\x1b[31mann", "ben")]
    said = table(grades, asyncio_set)
    assert max(map(len, said)) < 120
    assert "\x1b" not in "".join(said)
    assert len({line.rindex("23") for line in said if line.endswith("23")}) == 1
