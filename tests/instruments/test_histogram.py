"""HDR histograms in seconds: their digits, their merging, what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalelab.measure import Histogram, HistogramError, percentile

latencies = st.lists(st.floats(1e-5, 50), min_size=1, max_size=200)


@given(latencies, st.sampled_from([1, 10, 50, 90, 99, 99.9, 100]))
def test_a_percentile_is_the_samples_own_to_three_digits(sample, p):
    histogram = Histogram.of(sample)
    assert histogram.percentile(p) == pytest.approx(percentile(sample, p), rel=2e-3, abs=2e-6)
    assert histogram.count == len(sample)


@given(latencies, latencies)
def test_merged_histograms_are_the_histogram_of_all(one, other):
    merged = Histogram.of(one)
    merged.add(Histogram.of(other))
    together = Histogram.of(one + other)
    assert merged.count == together.count
    for p in (50, 99, 100):
        assert merged.percentile(p) == together.percentile(p)


@given(latencies)
def test_buckets_hold_everything_once_in_order(sample):
    edges, counts = Histogram.of(sample).counts()
    assert counts.sum() == len(sample)
    assert (np.diff(edges) > 0).all()
    assert edges[-1] == pytest.approx(max(sample), rel=2e-3, abs=2e-6)


def test_mean_and_largest():
    histogram = Histogram.of([0.001] * 99 + [1.0])
    assert histogram.mean == pytest.approx(0.01099, rel=1e-3)
    assert histogram.max == pytest.approx(1.0, rel=1e-3)


def test_counts_may_be_recorded_at_once():
    histogram = Histogram()
    histogram.record(0.5, count=10)
    assert histogram.count == 10


def test_memory_does_not_grow_with_what_is_counted():
    small, large = Histogram.of([0.1]), Histogram.of(np.linspace(0.001, 10, 20_000))
    assert small.memory == large.memory > 0
    assert Histogram(digits=2).memory < small.memory / 4


def test_what_is_out_of_range_is_counted_at_its_edge():
    histogram = Histogram(highest=1.0)
    for latency in (0.0, 1e-9, 5.0):
        histogram.record(latency)
    assert histogram.count == 3
    assert histogram.max == pytest.approx(1.0, rel=1e-3)
    assert histogram.percentile(1) == pytest.approx(1e-6)


def test_failures_are_left_out():
    assert Histogram.of([0.1, math.nan]).count == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Histogram(highest=0), "highest"),
        (lambda: Histogram(digits=6), "1 to 5 digits"),
        (lambda: Histogram().record(-1), "0 s or more"),
        (lambda: Histogram().record(math.nan), "0 s or more"),
        (lambda: Histogram().percentile(99), "empty"),
        (lambda: Histogram().mean, "empty"),
        (lambda: Histogram.of([1]).percentile(0), "percentile in"),
        (lambda: Histogram().add(Histogram(digits=2)), "same numbers"),
    ],
)
def test_what_it_cannot_know_is_refused(call, said):
    with pytest.raises(HistogramError, match=said):
        call()
