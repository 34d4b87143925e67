"""Boxes on a page: answers that open without a script, quoted beliefs, and the cells of an exercise."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

BELIEF = "What people believe: "


class details(nodes.General, nodes.Element):
    """A box that the reader can open; its first child is the `summary`."""


class summary(nodes.General, nodes.TextElement):
    """The line that opens the box when it is clicked."""


class DropdownToDetails(SphinxPostTransform):
    """Replace each admonition of class `dropdown` by a `details` box."""

    default_priority = 200
    formats = ("html",)

    def run(self, **_: Any) -> None:
        for box in list(self.document.findall(nodes.Element)):
            if not isinstance(box, nodes.Admonition) or "dropdown" not in box["classes"]:
                continue
            title = box.next_node(nodes.title)
            details_box = details("", classes=[name for name in box["classes"] if name != "dropdown"], ids=box["ids"])
            if title is not None:
                box.remove(title)
                details_box += summary("", "", *title.children)
            details_box += box.children
            box.replace_self(details_box)


def _mark_beliefs(app: Sphinx, doctree: nodes.document) -> None:
    """Add the class `sl-believe` to each quotation that begins with **What people believe: “…”**."""
    for quotation in doctree.findall(nodes.block_quote):
        opening = quotation.next_node(nodes.strong)
        if opening is None or not opening.astext().startswith(BELIEF):
            continue
        quotation["classes"].append("sl-believe")
        first = opening.next_node(nodes.Text)
        if first is not None and first.startswith(BELIEF):
            label = nodes.inline("", BELIEF.removesuffix(": "), classes=["sl-label"])
            opening.replace(first, [label, nodes.Text(first.removeprefix(BELIEF))])


def _mark_cells(app: Sphinx, doctree: nodes.document) -> None:
    """Add a class to the answer cells and the check cells of exercises, which nbgrader's metadata marks."""
    for cell in doctree.findall(nodes.container):
        metadata: dict[str, Any] = cell.get("cell_metadata", {})
        graded = metadata.get("nbgrader", {})
        if graded.get("solution"):
            cell["classes"].append("sl-answer")
        elif graded.get("grade"):
            cell["classes"].append("sl-check")


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", _mark_beliefs)
    app.connect("doctree-read", _mark_cells)
    app.add_node(details, html=(_open("details", "sl-details"), _close("details")))
    app.add_node(summary, html=(_open("summary"), _close("summary")))
    app.add_post_transform(DropdownToDetails)


def _open(tag: str, *classes: str) -> Any:
    def visit(translator: Any, node: nodes.Element) -> None:
        translator.body.append(translator.starttag(node, tag, "", CLASS=" ".join(classes)))

    return visit


def _close(tag: str) -> Any:
    def depart(translator: Any, node: nodes.Element) -> None:
        translator.body.append(f"</{tag}>\n")

    return depart
