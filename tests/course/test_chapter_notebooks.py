"""A chapter's notebook shows plain Markdown wherever it is opened, and the chapter's own code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jupytext.myst import myst_to_notebook
from pybtex.database import Entry, Person

from scalelab.course import Chapter, chapters, find_course
from scalelab.student.chapter_notebooks import chapter_notebook, plain

COURSE = find_course(Path(__file__).parent)
CHAPTERS = chapters(COURSE)
MYST = re.compile(r"\{[a-z][\w:-]*\}`|^(?:`{3,}|:{3,})\{", re.MULTILINE)
ENTRIES = {
    "one": Entry("book", fields={"year": "1961"}, persons={"author": [Person("Little, John D. C.")]}),
    "many": Entry(
        "book",
        fields={"year": "2013", "url": "https://example.org/many"},
        persons={"author": [Person(name) for name in ("Miller, K.", "Lasry, N.", "Chu, K.")]},
    ),
    "group": Entry("misc", fields={"year": "2026", "title": "The {asyncio} manual"}),
}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.slug)
def test_a_chapter_is_plain_and_its_code_is_its_own(chapter: Chapter) -> None:
    notebook = chapter_notebook(COURSE, chapter)
    source = myst_to_notebook(chapter.path.read_text(encoding="utf-8"))
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code == [cell.source for cell in source.cells if cell.cell_type == "code"]
    prose = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    assert [text for text in prose if MYST.search(text)] == []
    assert f"**{chapter.minutes} minutes.**" in prose[0]
    assert not re.search(r"\]\([^)]*\.md[)#]", "".join(prose))
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    assert notebook == chapter_notebook(COURSE, chapter)


@pytest.mark.parametrize(
    ("myst", "shown"),
    [
        ("proved {cite}`one`.", "proved (Little 1961)."),
        ("see {cite:p}`one,many`", "see (Little 1961; [Miller et al. 2013](https://example.org/many))"),
        ("{cite}`group`, {cite}`lost`", "(The asyncio manual 2026), (lost)"),
        ("a {doc}`page` and {ref}`that one <target>`", "a page and that one"),
        ("[laws](02_laws.md#knee), [words](../book/glossary.md)", "[laws](02_laws.ipynb#knee), words"),
        ("[out](https://example.org/a.md)", "[out](https://example.org/a.md)"),
        ("```{note}\nMind it.\n```\nOn.", "> **Note**\n>\n> Mind it.\nOn."),
        (":::{admonition} Title here\n:class: tip\nOne.\n\nTwo.\n:::", "> **Title here**\n>\n> One.\n>\n> Two."),
        ("```python\n{cite}`one`\n```\nand {cite}`one`", "```python\n{cite}`one`\n```\nand (Little 1961)"),
        ("$x^{2}`$ stays", "$x^{2}`$ stays"),
    ],
)
def test_myst_as_plain_markdown(myst: str, shown: str) -> None:
    assert plain(myst, ENTRIES, {"02_laws.md"}) == shown
