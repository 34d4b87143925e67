"""The report on a class: right figures for a class of any size, and a page that is safe, legible and names few."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from made_up import MADE_WITH, class_of, grade_of_states, hostile, reference
from playwright.sync_api import Page

from scalelab.exercises.reference import Reference
from scalelab.grading.grades import Grade
from scalelab.grading.judging.results import ENDED, FAILED, NOT_JUDGED, PASSED, TIMED_OUT
from scalelab.grading.outputs.class_report import ClassFigures, as_json, class_figures, class_page
from scalelab.grading.outputs.texts import SetTexts, texts_of

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
Open = Callable[..., Page]


def figures_of(grades: list[Grade]) -> ClassFigures:
    return class_figures(grades, texts_of(reference(grades[0].exercises)))


@pytest.fixture(scope="module")
def asyncio_set() -> Reference:
    return reference("08_asyncio")


@pytest.fixture(scope="module")
def four(asyncio_set: Reference) -> list[Grade]:
    """Nobody solves the first question, everybody the third and on; two answers were not judged."""
    states = {
        "ann": [FAILED, PASSED],
        "ben": [FAILED, FAILED],
        "cem": ["hidden failed", NOT_JUDGED],
        "dan": [TIMED_OUT, NOT_JUDGED],
    }
    grades = [grade_of_states(asyncio_set, one, student) for student, one in states.items()]
    notes = [("one", "two"), ("two",), (), ("two", "two")]
    return [
        replace(grade, notes=note, seconds=seconds)
        for grade, note, seconds in zip(grades, notes, (1.0, 2.0, 3.0, 40.0), strict=True)
    ]


def test_the_figures_of_four(four: list[Grade]) -> None:
    figures = figures_of(four)
    assert (figures.submissions, figures.final, figures.max) == (4, 2, 23)
    assert figures.totals == {19: 1, 21: 1}
    assert (figures.mean, figures.median) == (20, 20)
    assert figures.nobody_solved == ("turns",)
    assert figures.everybody_solved == ("ordered", "bounded", "settled", "deadline", "unblock", "crawler")
    turns, assemble = figures.questions[:2]
    assert (turns.points, turns.open, turns.mean) == ({0: 3, 1: 1}, 0, 0.25)
    assert turns.states == {FAILED: 3, TIMED_OUT: 1}
    assert (assemble.points, assemble.open, assemble.mean) == ({0: 1, 2: 1}, 2, 1)
    assert figures.notes == {"two": 3, "one": 1}
    assert figures.states == {PASSED: 25, FAILED: 4, NOT_JUDGED: 2, TIMED_OUT: 1}
    assert figures.seconds == (2.5, 40)
    assert figures.made_with == ((MADE_WITH, 4),)


def test_wrong_ideas_are_counted_by_student_with_the_words_of_their_authors(
    asyncio_set: Reference, four: list[Grade]
) -> None:
    ideas = figures_of(four).ideas
    assert [(one.exercise, one.students) for one in ideas] == [("turns", 3), ("assemble", 1)]
    assert [(one.name, one.message) for one in ideas] == [question.wrong[0] for question in asyncio_set.questions[:2]]


def test_what_waits_for_a_person_is_listed_with_whose_and_why(four: list[Grade]) -> None:
    first, second = figures_of(four).cases
    assert (first.student, first.exercise, first.state) == ("cem", "assemble", NOT_JUDGED)
    assert (second.student, second.exercise, second.state) == ("dan", "assemble", NOT_JUDGED)
    assert "No space left" in second.reason


def test_the_page_says_what_the_figures_say(four: list[Grade]) -> None:
    page = class_page(figures_of(four))
    for words in (
        "Nobody got all points of <strong>1. Whose turn is it?</strong>.",
        'aria-label="0 of 2 points: 3 students. 1 of 2 points: 1 student. "',
        'aria-label="0 of 2 points: 1 student. 2 of 2 points: 1 student. Open: 2 students."',
        "18–19 points, 1 student; 20–21 points, 1 student",
        "Of 32 answers 25 passed, 4 failed, 2 not judged, 1 timed out.",
        "Judging a submission took 2.5 s, 95 % within 40.0 s.",
        "2 students whose total is not final are left out.",
    ):
        assert words in page, words


def test_names_are_on_the_page_only_of_those_whose_answers_wait(four: list[Grade]) -> None:
    page = class_page(figures_of(four))
    assert [name for name in ("ann", "ben", "cem", "dan") if f">{name}<" in page] == ["cem", "dan"]
    assert not re.search(r"\b(ann|ben)\b", page)
    assert not re.search(r"\b(ann|ben)\b", json.dumps(as_json(figures_of(four))))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_class_of_any_size_adds_up(asyncio_set: Reference, size: int) -> None:
    grades = class_of(asyncio_set, size)
    figures = figures_of(grades)
    assert figures.submissions == size
    assert sum(figures.totals.values()) == figures.final == sum(grade.final for grade in grades)
    for question in figures.questions:
        assert question.judged + question.open == sum(question.states.values()) == size
    assert len(figures.cases) == sum(question.open for question in figures.questions)
    data = json.loads(json.dumps(as_json(figures)))
    assert data["form"] == 1
    assert sum(data["totals"].values()) == figures.final
    page = class_page(figures)
    assert len(page.encode()) < 150 * 1024
    assert f'<dd class="number">{size}</dd>' in page


@pytest.mark.parametrize("state", [FAILED, PASSED, ENDED, NOT_JUDGED, "missing"])
def test_a_class_in_which_all_fare_alike(asyncio_set: Reference, state: str) -> None:
    grades = [grade_of_states(asyncio_set, [state] * 8, f"student-{number}") for number in range(3)]
    figures = figures_of(grades)
    solved, none = len(figures.everybody_solved), len(figures.nobody_solved)
    assert (solved, none) == {PASSED: (8, 0), FAILED: (0, 8), ENDED: (0, 8), "missing": (0, 8)}.get(state, (0, 0))
    page = class_page(figures)
    assert ("No total is final yet." in page) == (state == NOT_JUDGED)
    assert ("No wrong idea was recognised." in page) == (state != FAILED)


def test_a_set_without_its_reference_has_a_report_all_the_same(four: list[Grade]) -> None:
    figures = class_figures(four, SetTexts("08_asyncio", {}))
    assert figures.questions[0].title == "turns"
    assert figures.ideas[0].message == figures.ideas[0].name
    assert "08_asyncio" in class_page(figures)


def test_the_order_of_the_grades_changes_nothing(asyncio_set: Reference) -> None:
    grades = class_of(asyncio_set, 50)
    assert class_page(figures_of(grades)) == class_page(figures_of(grades[::-1]))


def test_a_hostile_class_adds_no_element_and_asks_for_nothing(shown: Open, asyncio_set: Reference) -> None:
    grades = [hostile(grade) for grade in class_of(asyncio_set, 60)]
    page = shown(class_page(figures_of(grades)), viewport=PHONE)
    assert page.locator("script, img, link, iframe, object, form").count() == 0
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.get_by_text("<script>fetch('//evil.example')</script>").count() > 1


@pytest.mark.parametrize("size", [1, 40, 1000])
def test_no_report_breaks_a_rule_of_axe_or_scrolls_sideways(shown: Open, asyncio_set: Reference, size: int) -> None:
    page = shown(class_page(figures_of(class_of(asyncio_set, size))), viewport=PHONE, color_scheme="light")
    for viewport, scheme in ((PHONE, "light"), (DESK, "dark")):
        page.set_viewport_size(viewport)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        found = Axe().run(page, options={"resultTypes": ["violations"]})
        assert not found.violations_count, found.generate_report()
