"""Which files are submissions, whose they are, and what is said of the others."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab.exercises.handed_in import recognise
from scalelab.grading.submissions.layouts import BadInput, find
from scalelab.notebooks.untrusted import (
    LARGEST_CELLS,
    LARGEST_VALUES,
    HandedIn,
    NoNotebook,
    SubmittedCell,
    printable,
    read,
    short,
)

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32")
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
    "notes.txt": ("hello", "is not a notebook; expected a file that ends in .ipynb"),
    "text.ipynb": ("def add(a, b): ...", "the file is not valid JSON"),
    "half.ipynb": (notebook("add")[:40], "the file is not valid JSON"),
    "binary.ipynb": (bytes(range(1, 256)), "the file is not valid UTF-8 (byte 127)"),
    "latin.ipynb": ('{"nbformat": 4, "é": 1}'.encode("latin-1"), "the file is not valid UTF-8 (byte 17)"),
    "half a letter.ipynb": ('{"é'.encode()[:-1], "the file is not valid UTF-8 (byte 2)"),
    "empty.ipynb": ("", "is empty"),
    "deep.ipynb": ("[" * 100_000, "the file is not valid JSON"),
    "list.ipynb": ("[1, 2]", "it is JSON, but not in Jupyter's format"),
    "no format.ipynb": ('{"cells": []}', "it is JSON, but not in Jupyter's format"),
    "true format.ipynb": ('{"nbformat": true, "cells": [{"cell_type": "code"}]}', "not in Jupyter's format"),
    "old.ipynb": ('{"nbformat": 2, "worksheets": [{"cells": []}]}', "is a notebook of format 2; expected 4"),
    "ancient.ipynb": ('{"nbformat": -' + "9" * 4000 + "}", "is a notebook of format -999"),
    "endless number.ipynb": ('{"nbformat": ' + "9" * 5000 + "}", "the file is not valid JSON"),
    "old and bare.ipynb": ('{"nbformat": 3, "worksheets": [1, {"cells": 2}]}', "is a notebook without cells"),
    "cut off.ipynb": (notebook("add")[:-1], "the file is not valid JSON; perhaps it was cut off"),
    "no cells.ipynb": (notebook(), "is a notebook without cells"),
    "cells in words.ipynb": (notebook(cells="none"), "is a notebook without cells"),
    "odd cells.ipynb": (notebook(cells=[1, None, {}, {"cell_type": []}]), "is a notebook without cells"),
    "unknown.ipynb": (
        notebook("x", exercises="99_x"),
        "is for the unknown exercise set '99_x'; expected one of",
    ),
    "other.ipynb": (notebook("x", exercises=None), "holds no exercise of this course; expected one of"),
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
        file.truncate(200 * 2**20)
    _, refused = find(tmp_path, SETS)
    assert [one.reason for one in refused] == ["is larger than 50 MB; ask for it with its outputs cleared"]


@pytest.mark.parametrize("inside", ["[],", "{},", "0,", '"",', '{"cell_type": "code", "source": ""},'])
def test_a_notebook_of_a_million_values_is_not_built(tmp_path: Path, inside: str) -> None:
    """Text of brackets alone takes thirty times its size as objects."""
    text = '{"nbformat": 4, "cells": [' + inside * (LARGEST_VALUES + 1) + "0]}"
    with pytest.raises(NoNotebook, match=r"holds more than 1,000,000 values"):
        read(put(tmp_path / "many.ipynb", text))


def test_long_text_is_not_taken_for_many_values(tmp_path: Path) -> None:
    signs = '[{,\\"\\\\' * 600_000
    text = notebook("add", metadata={"scalelab": {"exercises": "01_tiny"}, "data": "@"}).replace("@", signs)
    assert read(put(tmp_path / "plot.ipynb", text)).exercises == "01_tiny"
    with pytest.raises(NoNotebook, match="not valid JSON"):
        read(put(tmp_path / "cut.ipynb", text[: len(text) // 2]))


def test_a_notebook_of_too_many_cells_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "many.ipynb", notebook(*["add"] * (LARGEST_CELLS + 1)))
    with pytest.raises(NoNotebook, match=r"has 10,001 cells; expected 10,000 at most"):
        read(path)


def test_other_encodings_are_read(tmp_path: Path) -> None:
    text = notebook("é", exercises="01_tiny")
    for encoding in ("utf-8", "utf-8-sig"):
        assert read(put(tmp_path / "x.ipynb", text.encode(encoding))).notes == ()
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        found = read(put(tmp_path / "x.ipynb", text.encode(encoding)))
        assert found.cells == (SubmittedCell(("é",), "code", "x = 1\ny"),)
        assert len(found.notes) == 1
        assert found.notes[0].startswith("The file's text is UTF-")


def test_a_notebook_of_format_3_is_read(tmp_path: Path) -> None:
    sheets: list[Any] = [
        {"cells": [{"cell_type": "heading", "level": 1, "source": "Title"}]},
        {"cells": [{"cell_type": "code", "input": ["x = 1\n", "y"], "metadata": {"nbgrader": {"grade_id": "add"}}}]},
    ]
    found = read(put(tmp_path / "x.ipynb", json.dumps({"nbformat": 3, "worksheets": sheets})))
    assert found.cells == (SubmittedCell((), "heading", "Title"), SubmittedCell(("add",), "code", "x = 1\ny"))
    assert found.notes == ("The notebook is of format 3; its cells were read as format 4 has them.",)
    assert recognise(found, SETS) == "01_tiny"


def test_a_newer_format_and_another_kernel_are_noted(tmp_path: Path) -> None:
    def notes(metadata: Any, **parts: Any) -> tuple[str, ...]:
        return read(put(tmp_path / "x.ipynb", notebook("add", metadata=metadata, **parts))).notes

    assert notes({"kernelspec": {"name": "conda-env-x-py", "language": "python"}}) == ()
    assert notes({"language_info": {"name": "ipython"}, "kernelspec": 5}) == ()
    julia = "The notebook names a kernel for julia; the answers ran in Python."
    assert notes({"kernelspec": {"language": "julia"}}) == (julia,)
    assert notes({"kernelspec": {}, "language_info": {"name": "R" * 99}})[0].startswith(
        f"The notebook names a kernel for {'R' * 40}…;"
    )
    assert notes({}, nbformat=5) == ("The notebook is of format 5; its cells were read as format 4 has them.",)


@on_posix
def test_no_link_is_followed(tmp_path: Path) -> None:
    """A link may lead to another student's work, or out of the folder."""
    folder = tmp_path / "submissions"
    put(folder / "ann.ipynb", notebook("add"))
    put(tmp_path / "secret" / "x.ipynb", notebook("add"))
    for name, target in {
        "bob.ipynb": "ann.ipynb",
        "cid.ipynb": "../secret/x.ipynb",
        "dan": "../secret",
        "eve.ipynb": "nowhere",
        "fay.ipynb": "fay.ipynb",
    }.items():
        (folder / name).symlink_to(target)
    found, refused = find(folder, SETS)
    assert [one.file for one in found] == ["ann.ipynb"]
    assert [one.file for one in refused] == ["bob.ipynb", "cid.ipynb", "dan", "eve.ipynb", "fay.ipynb"]
    assert {one.reason for one in refused} == {"is a link, and links are not followed; ask for the file itself"}
    with pytest.raises(NoNotebook, match="is a link"):
        read(folder / "bob.ipynb")


@on_posix
def test_a_pipe_or_a_socket_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("ann.ipynb")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("bob.ipynb")
        found, refused = find(tmp_path, SETS)
    assert not found
    assert {one.file: one.reason for one in refused} == dict.fromkeys(
        ("ann.ipynb", "bob.ipynb"), "is not a file, but a pipe, a socket, a device or a folder"
    )
    assert [one.reason for one in find(Path("ann.ipynb"), SETS)[1]] == [refused[0].reason]
    with pytest.raises(NoNotebook, match="but a pipe"):
        read(Path("/dev/zero"))


@on_posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="the superuser may read everything")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    put(tmp_path / "ann.ipynb", notebook("add")).chmod(0)
    put(tmp_path / "bob" / "x.ipynb", notebook("add")).parent.chmod(0)
    try:
        _, refused = find(tmp_path, SETS)
    finally:
        (tmp_path / "bob").chmod(0o700)
    assert {one.file: one.reason for one in refused} == {
        "ann.ipynb": "cannot be read (Permission denied)",
        "bob": "is a folder that cannot be listed (Permission denied)",
    }


def test_what_the_system_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "ann.ipynb", notebook("add"))
    put(tmp_path / "bob" / "x.ipynb", notebook("add"))
    opens, lists = os.open, os.scandir

    def no_open(path: Any, *rest: Any, **more: Any) -> int:
        if Path(path).suffix == ".ipynb":
            raise PermissionError(13, "Permission denied")
        return opens(path, *rest, **more)

    def no_list(path: Any) -> Any:
        if Path(path).name == "bob":
            raise OSError(5, "Input/output error")
        return lists(path)

    monkeypatch.setattr(os, "open", no_open)
    monkeypatch.setattr(os, "scandir", no_list)
    _, refused = find(tmp_path, SETS)
    assert {one.file: one.reason for one in refused} == {
        "ann.ipynb": "cannot be read (Permission denied)",
        "bob": "is a folder that cannot be listed (Input/output error)",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="how long a path may be differs")
def test_folders_nested_without_end_are_passed(tmp_path: Path) -> None:
    put(tmp_path / "ann.ipynb", notebook("add"))
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        found, refused = find(tmp_path, SETS)
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)
    assert [one.file for one in found] == ["ann.ipynb"]
    assert [one.reason for one in refused] == ["is a folder that cannot be listed (File name too long)"]


def test_a_set_is_recognised_by_its_cells_when_metadata_are_lost() -> None:
    def handed_in(claimed: str, *names: str) -> HandedIn:
        return HandedIn(claimed, "", tuple(SubmittedCell((name,), "code", "") for name in names))

    assert recognise(handed_in("", "mend", "sort"), SETS) == "02_more"
    assert recognise(handed_in("99_gone", "mend", "add", "other"), SETS) == "01_tiny"
    assert recognise(handed_in("02_more", "add"), SETS) == "02_more"
    text = HandedIn("", "", (SubmittedCell((), "markdown", "Sort  \n it"),))
    assert recognise(text, SETS | {"02_more": ["Sort it"]}) == "02_more"
    with pytest.raises(NoNotebook, match="expected one of 01_tiny, 02_more"):
        recognise(handed_in("", "add-check"), SETS)


def test_a_cell_has_the_names_that_editors_leave_it(tmp_path: Path) -> None:
    answer = {"scalelab": {"role": "answer", "exercise": "mend"}, "nbgrader": {"grade_id": "mend"}}
    cells = [
        {"cell_type": "code", "id": "a1", "metadata": {"nbgrader": {"grade_id": "add"}}, "source": "x"},
        {"cell_type": "code", "id": "ordered", "metadata": {"nbgrader": {"grade_id": 5}}, "source": ["a\n", "b", 1]},
        {"cell_type": "markdown", "metadata": [], "source": None},
        {"cell_type": "code", "id": "half", "metadata": {}, "source": "\ud800"},
        {"cell_type": "code", "id": "f3e1", "metadata": answer, "source": "copied"},
        {"cell_type": "code", "metadata": {"id": "add"}, "source": "moved by Colab"},
        {"cell_type": "code", "metadata": {"scalelab": {"role": "check", "exercise": "add"}}, "source": "no answer"},
    ]
    found = read(put(tmp_path / "x.ipynb", json.dumps({"nbformat": 4, "cells": cells, "metadata": {}})))
    assert found.cells == (
        SubmittedCell(("add", "a1"), "code", "x"),
        SubmittedCell(("ordered",), "code", "a\nb"),
        SubmittedCell((), "markdown", ""),
        SubmittedCell(("half",), "code", "\\ud800"),
        SubmittedCell(("mend", "f3e1"), "code", "copied"),
        SubmittedCell(("add",), "code", "moved by Colab"),
        SubmittedCell((), "code", "no answer"),
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


def test_files_of_the_same_time_are_told_apart(tmp_path: Path) -> None:
    for name in ("ann/b.ipynb", "ann/a.ipynb"):
        os.utime(put(tmp_path / name, notebook("add")), (1_000_000, 1_000_000))
    found, refused = find(tmp_path, SETS)
    assert [one.file for one in found] == ["ann/b.ipynb"]
    assert "has the same time as, and a name before, ann/b.ipynb" in refused[0].reason


@on_posix
def test_names_that_are_no_text_stay_apart(tmp_path: Path) -> None:
    try:
        for name in (b"\xfe.ipynb", b"\xff.ipynb", b"a\nb.ipynb"):
            put(Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))), notebook("add"))
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    found, refused = find(tmp_path, SETS)
    assert [one.student for one in found] == ["\\udcfe", "\\udcff", "a\nb"]
    assert not refused


def test_nothing_to_grade_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist; expected a folder of submissions"):
        find(tmp_path / "none", SETS)
    with pytest.raises(BadInput, match="holds no file; expected notebooks"):
        find(tmp_path, SETS)


def test_names_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\nc é✓") == "a�[2Jb�c é✓"


def test_a_strangers_word_is_cut() -> None:
    assert short("a\nb") == "a�b"
    assert short("x" * 41) == "x" * 40 + "…"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("nbformat", "cells", "worksheets", "input", "metadata", "cell_type", "id", "source", "nbgrader"),
                    *("grade_id", "scalelab", "exercises", "sources", "role", "exercise", "kernelspec", "language"),
                    *("language_info", "name"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(data=JSON, version=st.integers(2, 5), cells=st.lists(JSON, max_size=3), encoding=st.sampled_from(ENCODINGS))
def test_any_json_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: Any, version: int, cells: Any, encoding: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.ipynb"
    sheets = [{"cells": cells}, data]
    for content in (data, {"nbformat": version, "cells": cells, "worksheets": sheets, "metadata": data}):
        put(path, json.dumps(content).encode(encoding))
        # Anything else that is raised fails the test.
        with suppress(NoNotebook):
            found = read(path)
            assert recognise(found, SETS) in SETS


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, place: int) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.ipynb"
    with pytest.raises(NoNotebook):
        read(put(path, data))
    whole = notebook("add", "mend").encode()
    with suppress(NoNotebook):
        read(put(path, whole[:place] + data + whole[place:]))


@pytest.mark.parametrize("brackets", ["[", '{"a":', '[{"cells":'])
def test_deep_nesting_is_refused(tmp_path: Path, brackets: str) -> None:
    for depth in (500, 990, 2_000, 300_000):
        inside = brackets * depth
        text = '{"nbformat": 4, "cells": [{"cell_type": "code", "source": ' + inside
        with pytest.raises(NoNotebook):
            read(put(tmp_path / "deep.ipynb", text))
    closed = "[" * 900 + "]" * 900
    found = read(
        put(
            tmp_path / "deep.ipynb",
            '{"nbformat": 4, "cells": [{"cell_type": "code", "source": @}]}'.replace("@", closed),
        )
    )
    assert found.cells == (SubmittedCell((), "code", ""),)
