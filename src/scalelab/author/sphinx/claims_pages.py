"""What the chapters measured, on other pages: the list of every claim, and a chart of a chapter's last run."""

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
from scalelab.claims import Claim, as_row
from scalelab.course import Course, read_chapter
from scalelab.predictions import Prediction

LOGGER = logging.getLogger(__name__)
OUTCOME = re.compile(r'<p class="sl-outcome">.*?</p>', re.DOTALL)
"""The answer to a chapter's question, which its chart has below it; elsewhere nobody asked."""

KINDS = ("claim", "machine", "figure")
COLLECTED = (*KINDS, "prediction")
Records = dict[str, list[dict[str, Any]]]


class placeholder(nodes.General, nodes.Element):
    """Stands where something measured goes; `shows` says what, `chapter` whose (a docname)."""


class FromAllChapters(SphinxDirective):
    """`{claims}`: a section per chapter with a table of its claims. `{claims-question}` and `{claims-answer}`: a
    prediction of how many there are, to try one on."""

    def run(self) -> list[nodes.Node]:
        follow_chapters(self.env)
        return [placeholder(shows=self.name)]


class FromChapter(SphinxDirective):
    """`{result-figure} SLUG` (also `-claim`, `-machine`): the first that the last run of that chapter put out.

    The content is its caption.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        follow_chapters(self.env)
        place = placeholder(shows=self.name.removeprefix("result-"), chapter=CHAPTERS + self.arguments[0])
        self.state.nested_parse(self.content, self.content_offset, place)
        return [place]


def setup(app: Sphinx) -> None:
    app.add_node(placeholder)
    for name in ("claims", "claims-question", "claims-answer"):
        app.add_directive(name, FromAllChapters)
    for kind in KINDS:
        app.add_directive(f"result-{kind}", FromChapter)
    app.connect("doctree-read", _collect)
    app.connect("env-purge-doc", _purge)
    app.connect("env-updated", lambda app, env: sorted(_users(env)))
    app.connect("doctree-resolved", _fill)


def row_of(docname: str, claim: str) -> str:
    """Return the anchor of a chapter's claim in the list of all claims."""
    return f"{docname.removeprefix(CHAPTERS).partition('_')[0]}-{claim}"


def records(env: BuildEnvironment) -> dict[str, Records]:
    """Return what each chapter recorded in its outputs, by docname and kind."""
    if not hasattr(env, "scalebook_records"):
        env.scalebook_records = {}  # type: ignore[attr-defined]
    return env.scalebook_records  # type: ignore[attr-defined,no-any-return]


def follow_chapters(env: BuildEnvironment) -> None:
    """Have the page that is being read written again whenever a chapter may have changed."""
    _users(env).add(env.docname)


def _users(env: BuildEnvironment) -> set[str]:
    if not hasattr(env, "scalebook_users"):
        env.scalebook_users = set()  # type: ignore[attr-defined]
    return env.scalebook_users  # type: ignore[attr-defined,no-any-return]


def _purge(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    records(env).pop(docname, None)
    _users(env).discard(docname)


def _collect(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    if not docname.startswith(CHAPTERS):
        return
    found: Records = {kind: [] for kind in COLLECTED}
    notebook = recall(Course(Path(app.srcdir)), read_chapter(Path(app.env.doc2path(docname))))
    if notebook is None:  # the execution failed, and has been reported
        return
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            record = output.get("metadata", {}).get("scalelab", {})
            if record.get("kind") in COLLECTED:
                found[record["kind"]].append({**record, "html": output["data"].get("text/html", "")})
    records(app.env)[docname] = found


def _fill(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for place in list(doctree.findall(placeholder)):
        if place["shows"] == "claims":
            chapters = sorted(records(app.env).items())
            place.replace_self([section for item in chapters if (section := _claims_of(app, *item, docname))])
        elif place["shows"] in KINDS:
            place.replace_self(_result(app, place))
        else:
            place.replace_self(nodes.raw("", _claims_prediction(app, place["shows"]), format="html"))


def _claims_prediction(app: Sphinx, part: str) -> str:
    number = sum(len(found["claim"]) for found in records(app.env).values())
    question = "How many sentences of this book did its last build check against a measurement?"
    prediction = Prediction("how-to-read", question, "claims", ())
    if part == "claims-question":
        form: str = prediction._repr_mimebundle_()[0]["text/html"]
        return form
    return f'<p class="sl-outcome">{prediction.outcome_html(number)}</p>'


def _result(app: Sphinx, place: nodes.Element) -> nodes.container:
    found = records(app.env).get(place["chapter"], {}).get(place["shows"], [])
    if not found:
        LOGGER.warning(
            "%s shows no %s to take over", place["chapter"], place["shows"], location=place, type="scalebook"
        )
    page = nodes.raw("", OUTCOME.sub("", found[0]["html"]) if found else "", format="html")
    caption = [nodes.container("", *place.children, classes=["sl-result-caption"])] if place.children else []
    return nodes.container("", page, *caption, classes=["sl-result", f"sl-result-{place['shows']}"])


def _recorded(claim: Claim) -> str:
    return f" <small>recorded run: {escape(claim.recorded)}</small>" if claim.recorded else ""


def _claims_of(app: Sphinx, chapter: str, found: Records, here: str) -> nodes.section | None:
    claims = [as_row(record) for record in found["claim"]]
    if not claims:
        return None
    title = app.env.titles[chapter].astext()
    page = app.builder.get_relative_uri(here, chapter)
    rows = "".join(
        f'<tr id="{row_of(chapter, claim.id)}"><td><a href="{page}#{claim.id}">{escape(claim.text)}</a></td> '
        f'<td class="sl-measured">{escape(claim.measured)}{_recorded(claim)}</td> <td>{escape(claim.bound)}</td></tr>\n'
        for claim in claims
    )
    table = (
        '<table class="sl-claims"><thead><tr><th scope="col">Claim</th><th scope="col">Measured</th>'
        f'<th scope="col">Must be</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    cards = "".join(record["html"].replace("<details ", "<details open ") for record in found["machine"][:1])
    section = nodes.section("", nodes.title("", title), ids=[nodes.make_id(chapter)])
    section += nodes.raw("", f"{cards}{table}", format="html")
    return section
