"""The book's Sphinx extension: the parts that no page of today reaches."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docutils import nodes

from scalelab.author.sphinx import sharing
from scalelab.author.sphinx.maths import to_mathml
from scalelab.author.sphinx.page_head import _inline
from scalelab.author.sphinx.pages import _fix_markup


@pytest.mark.parametrize(
    ("latex", "parts"),
    [
        (r"L = \lambda W", ["<mi>&#x003BB;</mi>"]),
        (r"\operatorname{p99} < 1", ["<mtext>p99</mtext>"]),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", ["<mtable", "<mtr>"]),
        (r"\frac{N}{W}", ["<mfrac>"]),
    ],
)
def test_formulas_become_mathml(latex: str, parts: list[str]) -> None:
    math = to_mathml(latex, block=True)
    assert math.startswith("<math")
    assert all(part in math for part in parts)


@pytest.mark.parametrize("latex", [r"\nosuchcommand x", r"a & b"])
def test_a_formula_without_mathml_is_refused(latex: str) -> None:
    with pytest.raises(ValueError, match="no MathML"):
        to_mathml(latex, block=False)


def test_tables_scroll_inside_themselves_and_have_no_empty_header() -> None:
    assert _fix_markup('<table class="dataframe"><tr><th></th><th>a</th></tr></table>') == (
        '<div class="sl-scroll" tabindex="0"><table class="dataframe"><tr><td></td><th>a</th></tr></table></div>'
    )


@pytest.mark.parametrize(
    ("block", "focusable"),
    [
        ("<pre>code</pre>", '<pre tabindex="0">code</pre>'),
        ('<pre class="a">code</pre>', '<pre tabindex="0" class="a">code</pre>'),
        ('<pre class="a" tabindex="0">code</pre>', '<pre class="a" tabindex="0">code</pre>'),
        ('<div class="sl-equation" id="b">', '<div class="sl-equation" tabindex="0" id="b">'),
        ("<preview>", "<preview>"),
    ],
)
def test_blocks_that_can_scroll_get_one_tabindex(block: str, focusable: str) -> None:
    assert _fix_markup(block) == focusable


@pytest.mark.parametrize("given", ["https://example.org/course", "https://example.org/course/"])
def test_with_an_address_pages_are_shared_by_it_and_listed(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sharing.ADDRESS_VARIABLE, given)
    config = SimpleNamespace(html_baseurl="", root_doc="book/index", html_title="The book")
    titles = {"book/index": nodes.title("", "Start"), "chapters/08_asyncio": nodes.title("", "Waiting")}
    env = SimpleNamespace(found_docs=set(titles), titles=titles)
    app: Any = SimpleNamespace(config=config, env=env, outdir=str(tmp_path), builder=SimpleNamespace(format="html"))
    sharing._set_base_url(app, config)
    sharing._write_sitemap(app, None)
    found = re.findall("<loc>(.*?)</loc>", (tmp_path / "sitemap.xml").read_text("utf-8"))
    assert found == ["https://example.org/course/", "https://example.org/course/chapters/08_asyncio.html"]
    for page, address in zip(titles, found, strict=True):
        context = {"description": "What it is about."}
        sharing._add_sharing_metadata(app, page, "page.html", context, nodes.document(None, None))
        assert context["pageurl"] == address
        picture = context["og_image"].removeprefix("https://example.org/course/")
        assert (tmp_path / picture).is_file()


def test_without_an_address_there_is_no_sitemap(tmp_path: Path) -> None:
    app: Any = SimpleNamespace(config=SimpleNamespace(html_baseurl=""), outdir=tmp_path, builder=None)
    app.builder = SimpleNamespace(format="html")
    (tmp_path / "sitemap.xml").write_text("of an earlier build", "utf-8")
    sharing._write_sitemap(app, None)
    assert not list(tmp_path.iterdir())


def test_front_matter_shows_code_and_nothing_else() -> None:
    assert _inline("`await` <b>") == "<code>await</code> &lt;b&gt;"
