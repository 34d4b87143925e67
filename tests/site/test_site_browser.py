"""The built site in a browser: light, quiet, searchable, usable on a phone and by those who cannot see it."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from site_server import Site, Visit

MOST_KB = 300
MOST_REQUESTS = 40
CHAPTER = "chapters/08_asyncio.html"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
COLOURS = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}
ALL_BUT_COLOURS = {"resultTypes": ["violations"], "rules": {"color-contrast": {"enabled": False}}}
NO_CODE = {"exclude": [[".highlight"]]}  # its colours are the same on every screen, and take most of the time

Open = Callable[..., Visit]


def read_to_the_end(page: Page) -> None:
    """Scroll through the page, so that what waits for the reader to come near is fetched."""
    page.evaluate(
        """async () => {
            for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
                scrollTo({top: y, behavior: "instant"});
                await new Promise((done) => requestAnimationFrame(done));
            }
        }"""
    )
    page.wait_for_load_state("networkidle")


def test_every_page_is_light_and_asks_nobody_else(site: Site, visit: Open, tell: Callable[[str], None]) -> None:
    problems, table = [], []
    for path in site.pages:
        site.sent.clear()
        seen = visit(path)
        requests, kilobytes = len(seen.requests), sum(site.sent.values()) / 1000
        table.append(f"{path:32} {kilobytes:7.1f} KB {requests:4} requests")
        if kilobytes > MOST_KB or requests > MOST_REQUESTS:
            problems.append(f"{path} is too heavy: {kilobytes:.0f} KB, {requests} requests")
        read_to_the_end(seen.page)
        host = urlsplit(site.address).netloc
        problems += [f"{path} asks {url}" for url in seen.requests if urlsplit(url).netloc not in {host, ""}]
        problems += [f"{path}: {error}" for error in seen.errors]
        seen.page.context.close()
    tell("\n".join(table))
    assert not problems, "\n".join(problems)


def test_no_page_breaks_a_rule_of_axe(site: Site, visit: Open) -> None:
    problems = []
    for path in sorted(set(site.pages) - {"index.html"}):  # the same page as book/index.html
        for viewport, context in ((DESK, None), (PHONE, NO_CODE)):
            page = visit(path, until="load", viewport=viewport, reduced_motion="reduce", color_scheme="light").page
            found = [Axe().run(page, options=ALL_BUT_COLOURS), Axe().run(page, context, COLOURS)]
            page.emulate_media(color_scheme="dark")
            found.append(Axe().run(page, context, COLOURS))
            problems += [f"{path}, {viewport}: {one.generate_report()}" for one in found if one.violations_count]
            page.context.close()
    assert not problems, "\n".join(problems)


def test_no_page_scrolls_sideways_on_a_phone(site: Site, visit: Open) -> None:
    wide = []
    for path in site.pages:
        page = visit(path, until="load", viewport=PHONE).page
        page.evaluate("document.querySelectorAll('details').forEach((box) => (box.open = true))")
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            wide.append(f"{path}: {width} px")
        page.context.close()
    assert not wide


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


def test_the_page_reads_without_scripts(site: Site, visit: Open) -> None:
    page = visit(CHAPTER, java_script_enabled=False, viewport=PHONE).page
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
