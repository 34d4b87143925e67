"""All that is written from the grades in a folder: each file is there, and trouble with one costs no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_up import MADE_WITH, class_of, grade_of_states, reference

from scalelab.grading.grades import Grade, as_json
from scalelab.grading.judging.results import FAILED, NOT_JUDGED
from scalelab.grading.outputs import write as outputs
from scalelab.grading.outputs.write import stored_grades, write_outputs
from scalelab.grading.submissions.roster import Person

SLUGS = ("02_laws", "08_asyncio")
PER_SET = ("class/{}.html", "class/{}.json", "canvas/{}.csv", "moodle/{}.csv")
FOR_ALL = ("nbgrader.csv", "questions.csv", "left_out.csv")


@dataclass
class Folder:
    """A folder of grades, and what was said when its outputs were written."""

    out: Path
    said: list[str] = field(default_factory=list)

    def keep(self, *grades: Grade) -> None:
        for grade in grades:
            path = self.out / grade.exercises / f"{grade.student}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(as_json(grade)), encoding="utf-8")

    def write(self, **options: object) -> None:
        self.said.clear()
        references = {slug: reference(slug) for slug in SLUGS}
        write_outputs(self.out, references, report=self.said.append, **options)  # type: ignore[arg-type]

    def files(self) -> dict[str, tuple[bytes, int]]:
        found = (path for path in self.out.rglob("*") if path.is_file())
        return {one.relative_to(self.out).as_posix(): (one.read_bytes(), one.stat().st_mtime_ns) for one in found}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def two_sets(folder: Folder) -> Folder:
    for slug in SLUGS:
        folder.keep(*class_of(reference(slug), 5))
    return folder


def test_every_output_is_there(two_sets: Folder) -> None:
    kept = set(two_sets.files())
    two_sets.write()
    expected = {text.format(slug) for slug in SLUGS for text in PER_SET} | set(FOR_ALL)
    for name in kept:
        expected |= {f"feedback/{name.removesuffix('json')}html", f"junit/{name.removesuffix('json')}xml"}
    assert set(two_sets.files()) == kept | expected
    for name, (data, _) in two_sets.files().items():
        if name.endswith(".xml"):
            ElementTree.fromstring(data)
        elif name.endswith(".html"):
            assert data.startswith(b"<!doctype html>")
        assert MADE_WITH["python"].encode() in data or not name.endswith("html")


def test_what_would_not_change_is_not_written_again_and_what_changes_is(two_sets: Folder) -> None:
    two_sets.write()
    before = two_sets.files()
    two_sets.write()
    assert two_sets.files() == before
    two_sets.keep(grade_of_states(reference("08_asyncio"), [FAILED], "student-0001"))
    two_sets.write()
    changed = {name for name, state in two_sets.files().items() if state != before[name]}
    assert {"feedback/08_asyncio/student-0001.html", "junit/08_asyncio/student-0001.xml"} <= changed
    assert not [name for name in changed if "02_laws" in name or "student-0002" in name]


def test_files_that_hold_no_grade_are_passed_over(two_sets: Folder) -> None:
    two_sets.write()
    kept = list(stored_grades(two_sets.out))
    odd = {"broken": "{", "list": "[]", "empty": "", "other": json.dumps({"student": "x"}), "deep": "[" * 100_000}
    moved = as_json(kept[0].grade) | {"exercises": "../../elsewhere"}
    for name, text in {**odd, "moved": json.dumps(moved)}.items():
        (two_sets.out / "08_asyncio" / f"{name}.json").write_text(text, encoding="utf-8")
    assert list(stored_grades(two_sets.out)) == kept
    assert len(kept) == 10


def test_a_name_inside_a_file_leads_nowhere_else(folder: Folder) -> None:
    grade = grade_of_states(reference("08_asyncio"), [], "ann")
    folder.keep(grade)
    path = folder.out / "08_asyncio" / "ann.json"
    path.write_text(json.dumps(as_json(grade) | {"student": "../../../outside"}), encoding="utf-8")
    folder.write()
    assert (folder.out / "feedback" / "08_asyncio" / "ann.html").is_file()
    assert not list(folder.out.parent.glob("outside*"))


def test_an_empty_folder_gets_nothing(folder: Folder) -> None:
    folder.write()
    assert folder.files() == {}
    assert folder.said == []


def test_an_output_that_fails_is_reported_by_name_and_the_others_are_written(
    two_sets: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise ValueError("no such luck")

    monkeypatch.setattr(outputs, "moodle_csv", broken)
    monkeypatch.setattr(outputs, "feedback_page", broken)
    two_sets.write()
    files = two_sets.files()
    assert not [name for name in files if name.startswith(("moodle", "feedback"))]
    assert {"canvas/02_laws.csv", "class/08_asyncio.html", *FOR_ALL} <= set(files)
    assert "Not written: 1 of 1 export. The first: moodle/02_laws.csv (ValueError: no such luck)" in two_sets.said
    assert any(line.startswith("Not written: 5 of 5 pages. The first: feedback/02_laws/stud") for line in two_sets.said)


@pytest.mark.parametrize("place", ["class", "feedback/08_asyncio", "nbgrader.csv"])
def test_a_place_that_is_taken_is_reported_and_the_others_are_written(two_sets: Folder, place: str) -> None:
    path = two_sets.out / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if place.endswith(".csv"):
        (path / "inside").mkdir(parents=True)
    else:
        path.write_text("taken", encoding="utf-8")
    two_sets.write()
    files = set(two_sets.files())
    assert any(line.startswith("Not written:") and place in line for line in two_sets.said)
    assert {"questions.csv", "junit/08_asyncio/student-0000.xml", "feedback/02_laws/student-0000.html"} <= files


def test_a_full_disk_leaves_no_half_of_a_file(two_sets: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    two_sets.write()
    before = two_sets.files()
    two_sets.keep(*class_of(reference("08_asyncio"), 5, seed=2))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scalelab.notebooks.files.os.fsync", full)
    two_sets.write()
    assert {name: state for name, state in two_sets.files().items() if not name.startswith("08_asyncio/")} == {
        name: state for name, state in before.items() if not name.startswith("08_asyncio/")
    }
    assert any("No space left on device" in line for line in two_sets.said)


def test_who_is_left_out_is_said_with_the_reason(folder: Folder) -> None:
    one = reference("08_asyncio")
    folder.keep(
        grade_of_states(one, [NOT_JUDGED], "ann"), grade_of_states(one, [], "ben"), grade_of_states(one, [], "cem")
    )
    roster = {name: Person(name, sis_login_id=name, idnumber=name) for name in ("ann", "ben", "eve")}
    folder.write(roster=roster, canvas_ids={"08_asyncio": 4})
    said = "\n".join(folder.said)
    assert "Not in canvas/08_asyncio.csv, moodle/08_asyncio.csv, nbgrader.csv: ann (a question waits" in said
    assert "Not in canvas/08_asyncio.csv, moodle/08_asyncio.csv: cem (not in the roster)." in said
    assert "Not in 08_asyncio: eve (in the roster, and handed nothing in)." in said
    listed = (folder.out / "left_out.csv").read_text(encoding="utf-8").splitlines()
    assert listed[0] == "where,student,reason"
    assert len(listed) == 1 + 3 + 2 + 1
    assert "08_asyncio (4)" in (folder.out / "canvas" / "08_asyncio.csv").read_text(encoding="utf-8")


def test_a_line_about_many_names_some_and_the_file_with_all(folder: Folder) -> None:
    one = reference("08_asyncio")
    folder.keep(*(grade_of_states(one, [NOT_JUDGED], f"student-{number:03}") for number in range(50)))
    folder.write()
    assert len(folder.said) == 1
    assert "student-009 and 40 more, all in left_out.csv" in folder.said[0]
    assert len((folder.out / "left_out.csv").read_text(encoding="utf-8").splitlines()) == 151


def test_a_set_whose_reference_is_gone_is_written_all_the_same(folder: Folder) -> None:
    folder.keep(*class_of(reference("09_caching"), 3))
    folder.write()
    assert {"class/09_caching.html", "feedback/09_caching/student-0000.html"} <= set(folder.files())
    assert not [line for line in folder.said if "Not written" in line]


@pytest.mark.parametrize("submitted", [0, -1.5, 1e18, float("inf"), float("nan")])
def test_a_file_from_no_time_that_there_is_costs_no_output(folder: Folder, submitted: float) -> None:
    one = reference("08_asyncio")
    folder.keep(replace(grade_of_states(one, [], "ann"), submitted=submitted), grade_of_states(one, [], "ben"))
    folder.write()
    assert folder.said == []
    assert "handed in" not in (folder.out / "feedback" / "08_asyncio" / "ann.html").read_text(encoding="utf-8")
    assert "08_asyncio,,,ann" in (folder.out / "nbgrader.csv").read_text(encoding="utf-8")


def test_grades_of_the_first_form_have_outputs_too(folder: Folder) -> None:
    data = as_json(grade_of_states(reference("08_asyncio"), [FAILED], "ann")) | {"form": 1}
    old = {name: value for name, value in data.items() if name not in {"submitted", "seconds", "notes", "made_with"}}
    (folder.out / "08_asyncio").mkdir()
    (folder.out / "08_asyncio" / "ann.json").write_text(json.dumps(old), encoding="utf-8")
    folder.write()
    assert {"feedback/08_asyncio/ann.html", "class/08_asyncio.html", "nbgrader.csv"} <= set(folder.files())
    assert folder.said == []


def test_the_same_grades_give_the_same_files(tmp_path: Path) -> None:
    made: list[dict[str, bytes]] = []
    order: list[Callable[[list[Grade]], list[Grade]]] = [list, lambda grades: grades[::-1]]
    for number, arranged in enumerate(order):
        folder = Folder(tmp_path / str(number))
        folder.out.mkdir()
        folder.keep(*arranged(class_of(reference("02_laws"), 12)))
        folder.write()
        made.append({name: data for name, (data, _) in folder.files().items()})
    assert made[0] == made[1]
