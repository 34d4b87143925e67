"""Five caches with the same requests: the figure's runs replayed, beside theory, and on the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from figure_states import CALM, OpenPage, Play, Theory, cells, states
from playwright.sync_api import expect

from scalelab import caches, explorable
from scalelab.explorables.knobs import knobs
from scalelab.theory import che_hit_rate, fifo_hit_rate, static_hit_rate, zipf_popularity

KEYS = 10_000
PERIOD = 2000
POLICIES = knobs("cache")[0].choices
TRUSTED = 0.01


@pytest.fixture(scope="module")
def runs(play: Play) -> list[tuple[dict[str, Any], dict[str, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Up to 9,000 requests of many states: what was measured, the keys, and per policy whether each request hit."""
    every = states("cache", 24)
    seen = play("cache", [(state, [500 + 8500 * (i % 2)]) for i, state in enumerate(every)])
    tables = [np.array(run["trace"], np.int64) for run in seen]
    return [
        (state, run["readout"], table[:, 0], table[:, 1:].astype(bool))
        for state, run, table in zip(every, seen, tables, strict=True)
    ]


def test_every_hit_and_miss_is_the_one_that_the_books_caches_have(runs: Any) -> None:
    for state, now, keys, hits in runs:
        for policy, hit in zip(POLICIES, hits.T, strict=True):
            assert np.array_equal(caches.replay(policy, keys, state["size"]), hit), (policy, state)
            assert now["caches"][policy]["hits"] == hit.sum()
        assert now["static"]["hits"] == (keys < state["size"]).sum()
        assert now["requests"] == len(keys)
        assert now["scanned"] == (keys >= KEYS).sum()


def test_the_rate_counts_known_keys_in_the_later_half_of_the_run(runs: Any) -> None:
    for state, now, keys, hits in runs:
        length = PERIOD if state["scan"] else 100  # of a batch, twice as long whenever there are 64
        while len(keys) // length >= 64:
            length *= 2
        batches = len(keys) // length
        later = slice(batches // 2 * length, batches * length)
        known = (keys[later] < KEYS).sum()
        for policy, hit in zip(POLICIES, hits.T, strict=True):
            rate = now["caches"][policy]["rate"]
            assert rate == (pytest.approx(hit[later].sum() / known) if batches else None), state


def test_fifo_holds_the_last_keys_that_came_and_lru_the_last_that_were_asked_for(runs: Any) -> None:
    for state, now, keys, hits in runs:
        came = dict.fromkeys(keys[~hits[:, POLICIES.index("FIFO")]][::-1].tolist())
        for policy, last in (("FIFO", came), ("LRU", dict.fromkeys(keys[::-1].tolist()))):
            held = np.array(list(last)[: state["size"]])
            assert now["held"] == len(held)
            seen = now["caches"][policy]
            assert (seen["popular"], seen["scanned"]) == ((held < state["size"]).sum(), (held >= KEYS).sum()), state


def test_the_requests_are_zipfs_with_scans_between_them(play: Play) -> None:
    [run] = play("cache", [({"scan": 25, "skew": 80}, [40_000])])
    keys = np.array([row[0] for row in run["trace"]])
    place = np.arange(len(keys)) % PERIOD
    assert list(keys[place >= 1500]) == list(range(KEYS, KEYS + 10_000))
    counts = np.bincount(keys[place < 1500], minlength=KEYS)
    expected = zipf_popularity(KEYS, 0.8) * 30_000
    assert len(counts) == KEYS
    assert np.abs(counts - expected)[:50] == pytest.approx(0, abs=5 * np.sqrt(expected[0]))
    assert counts[5000:].sum() == pytest.approx(expected[5000:].sum(), rel=0.05)


def test_a_scan_in_theory_is_very_many_keys_that_are_hardly_ever_asked_for(theory: Theory) -> None:
    for scan, says in zip((5, 50), theory("cache", [{"scan": 5}, {"scan": 50}]), strict=True):
        share, rare = scan / 100, 100_000
        popularity = zipf_popularity(KEYS, 1.0)
        every = np.concatenate([popularity * (1 - share), np.full(rare, share / rare)])
        assert says["lru"] == pytest.approx(float(che_hit_rate(every, 200)) / (1 - share), rel=0.005)
        assert says["fifo"] == pytest.approx(float(fifo_hit_rate(every, 200)) / (1 - share), rel=0.005)
        assert says["static"] == pytest.approx(float(static_hit_rate(popularity, 200)))


def test_a_long_run_comes_to_what_theory_says(play: Play, theory: Theory) -> None:
    every = [{}, {"size": 50, "skew": 120}, {"size": 100, "skew": 60}]
    seen = play("cache", [(state, [100_000]) for state in every], trace=False)
    for run, says in zip(seen, theory("cache", every), strict=True):
        now = run["readout"]
        assert now["settled"]
        for measured, expected in (
            (now["caches"]["LRU"], says["lru"]),
            (now["caches"]["FIFO"], says["fifo"]),
            (now["static"], says["static"]),
        ):
            assert measured["rate"] == pytest.approx(expected, abs=0.012)
            assert measured["error"] <= TRUSTED


def test_a_rate_that_is_trusted_is_near_the_truth(play: Play) -> None:
    truth = float(static_hit_rate(zipf_popularity(KEYS, 1.0), 50))
    runs = [({"seed": seed, "size": 50}, [ms]) for seed in range(40) for ms in (6_000, 12_000)]
    seen = [run["readout"]["static"] for run in play("cache", runs, trace=False)]
    covered = [abs(static["rate"] - truth) <= static["error"] for static in seen]
    assert np.mean(covered) >= 0.88  # 95 % intervals


def test_a_scan_floods_lru_and_leaves_sieve_and_s3_fifo_what_is_asked_for_again(play: Play) -> None:
    # The end of a scan twice as long as the caches are large.
    [run] = play("cache", [({"scan": 20}, [10 * PERIOD])], trace=False)
    for policy, seen in run["readout"]["caches"].items():
        if policy in ("FIFO", "LRU", "CLOCK"):
            assert (seen["scanned"], seen["popular"]) == (200, 0)
        else:
            assert seen["popular"] > 100


@pytest.mark.parametrize("given", ["SIEVE", 3])
def test_a_policy_may_be_named(given: str | int) -> None:
    assert explorable("cache", policy=given).state["policy"] == 3


def test_the_run_stands_beside_theory(open_page: OpenPage, play: Play) -> None:
    page = open_page("cache", **CALM)
    [run] = play("cache", [({}, [10_000])], trace=False)
    now = run["readout"]["caches"]["LRU"]
    assert cells(page, "LRU") == [f"{now['rate'] * 100:.1f} % ± {now['error'] * 100:.1f}", "47.4 % Che"]
    assert cells(page, "FIFO")[1] == "42.5 % as RANDOM"
    assert cells(page, "SIEVE")[1] == "no simple formula"
    assert cells(page, "Best static set")[1] == "60.1 % the sum of their shares"


def test_another_policy_is_another_look_at_the_same_run(open_page: OpenPage) -> None:
    page = open_page("cache", {"scan": 20}, **CALM)
    page.get_by_role("button", name="Skip").click()
    expect(page.locator(".sl-x-clock")).to_contain_text("110 s simulated")
    table = page.locator("tbody").inner_text()
    expect(page.locator(".sl-x-verdict").first).to_contain_text(
        "LRU holds 0 of the 200 most popular keys, and 200 keys"
    )
    policy = page.get_by_role("combobox", name="Policy")
    policy.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(policy).to_have_value("3")
    expect(page.locator(".sl-x-verdict").first).to_contain_text("SIEVE holds 1")
    expect(page.locator(".sl-x-clock")).to_contain_text("110 s simulated")
    assert page.locator("tbody").inner_text() == table
    assert page.evaluate("window.saved.at(-1)") == {"seed": 8, "policy": 3, "size": 200, "skew": 100, "scan": 20}
    expect(page.locator("[aria-live=polite]")).to_contain_text("SIEVE holds 1")


def test_the_page_says_when_a_run_is_too_short_and_skipping_ahead_mends_it(open_page: OpenPage) -> None:
    page = open_page("cache", {"size": 1000}, **CALM)
    verdict = page.locator(".sl-x-verdict").last
    expect(verdict).to_contain_text("Too short to trust")
    page.get_by_role("button", name="Skip").click()
    expect(verdict).to_contain_text("Long enough: after 110,000 requests")
    expect(page.locator(".sl-x-bad")).to_have_count(0)


def test_the_page_says_what_the_cache_holds_and_takes_a_policy_by_name(open_page: OpenPage) -> None:
    page = open_page("cache", **CALM)
    for state, says in [
        ({"size": 1000, "skew": 150}, "Still filling: "),
        ({"skew": 0}, "All keys are asked for alike"),
        ({"scan": 50}, "LRU holds 0 of the 200 most popular keys, and 200 keys of a scan"),
    ]:
        page.evaluate("(state) => window.setState(state)", state)
        expect(page.locator(".sl-x-verdict").first).to_contain_text(says)
    for given, shown in [("CLOCK", "2"), ("3", "3"), ("7", "1"), ("MRU", "1")]:
        page.evaluate("(policy) => window.setState({ policy })", given)
        expect(page.get_by_role("combobox", name="Policy")).to_have_value(shown)


def test_a_run_ends_at_two_million_requests_and_starts_again(open_page: OpenPage) -> None:
    page = open_page("cache", {"size": 20})
    for _ in range(20):
        page.get_by_role("button", name="Skip").click()
    run = page.get_by_role("button", name="Run")
    expect(run).to_be_visible()
    run.click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(page.locator(".sl-x-clock")).to_contain_text("10.")
