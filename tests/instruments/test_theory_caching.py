"""Formulas of caching against printed values, each other, their limits and long simulations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab import caches, theory

unhurried = settings(deadline=None)  # a busy machine
HIT_RATES = [theory.che_hit_rate, theory.fifo_hit_rate, theory.static_hit_rate]
KEYS = st.integers(min_value=1, max_value=300)
ALPHA = st.floats(min_value=0, max_value=3)
RATE = st.floats(min_value=1e-3, max_value=1e3)


def printed(value: float, text: str) -> bool:
    """Return whether the value, rounded to as many decimals as the text has, is the text."""
    return f"{value:.{len(text.partition('.')[2])}f}".lstrip("0") == text


@pytest.mark.parametrize(
    ("alpha", "capacity", "text"),
    [
        (0.6, 1000, ".2432"),
        (0.8, 1000, ".4367"),
        (1.0, 100, ".3905"),
        (1.0, 1000, ".6756"),
        (1.2, 100, ".6563"),
    ],
)
def test_che_as_printed(alpha, capacity, text):
    assert printed(theory.che_hit_rate(theory.zipf_popularity(10_000, alpha), capacity), text)


def test_fifo_and_the_static_set_as_printed():
    popularity = theory.zipf_popularity(10_000, 1.0)
    assert printed(theory.fifo_hit_rate(popularity, 1000), ".6309")
    assert printed(theory.static_hit_rate(popularity, 1000), ".7648")


@unhurried
@given(keys=KEYS, alpha=ALPHA)
def test_zipf_is_a_probability_that_falls_with_the_rank(keys, alpha):
    popularity = theory.zipf_popularity(keys, alpha)
    assert popularity.shape == (keys,)
    assert popularity.sum() == pytest.approx(1)
    assert (np.diff(popularity) <= 0).all()
    assert popularity[0] / popularity[-1] == pytest.approx(keys**alpha)


@unhurried
@given(keys=KEYS, alpha=ALPHA, capacity=st.integers(0, 300))
def test_fifo_is_below_lru_is_below_the_static_set_and_all_grow(keys, alpha, capacity):
    popularity = theory.zipf_popularity(keys, alpha)
    che, fifo, static = theory.che_hit_rate, theory.fifo_hit_rate, theory.static_hit_rate
    assert fifo(popularity, capacity) <= che(popularity, capacity) + 1e-9
    assert che(popularity, capacity) <= static(popularity, capacity) + 1e-9
    for rate in (che, fifo, static):
        assert rate(popularity, capacity) <= rate(popularity, capacity + 1) + 1e-9
        assert min(capacity, keys) / keys <= rate(popularity, capacity) + 1e-9  # at least as good as if all were alike
        assert 0 <= rate(popularity, capacity) <= 1 + 1e-9


@unhurried
@given(keys=KEYS, capacity=st.integers(0, 300))
def test_where_all_keys_are_alike_the_policy_does_not_matter(keys, capacity):
    alike = theory.zipf_popularity(keys, 0)
    for rate in HIT_RATES:
        assert rate(alike, capacity) == pytest.approx(min(capacity / keys, 1))


@pytest.mark.parametrize("rate", HIT_RATES)
def test_none_fit_or_all(rate):
    popularity = np.array([0.5, 0.3, 0.2, 0.0])
    assert rate(popularity, 0) == 0
    assert rate(popularity, 3) == pytest.approx(1)  # the fourth is never asked for
    assert rate(popularity, 9) == pytest.approx(1)


@pytest.mark.parametrize("rate", [*HIT_RATES, theory.che_time])
def test_capacities_may_be_an_array(rate):
    popularity = theory.zipf_popularity(100, 0.9)
    together = rate(popularity, np.array([[1, 10], [50, 100]]))
    assert together.shape == (2, 2)
    assert together.ravel().tolist() == [rate(popularity, capacity) for capacity in (1, 10, 50, 100)]
    assert isinstance(rate(popularity, 10), float)


def test_the_order_of_the_keys_does_not_matter():
    popularity = theory.zipf_popularity(100, 0.9)
    for rate in HIT_RATES:
        assert rate(popularity[::-1], 17) == pytest.approx(rate(popularity, 17))


def test_ches_time_is_when_as_many_different_keys_have_been_asked_for_as_fit():
    popularity = theory.zipf_popularity(1000, 0.8)
    asked = caches.zipf(1000, 0.8, 200 * 400, 1).reshape(400, 200)
    different = np.mean([len(set(row)) for row in asked.tolist()])
    assert theory.che_time(popularity, different) == pytest.approx(200, rel=0.01)
    assert theory.che_time(popularity, 1000) == np.inf
    assert theory.che_time(popularity, 0) == 0


def one_key(rate, ttl, changes, seed=1, fetches=60_000):
    """Simulate one key with a time to live: return the shares of hits and of answers out of date."""
    rng, requests = np.random.default_rng(seed), int(fetches * (1 + rate * ttl))
    arrivals = np.cumsum(rng.exponential(1 / rate, requests))
    versions = np.searchsorted(
        np.cumsum(rng.exponential(1 / changes, int(arrivals[-1] * changes * 1.2) + 99)), arrivals
    )
    hits = stale = 0
    expiry, version = -1.0, -1
    for now, current in zip(arrivals.tolist(), versions.tolist(), strict=True):
        if now < expiry:
            hits += 1
            stale += version != current
        else:
            expiry, version = now + ttl, current
    return hits / requests, stale / requests


@pytest.mark.parametrize(("rate", "ttl", "changes"), [(2, 3, 0.1), (0.5, 1, 0.7), (5, 4, 0.3)])
def test_a_time_to_live_answers_and_lies_as_its_formulas_say(rate, ttl, changes):
    hits, stale = one_key(rate, ttl, changes)
    assert hits == pytest.approx(theory.ttl_hit_rate(rate, ttl), rel=0.01)
    assert stale == pytest.approx(theory.ttl_stale_share(rate, ttl, changes), rel=0.04)


@unhurried
@given(rate=RATE, ttl=RATE, changes=RATE)
def test_stale_answers_are_hits_and_grow_with_the_time_to_live_and_the_changes(rate, ttl, changes):
    stale = theory.ttl_stale_share(rate, ttl, changes)
    assert -1e-9 <= stale <= theory.ttl_hit_rate(rate, ttl) + 1e-9
    assert stale <= theory.ttl_stale_share(rate, 2 * ttl, changes) + 1e-9
    assert stale <= theory.ttl_stale_share(rate, ttl, 2 * changes) + 1e-9
    assert theory.ttl_stale_share(rate, ttl, 0) == pytest.approx(0, abs=1e-9)
    assert theory.ttl_stale_share(rate, 0, changes) == theory.ttl_hit_rate(rate, 0) == 0


def test_a_ttl_of_random_length_would_be_fifo():
    """FIFO is a time to live: with the right one for all keys, their hit rates are those of `fifo_hit_rate`."""
    popularity = theory.zipf_popularity(1000, 1.0)
    ttls = np.geomspace(1, 1e5, 200)
    held = np.array([theory.ttl_hit_rate(popularity, ttl).sum() for ttl in ttls])
    rates = np.array([(popularity * theory.ttl_hit_rate(popularity, ttl)).sum() for ttl in ttls])
    assert rates == pytest.approx(theory.fifo_hit_rate(popularity, held))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: theory.zipf_popularity(0, 1), "keys, a whole number >= 1; got 0"),
        (lambda: theory.zipf_popularity(5, -1), "alpha >= 0; got -1"),
        (lambda: theory.che_hit_rate([0.5, 0.4], 1), "whose sum is 1; got shape .2,., sum 0.9"),
        (lambda: theory.che_hit_rate([1.5, -0.5], 1), "array of probabilities"),
        (lambda: theory.che_hit_rate([[1.0]], 1), "flat array"),
        (lambda: theory.fifo_hit_rate([], 1), "array of probabilities"),
        (lambda: theory.fifo_hit_rate([float("nan")], 1), "array of probabilities"),
        (lambda: theory.che_time([1.0], -1), "capacity >= 0; got -1"),
        (lambda: theory.static_hit_rate([1.0], 0.5), "whole number of keys; got 0.5"),
        (lambda: theory.ttl_hit_rate(-1, 1), "rate >= 0"),
        (lambda: theory.ttl_hit_rate(1, -1), "ttl >= 0"),
        (lambda: theory.ttl_stale_share(1, 1, -1), "changes >= 0"),
    ],
)
def test_outside_the_domain_it_says_what_it_expects(call, expected):
    with pytest.raises(theory.OutOfDomain, match=f"Expected .*{expected}"):
        call()
