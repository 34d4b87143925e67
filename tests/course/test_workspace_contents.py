"""What JupyterLab reads and writes: a workspace tells progress anew, and in the course nothing generated is changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbformat.sign import MemorySignatureStore
from tornado.web import HTTPError
from traitlets.config import Config

from scalelab.checks import _cells
from scalelab.course import Course
from scalelab.exercises.released import student
from scalelab.exercises.source import read_set
from scalelab.lab.author_contents import CourseContents
from scalelab.lab.workspace_contents import WorkspaceContents
from scalelab.notebooks.format import source_of, written
from scalelab.notebooks.untrusted import RAN
from scalelab.student import run_tracker as remember
from scalelab.student import status_cell as progress_here
from scalelab.student.install import prepare
from scalelab.student.merge import PROGRESS
from scalelab.student.run_tracker import digest
from scalelab.student.status_cell import SESSION, NotInAWorkspace, progress
from scalelab.student.workspace import START, Workspace
from tiny import RIGHT, SLUG, cell, check_outputs, edited, load, source, tiny_course

EXERCISES = f"exercises/{SLUG}.ipynb"
NO_DATABASE = Config(
    {"HistoryManager": {"enabled": False}, "NotebookNotary": {"store_factory": MemorySignatureStore}},
)
"""Settings for what would open the reader's own databases of inputs and of trusted notebooks."""


@pytest.fixture
def course(tmp_path: Path) -> Course:
    made = tiny_course(tmp_path / "course")
    made.exercises.mkdir()
    (made.root / EXERCISES).write_text(written(student(read_set(source(made)))), encoding="utf-8")
    return made


@pytest.fixture
def workspace(course: Course, tmp_path: Path) -> Workspace:
    return prepare(course, tmp_path / "mine", lambda text: None)


@pytest.fixture
def contents(course: Course, workspace: Workspace) -> WorkspaceContents:
    manager = WorkspaceContents(root_dir=str(workspace.root), config=NO_DATABASE)
    manager.course, manager.workspace = course, workspace
    return manager


def passed(notebook: dict[str, Any]) -> None:
    """Answer an exercise, and let its check have passed."""
    cell(notebook, "add").update(source=RIGHT["add"])
    cell(notebook, "add-check").update(outputs=check_outputs("add", RIGHT["add"]), execution_count=2)


def shown(notebook: Any) -> str:
    return str(cell(notebook, PROGRESS)["outputs"][0]["data"]["text/markdown"])


def test_a_notebook_that_is_opened_shows_where_it_stands(contents: WorkspaceContents, workspace: Workspace) -> None:
    edited(workspace.root / EXERCISES, passed)
    on_disk = (workspace.root / EXERCISES).read_bytes()
    model = asyncio.run(contents.get(EXERCISES, type="notebook"))
    assert shown(model["content"]).startswith("**1 of 5 points**")
    assert (workspace.root / EXERCISES).read_bytes() == on_disk
    assert shown(load(workspace.root / EXERCISES)).startswith("**0 of 5 points**")
    nbformat.validate(model["content"])  # type: ignore[no-untyped-call]


def test_the_start_page_is_written_anew_at_each_save_and_each_visit(
    contents: WorkspaceContents, workspace: Workspace
) -> None:
    page = workspace.root / START
    model = asyncio.run(contents.get(EXERCISES, type="notebook"))
    passed(model["content"])
    asyncio.run(contents.save({"type": "notebook", "format": "json", "content": model["content"]}, EXERCISES))
    assert "1 of 4 exercises passed" in page.read_text(encoding="utf-8")
    page.write_text("scribbled over", encoding="utf-8")
    assert "1 of 4 exercises passed" in asyncio.run(contents.get(START))["content"]
    page.unlink()
    assert "1 of 4 exercises passed" in asyncio.run(contents.get(START))["content"]


def test_what_is_generated_opens_in_the_course_and_is_not_saved(course: Course) -> None:
    manager = CourseContents(root_dir=str(course.root), config=NO_DATABASE)
    before = (course.root / EXERCISES).read_bytes()
    model = asyncio.run(manager.get(EXERCISES, type="notebook"))
    assert model["writable"] is False
    with pytest.raises(HTTPError, match="Answer it in a workspace of your own"):
        asyncio.run(manager.save({"type": "notebook", "content": model["content"]}, EXERCISES))
    assert (course.root / EXERCISES).read_bytes() == before
    assert asyncio.run(manager.get("chapters/01_tiny.md"))["writable"] is True


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    """A shell with our extension, which begins knowing nothing."""
    monkeypatch.setattr(remember, "checks", {})
    monkeypatch.setattr(remember, "ran", {})
    monkeypatch.setattr(_cells, "runs", {})
    monkeypatch.setattr(_cells, "definers", {})
    made = InteractiveShell(config=NO_DATABASE)
    remember.load_ipython_extension(made)
    return made


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("def add(a, b) return a + b", "Your last run of this cell failed: SyntaxError"),
        ("1 / 0\n" + RIGHT["add"], "Your last run of this cell failed: ZeroDivisionError"),
        (RIGHT["add"].replace("add", "plus"), "Your last run of this cell did not define `add`."),
    ],
)
def test_a_check_does_not_pass_on_an_older_answer(
    shell: InteractiveShell, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, answer: str, words: str
) -> None:
    published: list[dict[str, Any]] = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, metadata: published.append(data))
    monkeypatch.setenv(SESSION, str(workspace.root / EXERCISES))
    check = source_of(cell(load(workspace.root / EXERCISES), "add-check"))
    shell.run_cell(source_of(cell(load(workspace.root / EXERCISES), "setup-1")), cell_id="setup-1")
    for text, passes in ((RIGHT["add"], True), (answer, False), (RIGHT["add"], True)):
        shell.run_cell(text, cell_id="add")
        shell.run_cell(check, cell_id="add-check")
        verdict = published[-1][RAN]["verdict"]
        assert verdict["passed"] is passes
        assert passes or words in verdict["expectations"][0]["words"]


def test_a_kernel_says_of_which_answer_a_pass_is(
    shell: InteractiveShell, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[dict[str, Any]] = []
    said: list[str] = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, metadata: published.append(data))
    monkeypatch.setattr(progress_here, "display", lambda markdown: said.append(markdown.data))
    monkeypatch.setenv(SESSION, str(workspace.root / EXERCISES))
    check = source_of(cell(load(workspace.root / EXERCISES), "add-check"))
    shell.run_cell(source_of(cell(load(workspace.root / EXERCISES), "setup-1")), cell_id="setup-1")

    shell.run_cell("def add(a, b): return a - b", cell_id="add")
    shell.run_cell(check, cell_id="add-check")
    progress()
    assert published[-1][RAN]["verdict"]["expectations"][0]["words"] == "You subtract."
    assert "| ◐ | Add two numbers | 0 of 1 | its check says what is missing |" in said[-1]

    shell.run_cell(RIGHT["add"], cell_id="add")
    shell.run_cell(check, cell_id="add-check")
    progress()
    assert published[-1][RAN]["ran"]["add"] == digest(RIGHT["add"] + "\n")
    assert published[-1][RAN]["verdict"]["passed"] is True
    assert "| ● | Add two numbers | 1 of 1 |  |" in said[-1]

    shell.run_cell(f"{RIGHT['add']}  # again", cell_id="add")
    progress()
    assert "| ◐ | Add two numbers | 0 of 1 | changed since it passed; run the answer and its check again |" in said[-1]


def test_progress_elsewhere_says_where_it_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(SESSION, raising=False)
    with pytest.raises(NotInAWorkspace, match="Open one from the start page"):
        progress()
