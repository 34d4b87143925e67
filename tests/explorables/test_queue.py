"""Requests in line before servers: the model in Python, for every run and for long ones, and what the page shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page, expect
from queue_vectors import CASES, VECTORS, play

from scalelab import theory
from scalelab.explorables import KnobError
from scalelab.explorables import _queue_model as queue
from scalelab.explorables._knobs import PREVIEW_MS
from scalelab.explorables._sample import middle, place

states = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "load": st.integers(5, 120),
        "servers": st.integers(1, 32),
        "scv": st.integers(0, 8),
        "limit": st.integers(0, queue.NO_LIMIT),
    }
)
unhurried = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
steps = st.lists(st.floats(0, 400, allow_nan=False), min_size=1, max_size=5)


@unhurried
@given(states, steps)
def test_no_request_is_lost_and_none_waits_while_a_server_is_free(state: dict[str, Any], spans: list[float]) -> None:
    model = queue.create_model(state)
    for span in spans:
        queue.advance(model, span)
        now = queue.readout(model)
        assert now["arrived"] == now["refused"] + now["done"] + now["waiting"] + now["serving"]
        assert now["events"] == now["arrived"] + now["done"]
        assert now["serving"] <= state["servers"]
        assert now["waiting"] == 0 or now["serving"] == state["servers"]
        assert state["limit"] == queue.NO_LIMIT or now["waiting"] <= state["limit"]
        assert state["limit"] < queue.NO_LIMIT or now["refused"] == 0


@unhurried
@given(states, steps)
def test_how_time_is_cut_changes_nothing(state: dict[str, Any], spans: list[float]) -> None:
    cut, whole = queue.create_model(state), queue.create_model(state)
    for span in spans:
        queue.advance(cut, span)
    queue.advance(whole, cut.now / 1000)
    assert queue.readout(cut) == queue.readout(whole)


@given(st.integers(0, 2**32 - 1))
def test_a_bin_is_no_wider_than_a_64th_of_what_it_holds(wait: int) -> None:
    assert abs(middle(place(wait)) - wait) <= wait / 128
    assert place(wait) <= place(wait + 1) < 2048


def waits(ms: float = 40_000, **state: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The wait of each request that was served, in ms, by Kiefer and Wolfowitz's recurrence on the same requests."""
    model = queue.create_model(state)
    free = np.zeros(model.knobs["servers"])
    seen = []
    time = model.next
    while time <= ms * 1000:
        first = int(free.argmin())
        begins = max(time, free[first])
        free[first] = begins + queue._size(model)
        seen.append((begins - time) / 1000)
        time += queue._gap(model)
    return np.array(seen)


@pytest.mark.parametrize(
    "state", [{}, {"servers": 5, "load": 90}, {"scv": 0, "servers": 2}, {"scv": 6, "servers": 3}, {"load": 110}]
)
def test_the_waits_are_those_of_the_recurrence_for_the_same_requests(state: dict[str, Any]) -> None:
    every = waits(**state)
    model = queue.create_model(state)
    queue.advance(model, 40_000)
    seen = queue.readout(model)
    assert seen["arrived"] == len(every)
    begun = every[: model.started]
    assert seen["mean_wait_ms"] == pytest.approx(begun.mean())
    assert seen["p99_wait_ms"] == pytest.approx(np.percentile(begun, 99, method="inverted_cdf"), rel=1 / 128)


LONG = [
    ({"load": 50}, 400),
    ({"load": 70, "servers": 4}, 200),
    ({"load": 60, "scv": 0}, 300),
    ({"load": 60, "scv": 4}, 900),
    ({"load": 80, "servers": 4, "limit": 8}, 300),
    ({"load": 120, "servers": 2, "limit": 20}, 150),
    ({"load": 100, "servers": 6, "limit": 0, "scv": 8}, 60),
]


@pytest.mark.parametrize(("state", "seconds"), LONG)
def test_a_long_run_comes_to_what_theory_says_and_obeys_little(state: dict[str, Any], seconds: int) -> None:
    model, expected = queue.create_model({"seed": 1, **state}), queue.theory(state)
    queue.advance(model, seconds * 1000)
    seen = queue.readout(model)
    admitted = (seen["arrived"] - seen["refused"]) / seconds
    assert seen["mean_wait_ms"] is not None
    assert expected["refused"] is not None
    assert seen["mean_waiting"] == pytest.approx(admitted * seen["mean_wait_ms"] / 1000, rel=0.01)
    assert seen["mean_wait_ms"] == pytest.approx(expected["mean_wait_ms"], rel=0.06)
    assert seen["mean_waiting"] == pytest.approx(expected["mean_waiting"], rel=0.06)
    assert seen["busy"] == pytest.approx(expected["busy"], rel=0.02)
    assert seen["refused"] / seen["arrived"] == pytest.approx(expected["refused"], rel=0.05, abs=0.001)
    if expected["kind"] in ("erlang", "limit"):  # exact in the tail too
        assert seen["p99_wait_ms"] == pytest.approx(expected["p99_wait_ms"], rel=0.06)


@pytest.mark.parametrize("servers", [1, 2, 8, 32])
@pytest.mark.parametrize("load", [5, 50, 80, 99])
def test_theory_without_a_limit_is_the_books(servers: int, load: int) -> None:
    state, rho, service = {"servers": servers, "load": load}, load / 100, 10.0
    exact = queue.theory(state)
    assert exact["mean_wait_ms"] == pytest.approx(theory.mmc_wait(servers, rho, service))
    assert exact["p99_wait_ms"] == pytest.approx(theory.mmc_wait_percentile(99, servers, rho, service))
    for scv in (0, 4):
        about = queue.theory({**state, "scv": scv})["mean_wait_ms"]
        assert about == pytest.approx(theory.allen_cunneen_wait(servers, rho, service, 1, scv))


def test_a_limit_that_never_binds_changes_nothing_and_no_place_at_all_is_erlangs_loss() -> None:
    free, bound = (queue.theory({"load": 40, "servers": 3, "limit": limit}) for limit in (queue.NO_LIMIT, 99))
    for key in ("mean_wait_ms", "p99_wait_ms", "mean_waiting", "busy"):
        assert bound[key] == pytest.approx(free[key])
    loss = queue.theory({"load": 90, "servers": 4, "limit": 0, "scv": 7})
    assert loss["kind"] == "loss"
    assert loss["refused"] == pytest.approx(theory.erlang_b(4, 3.6))


def test_without_slack_there_is_no_steady_state_and_the_line_grows_as_theory_says() -> None:
    state = {"load": 120, "servers": 3}
    model, expected = queue.create_model(state), queue.theory(state)
    queue.advance(model, 60_000)
    assert expected["kind"] == "unstable"
    assert queue.readout(model)["waiting"] == pytest.approx(60 * expected["growth"], rel=0.1)
    assert queue.theory({"load": 100})["growth"] == 0


def test_a_run_is_trusted_only_when_its_mean_is_near_the_truth() -> None:
    trusted = far = covered = judged = 0
    for seed in range(30):
        model = queue.create_model({"seed": seed, "load": 70})
        truth = queue.theory(model.knobs)["mean_wait_ms"]
        for _ in range(5):
            queue.advance(model, 60_000)
            seen = queue.readout(model)
            assert seen["error"] is not None
            assert seen["mean_wait_ms"] is not None
            assert truth is not None
            off = abs(seen["mean_wait_ms"] / truth - 1)
            judged += 1
            covered += off <= seen["error"]
            if seen["error"] <= queue.TRUSTED:
                trusted += 1
                far += off > 1.5 * queue.TRUSTED
    assert covered >= 0.9 * judged  # 95 % intervals
    assert trusted > 10
    assert far == 0


def test_the_first_picture_is_too_short_and_a_longer_run_is_not() -> None:
    model = queue.create_model({})
    queue.advance(model, PREVIEW_MS)
    early = queue.readout(model)["error"]
    queue.advance(model, 3_000_000)
    late = queue.readout(model)["error"]
    assert early is not None
    assert late is not None
    assert late < queue.TRUSTED < early


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"load": 121}, "5 to 120 %"),
        ({"servers": 0}, "1 to 32"),
        ({"scv": 0.5}, "0 to 8 in steps of 1"),
        ({"limit": None}, "0 to 100 places"),
        ({"rate": 4}, "rate"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_words(state: dict[str, Any], says: str) -> None:
    with pytest.raises(KnobError, match=says):
        queue.create_model(state)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, "theory says 40 ms and 219 ms. So short a run knows the mean to ±"),
        ({"load": 120, "servers": 4}, "no steady state, the line grows by 80 requests/s"),
        ({"scv": 3, "limit": 5}, "the line has 5 places.*no simple formula"),
        ({"load": 30, "limit": 0}, "the mean wait is 0.0 ms"),
        ({"load": 5, "servers": 32}, "offer 32 servers 5 %"),
    ],
)
def test_the_words_for_a_reader_without_javascript(state: dict[str, Any], says: str) -> None:
    assert re.search(says, queue.describe(state))


def test_the_vectors_are_this_models() -> None:
    kept = json.loads(VECTORS.read_text("utf-8"))
    assert [case["name"] for case in kept] == list(CASES)
    for case in kept:
        state, script = CASES[case["name"]]
        assert (case["state"], case["script"]) == (state, script)
        now = play(state, script)
        assert now["readout"] == case["readout"], case["name"]
        assert now["theory"] == {
            key: pytest.approx(value) if isinstance(value, float) else value for key, value in case["theory"].items()
        }, case["name"]


OpenPage = Callable[..., Page]
CALM = {"reduced_motion": "reduce"}


def cells(page: Page, row: str) -> list[str]:
    found = page.locator("tbody tr").filter(has=page.get_by_role("rowheader", name=row, exact=True)).locator("td")
    return [" ".join(cell.locator("b, span").all_inner_texts()).strip() for cell in found.all()]


def test_the_page_says_when_a_run_is_too_short_and_skipping_ahead_mends_it(open_page: OpenPage) -> None:
    page = open_page("queue", {"load": 50}, **CALM)
    verdict = page.locator(".sl-x-verdict").last
    expect(verdict).to_contain_text("Too short to trust")
    expect(page.locator(".sl-x-bad .sl-x-verdict")).to_have_count(1)
    page.get_by_role("button", name="Skip 100,000 requests").click()
    expect(verdict).to_contain_text("Long enough: after 100,")
    expect(page.locator(".sl-x-bad")).to_have_count(0)
    expect(page.locator("[aria-live=polite]")).to_contain_text("Long enough")


def test_the_run_stands_beside_theory(open_page: OpenPage) -> None:
    page = open_page("queue", **CALM)
    assert page.locator("tbody th").all_inner_texts() == [
        "Mean wait", "p99 wait", "Requests in line", "Servers busy", "Refused",
    ]  # fmt: skip
    model = queue.create_model({})
    queue.advance(model, PREVIEW_MS)
    seen = queue.readout(model)
    assert cells(page, "Mean wait") == [
        f"{seen['mean_wait_ms']:.0f} ms ± {(seen['error'] or 0) * 100:.0f}\N{NO-BREAK SPACE}%",
        "40 ms M/M/c (Erlang C)",
    ]
    assert cells(page, "p99 wait") == [f"{seen['p99_wait_ms']:.0f} ms", "219 ms M/M/c (Erlang C)"]
    assert cells(page, "Requests in line")[1] == "3.2 Little's law"


@pytest.mark.parametrize(
    ("state", "wait", "p99"),
    [
        ({"scv": 0}, "20 ms Kingman", "110 ms ≈ from the mean"),
        ({"servers": 2, "scv": 4}, "44 ms ≈ Allen–Cunneen", "267 ms ≈ from the mean"),
        ({"limit": 10}, "30 ms M/M/c/K", "132 ms M/M/c/K"),
        ({"limit": 0, "scv": 5}, "0 ms Erlang B", "0 ms Erlang B"),
        ({"limit": 5, "scv": 5}, "no simple formula", "no simple formula"),
        ({"load": 100}, "grows", "grows"),
    ],
)
def test_the_formula_is_the_one_that_fits(open_page: OpenPage, state: dict[str, Any], wait: str, p99: str) -> None:
    page = open_page("queue", state, **CALM)
    assert [cells(page, row)[1] for row in ("Mean wait", "p99 wait")] == [wait, p99]


def test_without_slack_the_page_says_that_there_is_no_value_to_settle_on(open_page: OpenPage) -> None:
    page = open_page("queue", {"load": 120, "servers": 8}, **CALM)
    expect(page.locator(".sl-x-verdict").first).to_have_text("No steady state: the line grows by 160 requests/s.")
    expect(page.locator(".sl-x-verdict").last).to_contain_text("No value to settle on")


def test_a_turned_knob_starts_a_new_run(open_page: OpenPage) -> None:
    page = open_page("queue", **CALM)
    page.get_by_role("button", name="Skip").click()
    assert float(page.locator(".sl-x-clock").inner_text().split()[0].replace(",", "")) > 1000
    page.get_by_role("slider", name="Servers", exact=True).press("ArrowRight")
    expect(page.locator(".sl-x-clock")).to_contain_text("10 s simulated")
    fresh = open_page("queue", {"servers": 2}, **CALM)
    assert page.locator("tbody").inner_text() == fresh.locator("tbody").inner_text()


def test_a_run_ends_at_a_million_requests_and_starts_again(open_page: OpenPage) -> None:
    page = open_page("queue", {"servers": 8})
    for _ in range(10):
        page.get_by_role("button", name="Skip").click()
    run = page.get_by_role("button", name="Run")
    expect(run).to_be_visible()
    run.click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(page.locator(".sl-x-clock")).to_contain_text("10.")
