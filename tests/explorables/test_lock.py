"""Threads under one interpreter lock: the model in Python, for every run and for long ones, and what the page shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lock_vectors import CASES, VECTORS, play
from playwright.sync_api import Page, expect

from scalelab.explorables import KnobError
from scalelab.explorables import _lock_model as lock
from scalelab.explorables._knobs import PREVIEW_MS

states = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "threads": st.integers(0, 8),
        "work": st.integers(1, 100),
        "interval": st.integers(1, 40).map(lambda halves: 500 * halves),
        "io": st.integers(0, 18).map(lambda fives: 5 * fives),
    }
)
unhurried = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
steps = st.lists(st.floats(0, 400, allow_nan=False), min_size=1, max_size=5)


@unhurried
@given(states, steps)
def test_one_at_a_time_holds_the_lock_and_no_wait_is_longer_than_the_rule_says(
    state: dict[str, Any], spans: list[float]
) -> None:
    model, rule = lock.create_model(state), lock.theory(state)
    for span in spans:
        lock.advance(model, span)
        now = lock.readout(model)
        asking = {thread for thread, _ in model.asked}
        waiting = {thread for thread, wakes in enumerate(model.wakes) if wakes < float("inf")}
        held = {model.holder} if model.holder >= 0 else set()
        assert len(asking) + len(waiting) + len(held) == state["threads"] + 1 == len(asking | waiting | held)
        assert held or not asking
        assert model.longest <= rule["most_ms"] * 1000
        assert now["mean_request_ms"] is None or now["mean_request_ms"] <= rule["request_ms"]
        assert 0 <= now["computed"] <= now["held"] <= 1
        assert now["waits"] in (2 * now["requests"], 2 * now["requests"] + 1, 2 * now["requests"] + 2)


@unhurried
@given(states, steps)
def test_how_time_is_cut_changes_nothing(state: dict[str, Any], spans: list[float]) -> None:
    cut, whole = lock.create_model(state), lock.create_model(state)
    for span in spans:
        lock.advance(cut, span)
    lock.advance(whole, cut.now / 1000)
    assert lock.readout(cut) == lock.readout(whole)


@pytest.mark.parametrize("threads", [1, 2, 5, 8])
@pytest.mark.parametrize("interval", [500, 5000, 20_000])
def test_beside_threads_that_never_wait_the_p99_is_busy_threads_times_the_interval(threads: int, interval: int) -> None:
    state = {"threads": threads, "interval": interval, "work": 100}
    model, rule = lock.create_model(state), lock.theory(state)
    lock.advance(model, 60_000)
    seen = lock.readout(model)
    assert rule["most_ms"] == threads * interval / 1000
    assert seen["p99_wait_ms"] == pytest.approx(rule["most_ms"], rel=0.02)
    assert seen["held"] == pytest.approx(1, abs=0.01)


def test_turns_shorter_than_the_interval_take_its_place_in_the_rule() -> None:
    state = {"threads": 4, "work": 2}
    model = lock.create_model(state)
    lock.advance(model, 30_000)
    assert lock.theory(state)["most_ms"] == 8
    assert lock.readout(model)["p99_wait_ms"] == pytest.approx(8, rel=0.02)


def test_alone_the_thread_never_waits_and_a_request_takes_what_it_needs() -> None:
    model = lock.create_model({"threads": 0})
    lock.advance(model, 30_000)
    seen = lock.readout(model)
    assert seen["mean_wait_ms"] == seen["p99_wait_ms"] == 0
    assert seen["mean_request_ms"] == lock.theory({"threads": 0})["request_ms"] == 0.25
    assert seen["requests"] == pytest.approx(30_000 / 20.25, rel=0.06)


def test_what_a_busy_thread_does_between_its_turns_is_its_share_of_io() -> None:
    model = lock.create_model({"threads": 1, "work": 10, "io": 60})
    lock.advance(model, 300_000)
    assert lock.readout(model)["computed"] == pytest.approx(0.4, rel=0.05)


def test_more_io_beside_it_makes_the_thread_wait_less() -> None:
    means: list[float] = []
    for io in (0, 50, 80, 90):
        model = lock.create_model({"threads": 4, "io": io})
        lock.advance(model, 120_000)
        means.append(lock.readout(model)["mean_wait_ms"] or 0)
    assert means == sorted(means, reverse=True)
    assert means[0] > 3 * means[-1]


def test_the_lock_changes_hands_once_per_interval_or_more() -> None:
    model = lock.create_model({"threads": 3})
    lock.advance(model, 20_000)
    assert 20_000 / 5 <= lock.readout(model)["handed"] <= 2 * 20_000 / 5


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"threads": 9}, "0 to 8 threads"),
        ({"work": 0}, "1 to 100 ms"),
        ({"interval": 5001}, "500 to 20000 µs in steps of 500"),
        ({"io": 95}, "0 to 90 %"),
        ({"waiters": 4}, "waiters"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_words(state: dict[str, Any], says: str) -> None:
    with pytest.raises(KnobError, match=says):
        lock.create_model(state)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (
            {},
            r"with 2 busy threads at .* 5 ms\..* is 9\.9 ms; .* says 10 ms at most.* takes 1\d\.\d ms",
        ),
        ({"threads": 1, "interval": 500, "io": 5}, "1 busy thread, which wait 5 % of their own time, at .* 0.5 ms"),
        ({"threads": 0}, r"0 busy threads .* is 0\.00 ms; .* takes 0\.25 ms"),
    ],
)
def test_the_words_for_a_reader_without_javascript(state: dict[str, Any], says: str) -> None:
    assert re.search(says, lock.describe(state))


def test_the_vectors_are_this_models() -> None:
    kept = json.loads(VECTORS.read_text("utf-8"))
    assert [case["name"] for case in kept] == list(CASES)
    for case in kept:
        state, script = CASES[case["name"]]
        assert (case["state"], case["script"]) == (state, script)
        assert play(state, script) == {key: case[key] for key in ("readout", "theory")}, case["name"]


OpenPage = Callable[..., Page]
CALM = {"reduced_motion": "reduce"}


def cells(page: Page, row: str) -> list[str]:
    found = page.locator("tbody tr").filter(has=page.get_by_role("rowheader", name=row, exact=True)).locator("td")
    return [" ".join(cell.locator("b, span").all_inner_texts()).strip().replace("\xa0", " ") for cell in found.all()]


def test_the_run_stands_beside_the_rule(open_page: OpenPage) -> None:
    page = open_page("lock", **CALM)
    model = lock.create_model({})
    lock.advance(model, PREVIEW_MS)
    seen = lock.readout(model)
    assert cells(page, "p99 wait for the lock") == [f"{seen['p99_wait_ms']:.1f} ms", "≈ 10 ms busy threads × interval"]
    assert cells(page, "Mean wait")[0] == f"{seen['mean_wait_ms']:.1f} ms ± {(seen['error'] or 0) * 100:.1f} %"
    assert cells(page, "Mean request")[1] == "≤ 20 ms it asks twice"
    assert cells(page, "Changes hands")[1] == "≥ 200/s once per interval"


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"work": 2}, "≈ 4 ms busy threads × turn"),
        ({"io": 30}, "≤ 10 ms busy threads × interval"),
        ({"threads": 8, "interval": 20_000}, "≈ 160 ms busy threads × interval"),
    ],
)
def test_the_rule_fits_the_knobs(open_page: OpenPage, state: dict[str, Any], says: str) -> None:
    assert cells(open_page("lock", state, **CALM), "p99 wait for the lock")[1] == says


@pytest.mark.parametrize(
    ("state", "says", "bad"),
    [
        (
            {},
            "Convoy: each time it lets go it stands behind all 2, and each keeps the lock for an interval of 5 ms.",
            2,
        ),
        ({"threads": 1}, "Convoy: each time it lets go it stands behind the other, which keeps", 2),
        ({"threads": 4, "work": 3, "io": 10}, "behind up to all 4, and each keeps the lock for its turn of 3 ms", 2),
        ({"threads": 1, "work": 1, "io": 90}, "A request takes 1.", 1),
        ({"threads": 0}, "Alone with the lock", 0),
    ],
)
def test_the_page_says_whether_there_is_a_convoy(
    open_page: OpenPage, state: dict[str, Any], says: str, bad: int
) -> None:
    page = open_page("lock", state, **CALM)
    expect(page.locator(".sl-x-verdict").first).to_contain_text(says)
    expect(page.locator(".sl-x-bad")).to_have_count(bad)


def test_the_page_says_when_a_run_is_too_short_and_skipping_ahead_mends_it(open_page: OpenPage) -> None:
    page = open_page("lock", **CALM)
    verdict = page.locator(".sl-x-verdict").last
    expect(verdict).to_contain_text("and the p99 rests on the 6 longest")
    page.get_by_role("button", name="Skip 60 s").click()
    expect(verdict).to_contain_text("Long enough: after ")
    expect(page.locator("[aria-live=polite]")).to_contain_text("p99 wait for the lock 9.9 ms, the rule says 10 ms")


def test_a_run_ends_after_an_hour_and_starts_again(open_page: OpenPage) -> None:
    page = open_page("lock", {"threads": 1})
    for _ in range(60):
        page.get_by_role("button", name="Skip").click()
    run = page.get_by_role("button", name="Run")
    expect(run).to_be_visible()
    run.click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(page.locator(".sl-x-clock")).to_contain_text("10")
