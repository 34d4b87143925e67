"""Boxes on a page: quoted beliefs, and the cells of an exercise."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

BELIEF = "What people believe: "


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
