"""The context of every page of the theme: navigation, table of contents, description, and clean markup."""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from scalelab.author.sphinx.claims_pages import claim_anchor
from scalelab.author.sphinx.page_head import CHAPTERS, EXERCISES

UNUSED = re.compile(r"(^|/)(basic|pygments|mystnb\.\w+)\.css$")
SEARCH_ONLY = re.compile(r"(^|/)(documentation_options|doctools|sphinx_highlight|translations)\.js$")
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
NUMBERED = re.compile(r"chapters/(\d\d)_")
DESCRIPTION_LENGTH = 160
PLAIN_TOKEN = re.compile(r'<span class="(?:n|p|o|w|nn|nb|bp|vm|nv)">([^<]*)</span>')
EMPTY_HEADER = re.compile(r"<th(?: [^>]*)?>(?:\s|&nbsp;|<p></p>)*</th>")
SCROLLING = re.compile(r'<(?:pre\b|div class="sl-(?:scroll|equation)")(?![^>]*\btabindex=)')
"""The start tag of each block that scrolls sideways if it is wider than the page."""
LOCAL_LINK = re.compile(
    r'(\b(?:href="|src="|action="|og:image" content="|scalebook/\w+": "))(?![a-z]+:|[/#"])([^"?#]+)'
)
CLAIM = re.compile(r'(<p class="sl-claim" id="(claim-[^"]+)">.*?)(</span></p>)', re.DOTALL)
CLAIMS_PAGE = "book/claims"
MODULES = ("kept", "predict", "checkpoint", "progress")
"""The modules that scalebook.js imports; the import map of each page leads to their newest version."""


@dataclass(frozen=True)
class Entry:
    """A link in the navigation. number: the number of a chapter, or ""."""

    docname: str
    title: str
    number: str
    children: tuple[Entry, ...]


@dataclass(frozen=True)
class PageSection:
    """A section of the page, one level below its title."""

    anchor: str
    title: str


def setup(app: Sphinx) -> None:
    app.add_js_file("scalebook.js", type="module")
    app.add_config_value("comments_config", {}, "")  # Jupyter Book always passes it
    app.connect("config-inited", _drop_theme_options)
    app.connect("html-page-context", _complete, priority=900)
    app.connect("build-finished", _write_landing_page)


def _drop_theme_options(app: Sphinx, config: Any) -> None:
    """Clear the options of Jupyter Book's own theme, which it always passes."""
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
    context["places"] = _page_sections(doctree)
    context["description"] = _description(app, page, doctree)
    context["body"] = _link_claims(app, page, _fix_markup(context.get("body", "")))


def _version(app: Sphinx, module: str) -> str:
    return hashlib.sha256(Path(app.srcdir, "book", "_static", f"{module}.js").read_bytes()).hexdigest()[:8]


def _link_claims(app: Sphinx, page: str, body: str) -> str:
    """Add two links to each claim of a chapter: to itself, and to its row in the list of all claims."""
    if not page.startswith(CHAPTERS) or CLAIMS_PAGE not in app.env.found_docs:
        return body
    list_page = app.builder.get_relative_uri(page, CLAIMS_PAGE)

    def add_links(claim: re.Match[str]) -> str:
        start, anchor, end = claim.groups()
        self_link = f'<a class="headerlink" href="#{anchor}" title="Link to this claim">#</a>'
        list_link = f'<span class="sl-back"> · <a href="{list_page}#{claim_anchor(page, anchor)}">all claims</a></span>'
        return f"{start}{list_link}{self_link}{end}"

    return CLAIM.sub(add_links, body)


def _file(asset: Any) -> str:
    return str(getattr(asset, "filename", asset))


def _navigation(app: Sphinx) -> list[tuple[str, list[Entry]]]:
    site = app.config.external_site_map
    return [(tree.caption or "", [_entry(app, name) for name in tree.files()]) for tree in site.root.subtrees]


def _entry(app: Sphinx, file: str) -> Entry:
    docname = posixpath.splitext(file)[0] if file.endswith((".md", ".ipynb")) else file
    number = NUMBERED.match(docname)
    site_item = app.config.external_site_map[file]
    children = tuple(_entry(app, child) for child in site_item.child_files())
    return Entry(
        docname, site_item.title or app.env.titles[docname].astext(), number.group(1) if number else "", children
    )


def _page_sections(doctree: nodes.document | None) -> list[PageSection]:
    if doctree is None:
        return []
    sections = [section for section in doctree.findall(nodes.section) if _is_second_level(section)]
    titles = [(section["ids"][0], section.next_node(nodes.title)) for section in sections]
    return [PageSection(anchor, title.astext()) for anchor, title in titles if title is not None]


def _is_second_level(section: nodes.section) -> bool:
    return isinstance(section.parent, nodes.section) and not isinstance(section.parent.parent, nodes.section)


def _description(app: Sphinx, page: str, doctree: nodes.document | None) -> str:
    """Return the principle of a chapter or the first paragraph of another page, cut after a sentence or a word."""
    paragraph = doctree.next_node(nodes.paragraph) if doctree is not None else None
    text = app.env.metadata[page].get("principle") or (paragraph.astext() if paragraph is not None else "")
    text = " ".join(text.split())
    if len(text) <= DESCRIPTION_LENGTH:
        return text
    sentences, _, _ = text[:DESCRIPTION_LENGTH].rpartition(". ")
    return f"{sentences}." if sentences else text[:DESCRIPTION_LENGTH].rsplit(" ", 1)[0] + " …"


def _fix_markup(body: str) -> str:
    """Fix the markup of Sphinx, myst-nb and pandas.

    Wide tables scroll in a block of their own; blocks that scroll are focusable without a script; no header cell is
    empty; the bibliography is a list of list items; the button that opens folded code is named by its own text; tokens
    without a colour are plain text; and a line break separates a term from its definition in excerpts.
    """
    body = EMPTY_HEADER.sub("<td></td>", body)
    body = body.replace("<table", '<div class="sl-scroll"><table').replace("</table>", "</table></div>")
    body = SCROLLING.sub(r'\g<0> tabindex="0"', body)
    body = body.replace("</dt><dd>", "</dt>\n<dd>")
    body = PLAIN_TOKEN.sub(r"\1", body)
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    return body.replace('<summary aria-label="Toggle hidden content">', "<summary>")


def _write_landing_page(app: Sphinx, error: Exception | None) -> None:
    """Write the landing page again at the root of the site, with its links adapted."""
    root = app.config.root_doc
    if error is not None or app.builder.format != "html" or "/" not in root:
        return
    folder = posixpath.dirname(root)
    page = Path(app.outdir, f"{root}.html").read_text("utf-8")

    def relocate(link: re.Match[str]) -> str:
        address = posixpath.normpath(posixpath.join(folder, link.group(2)))
        return link.group(1) + (f"./{address}" if "scalebook/" in link.group(1) else address)

    Path(app.outdir, "index.html").write_text(LOCAL_LINK.sub(relocate, page), "utf-8")
