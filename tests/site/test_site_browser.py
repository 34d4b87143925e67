"""The built site in a browser: light, quiet, searchable, usable on a phone and by those who cannot see it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect
from site_reader import PHONE, Reading, broken_rules
from site_server import Site, Visit

MOST_KB = 300
MOST_KB_WITH_FIGURES = 350
MOST_REQUESTS = 40
CHAPTER = "chapters/08_asyncio.html"

Open = Callable[..., Visit]

pytestmark = pytest.mark.timeout(900)  # the first test that asks for the readings has every page read


def test_every_page_is_light_and_asks_nobody_else(
    site: Site, readings: list[Reading], tell: Callable[[str], None]
) -> None:
    host = urlsplit(site.address).netloc
    problems = []
    for page in readings:
        most = MOST_KB_WITH_FIGURES if page.figures else MOST_KB
        if page.kilobytes > MOST_KB or page.whole_kilobytes > most or len(page.asked) > MOST_REQUESTS:
            weight = f"{page.kilobytes:.0f} KB at first, {page.whole_kilobytes:.0f} KB in all"
            problems.append(f"{page.path} is too heavy: {weight}, {len(page.asked)} requests")
        problems += [f"{page.path} asks {url}" for url in page.asked if urlsplit(url).netloc not in {host, ""}]
        problems += [f"{page.path}: {error}" for error in page.errors]
    head = f"{'page':28} {'first KB':>8} {'in all':>7} {'requests':>8} {'in all':>6} {'errors':>6} {'axe':>4}"
    rows = [
        f"{page.path:28} {page.kilobytes:8.1f} {page.whole_kilobytes:7.1f} {page.requests:8} {len(page.asked):6} "
        f"{len(page.errors):6} {len(page.violations):4}"
        for page in readings
    ]
    tell("\n".join([head, *rows]))
    assert not problems, "\n".join(problems)


def test_no_page_breaks_a_rule_of_axe(readings: list[Reading]) -> None:
    problems = [said for page in readings for said in page.violations]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(("theme", "where"), [("light", ".highlight .k"), ("dark", "main p")], ids=["code", "text"])
def test_axe_would_see_one_faint_text(visit: Open, theme: str, where: str) -> None:
    page = visit(CHAPTER, until="load", color_scheme="light").page
    page.locator(f"{where}:visible").last.evaluate("(element) => (element.id = 'faint')")
    page.add_style_tag(content=f"@media (prefers-color-scheme: {theme}) {{ #faint {{ opacity: 0.4 }} }}")
    [said] = broken_rules(page)
    assert said.startswith(f"{theme} theme: ")
    assert "color-contrast" in said


def test_no_page_scrolls_sideways_on_a_phone(readings: list[Reading]) -> None:
    assert not [f"{page.path}: {page.width_on_phone} px" for page in readings if page.width_on_phone > PHONE["width"]]


def test_the_contents_open_on_a_phone_and_lead_on(site: Site, visit: Open) -> None:
    page = visit("index.html", viewport=PHONE).page
    contents = page.get_by_role("navigation", name="Contents of the book")
    expect(contents).to_be_hidden()
    page.get_by_role("button", name="Contents of the book").click()
    contents.get_by_role("link", name="Glossary").click()
    expect(page).to_have_url(re.compile("/book/glossary.html$"))
    expect(contents).to_be_hidden()


def test_search_finds_a_word_and_leads_to_it(site: Site, visit: Open) -> None:
    seen = visit("index.html")
    seen.page.get_by_role("searchbox", name="Search the book").fill("semaphore")
    seen.page.keyboard.press("Enter")
    expect(seen.page.get_by_role("searchbox", name="Search the book")).to_have_value("semaphore")
    found = seen.page.locator("#search-results").get_by_role("link", name="Glossary").first
    found.click()
    expect(seen.page.get_by_role("heading", level=1, name="Glossary")).to_be_visible()
    assert not seen.errors


def test_the_theme_follows_the_system_until_the_reader_chooses(site: Site, visit: Open) -> None:
    page = visit("book/glossary.html", color_scheme="light").page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(background)
    assert light != dark
    switch = page.get_by_role("button", name="Dark theme")
    expect(switch).to_have_attribute("aria-pressed", "true")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "false")
    assert page.evaluate(background) == light
    page.goto(site.address + "book/syllabus.html")
    assert page.evaluate(background) == light


def test_a_prediction_is_kept_and_marked_on_the_chart(site: Site, visit: Open) -> None:
    page = visit(CHAPTER).page
    form = page.locator("form.sl-predict[data-kind=number]").first
    key = form.get_attribute("data-prediction")
    form.get_by_role("spinbutton").fill("500")
    form.get_by_role("button", name="Commit").click()
    expect(form.get_by_role("status")).to_contain_text("500")
    page.reload()
    expect(form.get_by_role("spinbutton")).to_have_value("500")
    chart = page.locator(f"figure[data-shows-prediction='{key}']")
    expect(chart.locator(".sl-prediction-mark line")).to_be_attached()
    expect(page.locator(f"span[data-shows-prediction='{key}']").first).to_contain_text("500")


def test_what_a_reader_leaves_is_kept_shown_saved_loaded_and_cleared(site: Site, visit: Open, tmp_path: Path) -> None:
    seen = visit(CHAPTER)
    page = seen.page
    finish = page.get_by_role("region", name="Your progress")
    expect(finish).to_contain_text("0 of 5 predictions committed, 0 of 4 checkpoint questions answered")
    form = page.locator("form.sl-predict[data-kind=number]").first
    form.get_by_role("spinbutton").fill("500")
    form.get_by_role("button", name="Commit").click()
    question = page.get_by_role("group", name="Question 1")
    for kind, verdict in (("wrong", "Not yet. Try another answer."), ("right", "Right at try 2.")):
        question.locator(f".sl-{kind} summary").first.press("Enter")
        expect(question.get_by_role("status")).to_have_text(verdict)
    expect(finish).to_contain_text("1 of 5 predictions committed, 1 of 4 checkpoint questions answered")
    here = page.get_by_role("navigation", name="Contents of the book").locator("[aria-current=page]")
    expect(here).to_contain_text(", begun")
    finish.get_by_role("button", name="Mark as finished").click()
    expect(here).to_contain_text(", finished")

    page.goto(site.address)
    row = page.locator(".sl-kept li", has_text="Waiting scales over coroutines")
    shown = "Finished · 1 of 5 predicted · 1 of 4 questions answered"
    expect(row).to_contain_text(shown)
    kept = page.evaluate("({...localStorage})")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save to a file").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    said = page.locator(".sl-kept [role=status]")
    expect(said).to_contain_text(f"Saved 3 entries to {saved.name}")

    page.get_by_role("button", name="Clear everything").click()
    expect(row).to_contain_text("Not begun")
    assert not any("prediction" in key for key in page.evaluate("Object.keys(localStorage)"))
    page.get_by_role("button", name="Undo").click()
    assert page.evaluate("({...localStorage})") == kept
    page.get_by_role("button", name="Clear everything").click()

    for wrong, says in {
        "not JSON": "no JSON",
        "{}": "not saved by this book",
        saved.read_text(encoding="utf-8").replace('"format": 1', '"format": 2'): "format 2",
        saved.read_text(encoding="utf-8").replace('"tries": 2', '"tries": "2"'): "“08-1” of “answer” is damaged",
    }.items():
        file = tmp_path / "wrong.json"
        file.write_text(wrong, encoding="utf-8")
        page.locator(".sl-kept input[type=file]").set_input_files(file)
        expect(said).to_contain_text(says)
        expect(row).to_contain_text("Not begun")
    page.locator(".sl-kept input[type=file]").set_input_files(saved)
    expect(said).to_contain_text(f"Loaded 3 entries from {saved.name}")
    expect(row).to_contain_text(shown)
    assert page.evaluate("({...localStorage})") == kept
    page.goto(site.address + CHAPTER)
    expect(page.get_by_role("group", name="Question 1").get_by_role("status")).to_have_text("Right at try 2.")
    assert not [url for url in seen.requests if not url.startswith((site.address, "blob:"))]
    assert not seen.errors


def test_without_storage_the_page_works_and_says_that_nothing_is_kept(site: Site, visit: Open) -> None:
    seen = visit("index.html", until="load")
    seen.page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('off', 'SecurityError'); } })"
    )
    seen.page.reload()
    expect(seen.page.locator(".sl-kept [role=status]")).to_contain_text("storage is switched off")
    seen.page.goto(site.address + CHAPTER)
    question = seen.page.get_by_role("group", name="Question 1")
    question.locator("summary").first.press("Enter")
    expect(question.locator("details p").first).to_be_visible()
    form = seen.page.locator("form.sl-predict[data-kind=number]").first
    form.get_by_role("spinbutton").fill("500")
    form.get_by_role("button", name="Commit").click()
    expect(form.get_by_role("status")).to_contain_text("Noted until you leave this page: 500")
    expect(seen.page.locator(".sl-prediction-mark").first).to_be_attached()
    assert not seen.errors


def test_a_checkpoint_answers_without_a_script(visit: Open) -> None:
    page = visit(CHAPTER, until="load", java_script_enabled=False).page
    answer = page.get_by_role("group", name="Question 1").locator("details.sl-right")
    expect(answer.locator("p")).to_be_hidden()
    answer.locator("summary").press("Enter")
    expect(answer.locator("p")).to_contain_text("Right. Little's law")
    expect(page.get_by_text("Mark as finished")).to_have_count(0)


def test_a_chapter_prints_as_a_handout(visit: Open) -> None:
    page = visit(CHAPTER, until="load", color_scheme="dark").page
    page.emulate_media(media="print", color_scheme="dark")
    for left_out in (".sl-header", ".sl-nav", ".sl-finish", ".sl-turn", ".sl-predict button"):
        expect(page.locator(left_out).first).to_be_hidden()
    question = page.get_by_role("group", name="Question 1")
    expect(question.locator("summary").first).to_be_visible()
    expect(question.locator("details p").first).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light"
    theme = "document.documentElement.dataset.theme"
    before = page.evaluate(theme)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(theme) == "light"
    expect(page.locator(".sl-machine table").first).to_be_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(theme) == before == "auto"
    expect(page.locator(".sl-machine table").first).to_be_hidden()


def test_a_dead_link_leads_to_a_page_that_leads_on(site: Site, visit: Open) -> None:
    page = visit("chapters/no/such/page.html").page
    expect(page.get_by_role("heading", name="There is no page here")).to_be_visible()
    page.get_by_role("link", name="the glossary").click()
    expect(page).to_have_url(site.address + "book/glossary.html")


def test_the_page_reads_without_scripts(site: Site, visit: Open) -> None:
    page = visit(CHAPTER, until="load", java_script_enabled=False, viewport=PHONE).page
    for needed in (".sl-principle", ".cell_input pre", ".sl-figure svg[aria-label]", ".sl-claim", "math"):
        expect(page.locator(needed).first).to_be_visible()
    expect(page.locator(".sl-explorable")).to_contain_text("Turn on JavaScript to turn the knobs yourself.")
    expect(page.get_by_role("button", name="Dark theme")).to_be_hidden()
    page.get_by_role("button", name="Contents of the book").click()
    expect(page.get_by_role("navigation", name="Contents of the book")).to_be_visible()


def test_the_keyboard_reaches_the_content_first(site: Site, visit: Open) -> None:
    page = visit(CHAPTER).page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


def test_code_can_be_copied(site: Site, visit: Open) -> None:
    page = visit(CHAPTER).page
    cell = page.locator(".cell_input").first
    code = cell.locator("pre").inner_text()
    cell.hover()
    cell.get_by_role("button", name="Copy").click()
    expect(cell.get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").strip() == code.strip()


def test_open_in_lab_stays_hidden_where_there_is_no_lab(site: Site, visit: Open) -> None:
    page = visit(CHAPTER).page
    expect(page.locator("a.sl-open-in-lab")).to_be_attached()
    expect(page.locator("a.sl-open-in-lab")).to_be_hidden()


def test_maths_is_drawn_without_a_script(site: Site, visit: Open) -> None:
    seen = visit(CHAPTER)
    formula = seen.page.locator(".sl-equation math").first
    box = formula.bounding_box()
    assert box is not None
    assert box["height"] > 10
    assert not [url for url in seen.requests if "mathjax" in url.lower()]
