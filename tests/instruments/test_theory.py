"""Formulas against their limits and against each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalelab import theory

POSITIVE = st.floats(min_value=1e-3, max_value=1e6)


def test_littles_law_for_aiohttps_default_of_100_connections_at_50_ms():
    """2,000 requests per second: aiohttp's documented default limit, put into Little (1961)."""
    assert theory.throughput_ceiling(400, 0.05, limit=100) == 2000


@given(n=POSITIVE, latency=POSITIVE, limit=POSITIVE)
def test_the_ceiling_never_exceeds_either_limit_and_reaches_one(n, latency, limit):
    ceiling = theory.throughput_ceiling(n, latency, limit)
    assert ceiling <= theory.throughput_ceiling(n, latency)
    assert ceiling * latency == pytest.approx(min(n, limit))


@given(n=POSITIVE, latency=POSITIVE)
def test_in_flight_is_the_inverse_of_the_ceiling(n, latency):
    assert theory.in_flight(theory.throughput_ceiling(n, latency), latency) == pytest.approx(n)


@pytest.mark.parametrize("arguments", [(-1, 1.0), (1, 0.0), (1, -1.0), (1, 1.0, 0)])
def test_outside_its_domain_the_ceiling_says_so(arguments):
    with pytest.raises(ValueError, match="Expected concurrency"):
        theory.throughput_ceiling(*arguments)


def test_outside_its_domain_littles_law_says_so():
    with pytest.raises(ValueError, match="Expected throughput"):
        theory.in_flight(-1, 1)
    assert theory.in_flight(0, 5) == 0
