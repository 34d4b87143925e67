"""What every explorable does in a browser, and what the figure of one event loop against a pool of threads shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import cache_vectors
import event_loop_vectors
import lock_vectors
import pytest
import queue_vectors
from axe_playwright_python.base import AxeResults
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from scalelab.explorables import _cache_model as cache
from scalelab.explorables import _event_loop_model as event_loop
from scalelab.explorables import _lock_model as lock
from scalelab.explorables import _queue_model as queue
from scalelab.explorables import _scaling_laws_model as scaling_laws
from scalelab.explorables import names
from scalelab.explorables._knobs import PREVIEW_MS, Knob

OpenPage = Callable[..., Page]
LookAt = Callable[[str], Page]
CALM = {"reduced_motion": "reduce"}
CLOCK = ".sl-x-clock"

MODELS = {"cache": cache, "event_loop": event_loop, "lock": lock, "queue": queue, "scaling_laws": scaling_laws}
VECTORS = {
    "cache": cache_vectors.VECTORS,
    "event_loop": event_loop_vectors.VECTORS,
    "lock": lock_vectors.VECTORS,
    "queue": queue_vectors.VECTORS,
}
CHANGES = ("color-contrast", "target-size", "scrollable-region-focusable")  # with the theme, or the width
MOVING = ("cache", "event_loop", "lock", "queue")
# A state of each that gives it the most to draw or the longest words.
FULLEST = {
    "cache": {"policy": 4, "size": 1000, "scan": 50},
    "event_loop": {"rate": 1000, "wait": 1000, "threads": 500},
    "lock": {"threads": 8, "work": 100, "interval": 500},
    "queue": {"load": 120, "servers": 32},
    "scaling_laws": {"serial": 0, "contention": 0, "coherency": 0, "workers": 1000},
}
ODD = {
    "cache": {"policy": 3, "size": 1000, "skew": 0, "scan": 50},
    "event_loop": {"rate": 1000, "wait": 1000, "threads": 1, "blocking": True},
    "lock": {"threads": 8, "work": 7, "interval": 20_000, "io": 50},
    "queue": {"load": 99, "servers": 32, "scv": 8, "limit": 99},
    "scaling_laws": {"serial": 500, "contention": 300, "coherency": 2000, "workers": 1000},
}
ALL = pytest.mark.parametrize("name", names())

PLAY = """
async ([name, cases]) => {
  const figure = await import(`./${name}.js`);
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
# What pictures are made of: without a GPU each of these takes microseconds, and thousands of them a frame.
COUNT_STROKES = """async () => {
  const prototype = CanvasRenderingContext2D.prototype;
  let strokes = 0;
  for (const name of ["fill", "stroke", "fillRect", "strokeRect", "fillText", "drawImage"]) {
    const draw = prototype[name];
    prototype[name] = function (...how) { strokes++; return draw.apply(this, how); };
  }
  const ask = requestAnimationFrame;
  const times = [];
  let frames = 0;
  const began = performance.now();
  window.requestAnimationFrame = (draw) => ask(() => {
    const before = performance.now();
    draw(began + (frames * 1000) / 60); // as on a machine that keeps up
    times.push(performance.now() - before);
    frames++;
  });
  while (frames < 30) await new Promise((done) => setTimeout(done, 50));
  const seconds = (performance.now() - began) / 1000;
  return { fps: frames / seconds, strokes: strokes / frames, ms: times.sort((a, b) => a - b)[times.length >> 1] };
}"""
MOST_STROKES = 3000
TWO_FRAMES = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
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


def close(seen: Any, expected: Any) -> bool:
    """The same but for the last digits of a float: logarithms and exponentials are no language's own."""
    if isinstance(expected, dict):
        return all(close(seen[key], value) for key, value in expected.items())
    return bool(seen == (pytest.approx(expected) if isinstance(expected, float) else expected))


@pytest.mark.parametrize("name", MOVING)
def test_javascript_and_python_agree_on_every_vector(look_at: LookAt, name: str) -> None:
    cases = json.loads(VECTORS[name].read_text("utf-8"))
    for case, seen in zip(cases, look_at(name).evaluate(PLAY, [name, cases]), strict=True):
        assert seen["readout"] == case["readout"], case["name"]
        assert close(seen["theory"], case["theory"]), case["name"]


@ALL
def test_both_have_the_same_knobs(look_at: LookAt, name: str) -> None:
    module = look_at(name).evaluate(
        f"import('./{name}.js').then(({{ KNOBS, PREVIEW_MS }}) => ({{ KNOBS, PREVIEW_MS }}))"
    )
    ranges = [
        {"low": knob["min"], "high": knob["max"], "step": knob["step"], "unit": knob["unit"]}
        if "min" in knob
        else {"choices": tuple(knob.get("choices", ()))}
        for knob in module["KNOBS"]
    ]
    model: Any = MODELS[name]
    assert [
        Knob(knob["name"], knob["value"], **more) for knob, more in zip(module["KNOBS"], ranges, strict=True)
    ] == list(model.KNOBS)
    assert len(model.KNOBS) <= 4
    assert module["PREVIEW_MS"] == PREVIEW_MS


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("cache", ("KEYS", "REQUEST_US", "PERIOD", "TRUSTED", "BATCHES")),
        ("event_loop", ("SLICE_US", "BLOCK_US", "BLOCK_ONE_IN", "BIN_US", "WINDOW_BINS")),
        ("lock", ("GAP_US", "SLICE_US", "CALL_US", "TRUSTED", "LEAST", "BATCHES")),
        ("queue", ("SERVICE_US", "NO_LIMIT", "TRUSTED", "BATCHES")),
    ],
)
def test_both_have_the_same_constants(look_at: LookAt, name: str, constants: tuple[str, ...]) -> None:
    page = look_at(name)
    for constant in constants:
        value = page.evaluate(f"import('./{name}.js').then((module) => module.{constant})")
        assert value == getattr(MODELS[name], constant)


@pytest.mark.parametrize("name", MOVING)
def test_the_model_is_fast(look_at: LookAt, tell: Callable[[str], None], name: str) -> None:
    events, ms = look_at(name).evaluate(
        """async ([name, state]) => {
          const { createModel, advance } = await import(`./${name}.js`);
          const run = (ms) => {
            const model = createModel(state);
            const before = performance.now();
            advance(model, ms);
            return [model.events, performance.now() - before];
          };
          run(30_000); // it is compiled
          return run(300_000);
        }""",
        [name, FULLEST[name]],
    )
    tell(f"{name}.js: {events / ms / 1000:.1f} million model events/s")
    assert events > 1_000_000


@pytest.mark.parametrize("name", MOVING)
def test_a_thousand_moving_things_are_few_strokes(open_page: OpenPage, tell: Callable[[str], None], name: str) -> None:
    page = open_page(name, FULLEST[name])
    seen = page.evaluate(COUNT_STROKES)
    tell(
        f"{name}.js: {seen['fps']:.0f} frames/s at its fullest, {seen['strokes']:.0f} strokes and "
        f"{seen['ms']:.1f} ms of script per frame"
    )
    assert seen["fps"] > 0
    assert seen["strokes"] <= MOST_STROKES


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


def test_measured_stands_beside_theory_for_both(look_at: LookAt) -> None:
    page = look_at("event_loop")
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


@pytest.mark.parametrize("name", MOVING)
def test_the_same_state_gives_the_same_run(open_page: OpenPage, name: str) -> None:
    state = {**ODD[name], "seed": 42}
    first, second = (open_page(name, state, **CALM).locator("tbody").inner_text() for _ in range(2))
    other = open_page(name, {**state, "seed": 43}, **CALM).locator("tbody").inner_text()
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


@ALL
def test_every_slider_has_a_name_says_its_value_and_is_kept(open_page: OpenPage, name: str) -> None:
    page = open_page(name, **CALM)
    for slider in page.get_by_role("slider").all():
        said = slider.get_attribute("aria-valuetext")
        now = slider.input_value()
        slider.press("ArrowRight" if now == slider.get_attribute("min") else "ArrowLeft")
        assert slider.get_attribute("aria-valuetext") != said
        assert (
            page.evaluate("window.saved.at(-1)")[slider.get_attribute("name")] == int(slider.input_value()) != int(now)
        )
        assert slider.evaluate("slider => slider.labels[0].textContent.trim().length") > 3
    expect(page.locator("[aria-live=polite]")).to_contain_text(re.compile(r".{20}"))  # and then what came of it


@ALL
def test_targets_are_large_enough(open_page: OpenPage, name: str) -> None:
    page = open_page(name, viewport={"width": 390, "height": 844})
    boxes = page.locator(".sl-x :is(input, select, button)").evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect()).map(({ width, height }) => [width, height])"
    )
    assert len(boxes) == {"cache": 8, "event_loop": 7, "lock": 8, "queue": 8, "scaling_laws": 4}[name]
    assert all(width >= 24 and height >= 24 for width, height in boxes)


@pytest.mark.parametrize("name", MOVING)
def test_it_runs_pauses_steps_and_starts_again(open_page: OpenPage, name: str) -> None:
    page = open_page(name)
    expect(page.locator(CLOCK)).not_to_contain_text("10 s simulated")
    page.get_by_role("button", name="Pause").click()
    run = page.get_by_role("button", name="Run")
    expect(run).to_be_visible()
    page.get_by_role("button", name="Reset").click()
    assert seconds(page) == 10
    step = page.get_by_role("button", name="Step")
    ms = float(step.inner_text().split()[1])
    step.evaluate("(button, times) => { while (times--) button.click(); }", 4 * round(50 / ms))
    assert seconds(page) == pytest.approx(10.2)
    run.click()
    expect(page.locator(CLOCK)).not_to_contain_text("10.2 s")


@pytest.mark.parametrize("name", MOVING)
def test_it_rests_off_screen(open_page: OpenPage, name: str) -> None:
    page = open_page(name, above=3000)
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


@pytest.mark.parametrize("name", MOVING)
def test_a_reader_who_wants_no_motion_sees_the_end_and_steps(open_page: OpenPage, name: str) -> None:
    page = open_page(name, **CALM)
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    page.wait_for_timeout(300)
    assert seconds(page) == 10
    page.get_by_role("button", name="Step").click()
    page.get_by_role("slider").first.press("ArrowLeft")
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


@ALL
def test_taken_away_it_leaves_nothing_behind(open_page: OpenPage, name: str) -> None:
    page = open_page(name)
    page.evaluate("window.takeAway()")
    assert page.locator(".sl-x").count() == 0
    assert page.evaluate("window.listeners.size") == 0
    page.evaluate(COUNT_FRAMES)
    page.wait_for_timeout(200)
    assert page.evaluate("window.frames_asked") == 0


@ALL
@pytest.mark.parametrize("odd", [False, True])
def test_no_axe_violation_and_no_sideways_scroll(open_page: OpenPage, name: str, odd: bool) -> None:
    page = open_page(name, ODD[name] if odd else {}, **CALM)
    page.evaluate(Axe().axe_script)
    for width, theme in product((1280, 390, 320), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("(theme) => (document.documentElement.dataset.theme = theme)", theme)
        page.evaluate(TWO_FRAMES)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        rules = {} if (width, theme) == (1280, "light") else {"runOnly": CHANGES}
        found = AxeResults(page.evaluate("(rules) => axe.run({ resultTypes: ['violations'], ...rules })", rules))
        assert found.violations_count == 0, f"{width} px wide, {theme}: {found.generate_report()}"


@pytest.mark.parametrize("name", MOVING)
def test_the_canvas_takes_the_themes_colours(open_page: OpenPage, name: str) -> None:
    page = open_page(name, **CALM)
    page.evaluate(COUNT_COLOURS)
    page.get_by_role("button", name="Step").click()
    assert page.evaluate("window.colours.has('#0067a5') && !window.colours.has('#5cb3ea')")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function("window.colours.has('#5cb3ea')")


@ALL
def test_a_figure_that_is_drawn_before_it_has_its_place_takes_the_colours_there(open_page: OpenPage, name: str) -> None:
    page = open_page(name, **CALM)
    page.evaluate("window.takeAway()")
    page.evaluate(COUNT_COLOURS)
    page.evaluate(
        """async (name) => {
          const figure = await import(`./${name}.js`);
          const el = document.createElement("div");
          const model = { get: () => ({}), on() {}, off() {}, set() {}, save_changes() {} };
          figure.default.render({ model, el }); // as JupyterLab does
          document.getElementById("place").append(el);
        }""",
        name,
    )
    page.wait_for_function("window.colours.has('#0067a5')")


@ALL
def test_any_width_is_drawn(open_page: OpenPage, name: str) -> None:
    page = open_page(name, FULLEST[name], **CALM)
    body = page.locator(".sl-x tbody")
    for width in (0, 1, 40, 90, 240):
        page.evaluate("(width) => (document.getElementById('place').style.width = `${width}px`)", width)
        page.evaluate(TWO_FRAMES)
        page.evaluate("document.getElementById('place').style.width = ''")
        page.get_by_role("slider").first.press("ArrowLeft")
        expect(body).not_to_be_empty()


@ALL
def test_jupyterlab_leaves_the_keys_to_the_controls(look_at: LookAt, name: str) -> None:
    # Lab looks for its shortcuts from the focused element upwards, and stops at one with this mark.
    page = look_at(name)
    assert page.locator(".sl-x :is(input, select, button):not([data-lm-suppress-shortcuts=true])").count() == 0


@ALL
@pytest.mark.parametrize("ratio", [1, 3])
def test_the_canvas_is_as_sharp_as_the_screen(open_page: OpenPage, name: str, ratio: int) -> None:
    page = open_page(name, device_scale_factor=ratio, **CALM)
    shown, held = page.evaluate(
        "[document.querySelector('canvas').clientWidth, document.querySelector('canvas').width]"
    )
    assert held == round(shown * ratio)
