"""Generating notebooks: what is in them, that they never drift, and that no answer is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from scalelab.author.sync import ReferenceFailed, StudentWork, sync
from scalelab.course import Course
from scalelab.exercises.source import SourceError, read_set
from tiny import (
    FOLDER,
    cell,
    change,
    edited,
    keep_exercises,
    load,
    quiet_sync,
    reference_path,
    source,
    student_path,
    tiny_course,
)

GOLDEN = FOLDER / "golden"


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A course whose files are in step; tests only read it."""
    course = tiny_course(tmp_path_factory.mktemp("synced") / "course")
    quiet_sync(course)
    return course


@pytest.fixture
def small(tmp_path: Path) -> Course:
    """A course with one exercise, to be changed; not yet synced."""
    course = tiny_course(tmp_path / "course")
    keep_exercises(course, ["add"])
    return course


def answer(course: Course, text: str) -> None:
    """Type an answer into the student's notebook, as JupyterLab saves it."""
    edited(student_path(course), lambda notebook: cell(notebook, "add").update(source=text.splitlines(keepends=True)))


def source_text(one: dict[str, Any]) -> str:
    return "".join(one["source"])


def test_the_notebooks_are_the_same_bytes_everywhere(synced: Course) -> None:
    assert student_path(synced).read_bytes() == (GOLDEN / "student.ipynb").read_bytes()
    # The digest is of scalelab.checks too, which this set does not use.
    digest = load(reference_path(synced))["metadata"]["scalelab"]["digest"]
    assert reference_path(synced).read_text(encoding="utf-8").replace(digest, "DIGEST") == (
        GOLDEN / "reference.ipynb"
    ).read_text(encoding="utf-8")


def test_the_student_gets_no_solution(synced: Course) -> None:
    text = student_path(synced).read_text(encoding="utf-8")
    exercises = read_set(source(synced))
    ids = [one["id"] for one in load(student_path(synced))["cells"]]
    assert ids[:2] == ["intro", "setup-1"]
    for exercise in exercises.exercises:
        hints = [f"{exercise.id}-hint-{number}" for number in (1, 2, 3)]
        begin = ids.index(f"{exercise.id}-prompt")
        assert ids[begin : begin + 7] == [
            f"{exercise.id}-prompt",
            *hints,
            exercise.id,
            f"{exercise.id}-check",
            f"{exercise.id}-reading",
        ]
    for secret in ("a + b\n", "The sign is lost", "no-return", "-hidden", "five results come"):
        assert secret not in text


def test_the_student_notebook_is_locked_but_for_the_answers(synced: Course) -> None:
    for one in load(student_path(synced))["cells"]:
        nbgrader = one["metadata"]["nbgrader"]
        assert nbgrader["grade_id"] == one["id"]
        assert one["metadata"]["deletable"] is False
        assert nbgrader["locked"] is not nbgrader["solution"]
        assert one["metadata"].get("editable", True) is nbgrader["solution"]
        if one["cell_type"] == "code":
            assert (one["execution_count"], one["outputs"]) == (None, [])
        goes_on = "raises-exception" in one["metadata"].get("tags", [])
        assert goes_on is nbgrader["grade"] is one["id"].endswith("-check")


def test_hints_are_folded(synced: Course) -> None:
    hint = source_text(cell(load(student_path(synced)), "add-hint-2"))
    assert hint == "<details><summary>Hint 2 of 3</summary>\n\nA plus.\n\n</details>"


def test_the_checksums_are_those_of_nbgrader(synced: Course) -> None:
    notebook = load(student_path(synced))
    # Computed once with compute_checksum of nbgrader 0.9.6.
    assert {
        name: cell(notebook, name)["metadata"]["nbgrader"]["checksum"] for name in ("intro", "add", "add-check")
    } == {
        "intro": "bd4fa0ea06986ae07d27303a7cfcab40",
        "add": "a370b58da40680f81f0cbd2512d91a86",
        "add-check": "f31dfe19938078eacc24725065412b0f",
    }


def test_the_reference_holds_what_its_checks_printed(synced: Course) -> None:
    notebook = load(reference_path(synced))
    nbformat.validate(notebook)
    for one in notebook["cells"]:
        compared = "nbval-check-output" in one["metadata"].get("tags", [])
        assert compared is one["metadata"]["nbgrader"]["grade"] is one["id"].endswith(("-check", "-hidden"))
        assert bool(one.get("outputs")) is compared
        if one["cell_type"] == "code":
            assert isinstance(one["execution_count"], int)
    assert cell(notebook, "ordered-hidden")["outputs"] == [
        {"name": "stdout", "output_type": "stream", "text": ["✓ five results come in the order of the jobs\n"]}
    ]
    assert source_text(cell(notebook, "add")) == "def add(a, b):\n    return a + b"


def test_a_second_sync_writes_and_executes_nothing(small: Course) -> None:
    assert sync(small, report=lambda _: None) == [reference_path(small), student_path(small)]
    said: list[str] = []
    assert sync(small, report=said.append) == []
    assert said == ["1 exercise set, 0 files written."]


def test_a_changed_source_is_executed_again(small: Course) -> None:
    quiet_sync(small)
    change(small, ('"2 and 3 are 5"', '"2 and 3 give 5"'))
    assert any("executing 1 solution" in line for line in quiet_sync(small))
    assert cell(load(reference_path(small)), "add-check")["outputs"][0]["text"] == ["✓ 2 and 3 give 5\n"]


def test_line_ends_of_the_source_change_nothing(small: Course) -> None:
    quiet_sync(small)
    source(small).write_bytes(source(small).read_bytes().replace(b"\n", b"\r\n"))
    assert sync(small, report=lambda _: None) == []


def test_a_damaged_reference_is_made_anew(small: Course) -> None:
    quiet_sync(small)
    before = reference_path(small).read_bytes()
    edited(reference_path(small), lambda notebook: cell(notebook, "add-hidden").update(outputs=[]))
    quiet_sync(small)
    assert reference_path(small).read_bytes() == before
    reference_path(small).write_bytes(before[:500])
    quiet_sync(small)
    assert reference_path(small).read_bytes() == before


def test_answers_stay_when_the_source_has_not_changed(small: Course) -> None:
    quiet_sync(small)
    answer(small, "def add(a, b):\n    return a + b + 0")
    before = student_path(small).read_bytes()
    assert quiet_sync(small)[0] == "exercises/01_tiny.ipynb: holds answers; kept as it is."
    assert student_path(small).read_bytes() == before


@pytest.mark.parametrize(
    "edit",
    [
        lambda notebook: cell(notebook, "add").update(source="def add(a, b):\n    return a + b + 0"),
        lambda notebook: notebook["cells"].append({**cell(notebook, "add"), "id": "note", "source": "# my note"}),
        lambda notebook: notebook["metadata"].pop("scalelab"),
    ],
    ids=["an answer", "a cell added", "metadata lost"],
)
def test_a_changed_source_never_overwrites_answers(small: Course, edit: Callable[[dict[str, Any]], object]) -> None:
    quiet_sync(small)
    edited(student_path(small), edit)
    before = {path: path.read_bytes() for path in (student_path(small), reference_path(small))}
    change(small, ("Complete `add`.", "Write `add`."))

    with pytest.raises(StudentWork, match=r"exercises/01_tiny\.ipynb holds answers.*\n.*--force"):
        quiet_sync(small)
    assert {path: path.read_bytes() for path in before} == before

    quiet_sync(small, force=True)
    assert student_path(small).with_name("01_tiny.ipynb.bak").read_bytes() == before[student_path(small)]
    assert source_text(cell(load(student_path(small)), "add")) == "def add(a, b):\n    ..."

    answer(small, "again = True")
    quiet_sync(small, force=True)
    assert student_path(small).with_name("01_tiny.ipynb.bak").read_bytes() == before[student_path(small)]
    assert "again = True" in student_path(small).with_name("01_tiny.ipynb.bak2").read_text(encoding="utf-8")


def test_a_file_that_is_no_notebook_counts_as_answers(small: Course) -> None:
    student_path(small).parent.mkdir()
    student_path(small).write_text("half a notebook", encoding="utf-8")
    with pytest.raises(StudentWork):
        quiet_sync(small)
    assert student_path(small).read_text(encoding="utf-8") == "half a notebook"


def test_a_notebook_that_was_only_run_is_no_work(small: Course) -> None:
    quiet_sync(small)
    before = student_path(small).read_bytes()
    edited(student_path(small), lambda notebook: cell(notebook, "add").update(execution_count=3))
    quiet_sync(small)
    assert student_path(small).read_bytes() == before


def test_a_failed_write_leaves_the_old_file(small: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet_sync(small)
    before = {path.name: path.read_bytes() for path in small.solutions.iterdir()}
    change(small, ('"2 and 3 are 5"', '"2 and 3 give 5"'))

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        quiet_sync(small)
    assert {name: (small.solutions / name).read_bytes() for name in ("01_tiny.ipynb",)} == {
        "01_tiny.ipynb": before["01_tiny.ipynb"]
    }
    assert {path.name for path in small.solutions.iterdir()} == before.keys()


FAILING = {
    "a solution that is wrong": (
        "return a + b\n",
        "return a + b + 1\n",
        "exercise add, its check cell: failed with\n✗ 2",
    ),
    "a solution that raises": (
        "def add(a, b):\n    return a + b\n",
        "1/0\n",
        "exercise add, its solution: failed with",
    ),
    "a check that prints nothing": (
        'got = add(-4, 9)\nverdict("add", got == 5, "-4 and 9 are 5", "The sign is lost.")',
        "pass",
        "nothing",
    ),
    "a check that warns": (
        "got = add(-4, 9)",
        "import sys; print(1, file=sys.stderr); got = 5",
        "shows stderr and stdout",
    ),
    "a check that displays": ("got = add(-4, 9)", "display(1); got = 5", "shows display_data and stdout"),
    "a kernel that ends": ("got = add(-4, 9)", "import os; os._exit(1)", "its hidden cell: ended its kernel"),
    "set-up that fails": ("import asyncio\n", "import asyncio, no_such_module\n", "setup-1: failed with"),
}


@pytest.mark.parametrize(("old", "new", "words"), FAILING.values(), ids=FAILING)
def test_a_reference_that_fails_is_not_written(small: Course, old: str, new: str, words: str) -> None:
    change(small, (old, new))
    with pytest.raises(ReferenceFailed) as caught:
        quiet_sync(small)
    assert words in str(caught.value)
    assert str(caught.value).startswith("solutions/01_tiny.md, ")
    assert not reference_path(small).exists()
    assert not student_path(small).exists()


def test_a_broken_source_stops_before_anything_is_written(small: Course) -> None:
    (small.solutions / "00_broken.md").write_text("no front matter", encoding="utf-8")
    with pytest.raises(SourceError, match=r"solutions/00_broken\.md, line 1: no front matter"):
        quiet_sync(small)
    assert not reference_path(small).exists()
