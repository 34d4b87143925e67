"""Requests in line before servers: the figure's runs replayed, beside theory, and on the page."""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import Any

import numpy as np
import pytest
from figure_states import CALM, OpenPage, Play, Theory, cells, states
from playwright.sync_api import expect
from scipy.stats import gamma

from scalelab import simulate
from scalelab.theory import mmc_wait, mmc_wait_percentile

NO_LIMIT = 100
TRUSTED = 0.1
Columns = tuple[np.ndarray[Any, np.dtype[np.float64]], ...]


def columns(trace: list[dict[str, float]]) -> Columns:
    """Return arrival, service and start of each request in µs (inf: none yet), and whether it was refused."""
    keys = ("at", "size", "from", "server", "left")
    at, size, start, server, left = (
        np.array([[request[key] for key in keys] for request in trace], float).reshape(-1, 5).T
    )
    return at, size, np.where(server < 0, np.inf, start), (server < 0) & (left > 0)


@pytest.fixture(scope="module")
def runs(play: Play) -> list[tuple[dict[str, Any], dict[str, Any], Columns]]:
    """Two seconds of many states."""
    every = states("queue", 40)
    seen = play("queue", [(state, [2000]) for state in every])
    return [(state, run["readout"], columns(run["trace"])) for state, run in zip(every, seen, strict=True)]


def test_every_wait_is_the_one_that_simulate_gives_the_same_requests(runs: Any) -> None:
    for state, now, (at, size, start, refused) in runs:
        came, work, began = at[~refused], size[~refused], start[~refused]
        waits = simulate.waits(came, work, state["servers"])
        started = np.isfinite(began)
        assert np.array_equal((came + waits)[started], began[started]), state
        assert ((came + waits)[~started] > now["now_us"]).all(), state
    assert sum(np.isfinite(start).sum() for _, _, (_, _, start, _) in runs) > 50_000


def test_a_request_is_refused_if_all_servers_and_all_places_are_taken(runs: Any) -> None:
    for state, _, (at, size, start, refused) in runs:
        ends: list[float] = []  # of the requests admitted so far
        for time, end, out in zip(at, start + size, refused, strict=True):
            inside = len(ends) - bisect_right(ends, time)
            assert out == (state["limit"] < NO_LIMIT and inside == state["servers"] + state["limit"]), state
            if not out:
                insort(ends, end)


def test_the_readout_is_that_of_the_requests(runs: Any) -> None:
    for state, now, (at, size, start, refused) in runs:
        until, ends = now["now_us"], start + size
        began, came = np.isfinite(start), ~refused
        waits = (start - at)[began] / 1000
        assert now["arrived"] == len(at)
        assert now["refused"] == refused.sum()
        assert now["done"] == (ends <= until).sum()
        assert now["serving"] == (began & (ends > until)).sum()
        assert now["waiting"] == (came & ~began).sum()
        if len(waits):
            assert now["mean_wait_ms"] == pytest.approx(waits.mean())
            p99 = np.percentile(waits, 99, method="inverted_cdf")
            assert now["p99_wait_ms"] == pytest.approx(p99, rel=1 / 128, abs=1e-3), state
        else:
            assert now["mean_wait_ms"] is now["p99_wait_ms"] is None
        assert now["mean_waiting"] == pytest.approx((np.minimum(start, until) - at)[came].sum() / until)
        busy = (np.minimum(ends, until) - start)[began].sum()
        assert now["busy"] == pytest.approx(busy / until / state["servers"])


def test_arrivals_are_poisson_and_services_have_their_mean_and_variability(play: Play) -> None:
    every = [{"scv": scv, "load": 90, "servers": 32, "seed": 5} for scv in (0, 1, 4, 8)]
    for state, run in zip(every, play("queue", [(state, [15_000]) for state in every]), strict=True):
        at, size, _, _ = columns(run["trace"])
        gaps = np.diff(at)
        assert gaps.mean() == pytest.approx(10_000 / 0.9 / 32, rel=0.02)
        assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
        assert size.mean() == pytest.approx(10_000, rel=0.03)
        assert size.var() / size.mean() ** 2 == pytest.approx(state["scv"], rel=0.1)


LONG = [
    ({"load": 50}, 400),
    ({"load": 70, "servers": 4}, 200),
    ({"load": 60, "scv": 0}, 300),
    ({"load": 60, "scv": 4}, 900),
    ({"load": 80, "servers": 4, "limit": 8}, 300),
    ({"load": 120, "servers": 2, "limit": 20}, 150),
    ({"load": 100, "servers": 6, "limit": 0, "scv": 8}, 60),
]


def test_a_long_run_comes_to_what_theory_says_and_obeys_little(play: Play, theory: Theory) -> None:
    seen = play("queue", [({"seed": 1, **state}, [seconds * 1000]) for state, seconds in LONG], trace=False)
    says = theory("queue", [state for state, _ in LONG])
    for (state, seconds), run, expected in zip(LONG, seen, says, strict=True):
        now = run["readout"]
        admitted = (now["arrived"] - now["refused"]) / seconds
        assert now["mean_waiting"] == pytest.approx(admitted * now["mean_wait_ms"] / 1000, rel=0.01)
        assert now["mean_wait_ms"] == pytest.approx(expected["mean_wait_ms"], rel=0.06), state
        assert now["mean_waiting"] == pytest.approx(expected["mean_waiting"], rel=0.06)
        assert now["busy"] == pytest.approx(expected["busy"], rel=0.02)
        assert now["refused"] / now["arrived"] == pytest.approx(expected["refused"], rel=0.05, abs=0.001)
        if expected["kind"] in ("erlang", "limit"):  # exact in the tail too
            assert now["p99_wait_ms"] == pytest.approx(expected["p99_wait_ms"], rel=0.06)


@pytest.mark.parametrize(("load", "servers", "limit"), [(80, 1, 10), (50, 4, 3), (120, 32, 99), (100, 2, 20)])
def test_the_tail_with_a_limit_is_that_of_erlang_waits(theory: Theory, load: int, servers: int, limit: int) -> None:
    [says] = theory("queue", [{"load": load, "servers": servers, "limit": limit}])
    found = np.cumprod(np.concatenate([[1], load / 100 * servers / np.minimum(np.arange(1, servers + limit), servers)]))
    lines = (found / found.sum())[servers:]  # an admitted request that finds i in line waits for i + 1 departures
    longer = lines @ gamma.sf(says["p99_wait_ms"], np.arange(1, limit + 1), scale=10 / servers)
    assert longer == pytest.approx(0.01, rel=1e-6)


def test_a_limit_that_never_binds_changes_nothing_and_too_much_load_grows(theory: Theory) -> None:
    free, bound, over, full = theory(
        "queue",
        [
            {"load": 40, "servers": 3},
            {"load": 40, "servers": 3, "limit": 99},
            {"load": 120, "servers": 3},
            {"load": 100},
        ],
    )
    assert free["mean_wait_ms"] == pytest.approx(mmc_wait(3, 0.4, 10))
    assert free["p99_wait_ms"] == pytest.approx(mmc_wait_percentile(99, 3, 0.4, 10))
    for key in ("mean_wait_ms", "p99_wait_ms", "mean_waiting", "busy"):
        assert bound[key] == pytest.approx(free[key])
    assert (over["kind"], over["growth"], full["growth"]) == ("unstable", pytest.approx(60), 0)


def test_without_slack_the_line_grows_as_theory_says(play: Play) -> None:
    [run] = play("queue", [({"load": 120, "servers": 3}, [60_000])], trace=False)
    assert run["readout"]["waiting"] == pytest.approx(60 * 60, rel=0.1)


def test_a_run_is_trusted_only_when_its_mean_is_near_the_truth(play: Play) -> None:
    lengths = [60_000 * i for i in range(1, 6)]
    seen = play("queue", [({"seed": seed, "load": 70}, [ms]) for seed in range(30) for ms in lengths], trace=False)
    error = np.array([run["readout"]["error"] for run in seen])
    off = abs(np.array([run["readout"]["mean_wait_ms"] for run in seen]) / float(mmc_wait(1, 0.7, 10)) - 1)
    assert (off <= error).mean() >= 0.9  # 95 % intervals
    assert (error <= TRUSTED).sum() > 10
    assert off[error <= TRUSTED].max() <= 1.5 * TRUSTED


def test_the_first_picture_is_too_short_and_a_longer_run_is_not(play: Play) -> None:
    early, late = play("queue", [({}, [10_000]), ({}, [3_010_000])], trace=False)
    assert late["readout"]["error"] < TRUSTED < early["readout"]["error"]


def test_the_page_says_when_a_run_is_too_short_and_skipping_ahead_mends_it(open_page: OpenPage) -> None:
    page = open_page("queue", {"load": 50}, **CALM)
    verdict = page.locator(".sl-x-verdict").last
    expect(verdict).to_contain_text("Too short to trust")
    expect(page.locator(".sl-x-bad .sl-x-verdict")).to_have_count(1)
    page.get_by_role("button", name="Skip 100,000 requests").click()
    expect(verdict).to_contain_text("Long enough: after 100,")
    expect(page.locator(".sl-x-bad")).to_have_count(0)
    expect(page.locator("[aria-live=polite]")).to_contain_text("Long enough")


def test_the_run_stands_beside_theory(open_page: OpenPage, play: Play) -> None:
    page = open_page("queue", **CALM)
    assert page.locator("tbody th").all_inner_texts() == [
        "Mean wait", "p99 wait", "Requests in line", "Servers busy", "Refused",
    ]  # fmt: skip
    [run] = play("queue", [({}, [10_000])], trace=False)
    now = run["readout"]
    assert cells(page, "Mean wait") == [
        f"{now['mean_wait_ms']:.0f} ms ± {now['error'] * 100:.0f} %", "40 ms M/M/c (Erlang C)",
    ]  # fmt: skip
    assert cells(page, "p99 wait") == [f"{now['p99_wait_ms']:.0f} ms", "219 ms M/M/c (Erlang C)"]
    assert cells(page, "Requests in line")[1] == "3.2 Little's law"


def test_the_formula_is_the_one_that_fits(open_page: OpenPage) -> None:
    page = open_page("queue", **CALM)
    for state, wait, p99 in [
        ({"scv": 0}, "20 ms Kingman", "110 ms ≈ from the mean"),
        ({"servers": 2, "scv": 4}, "44 ms ≈ Allen–Cunneen", "267 ms ≈ from the mean"),
        ({"limit": 10}, "30 ms M/M/c/K", "132 ms M/M/c/K"),
        ({"limit": 0, "scv": 5}, "0 ms Erlang B", "0 ms Erlang B"),
        ({"limit": 5, "scv": 5}, "no simple formula", "no simple formula"),
        ({"load": 100}, "grows", "grows"),
    ]:
        page.evaluate("(state) => window.setState(state)", state)
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
