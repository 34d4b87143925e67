"""Charts: themed by the page, readable without eyes, able to take a prediction later."""

import html
import json
import re
from xml.etree import ElementTree

import pytest
from IPython.utils.capture import capture_output

from scalelab import plots
from scalelab.measure import Interval
from scalelab.plots import ChartError
from scalelab.predictions import Prediction


def drawn(log="", prediction=None, outcome=None, alt="It rises & bends."):
    figure, axes = plots.chart("It rises <first>", x="load, requests", y="rate, 1/s", log=log)
    plots.theory(axes, [1, 100], [10, 1000], "Little's law")
    plots.measured(axes, [1, 100], [Interval(8, 9, 10), 500.0], "measured")
    with capture_output() as captured:
        plots.show(figure, alt=alt, prediction=prediction, outcome=outcome)
    (output,) = captured.outputs
    return output


def svg_of(output):
    return re.search(r"<svg.*</svg>", output.data["text/html"], re.DOTALL).group()


def test_a_chart_is_well_formed_and_names_its_finding():
    output = drawn()
    root = ElementTree.fromstring(svg_of(output))
    assert root.get("role") == "img"
    assert root.get("aria-label") == "It rises & bends."
    assert "<figcaption>It rises &lt;first&gt;</figcaption>" in output.data["text/html"]
    assert output.metadata["scalelab"] == {"kind": "figure", "title": "It rises <first>", "alt": "It rises & bends."}
    assert "It rises & bends." in output.data["text/plain"]


def test_every_colour_comes_from_the_page():
    svg = svg_of(drawn())
    assert "var(--sl-c1" in svg
    assert "var(--sl-muted" in svg
    without_fallbacks = re.sub(r"var\([^)]*\)", "", svg)
    assert re.findall(r"#[0-9a-f]{6}", without_fallbacks) == []


def test_a_chart_brings_no_style_or_id_that_could_touch_the_page():
    svg = svg_of(drawn())
    assert "<style" not in svg
    assert "DejaVu" not in svg
    groups = re.findall(r'<g id="', svg)
    assert groups == []


def test_the_same_chart_is_the_same_text():
    assert drawn().data == drawn().data


@pytest.mark.parametrize("alt", ["", "  "])
def test_a_chart_without_alternative_text_is_refused(alt):
    with pytest.raises(ChartError, match="say its finding in words"):
        drawn(alt=alt)


@pytest.mark.parametrize("log", ["", "y", "xy"])
def test_the_y_axis_is_where_the_page_is_told_it_is(log):
    """A measured point's own place in the SVG is what the geometry given to the page says."""
    output = drawn(log=log, prediction=Prediction("08-x", "?", "1/s", ()), outcome=9)
    attribute = re.search(r"data-prediction-axis='([^']*)'", output.data["text/html"]).group(1)
    axis = json.loads(html.unescape(attribute))
    scale = __import__("math").log if "y" in log else float
    assert axis["scale"] == ("log" if "y" in log else "linear")

    def place(value):
        share = (scale(value) - scale(axis["low"])) / (scale(axis["high"]) - scale(axis["low"]))
        return axis["y_low"] + share * (axis["y_high"] - axis["y_low"])

    markers = [
        float(y)
        for y in re.findall(r'<use href="#[^"]*" x="[^"]*" y="([^"]*)" style="fill: var\(--sl-c1', svg_of(output))
    ]
    for value in (9, 500):
        assert min(abs(place(value) - marker) for marker in markers) < 0.2


def test_the_outcome_stands_beside_the_prediction():
    prediction = Prediction("08-x", "?", "1/s", ())
    assert "Measured: <b>9 1/s</b>." in drawn(prediction=prediction, outcome=9).data["text/html"]
    prediction.commit(700)
    output = drawn(prediction=prediction, outcome=9)
    assert "You predicted 700 1/s." in output.data["text/html"]
    assert "var(--sl-prediction" in svg_of(output)


def labels_of(low, high):
    """Return the numbers that stand at a logarithmic y axis from low to high."""
    figure, axes = plots.chart("t", x="x", y="y", log="y")
    axes.set_ylim(low, high)
    plots.measured(axes, [1, 2], [low, high], "points")
    with capture_output() as shown:
        plots.show(figure, alt="a")
    text = shown.outputs[0].data["text/html"]
    return set(re.findall(r">([\d.,]+)</text>", text))


def test_a_logarithmic_axis_within_one_decade_has_numbers_too():
    assert {"1", "2", "5"} <= labels_of(0.9, 6)
    assert {"1", "1,000"} <= labels_of(0.9, 5000)
    assert "20" not in labels_of(0.9, 5000)


def test_a_legend_that_was_placed_stays_where_it_is():
    figure, axes = plots.chart("t", x="x", y="y")
    plots.measured(axes, [1, 2], [3, 4], "points")
    placed = axes.legend(loc="lower left")
    with capture_output():
        plots.show(figure, alt="a")
    assert axes.get_legend() is placed


def test_words_that_a_chapter_draws_take_the_pages_colour():
    figure, axes = plots.chart("t", x="x", y="y")
    axes.text(0.5, 0.5, "the knee")
    with capture_output() as shown:
        plots.show(figure, alt="a")
    page = shown.outputs[0].data["text/html"]
    words = next(line for line in page.splitlines() if "the knee</text>" in line)
    assert "var(--sl-ink" in words
    assert "#000000" not in page
