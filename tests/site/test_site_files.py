"""The built site as files: every link leads somewhere, downloads are whole, lists are complete."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from scalelab.course import Course, chapters

RESOURCES = {"link": "href", "script": "src", "img": "src", "source": "src", "form": "action"}
SCROLLING_CLASSES = {"sl-scroll", "sl-equation"}
"""The classes that scroll sideways in scalebook.css; so does each `pre`."""


class Page(HTMLParser):
    """The addresses, anchors, open-in-Lab paths and scrolling blocks of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.anchors: list[str] = []
        self.lab: list[dict[str, str | None]] = []
        self.language = ""
        self.sections: list[str] = []
        self.meta: dict[str, str] = {}
        self.scrolling: list[tuple[str, list[str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors += [values["id"]] if values.get("id") else []
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))
        if tag in RESOURCES and values.get(RESOURCES[tag]):
            self.resources.append(str(values[RESOURCES[tag]]))
        if tag == "a" and "sl-open-in-lab" in (values.get("class") or ""):
            self.lab.append(values)
        if tag == "html":
            self.language = str(values.get("lang"))
        if tag == "section" and values.get("id"):
            self.sections.append(str(values["id"]))
        if tag == "pre" or SCROLLING_CLASSES & set((values.get("class") or "").split()):
            tab_indexes = [value for name, value in attrs if name == "tabindex"]
            self.scrolling.append((str(self.get_starttag_text()), tab_indexes))
        if tag == "meta":
            self.meta[str(values.get("name") or values.get("property"))] = str(values.get("content"))


@cache
def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def pages(built_site: Path) -> list[Path]:
    found = sorted(path for path in built_site.rglob("*.html") if "reports" not in path.parts)
    assert len(found) > 5
    return found


def dead(site: Path, path: Path) -> Iterator[str]:
    """Yield what does not lead anywhere in the page: files that are not there, anchors that its target has not."""
    page = read(path)
    for address in [*page.links, *page.resources]:
        parts = urlsplit(address)
        if parts.scheme == "data":
            continue
        if parts.scheme or parts.netloc:
            if address in page.resources:
                yield f"{path.name} loads {address}"
            continue
        here = path.relative_to(site).as_posix()
        target = (
            posixpath.normpath(posixpath.join(posixpath.dirname(here), unquote(parts.path))) if parts.path else here
        )
        file = site / target
        if target.startswith("..") or not file.is_file():
            yield f"{here}: {address} leads nowhere"
        elif parts.fragment and file.suffix == ".html" and unquote(parts.fragment) not in read(file).anchors:
            yield f"{here}: {address} has no such place"


def test_every_link_leads_somewhere(built_site: Path, pages: list[Path]) -> None:
    problems = [problem for path in pages for problem in dead(built_site, path)]
    assert not problems, "\n".join(problems)


def test_anchors_are_unique_and_pages_say_what_they_are(pages: list[Path]) -> None:
    for path in pages:
        page = read(path)
        twice = {anchor for anchor in page.anchors if page.anchors.count(anchor) > 1}
        assert not twice, f"{path.name}: {twice}"
        assert page.language == "en-GB"
        assert page.meta.get("description") or path.name == "search.html"


def test_a_link_to_a_section_says_where_it_leads_and_stays(course: Course, pages: list[Path]) -> None:
    for path in pages:
        numbered = [name for name in read(path).sections if re.fullmatch(r"id\d+", name)]
        assert not numbered, f"{path.name}: {numbered}"
    for chapter in chapters(course):
        text = chapter.path.read_text(encoding="utf-8")
        sections = read(course.html / "chapters" / f"{chapter.slug}.html").sections
        for number in re.findall(r"^## Experiment (\d):", text, re.MULTILINE):
            assert f"experiment-{number}" in sections
            assert f"experiment-{number}-run" in sections
            assert f"experiment-{number}-why" in sections


def test_a_shared_link_shows_what_it_leads_to(built_site: Path, pages: list[Path]) -> None:
    shared = [path for path in pages if path.name not in {"search.html", "404.html"}]
    seen = set()
    for path in shared:
        meta = read(path).meta
        assert meta["og:title"]
        assert meta["og:description"] == meta["description"]
        picture = (path.parent / meta["og:image"]).resolve()
        assert picture.is_relative_to(built_site.resolve())
        head = picture.read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == (1200, 630)
        seen.add(picture)
    assert len(seen) == len(shared) - 1  # the start page is written twice


def test_chapters_download_with_their_outputs(course: Course, built_site: Path) -> None:
    for chapter in chapters(course):
        page = built_site / "chapters" / f"{chapter.slug}.html"
        links = [link for link in read(page).links if link.endswith(".ipynb")]
        assert len(links) == 1
        notebook = json.loads((page.parent / links[0]).read_text(encoding="utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert all(cell["execution_count"] for cell in code if cell["source"])
        kinds = {
            output.get("metadata", {}).get("scalelab", {}).get("kind") for cell in code for output in cell["outputs"]
        }
        assert {"claim", "figure", "prediction"} <= kinds


def test_exercises_download_as_students_get_them(course: Course, built_site: Path) -> None:
    files = sorted(course.exercises.glob("*.ipynb"))
    assert files
    for file in files:
        page = built_site / "exercises" / f"{file.stem}.html"
        links = [link for link in read(page).links if link.endswith(".ipynb")]
        assert len(links) == 1
        given = json.loads((page.parent / links[0]).read_text(encoding="utf-8"))
        assert [cell["source"] for cell in given["cells"]] == [
            cell["source"] for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]
        ]


def test_notebook_pages_can_be_opened_in_lab(course: Course, built_site: Path) -> None:
    for page in [*(built_site / "chapters").glob("*.html"), *(built_site / "exercises").glob("*.html")]:
        links = read(page).lab
        assert len(links) == 1
        assert set(links[0]) == {"class", "data-path", "hidden"}
        assert (course.root / str(links[0]["data-path"])).is_file()


def test_the_list_of_claims_has_every_claim(course: Course, built_site: Path) -> None:
    listed = [link.partition("#") for link in read(built_site / "book" / "claims.html").links if "#claim-" in link]
    for chapter in chapters(course):
        made = [
            name for name in read(built_site / "chapters" / f"{chapter.slug}.html").anchors if name.startswith("claim-")
        ]
        assert made
        assert [anchor for page, _, anchor in listed if page == f"../chapters/{chapter.slug}.html"] == made
        back = [link for link in read(built_site / "chapters" / f"{chapter.slug}.html").links if "claims.html#" in link]
        assert back == [f"../book/claims.html#{chapter.number}-{claim}" for claim in made]


def test_every_figure_says_what_it_shows(pages: list[Path]) -> None:
    drawn = [found for path in pages for found in re.findall(r"<svg [^>]*role=\"img\"[^>]*>", path.read_text("utf-8"))]
    assert len(drawn) > 20
    for svg in drawn:
        assert re.search(r'aria-label="[^"]{30,}"', svg), svg[:200]
    pictures = [found for path in pages for found in re.findall(r"<img [^>]*>", path.read_text("utf-8"))]
    assert all(re.search(r'alt="[^"]{30,}"', picture) for picture in pictures)


def test_every_block_that_can_scroll_is_focusable_without_a_script(pages: list[Path]) -> None:
    blocks = [(path.name, *block) for path in pages for block in read(path).scrolling]
    for kind in ("<pre", "sl-scroll", "sl-equation"):
        assert any(kind in block for _, block, _ in blocks), f"no page has {kind}"
    problems = [f"{name}: {block}" for name, block, tab_indexes in blocks if tab_indexes != ["0"]]
    assert not problems, "\n".join(problems)


def test_the_landing_page_shows_a_chart_of_the_last_run(built_site: Path) -> None:
    for name in ("index.html", "book/index.html"):
        text = (built_site / name).read_text(encoding="utf-8")
        assert re.search(r'<figure class="sl-figure".*?<svg .*?aria-label="[^"]{20,}', text, re.DOTALL)


def test_the_syllabus_links_what_exists_and_marks_the_rest(course: Course, built_site: Path) -> None:
    text = (built_site / "book" / "syllabus.html").read_text(encoding="utf-8")
    parts = yaml.safe_load((course.root / "book" / "syllabus.yml").read_text(encoding="utf-8"))["parts"]
    written = {chapter.slug for chapter in chapters(course)}
    planned = {entry["slug"] for part in parts for entry in part["chapters"]} - written
    numbers = re.findall(r'<li class="sl-(?:un)?written"><span class="sl-number">(\d\d)</span>', text)
    assert numbers == sorted(slug[:2] for slug in written | planned) == [f"{number:02}" for number in range(1, 18)]
    assert text.count("sl-planned") == len(planned)
    for slug in written:
        assert f"../chapters/{slug}.html" in read(built_site / "book" / "syllabus.html").links


def test_every_reference_is_cited(course: Course) -> None:
    keys = set(re.findall(r"@\w+\{([^,]+),", (course.root / "book" / "references.bib").read_text(encoding="utf-8")))
    pages = [path for folder in ("book", "chapters") for path in (course.root / folder).glob("*.md")]
    citations = re.findall(r"\{cite[a-z:]*\}`([^`]+)`", "\n".join(path.read_text(encoding="utf-8") for path in pages))
    assert keys == {key.strip() for citation in citations for key in citation.split(",")}


def test_no_script_or_style_of_ours_names_another_host(built_site: Path) -> None:
    files = [path for path in (built_site / "_static").rglob("*") if path.suffix in {".css", ".js"}]
    ours = [path for path in files if path.name.startswith(("scalebook", "predict", "explorables"))]
    assert len(ours) >= 3
    for path in ours:
        assert not re.search(r"(url\(|from |import\(?)\s*[\"']?https?:", path.read_text(encoding="utf-8")), path.name
