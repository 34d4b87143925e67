"""Shared code of the pages for students and instructors: the template environment and the filters for text."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from scalelab.grading.outputs.plain_text import legible, on_one_line

MONTHS = (  # in the page's language, not the machine's
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
TICKS = re.compile(r"`([^`\n]+)`")


def page(template: str, **values: Any) -> str:
    """Return a whole page; every value is escaped, unless it is Markup."""
    return _environment().get_template(template).render(**values)


def ticked(text: str) -> Markup:
    """Return text as markup, in which the parts between backticks are code."""
    return Markup(TICKS.sub(r"<code>\1</code>", str(escape(legible(text)))))


def markdown(text: str) -> Markup:
    """Return an author's Markdown as markup, without raw HTML, images and headings; links lead only to the web."""
    return Markup(_markdown().render(text))


def inline_markdown(text: str) -> Markup:
    """Return one line of Markdown, without a paragraph around it."""
    return Markup(_markdown().renderInline(text))


def quoted(message: str) -> str:
    """Return a check's message, with dots before or after it if it is only a part of a sentence."""
    before = "" if message[:1].isupper() else "… "
    after = "" if message.endswith((".", "?", "!")) else " …"
    return f"{before}{message}{after}"


def moment(then: datetime) -> str:
    """Return a UTC time in readable form, such as `3 May 2025, 14:05 UTC`."""
    return f"{then.day} {MONTHS[then.month - 1]} {then:%Y, %H:%M} UTC"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("scalelab.grading.outputs"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "legible": legible,
        "line": on_one_line,
        "markdown": markdown,
        "inline": inline_markdown,
        "ticked": ticked,
        "quoted": quoted,
        "moment": moment,
    }
    return environment


@cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False})
    parser.disable(["image", "heading", "lheading", "html_block", "html_inline"])
    parser.add_render_rule("link_open", _link)
    return parser


def _link(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """Return the opening tag of a link; only web addresses are kept, as a page alone has no course files beside it."""
    target = str(tokens[index].attrGet("href") or "")
    if not target.startswith(("https://", "http://")):
        return "<a>"
    return f'<a href="{escape(target)}" rel="noreferrer">'
