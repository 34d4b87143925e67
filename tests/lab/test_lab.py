"""JupyterLab in a real browser: a student's way from the start page to a grade, and an author's to a chapter."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from scalelab.course import Course, chapters
from scalelab.exercises.source import Exercise, read_set
from scalelab.student.merge import PROGRESS
from support import COMMAND, Served, start, write_small_course

SET, EXERCISE = "08_asyncio", "ordered"
PARTS = ("_config.yml", "_toc.yml", "pyproject.toml", "book", "chapters", "exercises", "solutions")
START_PAGE = ".jp-MarkdownViewer"
TABLE_OF_CONTENTS = ".jp-TableOfContents"
NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden)"
STARTUP = 60_000
CHECK = 60_000


@pytest.fixture(scope="module")
def own_course(course: Course, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A copy of the course, for the student to write into."""
    root = tmp_path_factory.mktemp("student")
    for name in PARTS:
        source = course.root / name
        shutil.copytree(source, root / name) if source.is_dir() else shutil.copy(source, root)
    return Course(root)


@pytest.fixture(scope="module")
def lab(own_course: Course) -> Iterator[Served]:
    yield from serving("lab", "--course", str(own_course.root))


@pytest.fixture(scope="module")
def small_and_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A small course, built, its book served beside Lab."""
    small = write_small_course(tmp_path_factory.mktemp("served"))
    yield from serving("course", "--course", str(small.root))


def serving(*arguments: str) -> Iterator[Served]:
    served = start(*arguments)
    yield served
    left, said = served.stop()
    assert left == []
    assert said == "\nStopping.\n"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that asks no other host for anything, and has nothing to complain of."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    opened = context.new_page()
    complaints: list[str] = []
    own = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: None if request.url.startswith(own) else complaints.append(request.url))
    yield opened
    context.close()
    assert complaints == []


def wait_for_notebook(page: Page, kernel: str = "Scalable Python") -> None:
    page.locator(f"{NOTEBOOK} .jp-Notebook").wait_for(timeout=STARTUP)
    expect(page.locator("#jp-main-statusbar")).to_contain_text(f"{kernel} | Idle", timeout=STARTUP)


def command(*arguments: str) -> str:
    """Run `scalelab ARGUMENTS` in a process of its own: the browser has this one's event loop. Return what it said."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, encoding="utf-8", check=False)
    return f"{done.stdout}{done.stderr}"


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    """Return a notebook's cells; Lab may be about to write it, and then a part or all of it is missing."""
    for left in reversed(range(200)):
        try:
            return json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        except json.JSONDecodeError:
            if not left:
                raise
            time.sleep(0.05)
    raise AssertionError


class Student:
    """Works through a notebook with the keyboard, cell by cell."""

    def __init__(self, page: Page, notebook: Path) -> None:
        self.page = page
        cells = cells_of(notebook)
        self.places = {cell["id"]: place for place, cell in enumerate(cells)}
        page.locator(f"{NOTEBOOK} .jp-Notebook .jp-Cell").first.click()

    def cell(self, name: str) -> Locator:
        return self.page.locator(f'{NOTEBOOK} .jp-Notebook [data-windowed-list-index="{self.places[name]}"]')

    def go(self, name: str) -> None:
        """Select the cell with the arrow keys."""
        self.page.keyboard.press("Escape")
        here = int(
            self.page.locator(f"{NOTEBOOK} .jp-Cell.jp-mod-active").get_attribute("data-windowed-list-index") or 0
        )
        key = "ArrowDown" if self.places[name] > here else "ArrowUp"
        for _ in range(abs(self.places[name] - here)):
            self.page.keyboard.press(key)
        self.page.wait_for_selector(f'.jp-mod-active[data-windowed-list-index="{self.places[name]}"]')

    def answer(self, exercise: str, text: str) -> Locator:
        """Type `text` into the answer cell, run it and its check; return where the check shows what it found."""
        self.go(exercise)
        self.page.keyboard.press("Enter")
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(text)
        self.page.keyboard.press("Shift+Enter")
        self.page.keyboard.press("Shift+Enter")
        return self.cell(f"{exercise}-check").locator(".jp-OutputArea")


def shows(page: Page, lab: Served, text: str) -> None:
    """Open the start page."""
    page.goto(lab.link("lab/tree/start.md"))
    expect(page.locator(START_PAGE)).to_contain_text(text, timeout=STARTUP)
    expect(page.locator(TABLE_OF_CONTENTS)).to_be_visible()


def leave(page: Page, lab: Served) -> None:
    page.goto("about:blank")  # or it would complain of a server that is gone
    left, said = lab.stop()
    assert left == []
    assert said == "\nStopping.\n"


def read_run_and_predict(page: Page, chapter: Path) -> None:
    """Run a chapter's cells up to the first that asks for a number, and commit one."""
    cells = cells_of(chapter)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    asking = next(place for place, cell in enumerate(code) if "predict(" in "".join(cell["source"]))
    student = Student(page, chapter)
    for cell in code[: asking + 1]:
        student.go(cell["id"])
        page.keyboard.press("Shift+Enter")
    asked = student.cell(code[asking]["id"]).locator(".jp-OutputArea")
    asked.get_by_label("Your number").fill("100", timeout=CHECK)
    asked.get_by_role("button", name="Commit").click()
    expect(asked).to_contain_text("Kept: 100 ")


def answer_wrongly_then_rightly(page: Page, notebook: Path, exercise: Exercise) -> None:
    student = Student(page, notebook)
    for setup in (name for name in student.places if name.startswith("setup-")):
        student.go(setup)
        page.keyboard.press("Shift+Enter")
    wrong = exercise.wrongs[0]
    found = student.answer(exercise.id, wrong.source)
    expect(found).to_contain_text("✗", timeout=CHECK)
    expect(found).to_contain_text(wrong.message)
    expect(found).not_to_contain_text("Traceback")
    page.keyboard.press("Escape")
    page.keyboard.press("a")  # a cell of the student's own
    page.keyboard.press("Enter")
    page.keyboard.insert_text("checks.hint()")
    page.keyboard.press("Shift+Enter")
    hinted = page.locator(f"{NOTEBOOK} .jp-Notebook .jp-OutputArea", has_text=f"Hint 1 of 3 on {exercise.id}")
    expect(hinted).to_be_attached(timeout=CHECK)
    found = student.answer(exercise.id, exercise.solution)
    expect(found).to_contain_text("✓", timeout=CHECK)
    expect(found).not_to_contain_text("✗")
    student.go(PROGRESS)
    page.keyboard.press("Shift+Enter")
    points = f"{exercise.check_points} of 13 points"
    expect(student.cell(PROGRESS).locator(".jp-OutputArea")).to_contain_text(points, timeout=CHECK)
    # Nothing has to be saved by hand.
    page.wait_for_function("() => !document.querySelector('.lm-TabBar-tab.jp-mod-dirty')", timeout=CHECK)


def test_a_students_way_from_the_start_page_to_a_grade(
    page: Page, own_course: Course, tmp_path: Path, tell: Callable[[str], None], serve: Callable[..., Served]
) -> None:
    workspace = tmp_path / "my work"
    notebook = workspace / "exercises" / f"{SET}.ipynb"
    handed_out = own_course.exercises / notebook.name
    before = handed_out.read_text(encoding="utf-8")
    exercise = next(one for one in read_set(own_course.solutions / f"{SET}.md").exercises if one.id == EXERCISE)
    at = ("--course", str(own_course.root))
    began = time.monotonic()
    lab = serve("start", str(workspace), *at)
    ready = time.monotonic() - began
    shows(page, lab, "0 of 37 exercises passed")
    shown = time.monotonic() - began
    tell(f"`scalelab start` in an empty folder: address after {ready:.1f} s, its page in a browser after {shown:.1f} s")
    page.locator(f'{START_PAGE} a[href*="chapters/{SET}.ipynb"]').click()
    wait_for_notebook(page)
    read_run_and_predict(page, workspace / "chapters" / f"{SET}.ipynb")
    shows(page, lab, "0 of 37 exercises passed")
    page.locator(f'{START_PAGE} a[href*="exercises/{SET}.ipynb"]').click()
    wait_for_notebook(page)
    expect(page.locator(TABLE_OF_CONTENTS)).to_contain_text("3. In the order you asked")
    answer_wrongly_then_rightly(page, notebook, exercise)
    said = command("reset", EXERCISE, "--workspace", str(workspace), *at)
    assert f"exercises/{SET}.ipynb is open in JupyterLab" in said
    leave(page, lab)
    assert handed_out.read_text(encoding="utf-8") == before

    # The course is updated.
    heading = "## 3. In the order you asked"
    assert before.count(heading) == 1
    handed_out.write_text(before.replace(heading, f"{heading}, always"), encoding="utf-8")
    lab = serve("start", str(workspace), *at)
    assert f"exercises/{SET}.ipynb: updated, with your answers.\n  {EXERCISE}: reworded; read it again.\n" in lab.said
    shows(page, lab, "1 of 37 exercises passed")
    leave(page, lab)
    cells = {cell["id"]: "".join(cell["source"]) for cell in cells_of(notebook)}
    assert cells[EXERCISE] == exercise.solution
    assert f"{heading}, always" in cells[f"{EXERCISE}-prompt"]

    # What is checked and handed in is graded with the points that were said.
    said = command("submit-check", str(notebook), *at)
    assert f"✓ {EXERCISE}: {exercise.check_points} of {exercise.check_points}." in said
    assert f"{exercise.check_points} of 13 points by the checks that you see" in said
    grades = tmp_path / "grades"
    command("grade", str(workspace / "to_hand_in"), "--out", str(grades), "--no-sandbox", *at)
    (grade,) = (json.loads(path.read_text(encoding="utf-8")) for path in (grades / SET).glob("*.json"))
    visible = {one["exercise"]: one["visible_points"] for one in grade["questions"] if one["points"]}
    assert visible == {EXERCISE: exercise.check_points}


def test_a_chapter_opens_as_a_notebook_and_is_saved_as_it_was(page: Page, lab: Served, own_course: Course) -> None:
    chapter = chapters(own_course)[0]
    before = chapter.path.read_bytes()
    page.goto(lab.link("lab/tree/chapters"))
    page.locator(f'.jp-DirListing-item[title^="Name: {chapter.path.name}"]').dblclick(timeout=STARTUP)
    wait_for_notebook(page, "Python 3")
    expect(page.locator(f"{NOTEBOOK} .jp-Notebook h1").first).to_contain_text(chapter.title)
    expect(page.locator(f"{NOTEBOOK} .jp-Notebook .jp-CodeCell").nth(1)).to_be_attached()

    page.locator(f"{NOTEBOOK} .jp-Notebook .jp-Cell").first.click()
    with page.expect_response(lambda response: response.request.method == "PUT" and "/api/contents/" in response.url):
        page.keyboard.press("ControlOrMeta+s")
    assert chapter.path.read_bytes() == before


def test_a_page_that_is_no_notebook_opens_too(page: Page, lab: Served) -> None:
    page.goto(lab.link("lab/tree/book/index.md"))
    expect(page.locator(f"{NOTEBOOK} .jp-Notebook h1").first).to_be_visible(timeout=STARTUP)


def test_the_button_on_a_page_opens_its_notebook_in_lab(browser: Browser, small_and_served: Served) -> None:
    page = browser.new_page()
    page.goto(small_and_served.link("book/chapters/02_second.html"))
    page.locator("a.sl-open-in-lab").click()
    page.wait_for_url("**/lab/tree/chapters/02_second.ipynb")
    wait_for_notebook(page)
    expect(page.locator(f"{NOTEBOOK} .jp-Notebook h1").first).to_contain_text("The second chapter")
    page.close()
