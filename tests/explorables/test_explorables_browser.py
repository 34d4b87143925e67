"""What every explorable does in a browser, whichever figure it is."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from axe_playwright_python.base import AxeResults
from axe_playwright_python.sync_playwright import Axe
from figure_states import CALM, LookAt, OpenPage, Play, Theory, extremes, moves, states
from playwright.sync_api import Page, expect

from scalelab.explorables import names
from scalelab.explorables.knobs import knobs
from scalelab.explorables.widget import theory_of

CLOCK = ".sl-x-clock"
CHANGES = ("color-contrast", "target-size", "scrollable-region-focusable")  # with the theme, or the width
ALL = pytest.mark.parametrize("name", names())
MOVING = pytest.mark.parametrize("name", [name for name in names() if moves(name)])

COUNT_FRAMES = """() => {
  const ask = requestAnimationFrame;
  window.frames_asked = 0;
  window.requestAnimationFrame = (draw) => (window.frames_asked++, ask(draw));
}"""
# What pictures are made of: without a GPU each of these takes microseconds, and thousands of them a frame.
COUNT_STROKES = """async (states) => {
  const prototype = CanvasRenderingContext2D.prototype;
  let strokes = 0;
  for (const name of ["fill", "stroke", "fillRect", "strokeRect", "fillText", "drawImage"]) {
    const draw = prototype[name];
    prototype[name] = function (...how) { strokes++; return draw.apply(this, how); };
  }
  const step = [...document.querySelectorAll("button")].find((button) => button.textContent.startsWith("Step"));
  return states.map((state) => {
    window.setState(state);
    step.click();
    strokes = 0;
    step.click();
    return strokes;
  });
}"""
MOST_STROKES = 6000  # of a picture that is drawn afresh; between two of them much is kept
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


def close(seen: Any, expected: Any) -> bool:
    """Return whether all that is expected was seen, but for the last digits of a float."""
    if isinstance(expected, dict):
        return all(close(seen[key], value) for key, value in expected.items())
    return bool(seen == pytest.approx(expected))


@ALL
def test_the_figures_theory_is_the_books(theory: Theory, name: str) -> None:
    every = states(name, 40)
    for state, seen in zip(every, theory(name, every), strict=True):
        assert close(seen, theory_of(name).expected(state)), state


@MOVING
def test_how_time_is_cut_changes_nothing(play: Play, name: str) -> None:
    chance = random.Random(3)
    every = [(state, [round(chance.uniform(0, 400), 3) for _ in range(5)]) for state in states(name, 10)]
    cut = play(name, every)
    whole = play(name, [(state, [run["readout"]["now_us"] / 1000]) for (state, _), run in zip(every, cut, strict=True)])
    for one, other in zip(cut, whole, strict=True):
        assert one["readout"] == other["readout"]
        # What happens on two sides at once may be noted in any order.
        assert sorted(map(json.dumps, one["trace"])) == sorted(map(json.dumps, other["trace"]))
    assert sum(len(run["trace"]) for run in cut) > 1000


@MOVING
def test_the_model_is_fast(look_at: LookAt, tell: Callable[[str], None], name: str) -> None:
    events, ms = look_at(name).evaluate(
        """async ([name, states]) => {
          const { default: figure } = await import(`./${name}.js`);
          const events = (state, ms) => figure.play(state, [ms]).readout.events;
          const most = states.reduce((a, b) => (events(b, 2000) > events(a, 2000) ? b : a));
          const before = performance.now();
          return [events(most, 300_000), performance.now() - before];
        }""",
        [name, extremes(name)],
    )
    tell(f"{name}: {events / ms / 1000:.1f} million model events/s")
    assert events > 1_000_000


@MOVING
def test_a_thousand_moving_things_are_few_strokes(open_page: OpenPage, tell: Callable[[str], None], name: str) -> None:
    strokes = open_page(name, **CALM).evaluate(COUNT_STROKES, extremes(name))
    tell(f"{name}: {max(strokes):,.0f} strokes per frame at its fullest")
    assert min(strokes) > 10
    assert max(strokes) <= MOST_STROKES


@ALL
def test_any_address_gives_a_state_that_fits(open_page: OpenPage, name: str) -> None:
    page = open_page(name, **CALM)
    odd: dict[str, Any] = {"seed": "x", "else": 1, **{knob.name: "99999.5" for knob in knobs(name)}}
    page.evaluate("(state) => window.setState(state)", odd)
    for knob in knobs(name):
        control = page.locator(f"[name={knob.name}]")
        if knob.choices:
            expect(control).to_have_value(str(knob.value))
        elif knob.max is None:
            expect(control).not_to_be_checked()
        else:
            expect(control).to_have_value(str(knob.max))
    lowest = {knob.name: "true" if knob.max is None else "-1e9" for knob in knobs(name)}
    page.evaluate("(state) => window.setState(state)", lowest)
    for knob in knobs(name):
        control = page.locator(f"[name={knob.name}]")
        if knob.max is not None:
            expect(control).to_have_value(str(knob.min))
        elif not knob.choices:
            expect(control).to_be_checked()


@MOVING
def test_the_same_state_gives_the_same_run_and_another_seed_another(open_page: OpenPage, name: str) -> None:
    page = open_page(name, {"seed": 42}, **CALM)
    body = page.locator(".sl-x tbody")
    first = body.inner_text()
    page.evaluate("window.setState({ seed: 43 })")
    assert "seed 43" in page.locator(CLOCK).inner_text()
    assert body.inner_text() != first
    page.evaluate("window.setState({ seed: 42 })")
    assert body.inner_text() == first


@ALL
def test_every_switch_and_choice_turns_by_keyboard_and_is_kept(open_page: OpenPage, name: str) -> None:
    page = open_page(name, **CALM)
    for knob in knobs(name):
        control = page.locator(f"[name={knob.name}]")
        assert control.evaluate("control => control.labels[0].textContent.trim().length") > 3
        if knob.max is not None and not knob.choices:
            continue
        control.focus()
        page.keyboard.press("ArrowDown" if knob.choices else "Space")
        assert page.evaluate("window.saved.at(-1)")[knob.name] == (knob.value + 1 if knob.choices else not knob.value)


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
    assert len(boxes) == len(knobs(name)) + page.get_by_role("button").count()
    assert all(width >= 24 and height >= 24 for width, height in boxes)


@MOVING
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


@MOVING
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


@MOVING
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


@ALL
def test_a_state_from_outside_moves_the_knobs(open_page: OpenPage, name: str) -> None:
    page = open_page(name, **CALM)
    for state in extremes(name)[::5]:
        page.evaluate("(state) => window.setState(state)", state)
        for knob, value in state.items():
            control = page.locator(f"[name={knob}]")
            assert (control.is_checked() if isinstance(value, bool) else int(control.input_value())) == value


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
def test_no_state_scrolls_sideways(open_page: OpenPage, name: str) -> None:
    page = open_page(name, viewport={"width": 320, "height": 900}, **CALM)
    widths = page.evaluate(
        "(states) => states.map((state) => (window.setState(state), document.documentElement.scrollWidth))",
        extremes(name),
    )
    assert max(widths) <= 320


@ALL
@pytest.mark.parametrize("full", [False, True])
def test_no_axe_violation_and_no_sideways_scroll(open_page: OpenPage, name: str, full: bool) -> None:
    page = open_page(name, extremes(name)[-1] if full else {}, **CALM)
    page.evaluate(Axe().axe_script)
    for width, theme in product((1280, 390, 320), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("(theme) => (document.documentElement.dataset.theme = theme)", theme)
        page.evaluate(TWO_FRAMES)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        rules = {} if (width, theme) == (1280, "light") else {"runOnly": CHANGES}
        found = AxeResults(page.evaluate("(rules) => axe.run({ resultTypes: ['violations'], ...rules })", rules))
        assert found.violations_count == 0, f"{width} px wide, {theme}: {found.generate_report()}"


@MOVING
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
    page = open_page(name, extremes(name)[-1], **CALM)
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
