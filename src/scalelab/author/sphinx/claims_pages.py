"""Results of the chapters on other pages: the list of all claims, and outputs of a chapter's last run."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from scalelab.author.execute import recall
from scalelab.author.sphinx.page_head import CHAPTERS
from scalelab.claims import Claim, claim_from_metadata
from scalelab.course import Course, read_chapter
from scalelab.predictions import Prediction

LOGGER = logging.getLogger(__name__)
OUTCOME = re.compile(r'<p class="sl-outcome">.*?</p>', re.DOTALL)
"""The answer to a prediction below a chart; other pages drop it, because they did not ask the question."""

KINDS = ("claim", "machine", "figure")
COLLECTED = (*KINDS, "prediction")
Records = dict[str, list[dict[str, Any]]]


class placeholder(nodes.General, nodes.Element):
    """Placeholder for a result. shows: the kind of result; chapter: the docname of the chapter that measured it."""


class FromAllChapters(SphinxDirective):
    """`{claims}`: a section per chapter with a table of its claims. `{claims-question}` and `{claims-answer}`: a
    prediction of their number, as an example of a prediction."""

    def run(self) -> list[nodes.Node]:
        depend_on_chapters(self.env)
        return [placeholder(shows=self.name)]


class FromChapter(SphinxDirective):
    """`{result-figure} SLUG` (also `-claim`, `-machine`): the first such output of the chapter's last run.

    The content of the directive is its caption.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        depend_on_chapters(self.env)
        node = placeholder(shows=self.name.removeprefix("result-"), chapter=CHAPTERS + self.arguments[0])
        self.state.nested_parse(self.content, self.content_offset, node)
        return [node]


def setup(app: Sphinx) -> None:
    app.add_node(placeholder)
    for name in ("claims", "claims-question", "claims-answer"):
        app.add_directive(name, FromAllChapters)
    for kind in KINDS:
        app.add_directive(f"result-{kind}", FromChapter)
    app.connect("doctree-read", _collect)
    app.connect("env-purge-doc", _purge)
    app.connect("env-updated", lambda app, env: sorted(_dependent_pages(env)))
    app.connect("doctree-resolved", _fill)


def claim_anchor(docname: str, claim: str) -> str:
    """Return the anchor of a chapter's claim in the list of all claims."""
    return f"{docname.removeprefix(CHAPTERS).partition('_')[0]}-{claim}"


def records(env: BuildEnvironment) -> dict[str, Records]:
    """Return the records in the outputs of each chapter, by docname and kind."""
    if not hasattr(env, "scalebook_records"):
        env.scalebook_records = {}  # type: ignore[attr-defined]
    return env.scalebook_records  # type: ignore[attr-defined,no-any-return]


def depend_on_chapters(env: BuildEnvironment) -> None:
    """Write the current page again after every change of a chapter."""
    _dependent_pages(env).add(env.docname)


def _dependent_pages(env: BuildEnvironment) -> set[str]:
    if not hasattr(env, "scalebook_users"):
        env.scalebook_users = set()  # type: ignore[attr-defined]
    return env.scalebook_users  # type: ignore[attr-defined,no-any-return]


def _purge(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    records(env).pop(docname, None)
    _dependent_pages(env).discard(docname)


def _collect(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    if not docname.startswith(CHAPTERS):
        return
    chapter_records: Records = {kind: [] for kind in COLLECTED}
    notebook = recall(Course(Path(app.srcdir)), read_chapter(Path(app.env.doc2path(docname))))
    if notebook is None:  # the execution failed, and has been reported
        return
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            record = output.get("metadata", {}).get("scalelab", {})
            if record.get("kind") in COLLECTED:
                chapter_records[record["kind"]].append({**record, "html": output["data"].get("text/html", "")})
    records(app.env)[docname] = chapter_records


def _fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(placeholder)):
        if node["shows"] == "claims":
            chapters = sorted(records(app.env).items())
            node.replace_self([section for item in chapters if (section := _claims_section(app, *item, docname))])
        elif node["shows"] in KINDS:
            node.replace_self(_result(app, node))
        else:
            node.replace_self(nodes.raw("", _claims_prediction(app, node["shows"]), format="html"))


def _claims_prediction(app: Sphinx, part: str) -> str:
    number = sum(len(chapter_records["claim"]) for chapter_records in records(app.env).values())
    question = "How many sentences of this book did its last build check against a measurement?"
    prediction = Prediction("how-to-read", question, "claims", ())
    if part == "claims-question":
        form: str = prediction._repr_mimebundle_()[0]["text/html"]
        return form
    return f'<p class="sl-outcome">{prediction.outcome_html(number)}</p>'


def _result(app: Sphinx, node: nodes.Element) -> nodes.container:
    outputs = records(app.env).get(node["chapter"], {}).get(node["shows"], [])
    if not outputs:
        LOGGER.warning("%s shows no %s to take over", node["chapter"], node["shows"], location=node, type="scalebook")
    page = nodes.raw("", OUTCOME.sub("", outputs[0]["html"]) if outputs else "", format="html")
    caption = [nodes.container("", *node.children, classes=["sl-result-caption"])] if node.children else []
    return nodes.container("", page, *caption, classes=["sl-result", f"sl-result-{node['shows']}"])


def _origin_text(claim: Claim) -> str:
    return f" <small>recorded run: {escape(claim.recorded)}</small>" if claim.recorded else ""


def _claims_section(app: Sphinx, chapter: str, chapter_records: Records, docname: str) -> nodes.section | None:
    claims = [claim_from_metadata(record) for record in chapter_records["claim"]]
    if not claims:
        return None
    title = app.env.titles[chapter].astext()
    page = app.builder.get_relative_uri(docname, chapter)
    rows = "".join(
        f'<tr id="{claim_anchor(chapter, claim.id)}"><td><a href="{page}#{claim.id}">{escape(claim.text)}</a></td> '
        f'<td class="sl-measured">{escape(claim.measured)}{_origin_text(claim)}</td> '
        f"<td>{escape(claim.bound)}</td></tr>\n"
        for claim in claims
    )
    table = (
        '<table class="sl-claims"><thead><tr><th scope="col">Claim</th><th scope="col">Measured</th>'
        f'<th scope="col">Must be</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    cards = "".join(record["html"].replace("<details ", "<details open ") for record in chapter_records["machine"][:1])
    section = nodes.section("", nodes.title("", title), ids=[nodes.make_id(chapter)])
    section += nodes.raw("", f"{cards}{table}", format="html")
    return section
