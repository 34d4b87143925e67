"""Explorables on a built page: our Sphinx extension and the page's loader, in a browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from scalelab.course import Course
from scalelab.explorables import Explorable, bundle, explorable, names, stylesheet

HOST = "http://site.test"
CONFIG = """
extensions = ["myst_nb", "scalelab.author.sphinx.explorables"]
html_static_path = [STATIC]
nb_execution_mode = "off"
nb_ipywidgets_js = {"https://widgets.test/loader.js": {}}
nb_mime_priority_overrides = [("html", "text/html", 5)]
exclude_patterns = ["_build"]
root_doc = "contents"
"""


def notebook(figures: list[Explorable], *, others: bool) -> nbformat.NotebookNode:
    """A notebook as its run leaves it: explorables shown in cells, their state and that of other widgets saved."""
    saved: dict[str, Any] = {}
    cells = [nbformat.v4.new_markdown_cell("# A page")]
    for widget in figures:
        saved[widget.model_id] = {"model_name": "AnyModel", "state": widget.get_state()}
        layout = widget.layout
        saved[layout.model_id] = {"model_name": "LayoutModel", "state": layout.get_state()}
        shown = widget._repr_mimebundle_()
        assert shown is not None
        output = nbformat.v4.new_output("display_data", data=shown[0])
        cells.append(nbformat.v4.new_code_cell("explorable()", outputs=[output], execution_count=1))
        widget.close()
    if others:
        saved["other"] = {"model_name": "IntSliderModel", "state": {"description": "</script>"}}
    state = {"version_major": 2, "version_minor": 0, "state": saved}
    metadata = {"widgets": {"application/vnd.jupyter.widget-state+json": state}} if saved else {}
    metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    # Widget states hold what JSON writes in its own way; a notebook on disk has been through it.
    return nbformat.from_dict(
        json.loads(json.dumps(nbformat.v4.new_notebook(cells=cells, metadata=metadata), default=str))
    )


@pytest.fixture(scope="module")
def site(course: Course, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("site")
    config = CONFIG.replace("STATIC", repr(str(course.root / "book" / "_static")))
    (source / "conf.py").write_text(config, "utf-8")
    first, second = ([explorable("event_loop", seed=seed) for seed in range(1, count + 1)] for count in (1, 2))
    points = explorable("scaling_laws", points=[(1, 40), (20, 500)], rate=40, unit="reader's turns/s")
    pages = {"index": [], "one": first, "two": second, "three": [explorable("queue", seed=3), points]}
    for name, figures in pages.items():
        nbformat.write(notebook(figures, others=name == "two"), source / f"{name}.ipynb")
    (source / "contents.md").write_text("# Contents\n\n```{toctree}\nindex\none\ntwo\nthree\n```\n", "utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(source), str(source / "_build")]
    built = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return source / "_build"


@pytest.fixture
def visit(site: Path, browser: Browser) -> Iterator[Callable[..., Page]]:
    contexts = []
    types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}

    def visited(address: str, *, broken: bool = False, **options: Any) -> Page:
        context = browser.new_context(reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()

        def serve(route: Route) -> None:
            path = site / route.request.url.removeprefix(f"{HOST}/").split("#")[0].split("?")[0]
            if broken and path.parent.name == "explorables":
                route.fulfill(status=404)
            elif path.is_file():
                route.fulfill(body=path.read_bytes(), content_type=types.get(path.suffix, "application/octet-stream"))
            else:
                route.fulfill(status=404)

        page.route("**/*", serve)
        page.goto(f"{HOST}/{address}")
        return page

    yield visited
    for context in contexts:
        context.close()


def test_the_built_site_has_the_text_that_lab_loads(site: Path) -> None:
    folder = site / "_static" / "explorables"
    assert {path.name for path in folder.iterdir()} == {"explorables.css", *(f"{name}.js" for name in names())}
    for name in names():
        assert (folder / f"{name}.js").read_bytes().decode() == bundle(name)
    assert (folder / "explorables.css").read_bytes().decode() == stylesheet()


def test_only_pages_with_a_figure_load_its_style_and_loader(site: Path) -> None:
    index, one = ((site / f"{name}.html").read_text("utf-8") for name in ("index", "one"))
    assert "explorables" not in index
    assert one.count("explorables/explorables.css") == 1
    assert len(re.findall(r"<script[^>]+explorables\.js[^>]*>", one)) == 1
    assert 'type="module"' in one


def test_saved_widgets_of_explorables_stay_off_the_page(site: Path) -> None:
    one, two = ((site / f"{name}.html").read_text("utf-8") for name in ("one", "two"))
    for page in (one, two):
        assert "anywidget" not in page
        assert "LayoutModel" not in page
    assert "widget-state" not in one
    assert "widgets.test" not in one
    assert "IntSliderModel" in two
    assert "widgets.test" in two
    saved = re.search(r'<script type="application/vnd.jupyter.widget-state\+json">(.*?)</script>', two, re.DOTALL)
    assert saved is not None
    assert list(json.loads(saved[1])["state"]) == ["other"]


def test_the_figure_takes_the_place_of_its_words(visit: Callable[..., Page]) -> None:
    page = visit("one.html")
    expect(page.locator(".sl-explorable .sl-x-clock")).to_contain_text("seed 1")
    expect(page.get_by_text("Turn on JavaScript")).to_have_count(0)


def test_figures_of_several_kinds_stand_on_one_page_and_have_what_they_were_given(visit: Callable[..., Page]) -> None:
    page = visit("three.html")
    expect(page.locator("#queue .sl-x-clock")).to_contain_text("seed 3")
    laws = page.locator("#scaling_laws")
    expect(laws.locator("caption")).to_have_text("What each law says, by the knobs above, in reader's turns/s")
    expect(laws.get_by_role("rowheader", name="Off the points by")).to_be_visible()
    laws.get_by_role("slider", name="Workers").press("ArrowRight")
    page.wait_for_url("**/three.html#scaling_laws?seed=8&serial=50&workers=65&contention=30&coherency=500")


def test_without_javascript_the_words_stay(visit: Callable[..., Page]) -> None:
    page = visit("one.html", java_script_enabled=False)
    expect(page.get_by_text("Turn on JavaScript")).to_be_visible()
    expect(page.locator(".sl-explorable")).to_contain_text("One event loop can serve 2,000 requests/s")


def test_where_the_module_cannot_be_had_the_words_stay(visit: Callable[..., Page]) -> None:
    page = visit("one.html", broken=True)
    page.wait_for_timeout(300)
    expect(page.get_by_text("Turn on JavaScript")).to_be_visible()
    assert page.locator(".sl-x").count() == 0


def test_the_address_keeps_what_the_reader_turned_and_opens_it_again(visit: Callable[..., Page]) -> None:
    page = visit("two.html")
    second = page.locator(".sl-explorable").nth(1)
    second.get_by_role("slider", name="Threads").fill("90")
    second.get_by_role("checkbox").check()
    page.wait_for_url("**/two.html#event_loop-2?seed=2&rate=400&wait=500&threads=90&blocking=true")
    seen = second.locator("tbody").inner_text()
    again = visit(page.url.removeprefix(f"{HOST}/"))
    second = again.locator(".sl-explorable").nth(1)
    expect(second.locator(".sl-x-value").nth(2)).to_have_text("90 threads")
    assert second.locator("tbody").inner_text() == seen
    expect(second.locator(".sl-x-title")).to_be_in_viewport()
    again.evaluate("location.hash = '#event_loop?seed=5&rate=1000&threads=1'")
    first = again.locator(".sl-explorable").first
    expect(first.locator(".sl-x-clock")).to_contain_text("seed 5")
    expect(first.locator(".sl-x-value").first).to_have_text("1,000 requests/s")


def test_a_figure_far_down_is_fetched_when_the_reader_comes_near(visit: Callable[..., Page]) -> None:
    page = visit("index.html")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(
        "addEventListener('DOMContentLoaded', () => document.body.style.setProperty('padding-top', '5000px'))"
    )
    page.goto(f"{HOST}/one.html")
    page.wait_for_timeout(300)
    assert not [url for url in asked if "event_loop.js" in url]
    page.locator(".sl-explorable").scroll_into_view_if_needed()
    expect(page.locator(".sl-x-clock")).to_be_visible()
    [fetched] = [url for url in asked if "event_loop.js" in url]
    assert re.search(r"event_loop\.js\?[0-9a-f]{8}$", fetched)
