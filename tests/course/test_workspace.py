"""A workspace is made, brought up to date and refused as it says; where a student stands is told from the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scalelab.cli import main
from scalelab.course import Course, CourseNotFound, find_course
from scalelab.exercises.released import student
from scalelab.exercises.source import read_set
from scalelab.notebooks.format import source_of, written
from scalelab.notebooks.lock import free
from scalelab.notebooks.untrusted import RAN
from scalelab.student.install import prepare, reset
from scalelab.student.merge import PROGRESS, released
from scalelab.student.run_tracker import digest
from scalelab.student.status import statuses
from scalelab.student.status_pages import rows
from scalelab.student.workspace import (
    LOCK,
    START,
    VARIABLE,
    Workspace,
    WorkspaceError,
    existing_workspace,
    workspace_folder,
    write_server_info,
)
from tiny import RIGHT, SLUG, cell, change, check_outputs, edited, load, source, tiny_course

EXERCISES = f"exercises/{SLUG}.ipynb"


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    made = tiny_course(tmp_path / "course")
    hand_out(made)
    return made


@pytest.fixture
def workspace(course: Course, tmp_path: Path) -> Workspace:
    return prepare(course, tmp_path / "mine", quiet)


def quiet(text: str) -> None:
    pass


def hand_out(course: Course) -> None:
    """Write the student notebook alone: no reference is executed."""
    course.exercises.mkdir(exist_ok=True)
    (course.exercises / f"{SLUG}.ipynb").write_text(written(student(read_set(source(course)))), encoding="utf-8")


def answer(workspace: Workspace, *names: str, ran: bool = True) -> None:
    """Answer these exercises rightly, and let their checks have run, in a kernel of the workspace unless not `ran`."""

    def edit(notebook: dict[str, object]) -> None:
        for name in names:
            cell(notebook, name).update(source=RIGHT[name], execution_count=1)
            stream, mark = check_outputs(name, RIGHT[name])
            cell(notebook, f"{name}-check").update(outputs=[stream, mark] if ran else [stream], execution_count=2)

    edited(workspace.root / EXERCISES, edit)


def states(course: Course, workspace: Workspace) -> dict[str, str]:
    return {one.exercise: one.state for row in rows(course, workspace) for one in row.statuses}


def notes(workspace: Workspace) -> dict[str, str]:
    out = released(load(workspace.handed_out / EXERCISES))
    return {one.exercise: one.note for one in statuses(load(workspace.root / EXERCISES), out)}


def updated(course: Course, workspace: Workspace) -> list[str]:
    said: list[str] = []
    prepare(course, workspace.root, said.append)
    return said


def test_a_new_workspace_holds_what_a_student_needs(course: Course, workspace: Workspace) -> None:
    files = {path.relative_to(workspace.root).as_posix() for path in workspace.root.rglob("*") if path.is_file()}
    assert {path for path in files if not path.startswith(".scalelab")} == {START, "chapters/01_tiny.ipynb", EXERCISES}
    notebook = load(workspace.root / EXERCISES)
    assert notebook["metadata"]["kernelspec"]["display_name"] == "Scalable Python"
    assert [one["id"] for one in notebook["cells"]][:2] == ["intro", PROGRESS]
    page = (workspace.root / START).read_text(encoding="utf-8")
    assert f"[○○○○]({EXERCISES})" in page
    assert "**0 of 4 exercises passed, 0 of 5 points**" in page
    assert "**Begin with** [chapter 01" in page


def test_an_update_keeps_answers_and_says_what_is_new(course: Course, workspace: Workspace) -> None:
    answer(workspace, "add", "mend")
    before = (workspace.root / EXERCISES).read_bytes()
    assert updated(course, workspace) == [f"Your workspace, up to date: {workspace.root}"]
    assert (workspace.root / EXERCISES).read_bytes() == before

    change(course, ("Complete `add`.", "Complete `add`, please."), ('"exercise": "last"', '"exercise": "final"'))
    hand_out(course)
    said = updated(course, workspace)
    assert said[:3] == [
        f"{EXERCISES}: updated, with your answers.",
        "  add: reworded; read it again.",
        "  final: was called last.",
    ]
    notebook = load(workspace.root / EXERCISES)
    assert source_of(cell(notebook, "add")) == RIGHT["add"]
    assert states(course, workspace) == {
        "add": "passed",
        "final": "untouched",
        "ordered": "untouched",
        "mend": "passed",
    }
    (saved,) = workspace.saved.iterdir()
    assert saved.read_bytes() == before
    assert updated(course, workspace) == said[-1:]


def test_what_has_no_place_any_more_is_beside_the_exercises(course: Course, workspace: Workspace) -> None:
    answer(workspace, "mend")
    text = source(course).read_text(encoding="utf-8")
    head, *parts = text.split('+++ {"role": "prompt"')
    left = [part for part in parts if '"exercise": "mend"' not in part]
    source(course).write_text('+++ {"role": "prompt"'.join([head, *left]), encoding="utf-8")
    hand_out(course)
    said = updated(course, workspace)
    assert "  mend: your work on a part that is no longer in the course; kept in exercises/01_tiny.kept.ipynb." in said
    beside = load(workspace.exercises / "01_tiny.kept.ipynb")
    assert RIGHT["mend"] in [source_of(one) for one in beside["cells"]]
    assert not any("nbgrader" in one["metadata"] for one in beside["cells"])
    assert states(course, workspace).keys() == {"add", "last", "ordered"}


def test_an_update_that_was_cut_off_goes_on(
    course: Course, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(workspace, "add", "mend")
    change(course, ("Complete `add`.", "Complete `add`, please."))
    hand_out(course)
    with monkeypatch.context() as patch:
        replace = os.replace

        def cut_off(old: Path, new: Path) -> None:
            if Path(new).parent == workspace.handed_out / "exercises":
                raise KeyboardInterrupt
            replace(old, new)

        patch.setattr(os, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            updated(course, workspace)
    assert updated(course, workspace)[0] == f"{EXERCISES}: updated, with your answers."
    assert states(course, workspace)["add"] == states(course, workspace)["mend"] == "passed"
    assert [path.name for path in workspace.exercises.iterdir()] == [f"{SLUG}.ipynb"]


def test_a_chapter_that_a_student_changed_is_kept_beside_the_new_one(course: Course, workspace: Workspace) -> None:
    chapter = workspace.chapters / "01_tiny.ipynb"
    ran = load(chapter)
    ran["cells"][-1]["outputs"] = []
    chapter.write_text(json.dumps(ran), encoding="utf-8")
    course_chapter = course.chapters / "01_tiny.md"
    course_chapter.write_text(course_chapter.read_text(encoding="utf-8") + "\nOne more line.\n", encoding="utf-8")
    assert "chapters/01_tiny.ipynb: updated." in updated(course, workspace)
    assert [path.name for path in workspace.chapters.iterdir()] == ["01_tiny.ipynb"]

    edited(chapter, lambda notebook: notebook["cells"][0].update(source="# Mine"))
    course_chapter.write_text(course_chapter.read_text(encoding="utf-8") + "\nAnd one.\n", encoding="utf-8")
    said = "chapters/01_tiny.ipynb: updated; your own version is kept in chapters/01_tiny.yours.ipynb."
    assert said in updated(course, workspace)
    assert source_of(load(workspace.chapters / "01_tiny.yours.ipynb")["cells"][0]) == "# Mine"


@pytest.mark.parametrize(
    "broken", [b"", b'{"cells": [', b"[1, 2]", b"\xff\xfe\xfa"], ids=["empty", "cut off", "list", "bytes"]
)
def test_a_broken_notebook_is_moved_aside_and_named(course: Course, workspace: Workspace, broken: bytes) -> None:
    (workspace.root / EXERCISES).write_bytes(broken)
    said = "\n".join(updated(course, workspace))
    assert "It is kept as 01_tiny.broken.ipynb, and a fresh one takes its place." in said
    assert (workspace.exercises / "01_tiny.broken.ipynb").read_bytes() == broken
    assert states(course, workspace)["add"] == "untouched"


def test_a_notebook_that_was_deleted_is_put_back(course: Course, workspace: Workspace) -> None:
    (workspace.root / EXERCISES).unlink()
    assert updated(course, workspace)[0] == f"{EXERCISES}: was not there; put back."


def test_a_folder_with_other_files_is_refused(course: Course, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(WorkspaceError, match="holds files and is not a workspace; nothing was written"):
        prepare(course, other, quiet)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    with pytest.raises(WorkspaceError, match="is not a folder; name a new or an empty one"):
        prepare(course, other / "thesis.txt", quiet)
    with pytest.raises(WorkspaceError, match=r"cannot be written|is not a folder"):
        prepare(course, other / "thesis.txt" / "below", quiet)


def test_a_workspace_of_a_newer_version_is_left_alone(course: Course, workspace: Workspace) -> None:
    record = workspace.own / "workspace.json"
    edited(record, lambda data: data.update(form=99))
    change(course, ("Complete `add`.", "Complete `add`, please."))
    hand_out(course)
    before = (workspace.root / EXERCISES).read_bytes()
    with pytest.raises(WorkspaceError, match="made by a newer version of the course, and is left as it is"):
        updated(course, workspace)
    assert (workspace.root / EXERCISES).read_bytes() == before


def test_a_workspace_of_another_course_or_with_a_broken_record_is_refused(course: Course, workspace: Workspace) -> None:
    record = workspace.own / "workspace.json"
    edited(record, lambda data: data.update(title="Cooking"))
    with pytest.raises(WorkspaceError, match="workspace of another course, 'Cooking'"):
        updated(course, workspace)
    record.write_text("{", encoding="utf-8")
    with pytest.raises(WorkspaceError, match=r"workspace\.json cannot be read. Your notebooks are as they were"):
        updated(course, workspace)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(course: Course, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(WorkspaceError, match=r"cannot be written \(Permission denied\). Name a folder"):
        prepare(course, locked / "mine", quiet)


def test_what_the_system_refuses_is_said_in_our_words(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(old: object, new: object) -> None:
        raise OSError(30, "Read-only file system", str(new))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(WorkspaceError, match=r"cannot be written \(Read-only file system\). Name a folder"):
        prepare(course, tmp_path / "mine", quiet)


def test_inside_a_repository_a_workspace_is_ignored_by_git(course: Course, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    prepare(course, repository / "mine", quiet)
    status = subprocess.run(["git", "status", "--short"], cwd=repository, check=True, capture_output=True, text=True)
    assert status.stdout == ""


def test_where_the_workspace_is(course: Course, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workspace_folder(course, Path("here")) == Path.cwd() / "here"
    assert workspace_folder(course) == workspace.root  # the one used last
    monkeypatch.setenv(VARIABLE, str(course.root.parent / "named"))
    assert workspace_folder(course) == course.root.parent / "named"
    monkeypatch.chdir(workspace.exercises)
    assert workspace_folder(course) == workspace.root
    assert find_course().root == course.root
    monkeypatch.delenv(VARIABLE)
    monkeypatch.chdir(course.root)
    (course.root / ".jupyter" / "workspace").unlink()
    assert workspace_folder(course) == course.root.with_name("course-workspace")
    with pytest.raises(WorkspaceError, match="is not a workspace; `scalelab start` makes one"):
        existing_workspace(course)
    course.root.rename(course.root.with_name("moved"))
    with pytest.raises(CourseNotFound, match="its course is no longer where it was"):
        find_course(workspace.root)


def test_where_a_student_stands_is_told_from_the_work(course: Course, workspace: Workspace) -> None:
    path = workspace.root / EXERCISES
    assert set(states(course, workspace).values()) == {"untouched"}
    answer(workspace, "add", "ordered")
    assert states(course, workspace) == {"add": "passed", "last": "untouched", "ordered": "passed", "mend": "untouched"}

    edited(path, lambda notebook: cell(notebook, "add").update(source=RIGHT["add"] + "  # better"))
    assert states(course, workspace)["add"] == "tried"
    assert notes(workspace)["add"] == "changed since it passed; run the answer and its check again"

    # Only the verdict says whether a check passed, whatever is printed.
    edited(path, lambda notebook: cell(notebook, "ordered-check")["outputs"][0].update(text="✓ one\n✗ two\n"))
    assert states(course, workspace)["ordered"] == "passed"
    failed = check_outputs("ordered", RIGHT["ordered"], passed=False)
    failed[0]["text"] = "✓ all is well\n"
    edited(path, lambda notebook: cell(notebook, "ordered-check").update(outputs=failed))
    assert notes(workspace)["ordered"] == "its check says what is missing"

    edited(path, lambda notebook: cell(notebook, "last").update(source="answer = 10"))
    assert (states(course, workspace)["last"], notes(workspace)["last"]) == ("tried", "its check has not run")

    answer(workspace, "mend", ran=False)
    assert states(course, workspace)["mend"] == "tried"
    assert notes(workspace)["mend"].startswith("its check ran elsewhere")
    earlier = {"output_type": "display_data", "metadata": {}, "data": {RAN: {"mend": digest(RIGHT["mend"])}}}
    edited(path, lambda notebook: cell(notebook, "mend-check").update(outputs=[earlier]))
    assert notes(workspace)["mend"].startswith("its check ran elsewhere")

    answer(workspace, "add")
    edited(path, lambda notebook: cell(notebook, "add-check").update(source="print('✓ good')"))
    assert states(course, workspace)["add"] == "tried"
    assert notes(workspace)["add"].startswith("its check has another text")


def test_progress_in_a_terminal(course: Course, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    answer(workspace, "add")
    assert main(["progress", "--course", str(course.root), "--workspace", str(workspace.root)]) == 0
    said = capsys.readouterr().out
    assert "● add ○ last ○ ordered ○ mend" in said
    assert "1 of 4 exercises passed, 1 of 5 points" in said
    assert main(["progress", "01", "--course", str(course.root), "--workspace", str(workspace.root)]) == 0
    assert "● add                  1 of 1  Add two numbers" in capsys.readouterr().out
    assert "1 of 4 exercises passed" in (workspace.root / START).read_text(encoding="utf-8")


def test_an_exercise_is_brought_back_and_the_answer_kept(course: Course, workspace: Workspace) -> None:
    answer(workspace, "add", "mend")
    edited(workspace.root / EXERCISES, lambda notebook: cell(notebook, "add-prompt").update(source="## Scribbled"))
    said: list[str] = []
    reset(course, workspace, "add", said.append)
    assert said[:2] == [
        f"add: brought back in {EXERCISES}.",
        "  add: your answer, before it was reset; kept in exercises/01_tiny.kept.ipynb.",
    ]
    notebook, out = load(workspace.root / EXERCISES), load(workspace.handed_out / EXERCISES)
    assert source_of(cell(notebook, "add")) == source_of(cell(out, "add"))
    assert source_of(cell(notebook, "add-prompt")) == source_of(cell(out, "add-prompt"))
    assert states(course, workspace) == {
        "add": "untouched",
        "last": "untouched",
        "ordered": "untouched",
        "mend": "passed",
    }
    kept = [source_of(one) for one in load(workspace.exercises / "01_tiny.kept.ipynb")["cells"]]
    assert RIGHT["add"] in kept
    assert "## Scribbled" in kept
    for name, words in (("nothing", "No exercise is called 'nothing'"), ("02/add", "No exercise is called '02/add'")):
        with pytest.raises(WorkspaceError, match=words):
            reset(course, workspace, name, quiet)
    reset(course, workspace, "01/mend", quiet)
    assert states(course, workspace)["mend"] == "untouched"


def test_an_open_workspace_is_neither_updated_nor_opened_twice(
    course: Course, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    write_server_info(workspace, "http://127.0.0.1:9/", "t0ken", "http://127.0.0.1:9/lab?token=t0ken")
    change(course, ("Complete `add`.", "Complete `add`, please."))
    hand_out(course)
    before = (workspace.root / EXERCISES).read_bytes()
    if sys.platform != "win32":
        assert (workspace.own / "server.json").stat().st_mode & 0o077 == 0
    with free(workspace.own / LOCK) as mine:
        assert mine
        assert main(["start", str(workspace.root), "--course", str(course.root)]) == 0
        said = capsys.readouterr().out
        assert "is open already" in said
        assert "http://127.0.0.1:9/lab?token=t0ken" in said
        assert main(["reset", "add", "--workspace", str(workspace.root), "--course", str(course.root)]) == 2
        assert "does not answer" in capsys.readouterr().err
    assert (workspace.root / EXERCISES).read_bytes() == before
