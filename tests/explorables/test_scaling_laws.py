"""Three laws of scaling beside measured points: what the figure computes, and what the page shows."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from figure_states import OpenPage, Theory, cells, states
from playwright.sync_api import expect

from scalelab import explorable
from scalelab.explorables import KnobError
from scalelab.explorables.scaling_laws import theory as scaling_laws
from scalelab.measure import Interval
from scalelab.predictions import Prediction
from scalelab.theory import amdahl, gustafson, usl

KEY = "scalelab.prediction.02-crowd"
POINTS: list[tuple[float, float | Interval]] = [(1, 1.0), (8, 5.5), (44, Interval(13.0, 14.1, 14.9)), (128, 9.2)]
COUNT_TEXTS = """() => {
  const { fillText } = CanvasRenderingContext2D.prototype;
  window.texts = new Set();
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
    window.texts.add(text);
    return fillText.call(this, text, ...rest);
  };
}"""


def test_without_an_end_the_laws_have_none(theory: Theory) -> None:
    [free] = theory("scaling_laws", [{"serial": 0, "contention": 0, "coherency": 0}])
    assert [free[law]["most"] for law in ("amdahl", "gustafson", "usl")] == [None, None, None]
    [held] = theory("scaling_laws", [{"contention": 20, "coherency": 0}], {"rate": 3})
    assert held["usl"]["most"] == pytest.approx(150)
    assert held["usl"]["most_at"] is None


def test_what_a_law_misses_is_the_root_mean_square_of_the_relative_differences(theory: Theory) -> None:
    given = scaling_laws.given(POINTS, rate=2)
    workers, _, medians, _ = np.transpose(given["points"])
    every = states("scaling_laws", 20)
    for state, seen in zip(every, theory("scaling_laws", every, given), strict=True):
        for law, says in (
            ("amdahl", amdahl(workers, state["serial"] / 1000)),
            ("gustafson", gustafson(workers, state["serial"] / 1000)),
            ("usl", usl(workers, state["contention"] / 1000, state["coherency"] / 1e6)),
        ):
            assert seen[law]["miss"] == pytest.approx(np.sqrt(np.mean((2 * says / medians - 1) ** 2))), state
            assert seen[law]["each"] == pytest.approx(seen[law]["at"] / (2 * state["workers"]))


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


def test_measured_points_bring_how_far_each_law_is_from_them(open_page: OpenPage, theory: Theory) -> None:
    given = scaling_laws.given(POINTS)
    off = [float(cell.removesuffix("%")) for cell in cells(open_page("scaling_laws", given=given), "Off the points by")]
    [seen] = theory("scaling_laws", [{}], given)
    assert off == [pytest.approx(100 * law["miss"], abs=0.51) for law in seen.values()]
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
