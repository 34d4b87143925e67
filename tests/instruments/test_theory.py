"""The laws of scaling against printed values, their limits and each other."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab import theory
from scalelab.errors import ScalelabError

POSITIVE = st.floats(min_value=1e-3, max_value=1e6)
SHARE = st.floats(min_value=0, max_value=1)
WORKERS = st.floats(min_value=1, max_value=1e4)
COHERENCY = st.floats(min_value=0, max_value=1)
unhurried = settings(deadline=None)  # a busy machine


def printed(value: float, text: str) -> bool:
    """Return whether the value, rounded to as many decimals as the text has, is the text."""
    return f"{value:.{len(text.partition('.')[2])}f}".lstrip("0") == text


@pytest.mark.parametrize(("n", "text"), [(8, "5.926"), (16, "9.143"), (64, "15.42"), (math.inf, "20")])
def test_amdahl_with_a_twentieth_serial(n, text):
    assert printed(theory.amdahl(n, 0.05), text)


def test_gustafson_on_64_processors():
    assert printed(theory.gustafson(64, 0.05), "60.85")


def test_the_universal_law_peaks_at_44_and_falls_after():
    assert printed(theory.usl_peak(0.03, 0.0005), "44.05")
    assert printed(theory.usl(44, 0.03, 0.0005), "13.60")
    assert printed(theory.usl(128, 0.03, 0.0005), "9.89")


@unhurried
@given(n=WORKERS, serial=SHARE)
def test_amdahl_lies_between_one_and_both_its_limits(n, serial):
    faster = theory.amdahl(n, serial)
    assert 1 - 1e-9 <= faster <= n * (1 + 1e-9)
    assert faster * serial <= 1 + 1e-9
    assert faster <= theory.amdahl(n + 1, serial) * (1 + 1e-9)


@unhurried
@given(serial=st.floats(min_value=1e-6, max_value=1))
def test_amdahls_limit_is_one_over_the_serial_share(serial):
    assert theory.amdahl(math.inf, serial) == pytest.approx(1 / serial)
    assert theory.amdahl(1e15, serial) == pytest.approx(1 / serial, rel=1e-6)


def test_without_a_serial_part_amdahl_has_no_limit():
    assert theory.amdahl(math.inf, 0) == math.inf


@unhurried
@given(n=WORKERS, serial=SHARE)
def test_gustafson_is_never_below_amdahl(n, serial):
    """Its work grows with n; Amdahl's stays."""
    assert theory.gustafson(n, serial) >= theory.amdahl(n, serial) * (1 - 1e-9)


@unhurried
@given(n=WORKERS, serial=SHARE)
def test_gustafson_is_amdahl_seen_from_the_parallel_run(n, serial):
    """A share s of the n-processor time is s/(s + (1 − s)n) of the time on one processor."""
    alone = serial / (serial + (1 - serial) * n)
    assert theory.gustafson(n, serial) == pytest.approx(theory.amdahl(n, alone))


@unhurried
@given(n=WORKERS, serial=SHARE)
def test_amdahl_is_the_universal_law_without_coherency(n, serial):
    assert theory.usl(n, serial, 0) == pytest.approx(theory.amdahl(n, serial))


@unhurried
@given(n=WORKERS, rate=POSITIVE)
def test_without_contention_and_coherency_the_universal_law_is_linear(n, rate):
    assert theory.usl(n, 0, 0, rate) == pytest.approx(rate * n)


@unhurried
@given(alpha=SHARE, beta=COHERENCY, rate=POSITIVE)
def test_one_worker_has_the_rate_itself(alpha, beta, rate):
    assert theory.usl(1, alpha, beta, rate) == pytest.approx(rate)


@unhurried
@given(n=WORKERS, alpha=st.floats(min_value=0, max_value=0.99), beta=st.floats(min_value=1e-9, max_value=1e-2))
def test_no_number_of_workers_beats_the_peak_and_throughput_falls_away_from_it(n, alpha, beta):
    peak = theory.usl_peak(alpha, beta)
    best = theory.usl(max(peak, 1), alpha, beta)
    assert theory.usl(n, alpha, beta) <= best * (1 + 1e-9)
    further = n * 2 if n >= peak else max(n / 2, 1)
    assert theory.usl(further, alpha, beta) <= theory.usl(n, alpha, beta) * (1 + 1e-9)


@unhurried
@given(n=WORKERS, alpha=SHARE, beta=COHERENCY)
def test_coherency_only_costs(n, alpha, beta):
    assert theory.usl(n, alpha, beta) <= theory.usl(n, alpha, 0) * (1 + 1e-9)


def test_without_coherency_there_is_no_peak():
    assert theory.usl_peak(0.1, 0) == math.inf
    assert theory.usl_peak(1, 0) == math.inf


def test_littles_law_for_aiohttps_default_of_100_connections_at_50_ms():
    """2,000 requests per second: aiohttp's documented default limit, put into Little (1961)."""
    assert theory.throughput_ceiling(400, 0.05, limit=100) == 2000


@unhurried
@given(n=POSITIVE, latency=POSITIVE, limit=POSITIVE)
def test_the_ceiling_never_exceeds_either_limit_and_reaches_one(n, latency, limit):
    ceiling = theory.throughput_ceiling(n, latency, limit)
    assert ceiling <= theory.throughput_ceiling(n, latency)
    assert ceiling * latency == pytest.approx(min(n, limit))


@unhurried
@given(n=POSITIVE, latency=POSITIVE)
def test_in_flight_is_the_inverse_of_the_ceiling(n, latency):
    assert theory.in_flight(theory.throughput_ceiling(n, latency), latency) == pytest.approx(n)


def test_nothing_arrives_and_nothing_is_in_flight():
    assert theory.in_flight(0, 5) == 0


@pytest.mark.parametrize(
    ("formula", "arguments", "expected"),
    [
        (theory.amdahl, (0.5, 0.1), "n >= 1"),
        (theory.amdahl, (math.nan, 0.1), "n >= 1"),
        (theory.amdahl, (2, 1.5), r"serial share in \[0, 1\]; got 1.5"),
        (theory.gustafson, (0, 0.1), "n >= 1"),
        (theory.gustafson, (math.inf, 0.1), "finite"),
        (theory.gustafson, (2, -0.1), "serial share"),
        (theory.usl, (0, 0.1, 0.1), "n >= 1"),
        (theory.usl, (math.inf, 0.1, 0.0), "finite"),
        (theory.usl, (2, 1.1, 0.1), "contention"),
        (theory.usl, (2, 0.1, -0.1), "coherency >= 0"),
        (theory.usl, (2, 0.1, 0.1, 0), "rate > 0"),
        (theory.usl_peak, (-0.1, 0.1), "contention"),
        (theory.usl_peak, (0.1, math.nan), "coherency"),
        (theory.throughput_ceiling, (-1, 1.0), "concurrency >= 0"),
        (theory.throughput_ceiling, (1, 0.0), "latency > 0"),
        (theory.throughput_ceiling, (1, -1.0), "latency > 0"),
        (theory.throughput_ceiling, (1, 1.0, 0), "limit > 0"),
        (theory.in_flight, (-1, 1), "throughput >= 0"),
        (theory.in_flight, (1, -1), "latency >= 0"),
    ],
)
def test_outside_its_domain_a_law_says_what_it_expects(formula, arguments, expected):
    with pytest.raises(theory.OutOfDomain, match=f"Expected {expected}|{expected}") as raised:
        formula(*arguments)
    assert isinstance(raised.value, ScalelabError)
    assert isinstance(raised.value, ValueError)


def test_the_message_names_the_first_number_outside():
    with pytest.raises(ValueError, match=r"Expected n >= 1; got -3\."):
        theory.amdahl([1, 2, -3, 4, -5], 0.1)


@pytest.mark.parametrize(
    ("formula", "arguments"),
    [
        (theory.amdahl, (0.05,)),
        (theory.gustafson, (0.05,)),
        (theory.usl, (0.03, 0.0005, 70.0)),
        (theory.throughput_ceiling, (0.05, 7)),
        (theory.in_flight, (0.05,)),
    ],
)
def test_a_law_of_an_array_is_the_array_of_the_law(formula, arguments):
    loads = [1, 2, 5, 44, 128]
    many = formula(np.array(loads), *arguments)
    assert isinstance(many, np.ndarray)
    assert formula(loads, *arguments).tolist() == many.tolist()
    for load, one in zip(loads, many, strict=True):
        assert type(formula(load, *arguments)) is float
        assert formula(load, *arguments) == one


def test_arrays_broadcast_against_each_other():
    assert theory.usl(np.array([[1.0], [8.0]]), np.array([0.0, 0.1, 0.2]), 0.001).shape == (2, 3)


def test_importing_the_formulas_loads_neither_scipy_nor_numba():
    code = (
        "import sys, scalelab; assert 'numpy' not in sys.modules\n"
        "from scalelab import simulate, theory\n"
        "theory.mmc_percentile(99, 4, .8, 1); simulate.waits(simulate.poisson(1, 9, 1), [1] * 9)\n"
        "print(sorted({'scipy', 'numba'} & set(sys.modules)))"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (fresh.stdout.strip(), fresh.stderr) == ("[]", "")
