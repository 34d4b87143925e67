"""A student's page: it says what each question got and why, hides what is hidden, and is safe, small and legible."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from axe_playwright_python.sync_playwright import Axe
from made_up import HOSTILE, SLUGS, STATES, grade_of_states, hostile, reference, visible_verdict
from playwright.sync_api import Page

from scalelab.checks import Expectation
from scalelab.exercises.answers import AMBIGUOUS, TOO_LONG, Answer
from scalelab.exercises.reference import Reference
from scalelab.grading.grades import Grade, grade_of
from scalelab.grading.judging.results import FAILED, NOT_JUDGED, PASSED, RAISED, CheckResult, Result
from scalelab.grading.outputs.feedback import HEADLINES, MEANING, feedback_page
from scalelab.grading.outputs.texts import texts_of
from scalelab.grading.submissions.layouts import Submission
from scalelab.notebooks.format import text_of
from scalelab.notebooks.untrusted import HandedIn

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
EVERY_WAY = [PASSED, FAILED, "hidden failed", *STATES]
MOST_KB = 40
Open = Callable[..., Page]


class Outline(HTMLParser):
    """Takes down a page's tags and attributes, and its text without the style sheet."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] != "style":
            self.said += data

    @property
    def text(self) -> str:
        return " ".join(self.said.split())

    @property
    def shapes(self) -> set[tuple[str, tuple[str, ...]]]:
        return {(tag, tuple(sorted(attributes))) for tag, attributes in self.tags}


def page_of(grade: Grade) -> str:
    return feedback_page(grade, texts_of(reference(grade.exercises)))


@pytest.fixture(scope="module")
def asyncio_set() -> Reference:
    return reference("08_asyncio")


@pytest.fixture(scope="module")
def every_way(asyncio_set: Reference) -> list[Grade]:
    """Grades in which every state there is comes up, two questions in each way."""
    ways = [*EVERY_WAY, AMBIGUOUS, TOO_LONG]
    return [grade_of_states(asyncio_set, ways[start:], f"student-{start}") for start in range(0, len(ways), 8)]


@pytest.mark.parametrize("slug", SLUGS)
def test_a_page_tells_points_check_message_hint_and_reading_of_each_question(slug: str) -> None:
    one = reference(slug)
    texts = texts_of(one)
    for state in (FAILED, "hidden failed"):
        said = Outline(page_of(grade_of_states(one, [state] * len(one.questions)))).text
        for question in one.questions:
            words = texts.questions[question.exercise]
            got = question.visible_points if state == "hidden failed" else 0
            title = Outline(words.title.replace("`", "")).said
            assert f"{title} {'●' * got}{'○' * (question.points - got)}{got} of {question.points}" in said
            plain = said.replace("`", "")
            assert plain_start(words.hint) in plain
            assert plain_start(words.reading) in plain
            assert question.wrong[0][1].replace("`", "") in plain


def plain_start(markdown: str) -> str:
    """Return the first words of Markdown that hold no mark-up."""
    return re.split(r"[*`\[_]", " ".join(markdown.split()))[0].strip()


def test_every_state_is_explained_in_a_sentence(every_way: list[Grade]) -> None:
    seen = set()
    for grade in every_way:
        said = Outline(page_of(grade)).text
        for question in grade.questions:
            seen.add(question.state)
            assert MEANING.get(question.state, "") in said
            partly = 0 < (question.points or 0) < question.max
            assert f"{'In part' if partly else HEADLINES[question.state]}. " in said
    assert seen == set(HEADLINES)
    assert set(HEADLINES) - set(MEANING) == {PASSED}


def test_an_answer_that_raises_only_the_second_time_is_told_so(asyncio_set: Reference) -> None:
    question = asyncio_set.questions[0]
    again = "It ran well once, and ended with an error when it ran again."
    passed = CheckResult(True, visible_verdict(question))
    given = {one.exercise: Answer("pass") for one in asyncio_set.questions}
    results = dict.fromkeys(given, Result(PASSED, "", passed, passed))
    results[question.exercise] = Result(RAISED, again, visible=passed)
    submission = Submission("ann.ipynb", "ann", asyncio_set.slug, 0.0, HandedIn("", "", ()))
    said = Outline(page_of(grade_of(asyncio_set, submission, given, results))).text
    assert again in said
    assert MEANING[RAISED] not in said
    assert "The check in your notebook passed: 1 of 1" in said


def test_which_check_failed_is_said(asyncio_set: Reference) -> None:
    said = Outline(page_of(grade_of_states(asyncio_set, ["hidden failed"]))).text
    assert "The check in your notebook passed: 1 of 1" in said
    assert "The hidden check, on other inputs did not pass: 0 of 1" in said


def test_an_open_question_is_no_lost_one(asyncio_set: Reference) -> None:
    said = Outline(page_of(grade_of_states(asyncio_set, [NOT_JUDGED, NOT_JUDGED]))).text
    assert "19 of 23 points so far; 4 are still open" in said
    assert said.count("open, of 2") == 4


@pytest.mark.parametrize("slug", SLUGS)
def test_nothing_of_a_hidden_check_or_a_solution_is_on_any_page(slug: str) -> None:
    one = reference(slug)
    count = len(one.questions)
    pages = [page_of(grade_of_states(one, [state] * count)) for state in EVERY_WAY]
    said = "\n".join(Outline(page).said for page in pages)
    # The message in `otherwise=` is its author's words, which a student is told.
    told = {message for question in one.questions for _, message in question.wrong}
    public = "\n".join(text_of(cell["source"]) for cell in one.notebook["cells"] if cell["cell_type"] == "markdown")
    public += "".join(text_of(question.visible["outputs"][0]["text"]) for question in one.questions)
    checked = 0
    for question in one.questions:
        secret = text_of(question.hidden["source"]) + text_of(question.hidden["outputs"][0]["text"])
        for line in {line.strip(" ✓") for line in f"{secret}\n{question.solution}".splitlines()}:
            if len(line) > 24 and line not in public and not any(message in line for message in told):
                checked += 1
                assert line not in said
    assert checked > 20


def test_the_judges_own_trouble_is_not_told_to_students(asyncio_set: Reference) -> None:
    assert "/srv/grader" not in page_of(grade_of_states(asyncio_set, [NOT_JUDGED]))


def test_hostile_text_adds_no_element_and_no_attribute(asyncio_set: Reference, every_way: list[Grade]) -> None:
    plain = {shape for grade in every_way for shape in Outline(page_of(grade)).shapes}
    plain |= {("div", ("class",)), ("ul", ()), ("li", ())}
    for grade in every_way:
        page = page_of(hostile(grade))
        outline = Outline(page)
        assert outline.shapes <= plain
        assert outline.text.count("<script>fetch('//evil.example')</script>") > 5
        assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\uffff]", page)
        assert page.encode()


def test_a_page_is_the_same_each_time_and_small(every_way: list[Grade]) -> None:
    for grade in every_way:
        page = page_of(grade)
        assert page == page_of(grade)
        assert len(page.encode()) < MOST_KB * 1024


def test_a_page_runs_nothing_and_asks_for_nothing(shown: Open, every_way: list[Grade]) -> None:
    for grade in (every_way[0], hostile(every_way[0])):
        page = shown(page_of(grade))
        policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content") or ""
        assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.locator("h1").count() == 1
        assert page.locator("script, img, link, iframe, object, form").count() == 0


def test_a_link_in_the_overview_leads_to_its_question(shown: Open, every_way: list[Grade]) -> None:
    page = shown(page_of(every_way[0]), viewport=PHONE)
    for link in page.locator(".overview a").all():
        target = link.get_attribute("href") or ""
        assert page.locator(target).locator("h2").inner_text() == link.inner_text()


@pytest.mark.parametrize("width", [PHONE["width"], DESK["width"]])
def test_no_page_scrolls_sideways(shown: Open, every_way: list[Grade], width: int) -> None:
    for grade in (*every_way, hostile(every_way[0])):
        page = shown(page_of(grade), viewport={"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_no_page_breaks_a_rule_of_axe(shown: Open, every_way: list[Grade]) -> None:
    for grade in (every_way[0], hostile(every_way[1])):
        page = shown(page_of(grade), viewport=PHONE, color_scheme="light")
        for viewport, scheme in ((PHONE, "light"), (DESK, "dark")):
            page.set_viewport_size(viewport)  # type: ignore[arg-type]
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            found = Axe().run(page, options={"resultTypes": ["violations"]})
            assert not found.violations_count, found.generate_report()


def test_on_paper_nothing_is_cut_off(shown: Open, every_way: list[Grade]) -> None:
    page = shown(page_of(hostile(every_way[0])), viewport=DESK, color_scheme="dark")
    cut = "[...document.querySelectorAll('pre')].filter((box) => box.scrollHeight > box.clientHeight + 1).length"
    assert page.evaluate(cut) > 0
    page.emulate_media(media="print")
    assert page.evaluate(cut) == 0
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(23, 32, 28)"


def changed(grade: Grade, **changes: object) -> str:
    """Return the text of a grade's page, whose first question is changed."""
    first, *others = grade.questions
    return Outline(page_of(replace(grade, questions=(replace(first, **changes), *others)))).said


def test_expectations_are_laid_out_and_not_wrapped(asyncio_set: Reference) -> None:
    words = "A sentence that is long enough to be wrapped where the line ends, because it goes on and on, and on."
    missed = Expectation("two", False, f"{words}\nAnother line.", "3", detail="ValueError: no")
    said = changed(grade_of_states(asyncio_set, [FAILED]), expectations=(Expectation("one", held=True), missed))
    for line in ("Holds: one", "Does not hold: two", "ValueError: no", words, "Another line.", "Seen: 3"):
        assert line in said.splitlines()


def test_what_an_answer_printed_is_shown_and_read_as_nothing_else(asyncio_set: Reference) -> None:
    printed = "✓ all is well\n✗ nothing is\n  words\nadd: not yet."
    for state in (PASSED, FAILED, *STATES):
        grade = grade_of_states(asyncio_set, [state])
        first, *others = grade.questions
        before = page_of(replace(grade, questions=(replace(first, printed=""), *others)))
        page = page_of(replace(grade, questions=(replace(first, printed=printed), *others)))
        shown = f'<h3>What your code printed</h3>\n<pre tabindex="0">{printed}</pre>\n'
        assert page.replace(shown, "") == before
        assert shown in page


def test_coroutines_never_awaited_and_a_judges_note_are_told(asyncio_set: Reference) -> None:
    said = changed(grade_of_states(asyncio_set, [FAILED]), never_awaited=("fetch",), note="Judged again, alone.")
    assert "Called, but never awaited, so that nothing of it has run: fetch\n" in said
    assert "Judged again, alone." in said


def test_a_grade_of_an_earlier_form_shows_its_feedback(asyncio_set: Reference) -> None:
    text = "✗ one\n  words"
    said = changed(grade_of_states(asyncio_set, [FAILED]), expectations=(), feedback=text, reason=text)
    assert "✗ one\nwords\n" in said


def test_all_hostile_texts_are_shown_as_far_as_they_can_be(asyncio_set: Reference) -> None:
    said = Outline(page_of(hostile(grade_of_states(asyncio_set, [FAILED])))).said
    assert HOSTILE[0] in said
    assert "{{ 7 * 7 }}{% raw %}" in said
    assert "�stniop 42�" in said
    assert "x" * 10_000 in said
    accent = "\N{COMBINING ACUTE ACCENT}"
    assert f"e{accent * 4}\n" in said
    assert accent * 5 not in said
