"""Claims: judged by their bounds, printed in one stable line, and fatal when they do not hold."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.utils.capture import capture_output

from scalelab import claim
from scalelab.claims import GO_ON, Claim, ClaimError, ClaimFailed, claim_from_metadata, number

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


def shown(*args, **kwargs):
    with capture_output() as captured:
        claim(*args, **kwargs)
    (output,) = captured.outputs
    return output


def test_the_line_is_the_same_whatever_was_measured():
    first = shown("twice as fast", 2.1, at_least=2, unit="×")
    second = shown("twice as fast", 37.4, at_least=2, unit="×")
    assert first.data["text/plain"] == second.data["text/plain"] == "✓ twice as fast"
    assert "37.4×" in second.data["text/html"]
    assert "at least 2×" in second.data["text/html"]


def test_metadata_holds_the_whole_claim_and_survives_json():
    metadata = shown("few are lost", 3, at_most=5, unit=" messages").metadata["scalelab"]
    kept = json.loads(json.dumps(metadata))
    assert kept["kind"] == "claim"
    assert claim_from_metadata(kept) == Claim("claim-few-are-lost", "few are lost", 3.0, " messages", None, 5, None)
    assert claim_from_metadata(kept).measured == "3 messages"


@given(value=FINITE, bound=FINITE)
def test_a_claim_holds_exactly_when_its_bounds_do(value, bound):
    judged = {
        kind: Claim(
            "id", "text", value, "", *(bound if kind == name else None for name in ("least", "most", "exact"))
        ).holds
        for kind in ("least", "most", "exact")
    }
    assert judged == {"least": value >= bound, "most": value <= bound, "exact": value == bound}


@pytest.mark.parametrize("bounds", [{"at_least": 5}, {"at_most": 1}, {"exactly": 2}, {"at_least": 0, "at_most": 1}])
def test_a_claim_that_does_not_hold_raises_and_says_what_was_measured(bounds):
    with pytest.raises(ClaimFailed, match=r"does not hold here: it is so\. Measured 3×, expected") as caught:
        claim("it is so", 3, unit="×", **bounds)
    assert "Why yours may differ" in str(caught.value)


@pytest.mark.parametrize(("value", "sign"), [(3, "✗"), (7, "✓")])
def test_a_claim_that_may_go_on_says_whether_it_holds(monkeypatch, value, sign):
    monkeypatch.setenv(GO_ON, "1")
    output = shown("it is so", value, at_least=5)
    assert output.data["text/plain"] == f"{sign} it is so"
    assert f">{sign}</span>" in output.data["text/html"]
    assert output.metadata["scalelab"]["holds"] is (value == 7)
    assert claim_from_metadata(output.metadata["scalelab"]).value == value


def test_nothing_measured_is_no_evidence():
    with pytest.raises(ClaimFailed):
        claim("it is so", math.nan, at_least=0)


def test_a_claim_without_a_bound_is_refused():
    with pytest.raises(ClaimError, match="give at_least, at_most or exactly"):
        claim("it is so", 3)


def test_text_is_escaped_on_the_page():
    assert "<b>" not in shown("a <b> claim", 1, exactly=1).data["text/html"]


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (3.0, "3"), (12345.6, "12,346"), (0.123456, "0.123"), (37.25, "37.2"), (0, "0")]
)
def test_numbers_are_written_as_people_write_them(value, text):
    assert number(value) == text


@pytest.mark.usefixtures("no_notebook")
def test_outside_a_notebook_the_line_is_printed(capsys):
    claim("twice as fast", 2.1, at_least=2)
    assert capsys.readouterr().out == "✓ twice as fast\n"
