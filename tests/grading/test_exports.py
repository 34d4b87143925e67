"""Grades in the columns that nbgrader, Canvas and Moodle document; no cell is a formula, no grade is wiped."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import class_of, grade_of_states, hostile, reference

from scalelab.exercises.reference import Reference
from scalelab.grading.grades import Grade
from scalelab.grading.judging.results import FAILED, NOT_JUDGED
from scalelab.grading.outputs.exports import Export, canvas_csv, moodle_csv, nbgrader_csv, questions_csv
from scalelab.grading.outputs.plain_text import spreadsheet_safe
from scalelab.grading.submissions.layouts import BadInput
from scalelab.grading.submissions.roster import Person, read_canvas_ids, read_roster

# nbgrader/plugins/export.py of jupyter/nbgrader, the keys of CsvExportPlugin
NBGRADER = [
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
    *("raw_score", "late_submission_penalty", "score", "max_score"),
]
# lib/gradebook_exporter.rb of instructure/canvas-lms, with the SIS id; the importer wants them at these places
CANVAS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
FORMULA = re.compile(r"[\s\"'\ufeff\u200b]*[=+\-@＝＋－＠]")  # noqa: RUF001
ROSTER = {
    "ann": Person("ann", "Ann", "Lee", "ann@uni.example", "101", "S1", "alee", "A", "007"),
    "ben": Person("ben", "Ben", "Ode", "ben@uni.example", "102", "S2", "bode", "B", "008"),
}


@pytest.fixture(scope="module")
def asyncio_set() -> Reference:
    return reference("08_asyncio")


@pytest.fixture
def two(asyncio_set: Reference) -> list[Grade]:
    return [grade_of_states(asyncio_set, [FAILED], "ann"), grade_of_states(asyncio_set, [FAILED, FAILED], "ben")]


@pytest.fixture
def with_open(asyncio_set: Reference, two: list[Grade]) -> list[Grade]:
    """Two final grades, and one of which a question was not judged."""
    return [*two, grade_of_states(asyncio_set, [NOT_JUDGED], "cem")]


def rows(export: Export) -> list[list[str]]:
    return list(csv.reader(io.StringIO(export.text)))


def columns(export: Export) -> dict[str, list[str]]:
    header, *body = rows(export)
    return {name: [row[place] for row in body] for place, name in enumerate(header)}


def test_nbgraders_columns_and_values(two: list[Grade]) -> None:
    export = nbgrader_csv(two, ROSTER)
    assert rows(export)[0] == NBGRADER
    assert rows(export)[1] == [
        *("08_asyncio", "", "2025-11-22 08:26:40", "ann", "Lee", "Ann", "ann@uni.example"),
        *("21.0", "0.0", "21.0", "23.0"),
    ]


def test_nbgraders_rows_need_no_roster(two: list[Grade]) -> None:
    found = columns(nbgrader_csv(two))
    assert found["student_id"] == ["ann", "ben"]
    assert found["email"] == found["last_name"] == ["", ""]


def test_canvas_columns_and_the_row_of_possible_points(two: list[Grade]) -> None:
    header, possible, ann, ben = rows(canvas_csv(two, ROSTER, 4711))
    assert header == [*CANVAS, "08_asyncio (4711)"]
    assert "Points Possible" in possible[0]
    assert possible[1:] == ["", "", "", "", "23"]
    assert ann == ["Lee, Ann", "101", "S1", "alee", "A", "21"]
    assert ben == ["Ode, Ben", "102", "S2", "bode", "B", "19"]


def test_canvas_takes_the_submissions_name_for_the_login_where_there_is_no_roster(two: list[Grade]) -> None:
    header, _, ann, _ = rows(canvas_csv(two))
    assert header[-1] == "08_asyncio"
    assert ann == ["ann", "", "", "ann", "", "21"]


def test_canvas_leaves_out_whom_it_could_not_find_or_would_misread(two: list[Grade]) -> None:
    nameless = {"ann": replace(ROSTER["ann"], canvas_id="", sis_user_id="", sis_login_id=""), "ben": ROSTER["ben"]}
    assert set(canvas_csv(two, nameless).left_out) == {"ann"}
    posing = replace(two[0], student="Points Possible")
    export = canvas_csv([posing, two[1]])
    assert set(export.left_out) == {"Points Possible"}
    assert sum("Points Possible" in row[0] for row in rows(export)) == 1


def test_moodle_has_a_key_and_a_grade_in_every_row(two: list[Grade]) -> None:
    header, ann, ben = rows(moodle_csv(two, ROSTER))
    assert header == ["ID number", "First name", "Last name", "08_asyncio", "08_asyncio (feedback)"]
    assert ann[:4] == ["007", "Ann", "Lee", "21"]
    assert ben[:4] == ["008", "Ben", "Ode", "19"]
    assert ann[4] == (
        "21 of 23 points: turns 0/2, assemble 2/2, ordered 2/2, bounded 3/3, settled 3/3, deadline 4/4, unblock 3/3, "
        "crawler 4/4"
    )


def test_moodle_goes_by_address_where_more_have_one_and_leaves_out_who_has_none(two: list[Grade]) -> None:
    # Moodle gives the grade of a row without a key to the user of the row before.
    by_address = {name: replace(person, idnumber="") for name, person in ROSTER.items()}
    assert rows(moodle_csv(two, by_address))[0][0] == "Email address"
    by_address["ben"] = replace(by_address["ben"], email="")
    export = moodle_csv(two, by_address)
    assert [row[0] for row in rows(export)] == ["Email address", "ann@uni.example"]
    assert set(export.left_out) == {"ben"}


def test_moodle_takes_the_submissions_name_for_the_user_name_where_there_is_no_roster(two: list[Grade]) -> None:
    assert [row[0] for row in rows(moodle_csv(two))] == ["Username", "ann", "ben"]


def test_a_total_that_is_not_final_is_in_no_export(with_open: list[Grade]) -> None:
    for export in (nbgrader_csv(with_open), canvas_csv(with_open), moodle_csv(with_open)):
        assert set(export.left_out) == {"cem"}
        assert "not final" in export.left_out["cem"]
        assert "cem" not in export.text
        assert "ann" in export.text


def test_who_is_not_in_the_roster_is_left_out_where_the_roster_names_people(two: list[Grade]) -> None:
    only_ann = {"ann": ROSTER["ann"]}
    for export in (canvas_csv(two, only_ann), moodle_csv(two, only_ann)):
        assert export.left_out == {"ben": "not in the roster"}
    assert columns(nbgrader_csv(two, only_ann))["student_id"] == ["ann", "ben"]


def test_questions_have_a_row_each_and_open_points_are_empty(with_open: list[Grade]) -> None:
    found = columns(questions_csv(with_open))
    assert list(found) == [
        *("student", "exercises", "question", "state", "points", "max", "visible_points", "hidden_points"),
        *("seconds", "ideas"),
    ]
    assert len(found["student"]) == 3 * 8
    by_state = {state: points for state, points in zip(found["state"], found["points"], strict=True) if points == ""}
    assert set(by_state) == {NOT_JUDGED}
    assert found["ideas"][0] == with_open[0].questions[0].ideas[0]


def test_a_class_sums_up_alike_in_every_export(asyncio_set: Reference) -> None:
    grades = class_of(asyncio_set, 200)
    final = {grade.student: grade.total for grade in grades if grade.final}
    assert 0 < len(final) < 200
    nbgrader, moodle = columns(nbgrader_csv(grades)), columns(moodle_csv(grades))
    canvas = columns(canvas_csv(grades))
    assert dict(zip(nbgrader["student_id"], map(float, nbgrader["score"]), strict=True)) == final
    assert dict(zip(moodle["Username"], map(int, moodle["08_asyncio"]), strict=True)) == final
    assert dict(zip(canvas["SIS Login ID"][1:], map(int, canvas["08_asyncio"][1:]), strict=True)) == final


def test_no_cell_of_a_hostile_class_is_a_formula(asyncio_set: Reference) -> None:
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", '"=1', "'=1", "\ufeff=1", "＝1", "\n=1"]  # noqa: RUF001
    grades = [replace(hostile(grade_of_states(asyncio_set, [FAILED], name)), student=name) for name in names]
    roster = {name: Person(name, *[name] * 8) for name in names}
    for persons in (None, roster):
        for export in (
            *(make(grades, persons) for make in (nbgrader_csv, canvas_csv, moodle_csv)),
            questions_csv(grades),
        ):
            header, *body = rows(export)
            assert len(body) >= len(names)
            for row in body:
                assert len(row) == len(header)
                assert not [cell for cell in row if FORMULA.match(cell) and not cell.startswith("'")], row


@given(st.text(st.sampled_from(" \t\r\n\"'=+-@\ufeff\0\x1b[m＝ab1"), max_size=8))  # noqa: RUF001
def test_whatever_stands_before_it_a_formula_is_text(text: str) -> None:
    safe = spreadsheet_safe(text)
    assert safe.startswith("'") or not FORMULA.match(safe)
    assert not set(safe) & set("\t\r\n\0\x1b")


@pytest.mark.parametrize(("value", "cell"), [(-3, "-3"), (-2.5, "-2.5"), (0, "0"), (None, ""), ("a-b", "a-b")])
def test_numbers_stay_numbers(value: object, cell: str) -> None:
    assert spreadsheet_safe(value) == cell


def written(folder: Path, text: str) -> Path:
    path = folder / "roster.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_roster_is_read_however_a_spreadsheet_saves_it(tmp_path: Path, separator: str, start: str) -> None:
    lines = ["email,student,idnumber,nickname", "ann@uni.example,ann, 007 ,Annie", "ben@uni.example,ben,,", ""]
    roster = read_roster(written(tmp_path, start + "\r\n".join(lines).replace(",", separator)))
    assert roster == {
        "ann": Person("ann", email="ann@uni.example", idnumber="007"),
        "ben": Person("ben", email="ben@uni.example"),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,email\nann,a@b\n", "no column student; it has name, email. Expected student, first_name"),
        ("", "no column student; it has none"),
        ("student,student\na,b\n", "more than one column student"),
        ("student,email\nann,a@b\n,c@d\n", "line 3: student is empty"),
        ("student\nann\nben\nann\n", "lines 2 and 4: both have the student ann"),
        ("student,idnumber\nann,7\nben,7\n", "lines 2 and 3: both have the idnumber 7"),
        ("student,email\nann,a@b\nben,a@b\n", "lines 2 and 3: both have the email a@b"),
        ("student,email\nann,a@b,more\n", "line 2: has more cells"),
        ('student\n"ann\n', "no CSV"),
    ],
)
def test_a_bad_roster_is_refused_with_the_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        read_roster(written(tmp_path, text))


def test_a_roster_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("student\nÅsa\n".encode("latin-1"))
    with pytest.raises(BadInput, match="UTF-8"):
        read_roster(tmp_path / "latin.csv")
    with pytest.raises(BadInput, match="cannot be read"):
        read_roster(tmp_path / "nowhere.csv")


def test_canvas_ids_are_read(asyncio_set: Reference) -> None:
    assert read_canvas_ids(["08_asyncio=12", "02_laws=9"], ["02_laws", "08_asyncio"]) == {
        "08_asyncio": 12,
        "02_laws": 9,
    }


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (["nowhere=1"], "no set 'nowhere'; expected one of 02_laws"),
        (["02_laws"], "expected SET=NUMBER"),
        (["02_laws=x"], "expected SET=NUMBER"),
        (["02_laws=-1"], "expected SET=NUMBER"),
        (["02_laws=1", "02_laws=2"], "has the id 1 already"),
    ],
)
def test_bad_canvas_ids_are_refused(pairs: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        read_canvas_ids(pairs, ["02_laws"])
