"""The figure of one event loop against a pool of threads, in a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from event_loop_vectors import VECTORS
from playwright.sync_api import Page, expect

from scalelab.explorables import _event_loop_model as event_loop
from scalelab.explorables import _widget

OpenPage = Callable[..., Page]
CALM = {"reduced_motion": "reduce"}
CLOCK = ".sl-x-clock"

PLAY = """
async (cases) => {
  const figure = await import("./event_loop.js");
  return cases.map(({ state, script }) => {
    const model = figure.createModel(state);
    for (const act of script) typeof act === "number" ? figure.advance(model, act) : figure.setKnobs(model, act);
    return { readout: figure.readout(model), theory: figure.theory(model.knobs) };
  });
}
"""
COUNT_FRAMES = """() => {
  const ask = requestAnimationFrame;
  window.frames_asked = 0;
  window.requestAnimationFrame = (draw) => (window.frames_asked++, ask(draw));
}"""
# What colours the next pictures are painted in; reading a canvas back can hang a Chromium that draws without a GPU.
COUNT_COLOURS = """() => {
  const { fill } = CanvasRenderingContext2D.prototype;
  window.colours = new Set();
  CanvasRenderingContext2D.prototype.fill = function (...path) {
    window.colours.add(this.fillStyle);
    return fill.apply(this, path);
  };
}"""


def seconds(page: Page) -> float:
    return float(page.locator(CLOCK).inner_text().split()[0])


def p99s(page: Page) -> list[float]:
    """The p99 latencies on the two panels, in milliseconds."""
    shown = [text.replace(",", "").split() for text in page.locator(".sl-x-name span b").all_inner_texts()]
    return [float(value) * (1000 if unit == "s" else 1) for value, unit in shown]


def test_javascript_and_python_agree_on_every_vector(open_page: OpenPage) -> None:
    cases = json.loads(VECTORS.read_text("utf-8"))
    for case, seen in zip(cases, open_page("event_loop", **CALM).evaluate(PLAY, cases), strict=True):
        assert seen["readout"] == case["readout"], case["name"]
        for side in ("loop", "pool"):
            assert seen["theory"][side] == pytest.approx(case["theory"][side]), case["name"]
        assert seen["theory"]["alone_ms"] == case["theory"]["alone_ms"]


def test_both_have_the_same_knobs_and_constants(open_page: OpenPage) -> None:
    module = open_page("event_loop", **CALM).evaluate("import('./event_loop.js').then((module) => ({ ...module }))")
    ranges = [
        {"low": knob["min"], "high": knob["max"], "step": knob["step"], "unit": knob["unit"]} if "min" in knob else {}
        for knob in module["KNOBS"]
    ]
    assert [
        event_loop.Knob(knob["name"], knob["value"], **more) for knob, more in zip(module["KNOBS"], ranges, strict=True)
    ] == list(event_loop.KNOBS)
    for name in ("SLICE_US", "BLOCK_US", "BLOCK_ONE_IN", "BIN_US", "WINDOW_BINS"):
        assert module[name] == getattr(event_loop, name)
    assert module["PREVIEW_MS"] == _widget.PREVIEW_MS


def test_the_model_is_fast(open_page: OpenPage, capsys: pytest.CaptureFixture[str]) -> None:
    events, ms = open_page("event_loop", **CALM).evaluate(
        """async () => {
          const { createModel, advance } = await import("./event_loop.js");
          const run = () => {
            const model = createModel({ rate: 1000, wait: 1000, threads: 500 });
            const before = performance.now();
            advance(model, 300_000);
            return [model.events, performance.now() - before];
          };
          run();
          return run();
        }"""
    )
    with capsys.disabled():
        print(f"\nevent_loop.js: {events / ms / 1000:.1f} million model events/s")
    assert events > 1_000_000


def test_any_address_gives_a_state_that_fits(open_page: OpenPage) -> None:
    odd = {"seed": "x", "rate": "99999", "wait": "-3", "threads": "7.4", "blocking": "true", "else": 1}
    page = open_page("event_loop", odd, **CALM)
    assert page.locator(".sl-x-value").all_inner_texts() == ["1,000 requests/s", "50 ms", "7 threads"]
    assert page.get_by_role("checkbox").is_checked()
    assert "seed 8" in page.locator(CLOCK).inner_text()


def test_at_first_both_serve_the_load_then_blocking_hurts_the_loop_only(open_page: OpenPage) -> None:
    page = open_page("event_loop", **CALM)
    loop, pool = p99s(page)
    assert loop == pool == 501
    page.get_by_role("checkbox").check()
    loop, pool = p99s(page)
    assert loop > 3 * pool
    assert pool == 501
    expect(page.locator(".sl-x-verdict").first).to_contain_text("Slow for all")


def test_a_pool_that_is_too_small_says_that_there_is_no_steady_state(open_page: OpenPage) -> None:
    page = open_page("event_loop", {"threads": 100}, **CALM)
    verdict = page.locator(".sl-x-verdict").last
    expect(verdict).to_contain_text("Unstable, no steady state: 200 requests want a thread, there are 100.")
    queue = page.get_by_role("row", name="Queue").get_by_role("cell").last
    assert int(queue.locator("b").inner_text().replace(",", "")) > 1000
    expect(queue).to_contain_text("+200/s")


def test_measured_stands_beside_theory_for_both(open_page: OpenPage) -> None:
    page = open_page("event_loop", **CALM)
    labels = page.locator("tbody th").all_inner_texts()
    assert labels == ["In flight", "Throughput", "p99 latency", "Busy", "Queue"]
    seen = [
        [cell.replace("\n", " ") for cell in row.locator("td").all_inner_texts()]
        for row in page.locator("tbody tr").all()
    ]
    assert all("λW = 200" in cell for cell in seen[0])
    assert "at most 2,000/s" in seen[1][0]
    assert "at most 500/s" in seen[1][1]
    assert all("501 ms with no queue" in cell for cell in seen[2])


def test_the_same_state_gives_the_same_run(open_page: OpenPage) -> None:
    state = {"seed": 42, "rate": 730, "wait": 90, "threads": 70, "blocking": True}
    first, second = (open_page("event_loop", state, **CALM).locator("tbody").inner_text() for _ in range(2))
    other = open_page("event_loop", {**state, "seed": 43}, **CALM).locator("tbody").inner_text()
    assert first == second
    assert first != other


def test_every_knob_turns_by_keyboard_and_is_kept(open_page: OpenPage) -> None:
    page = open_page("event_loop", **CALM)
    for label, shown in [
        ("Requests arriving", "410 requests/s"),
        ("Each request waits", "510 ms"),
        ("Threads in the pool", "251 threads"),
    ]:
        knob = page.get_by_role("slider", name=label)
        knob.focus()
        page.keyboard.press("ArrowRight")
        expect(knob).to_have_attribute("aria-valuetext", shown)
        expect(page.locator(".sl-x-value", has_text=shown)).to_be_visible()
    page.get_by_role("checkbox", name="Blocking handler").focus()
    page.keyboard.press("Space")
    assert page.evaluate("window.saved.at(-1)") == {
        "seed": 8,
        "rate": 410,
        "wait": 510,
        "threads": 251,
        "blocking": True,
    }


def test_targets_are_large_enough(open_page: OpenPage) -> None:
    page = open_page("event_loop", viewport={"width": 390, "height": 844})
    boxes = [control.bounding_box() for control in page.locator(".sl-x :is(input, button)").all()]
    assert len(boxes) == 7
    assert all(box and box["width"] >= 24 and box["height"] >= 24 for box in boxes)


def test_it_runs_pauses_steps_and_starts_again(open_page: OpenPage) -> None:
    page = open_page("event_loop")
    expect(page.locator(CLOCK)).not_to_contain_text("10 s simulated")
    page.get_by_role("button", name="Pause").click()
    run = page.get_by_role("button", name="Run")
    expect(run).to_be_visible()
    page.get_by_role("button", name="Reset").click()
    assert seconds(page) == 10
    for _ in range(4):
        page.get_by_role("button", name="Step 50 ms").click()
    assert seconds(page) == pytest.approx(10.2)
    run.click()
    expect(page.locator(CLOCK)).not_to_contain_text("10.2 s")


def test_it_rests_off_screen(open_page: OpenPage) -> None:
    page = open_page("event_loop", above=3000)
    page.evaluate(COUNT_FRAMES)
    page.wait_for_timeout(300)
    assert seconds(page) == 10
    assert page.evaluate("window.frames_asked") == 0
    page.locator(CLOCK).scroll_into_view_if_needed()
    expect(page.locator(CLOCK)).not_to_contain_text("10 s simulated")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)
    page.evaluate("window.frames_asked = 0")
    page.wait_for_timeout(300)
    assert page.evaluate("window.frames_asked") == 0


def test_a_reader_who_wants_no_motion_sees_the_end_and_steps(open_page: OpenPage) -> None:
    page = open_page("event_loop", **CALM)
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    page.wait_for_timeout(300)
    assert seconds(page) == 10
    page.get_by_role("button", name="Step 50 ms").click()
    page.get_by_role("slider", name="Threads").fill("100")
    assert seconds(page) == 10
    page.emulate_media(reduced_motion="no-preference")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_a_screen_reader_hears_the_state_after_a_turn(open_page: OpenPage) -> None:
    page = open_page("event_loop", **CALM)
    live = page.locator("[aria-live=polite]")
    expect(live).to_have_text("")
    page.get_by_role("checkbox").check()
    expect(live).to_contain_text("Event loop: Slow for all")
    expect(live).to_contain_text("Thread pool: Shrugs")


def test_a_state_from_outside_moves_the_knobs(open_page: OpenPage) -> None:
    page = open_page("event_loop", **CALM)
    page.evaluate("window.setState({ seed: 9, rate: 200, wait: 100, threads: 30, blocking: true })")
    assert page.locator(".sl-x-value").all_inner_texts() == ["200 requests/s", "100 ms", "30 threads"]
    assert "seed 9" in page.locator(CLOCK).inner_text()


def test_taken_away_it_leaves_nothing_behind(open_page: OpenPage) -> None:
    page = open_page("event_loop")
    page.evaluate("window.takeAway()")
    assert page.locator(".sl-x").count() == 0
    assert page.evaluate("window.listeners.size") == 0
    page.evaluate(COUNT_FRAMES)
    page.wait_for_timeout(200)
    assert page.evaluate("window.frames_asked") == 0


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("state", [{}, {"rate": 1000, "wait": 1000, "threads": 1, "blocking": True}])
def test_no_axe_violation_and_no_sideways_scroll(
    open_page: OpenPage, width: int, theme: str, state: dict[str, Any]
) -> None:
    page = open_page("event_loop", state, theme=theme, viewport={"width": width, "height": 900}, **CALM)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_canvas_takes_the_themes_colours(open_page: OpenPage) -> None:
    page = open_page("event_loop", **CALM)
    page.evaluate(COUNT_COLOURS)
    page.get_by_role("button", name="Step 50 ms").click()
    assert page.evaluate("window.colours.has('#0067a5') && !window.colours.has('#5cb3ea')")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function("window.colours.has('#5cb3ea')")


def test_a_figure_that_is_drawn_before_it_has_its_place_takes_the_colours_there(open_page: OpenPage) -> None:
    page = open_page("event_loop", **CALM)
    page.evaluate("window.takeAway()")
    page.evaluate(COUNT_COLOURS)
    page.evaluate(
        """async () => {
          const figure = await import("./event_loop.js");
          const el = document.createElement("div");
          const model = { get: () => ({}), on() {}, off() {}, set() {}, save_changes() {} };
          figure.default.render({ model, el }); // as JupyterLab does
          document.getElementById("place").append(el);
        }"""
    )
    page.wait_for_function("window.colours.has('#0067a5')")


@pytest.mark.parametrize("width", [0, 1, 40, 90, 240])
def test_any_width_is_drawn(open_page: OpenPage, width: int) -> None:
    page = open_page("event_loop", {"threads": 500, "rate": 1000, "wait": 1000}, **CALM)
    page.evaluate("(width) => (document.getElementById('place').style.width = `${width}px`)", width)
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    page.evaluate("document.getElementById('place').style.width = ''")
    page.get_by_role("button", name="Step 50 ms").click()
    assert seconds(page) == pytest.approx(10.05, abs=0.051)


def test_jupyterlab_leaves_the_keys_to_the_controls(open_page: OpenPage) -> None:
    # Lab looks for its shortcuts from the focused element upwards, and stops at one with this mark.
    page = open_page("event_loop", **CALM)
    assert page.locator(".sl-x :is(input, button):not([data-lm-suppress-shortcuts=true])").count() == 0


@pytest.mark.parametrize("ratio", [1, 3])
def test_the_canvas_is_as_sharp_as_the_screen(open_page: OpenPage, ratio: int) -> None:
    page = open_page("event_loop", device_scale_factor=ratio, **CALM)
    shown, held = page.evaluate(
        "[document.querySelector('canvas').clientWidth, document.querySelector('canvas').width]"
    )
    assert held == round(shown * ratio)
