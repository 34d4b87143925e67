"""Checkpoint questions on a page: each answer opens to show its explanation, without a script."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from scalelab.author.quiz import Choice, answers
from scalelab.author.sphinx.page_head import CHAPTERS

LOGGER = logging.getLogger(__name__)
NUMBERED = re.compile(r"(\d+)\. ")
COUNT_KEY = "checkpoint_questions"
"""The key for the number of questions in the metadata of a page."""


class question(nodes.General, nodes.Element):
    """A question and its answers; the browser stores the reader's answer under `key`."""


def setup(app: Sphinx) -> None:
    app.add_node(question, html=(_visit, _depart))
    app.connect("doctree-read", _mark_questions)


def _mark_questions(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    if not docname.startswith(CHAPTERS):
        return
    chapter = docname.removeprefix(CHAPTERS).partition("_")[0]
    number = 0
    for paragraph in list(doctree.findall(nodes.paragraph)):
        number_match = NUMBERED.match(paragraph.astext())
        bold = [child for child in paragraph.children if child.astext()]
        if number_match is None or len(bold) != 1 or not isinstance(bold[0], nodes.strong):
            continue
        block = paragraph.next_node(descend=False, siblings=True)
        choices = answers(block.astext()) if isinstance(block, nodes.raw) else None
        if block is None or block.parent is None or choices is None:
            LOGGER.warning("This question has no answers below it", location=paragraph, type="scalebook")
            continue
        number += 1
        key = f"{chapter}-{number_match[1]}"
        box = question("", key=key, ids=[f"question-{number_match[1]}"])
        question_text = nodes.paragraph("", "", *bold[0].children, classes=["sl-question-text"])
        box += [question_text, nodes.raw("", "\n".join(map(_answer, choices)), format="html")]
        paragraph.replace_self(box)
        block.parent.remove(block)
    app.env.metadata[docname][COUNT_KEY] = number


def _answer(answer: Choice) -> str:
    name, verdict = ("sl-right", "Right.") if answer.right else ("sl-wrong", "No.")
    return (
        f'<details class="sl-answer-box {name}"><summary><span>{answer.text}</span></summary>\n'
        f"<p><b>{verdict}</b> {answer.comment}</p></details>"
    )


def _visit(translator: Any, node: question) -> None:
    attributes = {
        "data-question": node["key"],
        "role": "group",
        "aria-label": f"Question {node['key'].partition('-')[2]}",
    }
    translator.body.append(translator.starttag(node, "div", CLASS="sl-question", **attributes))


def _depart(translator: Any, node: question) -> None:
    translator.body.append("</div>\n")
