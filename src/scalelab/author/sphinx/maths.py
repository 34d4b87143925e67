"""Convert maths to MathML at build time: it needs no script and no font, and screen readers can read it."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
ALIGNED = re.compile(r"\\(begin|end)\{aligned\}")
OPERATOR = re.compile(r"\\operatorname\*?\{([^{}]*)\}")
UNCONVERTED = re.compile(r">[^<]*(\\[A-Za-z]+|&(?!#?\w+;))")


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))


def to_mathml(latex: str, *, block: bool) -> str:
    """Return a `<math>` element for `latex`. Raises ValueError if a part of it has no MathML."""
    source = ALIGNED.sub(r"\\\1{align*}", OPERATOR.sub(r"\\text{\1}", latex.strip()))
    math: str = convert(source, display="block" if block else "inline")
    unconverted = UNCONVERTED.search(math)
    if unconverted:
        raise ValueError(f"no MathML for {unconverted.group(1)!r} in the formula {latex!r}: write it another way")
    return math


def _visit_inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_convert(node, node.astext(), block=False))
    raise nodes.SkipNode


def _visit_block(translator: Any, node: nodes.math_block) -> None:
    number = node.get("number")
    ids = "".join(f' id="{anchor}"' for anchor in node["ids"][:1])
    label = f'<span class="sl-equation-number">({number})</span>' if number else ""
    translator.body.append(f'<div class="sl-equation"{ids}>{_convert(node, node.astext(), block=True)}{label}</div>\n')
    raise nodes.SkipNode


def _convert(node: nodes.Node, latex: str, *, block: bool) -> str:
    try:
        return to_mathml(latex, block=block)
    except Exception as error:  # the converter raises many kinds; each is the author's to mend
        LOGGER.warning("Maths: %s", error, location=node, type="scalebook", subtype="maths")
        return f"<code>{nodes.literal(text=latex).astext()}</code>"
