"""What a grade is: its points and what is still open, its JSON, and the table of a class."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from made_up import MADE_WITH, SLUGS, class_of, grade_of_states, hostile, reference
from rich.cells import cell_len

import scalelab.grading
from scalelab.checks import Expectation, Verdict
from scalelab.exercises.answers import Answer
from scalelab.exercises.reference import Question, Reference
from scalelab.grading.grade_store import GradeStore
from scalelab.grading.grades import QuestionGrade, as_json, from_json, grade_of, show_table
from scalelab.grading.judging.results import FAILED, NOT_JUDGED, PASSED, RAISED, CheckResult, Result
from scalelab.grading.submissions.layouts import Submission
from scalelab.notebooks.untrusted import HandedIn, SubmittedCell

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
    results = dict.fromkeys(given, Result(PASSED, visible=CheckResult(True), hidden=CheckResult(True)))
    results |= {name: Result(state, "words") for name, state in states.items()}
    submission = Submission(**made_up_submission())
    grade = grade_of(one, submission, given, results, seconds=1.23456, notes=["a note"], made_with=MADE_WITH)
    assert (grade.seconds, grade.notes, grade.made_with) == (1.235, ("a note",), MADE_WITH)
    return {"grade": grade, **{question.exercise: question for question in grade.questions}}


def made_up_submission() -> dict[str, Any]:
    values = {"file": "ann.ipynb", "student": "ann", "exercises": "08_asyncio"}
    defaults: dict[str, Any] = {"modified": 12.5, "contents": HandedIn("", "", ())}
    return {name: values.get(name, defaults.get(name, ())) for name in Submission.__dataclass_fields__}


def test_what_was_not_judged_has_no_points_and_leaves_the_total_open(asyncio_set: Reference) -> None:
    result = graded(asyncio_set, {"turns": NOT_JUDGED})
    assert result["turns"].points is None
    assert not result["grade"].final
    assert result["grade"].total == asyncio_set.points - asyncio_set.questions[0].points


def test_a_failed_question_has_points_so_the_total_is_final(asyncio_set: Reference) -> None:
    result = graded(asyncio_set, {"turns": FAILED})
    assert result["turns"].points == 0
    assert result["grade"].final


def failing(question: Question, **options: str) -> Verdict:
    return Verdict(question.exercise, (Expectation("it works", False, **options),))


def grade_alike(one: Reference, result: Callable[[Question], Result], **options: Any) -> Sequence[QuestionGrade]:
    """Return the questions' grades, if each has the result that the function makes."""
    given = {question.exercise: Answer("pass") for question in one.questions}
    results = {question.exercise: result(question) for question in one.questions}
    return grade_of(one, Submission(**made_up_submission()), given, results, **options).questions


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("by", ["words", "idea"])
def test_a_wrong_idea_is_recognised_by_its_name_or_its_authors_words(slug: str, by: str) -> None:
    one = reference(slug)
    for place in range(max(len(question.wrong) for question in one.questions)):
        wrong = {question.exercise: question.wrong[place % len(question.wrong)] for question in one.questions}

        def result(question: Question, wrong: Mapping[str, tuple[str, str]] = wrong) -> Result:
            name, message = wrong[question.exercise]
            options = {"idea": name} if by == "idea" else {"words": f"A few words before it: {message}"}
            check = CheckResult(False, failing(question, **options))
            return Result(FAILED, visible=check, hidden=check)

        for question in grade_alike(one, result):
            name, message = wrong[question.exercise]
            assert question.ideas == (name,)
            assert question.hidden_feedback == (message,)


def test_words_that_an_answer_prints_raises_or_returns_name_no_idea(asyncio_set: Reference) -> None:
    """Else an answer could choose, by the hidden check's data, which of them its page shows."""

    def result(question: Question) -> Result:
        _, message = question.wrong[0]
        verdict = failing(question, words="It does not.", seen=message, detail=f"ValueError: {message}")
        verdict = replace(verdict, printed=(f"✗ it works\n  {message}",))
        check = CheckResult(False, verdict)
        return Result(FAILED, visible=check, hidden=check, printed=message)

    for question in grade_alike(asyncio_set, result):
        assert question.ideas == ()
        assert question.hidden_feedback == ()


def test_nothing_of_a_hidden_check_but_its_authors_words_is_in_a_grade(asyncio_set: Reference) -> None:
    def result(question: Question) -> Result:
        hidden = failing(
            question, words="secret words", seen="secret value", detail="secret detail", idea="secret-idea"
        )
        hidden = replace(hidden, printed=("secret print",), never_awaited=("secret_name",))
        visible = CheckResult(True, Verdict(question.exercise, (Expectation("it works", held=True),)))
        return Result(FAILED, visible=visible, hidden=CheckResult(False, hidden))

    for question in grade_alike(asyncio_set, result):
        assert question.hidden_feedback == ()
        assert question.ideas == ("secret-idea",)
        assert "secret" not in str(replace(question, ideas=()))


def test_feedback_is_what_a_notebook_shows(asyncio_set: Reference) -> None:
    def result(question: Question) -> Result:
        verdict = replace(failing(question, words="It does not.", seen="3"), never_awaited=("fetch",))
        return Result(FAILED, visible=CheckResult(False, verdict), printed="here\n")

    question = grade_alike(asyncio_set, result)[0]
    assert question.feedback == (
        "✗ it works\n  It does not.\n  Seen: 3\n"
        "Called, but never awaited, so that nothing of it has run: `fetch`\nYour code printed:\n  here"
    )
    assert (question.printed, question.never_awaited) == ("here", ("fetch",))
    assert question.expectations == (Expectation("it works", False, "It does not.", "3"),)


def test_what_is_printed_costs_nothing_and_is_cut(asyncio_set: Reference) -> None:
    passed = CheckResult(True)
    question = grade_alike(
        asyncio_set, lambda _: Result(PASSED, visible=passed, hidden=passed, printed="line\n" * 100_000)
    )[0]
    assert question.points == question.max
    assert question.feedback == ""
    assert question.printed.startswith("line\nline\n")
    assert len(question.printed) < 5000


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("async def ordered(jobs):\n    return [helper(np.sum(job)) for job in jobs]", ["helper", "np"]),
        ("def ordered(helper):\n    np = 3\n    return helper(np)", []),
        ("def helper(): ...\nimport numpy as np\nhelper(np)", []),
        ("# helper\nordered = 'np'", []),
        ("%%time\nhelper(np)", []),
        ("asyncio.gather(max(ordered))", []),
    ],
)
def test_a_failing_answer_is_told_what_stands_in_the_students_own_cells(
    asyncio_set: Reference, source: str, names: list[str]
) -> None:
    own = "import numpy as np\nimport asyncio\n\ndef helper(job):\n    return job\nmax = len\n"
    cells = [
        SubmittedCell(("own",), "code", own),
        SubmittedCell(("note",), "markdown", "source = 5"),
        SubmittedCell(("turns",), "code", source),
    ]
    given = {question.exercise: Answer(source) for question in asyncio_set.questions}
    results = dict.fromkeys(given, Result(RAISED, "NameError: name 'helper' is not defined"))
    results["turns"] = Result(PASSED, visible=CheckResult(True), hidden=CheckResult(True))
    turns, other, *_ = grade_of(asyncio_set, Submission(**made_up_submission()), given, results, cells=cells).questions
    sentences = [f"`{name}` stands in a cell of your own: move it into the answer." for name in names]
    assert [line.partition(" Answers")[0] for line in other.reason.splitlines()[1:]] == sentences
    assert other.feedback == other.reason
    assert turns.reason == ""


@pytest.mark.parametrize("slug", SLUGS)
def test_json_of_a_class_is_what_the_schema_says(slug: str, validator: Draft202012Validator) -> None:
    for grade in class_of(reference(slug), 60):
        validator.validate(json.loads(json.dumps(as_json(grade))))


def test_a_kept_file_is_what_the_schema_says(
    tmp_path: Path, asyncio_set: Reference, validator: Draft202012Validator
) -> None:
    keeper = GradeStore(tmp_path)
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
        for change in (
            {"state": "lost"},
            {"points": None},
            {"state": "set aside"},
            {"state": NOT_JUDGED},
            {"points": -1},
            {"extra": 1},
        )
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
    later = {"seconds", "reason", "expectations", "never_awaited", "printed", "note"}
    data["questions"] = [{k: v for k, v in one.items() if k not in later} for one in data["questions"]]
    assert (from_json(data).total, from_json(data).seconds, from_json(data).notes) == (data["total"], 0, ())


@pytest.mark.parametrize("data", [None, [], {}, {"questions": 3}, {"student": "a"}, "text"])
def test_what_holds_no_grade_is_said_to_hold_none(data: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_json(data)


@pytest.mark.parametrize("damage", [None, [], 3, "text", {"a": []}])
def test_a_damaged_grade_is_none(asyncio_set: Reference, damage: Any) -> None:
    data = as_json(grade_of_states(asyncio_set, [FAILED]))
    for name in data:
        with suppress(KeyError, TypeError, ValueError):
            from_json(data | {name: damage})


def table(grades: list[Any], one: Reference) -> list[str]:
    said: list[str] = []
    show_table(grades, [one], said.append, table="GRADES/grades.csv")
    return said


def test_the_table_shows_points_and_question_marks_and_leaves_these_out_of_the_mean(asyncio_set: Reference) -> None:
    grades = [grade_of_states(asyncio_set, [NOT_JUDGED], "ann"), grade_of_states(asyncio_set, [FAILED, FAILED], "ben")]
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


def test_wide_letters_and_brackets_do_not_break_the_table(asyncio_set: Reference) -> None:
    said = table([grade_of_states(asyncio_set, [], name) for name in ("李小龙", "[red]ann")], asyncio_set)
    chinese, ann = (next(line for line in said if line.startswith(name)) for name in ("李小龙", "[red]ann"))
    assert cell_len(chinese) == cell_len(ann)
