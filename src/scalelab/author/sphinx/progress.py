"""The directive `progress`: for each chapter, the predictions, answers and completion stored in this browser."""

from __future__ import annotations

from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from scalelab.author.sphinx.checkpoints import COUNT_KEY
from scalelab.author.sphinx.claims_pages import depend_on_chapters, records
from scalelab.author.sphinx.page_head import CHAPTERS

BUTTONS = (("save", "Save to a file"), ("load", "Load from a file"), ("clear", "Clear everything"))


class progress(nodes.General, nodes.Element):
    """Placeholder for the panel, which is filled after all chapters are read."""


class Progress(SphinxDirective):
    """`{progress}`: the panel; without a script, the page shows a sentence instead."""

    def run(self) -> list[nodes.Node]:
        depend_on_chapters(self.env)
        return [progress()]


def setup(app: Sphinx) -> None:
    app.add_node(progress)
    app.add_directive("progress", Progress)
    app.connect("doctree-resolved", _fill)


def _fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(progress)):
        node.replace_self(nodes.raw("", _panel(app, docname), format="html"))


def _panel(app: Sphinx, docname: str) -> str:
    rows = "\n".join(
        _row(app, docname, chapter, chapter_records) for chapter, chapter_records in sorted(records(app.env).items())
    )
    buttons = " ".join(
        f'<button type="button" class="sl-button" data-does="{name}">{label}</button>' for name, label in BUTTONS
    )
    return (
        "<noscript><p>Keeping your progress needs JavaScript. Pages read without it.</p></noscript>"
        f'<div class="sl-kept" hidden><ol>{rows}</ol><p class="sl-actions">{buttons}'
        '<input type="file" accept=".json,application/json" aria-label="A file that was saved here" hidden></p>'
        '<p class="sl-kept-said"><span role="status"></span> '
        '<button type="button" class="sl-button" data-does="undo" hidden>Undo</button></p></div>'
    )


def _row(app: Sphinx, docname: str, chapter: str, chapter_records: dict[str, list[dict[str, Any]]]) -> str:
    number = chapter.removeprefix(CHAPTERS).partition("_")[0]
    questions = app.env.metadata[chapter].get(COUNT_KEY, 0)
    return (
        f'<li data-page="{chapter}" data-number="{number}" data-predictions="{len(chapter_records["prediction"])}" '
        f'data-questions="{questions}"><span class="sl-number">{number}</span> '
        f'<a href="{app.builder.get_relative_uri(docname, chapter)}">{escape(app.env.titles[chapter].astext())}</a> '
        '<span class="sl-kept-state"></span></li>'
    )
