"""Which files are submissions, whose they are, and what is said of the others."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab.grading.submissions import BadInput, Cell, NoNotebook, find, printable, read, recognise

SETS = {"01_tiny": ["add", "ordered", "mend"], "02_more": ["sort", "merge", "mend"]}


def notebook(*names: str, exercises: str | None = "01_tiny", **parts: Any) -> str:
    cells = [
        {"cell_type": "code", "id": name, "metadata": {}, "source": ["x = 1\n", "y"], "outputs": []} for name in names
    ]
    metadata = {} if exercises is None else {"scalelab": {"exercises": exercises}}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells, **parts})


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_student_is_the_file_or_the_first_folder(tmp_path: Path) -> None:
    for file in (
        "ann.ipynb",
        "bob/anything.ipynb",
        "cid/assignment/anything.ipynb",
        "01_tiny/dan.ipynb",
        "eve/01_tiny/01_tiny.ipynb",
    ):
        put(tmp_path / file, notebook("add"))
    found, refused = find(tmp_path, SETS)
    assert {submission.file: submission.student for submission in found} == {
        "ann.ipynb": "ann",
        "bob/anything.ipynb": "bob",
        "cid/assignment/anything.ipynb": "cid",
        "01_tiny/dan.ipynb": "dan",
        "eve/01_tiny/01_tiny.ipynb": "eve",
    }
    assert not refused


def test_one_file_is_a_submission_too(tmp_path: Path) -> None:
    found, _ = find(put(tmp_path / "ann.ipynb", notebook("add")), SETS)
    assert [(one.student, one.file, one.exercises) for one in found] == [("ann", "ann.ipynb", "01_tiny")]
    found, _ = find(put(tmp_path / "bob" / "01_tiny.ipynb", notebook("add")), SETS)
    assert [one.student for one in found] == ["bob"]


def test_hidden_files_checkpoints_and_the_grades_are_no_submissions(tmp_path: Path) -> None:
    put(tmp_path / "ann.ipynb", notebook("add"))
    for other in (".DS_Store", ".git/x.ipynb", ".ipynb_checkpoints/ann-checkpoint.ipynb", "grades/grades.csv"):
        put(tmp_path / other, "anything")
    found, refused = find(tmp_path, SETS, leave_out=tmp_path / "grades")
    assert [one.file for one in found] == ["ann.ipynb"]
    assert not refused


NO_NOTEBOOKS = {
    "notes.txt": ("hello", "is no notebook; expected a file that ends in .ipynb"),
    "text.ipynb": ("def add(a, b): ...", "its text is no JSON"),
    "half.ipynb": (notebook("add")[:40], "its text is no JSON"),
    "binary.ipynb": (bytes(range(256)), "its text is no JSON"),
    "empty.ipynb": ("", "is empty"),
    "deep.ipynb": ("[" * 100_000, "its text is no JSON"),
    "list.ipynb": ("[1, 2]", "it is JSON, and not what Jupyter writes"),
    "no format.ipynb": ('{"cells": []}', "it is JSON, and not what Jupyter writes"),
    "old.ipynb": ('{"nbformat": 3, "worksheets": [{"cells": []}]}', "is a notebook of format 3; expected 4"),
    "no cells.ipynb": (notebook(), "is a notebook without cells"),
    "cells in words.ipynb": (notebook(cells="none"), "is a notebook without cells"),
    "odd cells.ipynb": (notebook(cells=[1, None, {}, {"cell_type": []}]), "is a notebook without cells"),
    "unknown.ipynb": (
        notebook("x", exercises="99_x"),
        "is for the exercise set '99_x', which this course does not have",
    ),
    "other.ipynb": (notebook("x", exercises=None), "holds no exercise, which this course does not have"),
    "either.ipynb": (notebook("mend", exercises=None), "fits 01_tiny and 02_more alike"),
}


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    for name, (text, _) in NO_NOTEBOOKS.items():
        put(tmp_path / name, text)
    found, refused = find(tmp_path, SETS)
    assert not found
    reasons = {one.file: one.reason for one in refused}
    assert reasons.keys() == NO_NOTEBOOKS.keys()
    for name, (_, words) in NO_NOTEBOOKS.items():
        assert words in reasons[name], name


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.ipynb").open("wb") as file:
        file.truncate(51 * 2**20)
    _, refused = find(tmp_path, SETS)
    assert [one.reason for one in refused] == ["is larger than 50 MB; ask for it with its outputs cleared"]


def test_a_set_is_recognised_by_its_cells_when_metadata_are_lost() -> None:
    def cells(*names: str) -> tuple[Cell, ...]:
        return tuple(Cell(name, "code", "") for name in names)

    assert recognise("", cells("mend", "sort"), SETS) == "02_more"
    assert recognise("99_gone", cells("mend", "add", "other"), SETS) == "01_tiny"
    assert recognise("02_more", cells("add"), SETS) == "02_more"
    with pytest.raises(NoNotebook, match="expected one of 01_tiny, 02_more"):
        recognise("", cells("add-check"), SETS)


def test_a_cell_is_named_by_its_grade_id_and_else_by_its_id(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "code", "id": "a1", "metadata": {"nbgrader": {"grade_id": "add"}}, "source": "x"},
        {"cell_type": "code", "id": "ordered", "metadata": {"nbgrader": {"grade_id": 5}}, "source": ["a\n", "b"]},
        {"cell_type": "markdown", "metadata": [], "source": None},
        {"cell_type": "code", "id": "half", "metadata": {}, "source": "\ud800"},
    ]
    claimed, found = read(put(tmp_path / "x.ipynb", json.dumps({"nbformat": 4, "cells": cells, "metadata": {}})))
    assert claimed == ""
    assert found == (
        Cell("add", "code", "x"),
        Cell("ordered", "code", "a\nb"),
        Cell("", "markdown", ""),
        Cell("half", "code", "?"),
    )


def test_the_newest_of_one_student_counts(tmp_path: Path) -> None:
    for name, age in (("ann/b.ipynb", 50), ("ann/a.ipynb", 100), ("ann.ipynb", 200), ("bob.ipynb", 10)):
        os.utime(put(tmp_path / name, notebook("add")), (1_000_000 - age, 1_000_000 - age))
    put(tmp_path / "ann" / "more.ipynb", notebook("sort", exercises="02_more"))
    found, refused = find(tmp_path, SETS)
    assert [one.file for one in found] == ["ann/b.ipynb", "bob.ipynb", "ann/more.ipynb"]
    assert [str(one) for one in refused] == [
        "ann.ipynb: is older than ann/a.ipynb, of the same student for the same set; not graded",
        "ann/a.ipynb: is older than ann/b.ipynb, of the same student for the same set; not graded",
    ]


def test_nothing_to_grade_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist; expected a folder of submissions"):
        find(tmp_path / "none", SETS)
    with pytest.raises(BadInput, match="holds no file; expected notebooks"):
        find(tmp_path, SETS)


def test_names_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\nc é✓") == "a�[2Jb�c é✓"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["nbformat", "cells", "metadata", "cell_type", "id", "source", "nbgrader", "grade_id", "scalelab"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(data=JSON, version=st.integers(3, 5), cells=st.lists(JSON, max_size=3))
def test_any_json_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: Any, version: int, cells: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.ipynb"
    for content in (data, {"nbformat": version, "cells": cells, "metadata": data}):
        put(path, json.dumps(content))
        # Anything else that is raised fails the test.
        with suppress(NoNotebook):
            claimed, found = read(path)
            assert recognise(claimed, found, SETS) in SETS


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = put(tmp_path_factory.getbasetemp() / "bytes.ipynb", data)
    with pytest.raises(NoNotebook):
        read(path)
