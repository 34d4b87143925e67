"""Five caches with the same requests: the model in Python beside the book's own caches and theory, and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cache_vectors import CASES, VECTORS, play
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page, expect

from scalelab import caches, theory
from scalelab.explorables import KnobError, explorable
from scalelab.explorables import _cache_model as cache
from scalelab.explorables._knobs import PREVIEW_MS

states = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "size": st.integers(1, 100).map(lambda tens: 10 * tens),
        "skew": st.integers(0, 15).map(lambda tens: 10 * tens),
        "scan": st.integers(0, 10).map(lambda fives: 5 * fives),
    }
)
unhurried = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])


@unhurried
@given(states, st.integers(0, 6000))
def test_every_cache_has_the_hits_that_the_book_counts_on_the_same_requests(
    state: dict[str, Any], requests: int
) -> None:
    model = cache.create_model(state)
    trace = np.array([cache.request(model) for _ in range(requests)], np.int64)
    seen = cache.readout(model)
    for policy in cache.POLICIES:
        assert seen["caches"][policy]["hits"] == caches.hits(policy, trace, state["size"])
    assert seen["static"]["hits"] == np.count_nonzero(trace < state["size"])


@unhurried
@given(states, st.lists(st.floats(0, 900, allow_nan=False), min_size=1, max_size=5))
def test_how_time_is_cut_changes_nothing(state: dict[str, Any], spans: list[float]) -> None:
    cut, whole = cache.create_model(state), cache.create_model(state)
    for span in spans:
        cache.advance(cut, span)
    cache.advance(whole, cut.now / 1000)
    assert cache.readout(cut) == cache.readout(whole)


def test_the_requests_are_zipfs_with_scans_between_them() -> None:
    model = cache.create_model({"scan": 25, "skew": 80})
    trace = np.array([cache.request(model) for _ in range(40_000)])
    place = np.arange(len(trace)) % cache.PERIOD
    scanned = trace[place >= 1500]
    assert list(scanned) == list(range(cache.KEYS, cache.KEYS + 10_000))
    counts = np.bincount(trace[place < 1500], minlength=cache.KEYS)
    expected = theory.zipf_popularity(cache.KEYS, 0.8) * 30_000
    assert len(counts) == cache.KEYS
    assert np.abs(counts - expected)[:50] == pytest.approx(0, abs=5 * np.sqrt(expected[0]))
    assert counts[5000:].sum() == pytest.approx(expected[5000:].sum(), rel=0.05)


@pytest.mark.parametrize("size", [10, 200, 1000])
@pytest.mark.parametrize("skew", [0, 60, 100, 150])
def test_theory_without_a_scan_is_the_books(size: int, skew: int) -> None:
    says = cache.theory({"size": size, "skew": skew})
    popularity = theory.zipf_popularity(cache.KEYS, skew / 100)
    assert says["lru"] == pytest.approx(theory.che_hit_rate(popularity, size))
    assert says["fifo"] == pytest.approx(theory.fifo_hit_rate(popularity, size))
    assert says["static"] == pytest.approx(theory.static_hit_rate(popularity, size))


@pytest.mark.parametrize("scan", [5, 50])
def test_a_scan_in_theory_is_very_many_keys_that_are_hardly_ever_asked_for(scan: int) -> None:
    share, rare = scan / 100, 1_000_000
    popularity = theory.zipf_popularity(cache.KEYS, 1.0) * (1 - share)
    every = np.concatenate([popularity, np.full(rare, share / rare)])
    says = cache.theory({"scan": scan})
    assert says["lru"] == pytest.approx(float(theory.che_hit_rate(every, 200)) / (1 - share), rel=1e-3)
    assert says["fifo"] == pytest.approx(float(theory.fifo_hit_rate(every, 200)) / (1 - share), rel=1e-3)
    assert says["static"] == cache.theory({})["static"]


@pytest.mark.parametrize("state", [{}, {"size": 50, "skew": 120}, {"size": 100, "skew": 60}])
def test_a_long_run_comes_to_what_theory_says(state: dict[str, Any]) -> None:
    model = cache.create_model(state)
    cache.advance(model, 100_000)
    seen, says = cache.readout(model), cache.theory(state)
    assert seen["settled"]
    for rate, expected in (
        (seen["caches"]["LRU"], says["lru"]),
        (seen["caches"]["FIFO"], says["fifo"]),
        (seen["static"], says["static"]),
    ):
        assert rate["rate"] == pytest.approx(expected, abs=0.012)
        assert rate["error"] is not None
        assert rate["error"] <= cache.TRUSTED


def test_a_rate_that_is_trusted_is_near_the_truth() -> None:
    says = cache.theory({"size": 50})["static"]
    covered = judged = 0
    for seed in range(40):
        model = cache.create_model({"seed": seed, "size": 50})
        for _ in range(2):
            cache.advance(model, 6_000)
            static = cache.readout(model)["static"]
            assert static["rate"] is not None
            assert static["error"] is not None
            judged += 1
            covered += abs(static["rate"] - says) <= static["error"]
    assert covered >= 0.88 * judged  # 95 % intervals


def test_a_scan_floods_lru_and_leaves_sieve_and_s3_fifo_what_is_asked_for_again() -> None:
    model = cache.create_model({"scan": 20})
    cache.advance(model, 10 * cache.PERIOD)  # the end of a scan twice as long as the caches are large
    seen = cache.readout(model)["caches"]
    for policy in ("FIFO", "LRU", "CLOCK"):
        assert seen[policy]["scanned"] == 200
        assert seen[policy]["popular"] == 0
    for policy in ("SIEVE", "S3-FIFO"):
        assert seen[policy]["popular"] > 100


@pytest.mark.parametrize("given", ["SIEVE", 3])
def test_a_policy_may_be_named(given: str | int) -> None:
    assert explorable("cache", policy=given).state["policy"] == 3


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"policy": "MRU"}, "one of FIFO, LRU, CLOCK, SIEVE, S3-FIFO"),
        ({"policy": 5}, "one of FIFO"),
        ({"policy": True}, "one of FIFO"),
        ({"policy": None}, "one of FIFO"),
        ({"size": 1005}, "10 to 1000 keys in steps of 10"),
        ({"skew": 155}, "0 to 150"),
        ({"scan": 51}, "0 to 50 %"),
        ({"keys": 4}, "keys"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_words(state: dict[str, Any], says: str) -> None:
    with pytest.raises(KnobError, match=says):
        cache.create_model(state)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, r"Theory says 47 % for LRU \(Che\), 42 % for FIFO, and 60 %.*LRU holds \d+ of the 200 most popular"),
        ({"scan": 20}, "20 % are a scan.*if the scan came piecemeal.*LRU holds 0 of .* and 200 scanned ones"),
        ({"policy": 4, "size": 1000}, "1,000 of 10,000 keys.*S3-FIFO holds"),
    ],
)
def test_the_words_for_a_reader_without_javascript(state: dict[str, Any], says: str) -> None:
    assert re.search(says, cache.describe(state))


def test_the_vectors_are_this_models() -> None:
    kept = json.loads(VECTORS.read_text("utf-8"))
    assert [case["name"] for case in kept] == list(CASES)
    for case in kept:
        state, script = CASES[case["name"]]
        assert (case["state"], case["script"]) == (state, script)
        now = play(state, script)
        assert now["readout"] == case["readout"], case["name"]
        assert now["theory"] == pytest.approx(case["theory"]), case["name"]


OpenPage = Callable[..., Page]
CALM = {"reduced_motion": "reduce"}


def cells(page: Page, row: str) -> list[str]:
    found = page.locator("tbody tr").filter(has=page.get_by_role("rowheader", name=row, exact=True)).locator("td")
    return [" ".join(cell.locator("b, span").all_inner_texts()).strip().replace("\xa0", " ") for cell in found.all()]


def test_the_run_stands_beside_theory(open_page: OpenPage) -> None:
    page = open_page("cache", **CALM)
    model = cache.create_model({})
    cache.advance(model, PREVIEW_MS)
    seen = cache.readout(model)["caches"]["LRU"]
    assert seen["rate"] is not None
    assert seen["error"] is not None
    assert cells(page, "LRU") == [f"{seen['rate'] * 100:.1f} % ± {seen['error'] * 100:.1f}", "47.4 % Che"]
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


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"size": 1000, "skew": 150}, "Still filling: "),
        ({"skew": 0}, "All keys are asked for alike"),
        ({"scan": 50}, "LRU holds 0 of the 200 most popular keys, and 200 keys of a scan"),
    ],
)
def test_the_page_says_what_the_cache_holds(open_page: OpenPage, state: dict[str, Any], says: str) -> None:
    page = open_page("cache", state, **CALM)
    expect(page.locator(".sl-x-verdict").first).to_contain_text(says)


@pytest.mark.parametrize(("given", "shown"), [("CLOCK", "2"), ("3", "3"), ("7", "1"), ("MRU", "1")])
def test_an_address_may_name_a_policy(open_page: OpenPage, given: str, shown: str) -> None:
    page = open_page("cache", {"policy": given}, **CALM)
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
