"""Threads under one interpreter lock: the figure's runs replayed, beside the lock's rule, and on the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from figure_states import CALM, OpenPage, Play, Theory, cells, states
from playwright.sync_api import expect

from scalelab import simulate

SLICE_US = 100
CALL_US = 50
MS = 3000
Row = list[int]  # thread, asked, got, let go


@pytest.fixture(scope="module")
def runs(play: Play) -> list[tuple[dict[str, Any], dict[str, Any], list[Row]]]:
    """Three seconds of many states; a hold that had not ended is given the end of the run."""
    every = states("lock", 40)
    seen = play("lock", [(state, [MS]) for state in every])
    return [
        (state, run["readout"], [[*row[:3], MS * 1000 if row[3] is None else row[3]] for row in run["trace"]])
        for state, run in zip(every, seen, strict=True)
    ]


def test_the_lock_is_one_server_and_every_wait_is_the_one_that_simulate_gives(runs: Any) -> None:
    for state, _, trace in runs:
        _, asked, got, gone = np.array(trace, float).T
        assert np.array_equal(simulate.waits(asked, gone - got), got - asked), state
    assert sum(len(trace) for _, _, trace in runs) > 50_000


def test_a_thread_lets_go_at_the_end_of_its_turn_or_an_interval_after_another_has_asked(runs: Any) -> None:
    preempted = 0
    for state, _, trace in runs:
        computed = [0] * (state["threads"] + 1)
        again = [None] * (state["threads"] + 1)  # when a thread that was interrupted asked again
        for i, (thread, asked, got, gone) in enumerate(trace):
            if again[thread] is not None:
                assert asked == again[thread], state
            if gone == MS * 1000:
                break
            turn = state["work"] * 1000 if thread else SLICE_US
            computed[thread] += gone - got
            ask = trace[i + 1][1] if i + 1 < len(trace) else MS * 1000
            keeps_until = max(got, ask) + state["interval"] if ask < gone else np.inf
            assert gone <= keeps_until, state
            assert computed[thread] <= turn, state
            done = computed[thread] == turn
            assert done or gone == keeps_until, state
            preempted += not done
            again[thread] = gone if not done or (thread and not state["io"]) else None
            computed[thread] = 0 if done else computed[thread]
    assert preempted > 1000


def test_a_request_asks_twice_and_no_wait_exceeds_the_rule(runs: Any, theory: Theory) -> None:
    rules = theory("lock", [state for state, _, _ in runs])
    for (state, now, trace), rule in zip(runs, rules, strict=True):
        rows = np.array([row for row in trace if row[0] == 0], float).reshape(-1, 4)
        _, asked, got, gone = rows.T
        waits = (got - asked) / 1000
        ended = gone < MS * 1000
        full = int(ended.sum()) // 2 * 2
        assert (gone[ended] - got[ended] == SLICE_US).all()
        firsts, seconds = slice(0, full, 2), slice(1, full, 2)
        assert (asked[seconds] - gone[firsts] == CALL_US).all()
        assert waits.max(initial=0) <= rule["most_ms"], state
        requests = (gone[seconds] - asked[firsts]) / 1000
        assert requests.max(initial=0) <= rule["request_ms"] + 1e-9
        assert (now["requests"], now["waits"]) == (full // 2, len(rows))
        assert now["mean_wait_ms"] == (pytest.approx(waits.mean()) if len(waits) else None)
        assert now["mean_request_ms"] == (pytest.approx(requests.mean()) if len(requests) else None)
        if len(waits):
            p99 = np.percentile(waits, 99, method="inverted_cdf")
            assert now["p99_wait_ms"] == pytest.approx(p99, rel=1 / 128, abs=1e-3)
        threads, _, got, gone = np.array(trace, float).reshape(-1, 4).T
        assert now["held"] == pytest.approx((gone - got).sum() / MS / 1000)
        assert now["computed"] == pytest.approx((gone - got)[threads > 0].sum() / MS / 1000)
        assert now["handed"] == (np.diff(threads, prepend=-1) != 0).sum()


def test_requests_come_at_random_and_busy_threads_wait_their_share(play: Play) -> None:
    alone, sharing = play("lock", [({"threads": 0}, [60_000]), ({"threads": 1, "work": 10, "io": 60}, [300_000])])
    _, asked, got, gone = np.array(alone["trace"], float)[:, :4].T
    gaps = asked[2::2] - gone[1:-1:2]
    assert gaps.mean() == pytest.approx(20_000, rel=0.05)
    assert gaps.std() == pytest.approx(20_000, rel=0.05)
    assert alone["readout"]["mean_wait_ms"] == alone["readout"]["p99_wait_ms"] == 0 == (got - asked).max()
    assert alone["readout"]["mean_request_ms"] == 0.25
    assert sharing["readout"]["computed"] == pytest.approx(0.4, rel=0.05)


def test_beside_threads_that_never_wait_the_p99_is_busy_threads_times_interval_or_turn(
    play: Play, theory: Theory
) -> None:
    every = [{"threads": n, "interval": us, "work": 100} for n in (1, 2, 5, 8) for us in (500, 5000, 20_000)]
    every.append({"threads": 4, "work": 2})
    seen = play("lock", [(state, [60_000]) for state in every], trace=False)
    for state, run, rule in zip(every, seen, theory("lock", every), strict=True):
        assert run["readout"]["p99_wait_ms"] == pytest.approx(rule["most_ms"], rel=0.02), state
        assert run["readout"]["held"] == pytest.approx(1, abs=0.01)


def test_more_io_beside_it_makes_the_thread_wait_less(play: Play) -> None:
    seen = play("lock", [({"threads": 4, "io": io}, [120_000]) for io in (0, 50, 80, 90)], trace=False)
    means = [run["readout"]["mean_wait_ms"] for run in seen]
    assert means == sorted(means, reverse=True)
    assert means[0] > 3 * means[-1]


def test_the_run_stands_beside_the_rule(open_page: OpenPage, play: Play) -> None:
    page = open_page("lock", **CALM)
    [run] = play("lock", [({}, [10_000])], trace=False)
    now = run["readout"]
    assert cells(page, "p99 wait for the lock") == [f"{now['p99_wait_ms']:.1f} ms", "≈ 10 ms busy threads × interval"]
    assert cells(page, "Mean wait")[0] == f"{now['mean_wait_ms']:.1f} ms ± {now['error'] * 100:.1f} %"
    assert cells(page, "Mean request")[1] == "≤ 20 ms it asks twice"
    assert cells(page, "Changes hands")[1] == "≥ 200/s once per interval"
    for state, says in [
        ({"work": 2}, "≈ 4 ms busy threads × turn"),
        ({"io": 30}, "≤ 10 ms busy threads × interval"),
        ({"threads": 8, "interval": 20_000}, "≈ 160 ms busy threads × interval"),
    ]:
        page.evaluate("(state) => window.setState(state)", state)
        assert cells(page, "p99 wait for the lock")[1] == says


def test_the_page_says_whether_there_is_a_convoy(open_page: OpenPage) -> None:
    page = open_page("lock", **CALM)
    all_two = "Convoy: each time it lets go it stands behind all 2, and each keeps the lock for an interval of 5 ms."
    for state, says, bad in [
        ({}, all_two, 2),
        ({"threads": 1}, "Convoy: each time it lets go it stands behind the other, which keeps", 2),
        ({"threads": 4, "work": 3, "io": 10}, "behind up to all 4, and each keeps the lock for its turn of 3 ms", 2),
        ({"threads": 1, "work": 1, "io": 90}, "A request takes 1.", 1),
        ({"threads": 0}, "Alone with the lock", 0),
    ]:
        page.evaluate("(state) => window.setState(state)", state)
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
