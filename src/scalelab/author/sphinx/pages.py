"""What every page of the theme needs: its navigation, its own contents, a description, and clean markup."""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from scalelab.author.sphinx.claims_pages import row_of
from scalelab.author.sphinx.page_head import CHAPTERS, EXERCISES

UNUSED = re.compile(r"(^|/)(basic|pygments|mystnb\.\w+)\.css$")
SEARCH_ONLY = re.compile(r"(^|/)(documentation_options|doctools|sphinx_highlight|translations)\.js$")
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
NUMBERED = re.compile(r"chapters/(\d\d)_")
DESCRIPTION_LENGTH = 160
PLAIN_TOKEN = re.compile(r'<span class="(?:n|p|o|w|nn|nb|bp|vm|nv)">([^<]*)</span>')
EMPTY_HEADER = re.compile(r"<th(?: [^>]*)?>(?:\s|&nbsp;|<p></p>)*</th>")
SCROLLING = re.compile(r'<(?:pre\b|div class="sl-(?:scroll|equation)")(?![^>]*\btabindex=)')
"""The start of each block that scrolls sideways when it is wider than the page."""
LOCAL_LINK = re.compile(
    r'(\b(?:href="|src="|action="|og:image" content="|scalebook/\w+": "))(?![a-z]+:|[/#"])([^"?#]+)'
)
CLAIM = re.compile(r'(<p class="sl-claim" id="(claim-[^"]+)">.*?)(</span></p>)', re.DOTALL)
PAGE_OF_CLAIMS = "book/claims"
MODULES = ("kept", "predict", "checkpoint", "progress")
"""What scalebook.js imports, by names that the import map of each page leads to the newest text."""


@dataclass(frozen=True)
class Entry:
    """A link of the navigation; `number` is a chapter's, or empty."""

    docname: str
    title: str
    number: str
    children: tuple[Entry, ...]


@dataclass(frozen=True)
class Place:
    """A section of the page itself, one level below its title."""

    anchor: str
    title: str


def setup(app: Sphinx) -> None:
    app.add_js_file("scalebook.js", type="module")
    app.add_config_value("comments_config", {}, "")  # Jupyter Book always passes it
    app.connect("config-inited", _drop_foreign_options)
    app.connect("html-page-context", _complete, priority=900)
    app.connect("build-finished", _write_root)


def _drop_foreign_options(app: Sphinx, config: Any) -> None:
    """Jupyter Book always passes the options of its own theme."""
    config.html_theme_options = {}


def _complete(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    context["css_files"] = [css for css in context["css_files"] if not UNUSED.search(_file(css))]
    context["script_files"] = [
        js
        for js in context["script_files"]
        if js.attributes.get("type") != WIDGET_STATE and (page == "search" or not SEARCH_ONLY.search(_file(js)))
    ]
    context["modules"] = {name: f"_static/{name}.js?v={_version(app, name)}" for name in MODULES}
    context["finishes"] = page.startswith((CHAPTERS, EXERCISES))
    context["parts"] = _navigation(app)
    context["places"] = _places(doctree)
    context["description"] = _description(app, page, doctree)
    context["body"] = _link_claims(app, page, _mend(context.get("body", "")))


def _version(app: Sphinx, module: str) -> str:
    return hashlib.sha256(Path(app.srcdir, "book", "_static", f"{module}.js").read_bytes()).hexdigest()[:8]


def _link_claims(app: Sphinx, page: str, body: str) -> str:
    """Give each claim of a chapter a link to itself, and one to its row in the list of all claims."""
    if not page.startswith(CHAPTERS) or PAGE_OF_CLAIMS not in app.env.found_docs:
        return body
    claims = app.builder.get_relative_uri(page, PAGE_OF_CLAIMS)

    def linked(claim: re.Match[str]) -> str:
        opened, name, closed = claim.groups()
        here = f'<a class="headerlink" href="#{name}" title="Link to this claim">#</a>'
        back = f'<span class="sl-back"> · <a href="{claims}#{row_of(page, name)}">all claims</a></span>'
        return f"{opened}{back}{here}{closed}"

    return CLAIM.sub(linked, body)


def _file(asset: Any) -> str:
    return str(getattr(asset, "filename", asset))


def _navigation(app: Sphinx) -> list[tuple[str, list[Entry]]]:
    site = app.config.external_site_map
    return [(tree.caption or "", [_entry(app, name) for name in tree.files()]) for tree in site.root.subtrees]


def _entry(app: Sphinx, file: str) -> Entry:
    docname = posixpath.splitext(file)[0] if file.endswith((".md", ".ipynb")) else file
    number = NUMBERED.match(docname)
    place = app.config.external_site_map[file]
    children = tuple(_entry(app, child) for child in place.child_files())
    return Entry(docname, place.title or app.env.titles[docname].astext(), number.group(1) if number else "", children)


def _places(doctree: nodes.document | None) -> list[Place]:
    if doctree is None:
        return []
    sections = [section for section in doctree.findall(nodes.section) if _is_second_level(section)]
    titles = [(section["ids"][0], section.next_node(nodes.title)) for section in sections]
    return [Place(anchor, title.astext()) for anchor, title in titles if title is not None]


def _is_second_level(section: nodes.section) -> bool:
    return isinstance(section.parent, nodes.section) and not isinstance(section.parent.parent, nodes.section)


def _description(app: Sphinx, page: str, doctree: nodes.document | None) -> str:
    """A chapter's principle; of other pages the first paragraph, cut after a sentence or at a word."""
    paragraph = doctree.next_node(nodes.paragraph) if doctree is not None else None
    text = app.env.metadata[page].get("principle") or (paragraph.astext() if paragraph is not None else "")
    text = " ".join(text.split())
    if len(text) <= DESCRIPTION_LENGTH:
        return text
    sentences, _, _ = text[:DESCRIPTION_LENGTH].rpartition(". ")
    return f"{sentences}." if sentences else text[:DESCRIPTION_LENGTH].rsplit(" ", 1)[0] + " …"


def _mend(body: str) -> str:
    """Mend what Sphinx, myst-nb and pandas write: wide tables scroll inside themselves, blocks that can scroll are
    focusable without a script, no header cell is empty, the bibliography is a list of list items, what opens folded
    code is named by its own text, tokens without a colour of their own are plain text, and a term does not run into
    its definition in excerpts.
    """
    body = EMPTY_HEADER.sub("<td></td>", body)
    body = body.replace("<table", '<div class="sl-scroll"><table').replace("</table>", "</table></div>")
    body = SCROLLING.sub(r'\g<0> tabindex="0"', body)
    body = body.replace("</dt><dd>", "</dt>\n<dd>")
    body = PLAIN_TOKEN.sub(r"\1", body)
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    return body.replace('<summary aria-label="Toggle hidden content">', "<summary>")


def _write_root(app: Sphinx, error: Exception | None) -> None:
    """Write the landing page once more at the top of the site, with its links turned accordingly."""
    root = app.config.root_doc
    if error is not None or app.builder.format != "html" or "/" not in root:
        return
    folder = posixpath.dirname(root)
    page = Path(app.outdir, f"{root}.html").read_text("utf-8")

    def turn(link: re.Match[str]) -> str:
        address = posixpath.normpath(posixpath.join(folder, link.group(2)))
        return link.group(1) + (f"./{address}" if "scalebook/" in link.group(1) else address)

    Path(app.outdir, "index.html").write_text(LOCAL_LINK.sub(turn, page), "utf-8")
