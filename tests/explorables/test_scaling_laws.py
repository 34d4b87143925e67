"""Three laws of scaling beside measured points: the model in Python, and what the page shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from scaling_laws_vectors import CASES, VECTORS, play

from scalelab import explorable, theory
from scalelab.explorables import KnobError
from scalelab.explorables import _scaling_laws_model as scaling_laws
from scalelab.measure import Interval
from scalelab.predictions import Prediction

OpenPage = Callable[..., Page]
CALM = {"reduced_motion": "reduce"}
KEY = "scalelab.prediction.02-crowd"
POINTS: list[tuple[float, float | Interval]] = [(1, 1.0), (8, 5.5), (44, Interval(13.0, 14.1, 14.9)), (128, 9.2)]
PLAY = """
async (cases) => {
  const figure = await import("./scaling_laws.js");
  return cases.map(({ state, given }) => figure.readout(state, given));
}
"""
COUNT_TEXTS = """() => {
  const { fillText } = CanvasRenderingContext2D.prototype;
  window.texts = new Set();
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
    window.texts.add(text);
    return fillText.call(this, text, ...rest);
  };
}"""


def read(state: dict[str, Any], **given: Any) -> scaling_laws.Readout:
    return scaling_laws.readout(state, scaling_laws.given(**given))


def test_the_laws_are_the_books() -> None:
    seen = read({"serial": 50, "contention": 30, "coherency": 500, "workers": 64})
    assert seen["amdahl"]["at"] == pytest.approx(15.42, abs=0.005)
    assert seen["amdahl"]["most"] == pytest.approx(20)
    assert seen["gustafson"]["at"] == pytest.approx(60.85)
    assert seen["gustafson"]["most"] is None
    assert seen["usl"]["most_at"] == pytest.approx(44.05, abs=0.005)
    assert seen["usl"]["most"] == pytest.approx(13.60, abs=0.005)
    assert seen["usl"]["each"] == pytest.approx(theory.usl(64, 0.03, 0.0005) / 64)


def test_what_has_no_end_has_none() -> None:
    free = read({"serial": 0, "contention": 0, "coherency": 0})
    assert [law["most"] for law in (free["amdahl"], free["usl"])] == [None, None]
    held = read({"contention": 20, "coherency": 0}, rate=3)["usl"]
    assert held["most"] == pytest.approx(150)
    assert held["most_at"] is None


def test_a_law_that_goes_through_the_points_misses_none() -> None:
    points = [(n, float(theory.usl(n, 0.1, 0.002, 7))) for n in (1, 2, 5, 30, 80)]
    seen = read({"contention": 100, "coherency": 2000}, points=points, rate=7)
    assert seen["usl"]["miss"] == pytest.approx(0)
    assert seen["gustafson"]["miss"] > seen["amdahl"]["miss"] > 0.1  # type: ignore[operator]
    [one] = [read({}, points=[(1, 2)])["amdahl"]["miss"]]
    assert one == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"points": [(1, 2, 3)]}, "pairs"),
        ({"points": [(0, 2)]}, "workers >= 1"),
        ({"points": [(2, 0)]}, "above 0"),
        ({"points": [(2, float("nan"))]}, "above 0"),
        ({"rate": -1}, "rate: expected numbers above 0"),
        ({"colour": 1}, "colour"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(given: dict[str, Any], says: str) -> None:
    with pytest.raises(KnobError, match=says):
        explorable("scaling_laws", **given)


def test_only_this_figure_takes_points() -> None:
    with pytest.raises(KnobError, match="points"):
        explorable("queue", points=[(1, 1)])


class Given(HTMLParser):
    seen: dict[str, Any] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if text := dict(attrs).get("data-given"):
            self.seen = json.loads(text)


def test_the_markup_and_the_widget_carry_what_was_given() -> None:
    asked = Prediction("02-crowd", "How many?", "turns/s", ())
    asked.commit(900)
    widget = explorable("scaling_laws", seed=2, points=POINTS, rate=2, unit="worker's work/s", prediction=asked)
    shown = widget._repr_mimebundle_()
    assert shown is not None
    page = Given()
    page.feed(shown[0]["text/html"])
    assert page.seen == widget.get_state()["given"] == {
        "points": [[1, 1, 1, 1], [8, 5.5, 5.5, 5.5], [44, 13, 14.1, 14.9], [128, 9.2, 9.2, 9.2]],
        "rate": 2,
        "unit": "worker's work/s",
        "prediction": "02-crowd",
        "predicted": 900,
    }  # fmt: skip
    assert "From the 4 measured points it is" in shown[0]["text/plain"]
    assert "measured points" not in explorable("scaling_laws")._repr_mimebundle_()[0]["text/plain"]  # type: ignore[index]
    assert "coherency 0.000005 says" in scaling_laws.describe(
        {"serial": 50, "workers": 4, "contention": 0, "coherency": 5}, scaling_laws.given()
    )


def test_the_vectors_are_this_models() -> None:
    kept = json.loads(VECTORS.read_text("utf-8"))
    assert [case["name"] for case in kept] == list(CASES)
    for case in kept:
        state, given = CASES[case["name"]]
        assert (case["state"], case["given"]) == (state, scaling_laws.given(**given))
        now = play(state, given)["readout"]
        for law, values in case["readout"].items():
            assert now[law] == pytest.approx(values), case["name"]


def test_javascript_and_python_agree(open_page: OpenPage) -> None:
    cases = json.loads(VECTORS.read_text("utf-8"))
    for case, seen in zip(cases, open_page("scaling_laws").evaluate(PLAY, cases), strict=True):
        assert seen.keys() == case["readout"].keys()
        for law, values in case["readout"].items():
            assert seen[law] == pytest.approx(values), case["name"]


def cells(page: Page, row: str) -> list[str]:
    found = page.locator("tbody tr").filter(has=page.get_by_role("rowheader", name=row, exact=True)).locator("td")
    return [" ".join(cell.locator("b, span").all_inner_texts()).strip() for cell in found.all()]


def test_the_page_reads_the_laws_off_and_says_when_more_workers_do_harm(open_page: OpenPage) -> None:
    page = open_page("scaling_laws")
    assert [cell.split("×")[0] for cell in cells(page, "At N workers")] == ["15.4 ", "60.9 ", "13 "]
    assert cells(page, "The most there is") == ["20 × never reached", "no limit", "13.6 × at N = 44"]
    expect(page.locator(".sl-x-verdict")).to_contain_text(
        "Past USL's peak at 44, each worker more does harm: 64 do 13 ×, 4 % less"
    )
    expect(page.locator(".sl-x-bad")).to_have_count(1)
    page.get_by_role("slider", name="Workers").fill("40")
    expect(page.locator(".sl-x-verdict")).to_contain_text("Below USL's peak at 44: more workers still do more.")
    expect(page.locator(".sl-x-bad")).to_have_count(0)
    page.get_by_role("slider", name="Coherency").fill("0")
    expect(page.locator(".sl-x-verdict")).to_contain_text("No peak: without coherency cost USL levels off at 33.3 ×.")
    expect(page.locator("[aria-live=polite]")).to_contain_text("40 workers: Amdahl 13.6 ×")


def test_it_has_no_clock_and_draws_only_when_something_changes(open_page: OpenPage) -> None:
    page = open_page("scaling_laws")
    assert page.get_by_role("button").count() == 0
    page.wait_for_timeout(600)
    page.evaluate(COUNT_TEXTS)
    page.wait_for_timeout(300)
    assert page.evaluate("window.texts.size") == 0
    page.get_by_role("slider", name="Workers").press("ArrowRight")
    assert page.evaluate("window.texts.has('USL')")


def test_measured_points_bring_how_far_each_law_is_from_them(open_page: OpenPage) -> None:
    given = scaling_laws.given(POINTS)
    page = open_page("scaling_laws", given=given)
    off = [float(cell.removesuffix("%")) for cell in cells(page, "Off the points by")]
    seen = scaling_laws.readout({}, given)
    assert off == [
        pytest.approx(100 * (law["miss"] or 0), abs=0.51) for law in (seen["amdahl"], seen["gustafson"], seen["usl"])
    ]
    assert not cells(open_page("scaling_laws"), "Off the points by")


def test_the_readers_prediction_is_marked_as_soon_as_the_page_keeps_it(open_page: OpenPage) -> None:
    page = open_page("scaling_laws", given=scaling_laws.given(POINTS, prediction="02-crowd"))
    page.evaluate(COUNT_TEXTS)
    page.get_by_role("slider", name="Workers").press("ArrowRight")
    assert not page.evaluate("[...window.texts].some((text) => text.startsWith('you'))")
    page.evaluate(
        """(key) => {
          const form = document.createElement("form");
          document.body.append(form);
          form.addEventListener("submit", (event) => (event.preventDefault(), localStorage.setItem(key, "11.5")));
          form.requestSubmit();
        }""",
        KEY,
    )
    assert page.evaluate("window.texts.has('you: 11.5 ×')")
    page.evaluate("window.takeAway()")


def test_a_prediction_made_in_the_kernel_is_marked(open_page: OpenPage) -> None:
    given = {**scaling_laws.given(POINTS), "predicted": 12}
    page = open_page("scaling_laws", given=given)
    page.evaluate(COUNT_TEXTS)
    page.get_by_role("slider", name="Workers").press("ArrowRight")
    assert page.evaluate("window.texts.has('you: 12 ×')")
