"""One event loop against a pool of threads: the figure's runs replayed, beside theory, and on the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from figure_states import CALM, OpenPage, Play, Theory, cells, states
from playwright.sync_api import Page, expect

from scalelab import simulate

SLICE_US = 250
BLOCK_US = 250_000
MS = 5000
Sides = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


def sides(trace: list[list[float]]) -> Sides:
    """Return, for the loop and the pool, the slices: request, arrived, blocks, second, ready, from, to (µs)."""
    rows = np.array(trace, float).reshape(-1, 8)
    return {"loop": rows[rows[:, 0] == 0, 1:], "pool": rows[rows[:, 0] == 1, 1:]}


def halves(slices: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the first slices by request, and the second ones, with NaN for a request that has had none yet."""
    first = slices[slices[:, 3] == 0]
    first = first[first[:, 0].argsort()]
    second = np.full_like(first, np.nan)
    later = slices[slices[:, 3] == 1]
    second[np.searchsorted(first[:, 0], later[:, 0])] = later
    return first, second


@pytest.fixture(scope="module")
def runs(play: Play) -> list[tuple[dict[str, Any], dict[str, Any], Sides]]:
    """Five seconds of many states."""
    every = states("event_loop", 14)
    seen = play("event_loop", [(state, [MS]) for state in every])
    return [(state, run["readout"], sides(run["trace"])) for state, run in zip(every, seen, strict=True)]


def test_the_processor_is_one_server_on_either_side(runs: Any) -> None:
    for state, _, both in runs:
        for side, slices in both.items():
            _, _, blocks, second, ready, start, end = slices.T
            holds = (blocks == 1) & (second == 0) & (side == "loop")
            assert np.array_equal(end - start, SLICE_US + BLOCK_US * holds), (side, state)
            assert np.array_equal(simulate.waits(ready, end - start), start - ready), (side, state)
    assert sum(len(slices) for _, _, both in runs for slices in both.values()) > 50_000


def test_a_request_waits_its_time_between_its_slices(runs: Any) -> None:
    for state, _, both in runs:
        for side, slices in both.items():
            first, second = halves(slices)
            served = ~np.isnan(second[:, 0])
            own = BLOCK_US * first[:, 2] * (side == "pool")
            assert np.array_equal(second[served, 4], (first[:, 6] + state["wait"] * 1000 + own)[served]), (side, state)
            due = first[~served, 6] + state["wait"] * 1000 + own[~served]
            backlog = slices[:, 6].max(initial=0) >= MS * 1000  # the processor was not free again
            assert backlog or (due > MS * 1000).all()


def test_the_pool_is_as_many_servers_as_threads_and_the_loop_takes_all_at_once(runs: Any) -> None:
    for state, _, both in runs:
        for side, slices in both.items():
            first, second = halves(slices)
            arrived, taken = first[:, 1], first[:, 4]
            assert np.array_equal(first[:, 0], np.arange(len(first)))  # first come, first served
            if side == "loop":
                assert np.array_equal(taken, arrived)
                continue
            held = np.nan_to_num(second[:, 6] - taken, nan=1e9)  # whoever has not ended keeps its thread
            waits = simulate.waits(arrived, held, state["threads"])
            assert np.array_equal(waits, taken - arrived), state


def test_both_sides_get_the_same_requests_at_random_times_and_one_in_200_blocks(runs: Any) -> None:
    gaps, blocking = [], []
    for state, now, both in runs:
        loop, pool = (halves(both[side])[0] for side in ("loop", "pool"))
        many = min(len(loop), len(pool))
        assert np.array_equal(loop[:many, :3], pool[:many, :3])
        longer = max(loop, pool, key=len)
        assert len(longer) <= now["arrived"]
        assert state["blocking"] or not longer[:, 2].any()
        gaps.extend(np.diff(longer[:, 1]) * state["rate"] / 1e6)
        blocking.extend(longer[:, 2] if state["blocking"] else [])
    assert np.mean(gaps) == pytest.approx(1, abs=5 / np.sqrt(len(gaps)))
    assert np.std(gaps) == pytest.approx(1, rel=0.05)
    assert np.mean(blocking) == pytest.approx(1 / 200, abs=5 * np.sqrt(1 / 200 / len(blocking)))


def test_the_readout_is_that_of_the_slices(runs: Any) -> None:
    until = MS * 1000
    for state, now, both in runs:
        for side, slices in both.items():
            seen, (first, second) = now[side], halves(slices)
            done = second[:, 6] <= until
            latencies = (second[:, 6] - first[:, 1])[done]
            assert seen["done"] == done.sum()
            assert now["arrived"] == seen["done"] + seen["in_flight"] + seen["queued"]
            assert seen["throughput"] == pytest.approx(done.sum() / MS * 1000)
            p99 = np.percentile(latencies, 99, method="inverted_cdf") / 1000 if done.any() else None
            assert seen["p99_ms"] == p99, (side, state)
            busy = (np.minimum(slices[:, 6], until) - slices[:, 5]).sum()
            assert seen["busy"] == pytest.approx(busy / until)
            if side == "pool" or seen["ready"] == 0:  # what has had no slice is not in the trace
                left = np.where(done, second[:, 6], until)
                lacking = seen["in_flight"] + seen["done"] - len(first)
                area = (left - first[:, 4]).sum() / until
                assert area - 1e-9 <= seen["mean_in_flight"] <= area + lacking + 1e-9, (side, state)


def test_turning_knobs_loses_no_request(play: Play) -> None:
    every = states("event_loop", 20, seed=2)
    acts = [[130.7, turned, 800, state, 55.5, turned, 1500] for state, turned in zip(every, every[::-1], strict=True)]
    seen = play("event_loop", list(zip(every, acts, strict=True)), trace=False)
    for state, turned, run in zip(every, every[::-1], seen, strict=True):
        now = run["readout"]
        for side in (now["loop"], now["pool"]):
            assert now["arrived"] == side["done"] + side["in_flight"] + side["queued"]
            assert side["ready"] <= side["in_flight"]
        assert now["pool"]["in_flight"] <= max(state["threads"], turned["threads"])


def test_the_mean_of_many_runs_is_what_theory_says(play: Play, theory: Theory) -> None:
    for blocking in (False, True):
        state = {"rate": 300, "wait": 400, "threads": 200, "blocking": blocking}
        seen = play("event_loop", [({**state, "seed": seed}, [10_000]) for seed in range(60)], trace=False)
        [says] = theory("event_loop", [state])
        # The loop's value is an approximation once something blocks: arrivals after a block are not independent.
        for side, rel in (("loop", 0.12 if blocking else 0.02), ("pool", 0.02)):
            sample = [run["readout"][side] for run in seen]
            assert np.mean([one["mean_in_flight"] for one in sample]) == pytest.approx(says[side]["in_flight"], rel=rel)
            assert np.mean([one["throughput"] for one in sample]) == pytest.approx(says[side]["throughput"], rel=0.02)
            expected = says[side]["busy"]
            seen_busy = np.mean([one["busy"] if side == "loop" else one["mean_in_flight"] / 200 for one in sample])
            assert seen_busy == pytest.approx(expected, rel=0.1 if blocking else 0.02)


def test_a_pool_that_is_too_small_serves_k_by_w_and_queues_the_rest(play: Play, theory: Theory) -> None:
    state = {"rate": 600, "wait": 500, "threads": 150}
    [run], [says] = play("event_loop", [(state, [60_000])], trace=False), theory("event_loop", [state])
    seen, expected = run["readout"]["pool"], says["pool"]
    assert not expected["stable"]
    assert seen["in_flight"] == 150
    assert seen["throughput"] == pytest.approx(expected["throughput"], rel=0.01)
    assert seen["queued"] == pytest.approx(60 * expected["growth"], rel=0.05)


def test_an_overloaded_loop_falls_behind_as_theory_says(play: Play, theory: Theory) -> None:
    state = {"rate": 1000, "wait": 100, "threads": 500, "blocking": True}
    runs = [({**state, "seed": seed}, [60_000]) for seed in range(8)]
    seen = [run["readout"]["loop"] for run in play("event_loop", runs, trace=False)]
    [says] = theory("event_loop", [state])
    assert not says["loop"]["stable"]
    assert np.mean([loop["done"] for loop in seen]) / 60 == pytest.approx(says["loop"]["throughput"], rel=0.08)
    assert np.mean([loop["busy"] for loop in seen]) == pytest.approx(1, rel=0.001)


def test_what_the_figure_teaches_holds_for_every_seed(play: Play) -> None:
    runs = [({"seed": seed, "blocking": blocking}, [10_000]) for blocking in (False, True) for seed in range(12)]
    seen = [run["readout"] for run in play("event_loop", runs, trace=False)]
    for before, after in zip(seen[:12], seen[12:], strict=True):
        assert before["loop"]["p99_ms"] == pytest.approx(before["pool"]["p99_ms"], rel=0.01)
        assert after["loop"]["p99_ms"] > 1.5 * before["loop"]["p99_ms"]
        assert after["loop"]["p99_ms"] > 1.3 * after["pool"]["p99_ms"]


def p99s(page: Page) -> list[float]:
    """Return the p99 latencies on the two panels, in milliseconds."""
    shown = [text.replace(",", "").split() for text in page.locator(".sl-x-name span b").all_inner_texts()]
    return [float(value) * (1000 if unit == "s" else 1) for value, unit in shown]


def test_at_first_both_serve_the_load_then_blocking_hurts_the_loop_only(open_page: OpenPage) -> None:
    page = open_page("event_loop", **CALM)
    assert page.locator("tbody th").all_inner_texts() == ["In flight", "Throughput", "p99 latency", "Busy", "Queue"]
    for row, loop, pool in [
        ("In flight", "λW = 200", "λW = 200"),
        ("Throughput", "at most 2,000/s", "at most 500/s"),
        ("p99 latency", "501 ms with no queue", "501 ms with no queue"),
    ]:
        both = cells(page, row)
        assert loop in both[0]
        assert pool in both[1]
    assert p99s(page) == [501, 501]
    live = page.locator("[aria-live=polite]")
    page.get_by_role("checkbox").check()
    loop, pool = p99s(page)
    assert loop > 3 * pool
    assert pool == 501
    expect(page.locator(".sl-x-verdict").first).to_contain_text("Slow for all")
    expect(live).to_contain_text("Event loop: Slow for all")
    expect(live).to_contain_text("Thread pool: Shrugs")


def test_a_pool_that_is_too_small_says_that_there_is_no_steady_state(open_page: OpenPage) -> None:
    page = open_page("event_loop", {"threads": 100}, **CALM)
    verdict = page.locator(".sl-x-verdict").last
    expect(verdict).to_contain_text("Unstable, no steady state: 200 requests want a thread, there are 100.")
    queue = page.get_by_role("row", name="Queue").get_by_role("cell").last
    assert int(queue.locator("b").inner_text().replace(",", "")) > 1000
    expect(queue).to_contain_text("+200/s")
