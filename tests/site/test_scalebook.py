"""The book's Sphinx extension: the parts that no page of today reaches."""

from __future__ import annotations

import pytest

from scalebook.head import _inline
from scalebook.maths import to_mathml
from scalebook.pages import _mend


@pytest.mark.parametrize(
    ("latex", "parts"),
    [
        (r"L = \lambda W", ["<mi>&#x003BB;</mi>"]),
        (r"\operatorname{p99} < 1", ["<mtext>p99</mtext>"]),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", ["<mtable", "<mtr>"]),
        (r"\frac{N}{W}", ["<mfrac>"]),
    ],
)
def test_formulas_become_mathml(latex: str, parts: list[str]) -> None:
    math = to_mathml(latex, block=True)
    assert math.startswith("<math")
    assert all(part in math for part in parts)


@pytest.mark.parametrize("latex", [r"\nosuchcommand x", r"a & b"])
def test_a_formula_without_mathml_is_refused(latex: str) -> None:
    with pytest.raises(ValueError, match="no MathML"):
        to_mathml(latex, block=False)


def test_tables_scroll_inside_themselves_and_have_no_empty_header() -> None:
    assert _mend('<table class="dataframe"><tr><th></th><th>a</th></tr></table>') == (
        '<div class="sl-scroll"><table class="dataframe"><tr><td></td><th>a</th></tr></table></div>'
    )


def test_front_matter_shows_code_and_nothing_else() -> None:
    assert _inline("`await` <b>") == "<code>await</code> &lt;b&gt;"
