"""JupyterLab in a real browser: a student answers an exercise, and sees at once whether it is right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from scalelab.course.exercises import read_set, sources
from scalelab.course.find import Course, chapters
from support import Served, start, write_small_course

SET, EXERCISE = "08_asyncio", "ordered"
PARTS = ("_config.yml", "_toc.yml", "pyproject.toml", "book", "chapters", "exercises")
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
    yield from serving("lab", own_course)


@pytest.fixture(scope="module")
def small_and_served(course: Course, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A small course, built, its book served beside Lab."""
    small = write_small_course(tmp_path_factory.mktemp("served"), course.root / "book" / "_ext")
    yield from serving("course", small)


def serving(command: str, course: Course) -> Iterator[Served]:
    served = start(command, "--course", str(course.root))
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


def wait_for_notebook(page: Page) -> None:
    page.locator(f"{NOTEBOOK} .jp-Notebook").wait_for(timeout=STARTUP)
    expect(page.locator("#jp-main-statusbar")).to_contain_text("Python 3 | Idle", timeout=STARTUP)


class Student:
    """Works through a notebook with the keyboard, cell by cell."""

    def __init__(self, page: Page, notebook: Path) -> None:
        self.page = page
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
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


def test_an_answer_is_judged_in_the_notebook(page: Page, lab: Served, course: Course, own_course: Course) -> None:
    source = next(path for path in sources(course) if path.stem == SET)
    exercise = next(one for one in read_set(source).exercises if one.id == EXERCISE)
    notebook = own_course.exercises / f"{source.stem}.ipynb"
    page.goto(lab.link(f"lab/tree/exercises/{notebook.name}"))
    wait_for_notebook(page)
    student = Student(page, notebook)
    for setup in (name for name in student.places if name.startswith("setup-")):
        student.go(setup)
        page.keyboard.press("Shift+Enter")

    found = student.answer(EXERCISE, exercise.solution)
    expect(found).to_contain_text("✓", timeout=CHECK)
    expect(found).not_to_contain_text("✗")

    wrong = exercise.wrongs[0]
    found = student.answer(EXERCISE, wrong.source)
    expect(found).to_contain_text("✗", timeout=CHECK)
    expect(found).to_contain_text(wrong.message)
    expect(found).not_to_contain_text("Traceback")

    page.keyboard.press("ControlOrMeta+s")
    expect(page.locator(".jp-NotebookPanel .jp-mod-dirty")).to_have_count(0)
    page.wait_for_function("() => !document.querySelector('.lm-TabBar-tab.jp-mod-dirty')")
    saved = json.loads(notebook.read_text(encoding="utf-8"))
    assert "".join(saved["cells"][student.places[EXERCISE]]["source"]) == wrong.source


def test_a_chapter_opens_as_a_notebook_and_is_saved_as_it_was(page: Page, lab: Served, own_course: Course) -> None:
    chapter = chapters(own_course)[0]
    before = chapter.path.read_bytes()
    page.goto(lab.link("lab/tree/chapters"))
    page.locator(f'.jp-DirListing-item[title^="Name: {chapter.path.name}"]').dblclick(timeout=STARTUP)
    wait_for_notebook(page)
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
    page.wait_for_url("**/lab/tree/chapters/02_second.md")
    wait_for_notebook(page)
    expect(page.locator(f"{NOTEBOOK} .jp-Notebook h1").first).to_contain_text("The second chapter")
    page.close()
