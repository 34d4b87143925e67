"""Queueing formulas against printed values, exact fractions, SciPy's distributions, their limits and each other."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scalelab import theory

SERVERS = st.integers(min_value=1, max_value=500)
BUSY = st.floats(min_value=0.01, max_value=0.999)
SECONDS = st.floats(min_value=1e-6, max_value=1e3)
SCV = st.floats(min_value=0, max_value=100)
PERCENT = st.floats(min_value=0.01, max_value=99.999)
ABOUT = {"rel": 1e-9}
unhurried = settings(deadline=None)  # a busy machine


def printed(value: float, text: str) -> bool:
    """Return whether the value, rounded to as many decimals as the text has, is the text."""
    return f"{value:.{len(text.partition('.')[2])}f}".lstrip("0") == text


@pytest.mark.parametrize(("rho", "time"), [(0.5, "2"), (0.8, "5"), (0.9, "10"), (0.95, "20"), (0.99, "100")])
def test_one_server_as_printed(rho, time):
    mean = theory.mm1_time(rho, 1)
    assert printed(mean, time)
    assert printed(theory.mm1_percentile(99, rho, 1) / mean, "4.605")


@pytest.mark.parametrize(
    ("servers", "time", "delayed"),
    [
        (1, "5", ".8000"),
        (2, "2.778", ".7111"),
        (4, "1.7455", ".5964"),
        (8, "1.286", ".4576"),
        (16, "1.0953", ".3049"),
        (32, "1.0251", ".1606"),
    ],
)
def test_many_servers_at_four_fifths_as_printed(servers, time, delayed):
    assert printed(theory.mmc_time(servers, 0.8, 1), time)
    assert printed(theory.erlang_c(servers, 0.8), delayed)


@pytest.mark.parametrize("servers", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("rho", [Fraction(1, 10), Fraction(1, 2), Fraction(4, 5), Fraction(99, 100)])
def test_erlangs_formulas_are_the_sums_they_are_printed_as(servers, rho):
    load = servers * rho
    terms = [load**k / math.factorial(k) for k in range(servers + 1)]
    assert theory.erlang_b(servers, float(load)) == pytest.approx(float(terms[-1] / sum(terms)), **ABOUT)
    waiting = terms[-1] / (1 - rho)
    assert theory.erlang_c(servers, float(rho)) == pytest.approx(float(waiting / (sum(terms[:-1]) + waiting)), **ABOUT)


@unhurried
@given(servers=SERVERS, rho=st.floats(min_value=0.3, max_value=3))
def test_erlang_b_is_a_truncated_poisson_distribution_up_to_500_servers(servers, rho):
    """An independent way: SciPy computes the Poisson distribution by incomplete gamma functions."""
    load = servers * rho
    expected = math.exp(stats.poisson.logpmf(servers, load) - stats.poisson.logcdf(servers, load))
    assert theory.erlang_b(servers, load) == pytest.approx(expected, rel=1e-6, abs=1e-250)


@unhurried
@given(servers=SERVERS, rho=BUSY)
def test_the_probability_of_waiting_lies_between_erlang_b_and_one(servers, rho):
    delayed = theory.erlang_c(servers, rho)
    assert 0 <= theory.erlang_b(servers, servers * rho) <= delayed < 1
    assert delayed > 0 or servers * rho < servers - 100  # far from full, it is less than a float can say


@unhurried
@given(servers=st.integers(min_value=1, max_value=499), rho=st.floats(min_value=0.5, max_value=0.98))
def test_more_servers_at_the_same_utilisation_wait_less_and_more_load_waits_more(servers, rho):
    assert theory.erlang_c(servers + 1, rho) < theory.erlang_c(servers, rho)
    assert theory.mmc_wait(servers + 1, rho, 1) < theory.mmc_wait(servers, rho, 1)
    assert theory.mmc_wait(servers, rho, 1) < theory.mmc_wait(servers, rho + 0.01, 1)


def test_nobody_waits_where_nobody_comes():
    assert theory.erlang_b(3, 0) == theory.erlang_c(3, 0) == theory.mmc_wait(3, 0, 1) == 0
    assert theory.mm1_time(0, 2) == theory.mmc_time(7, 0, 2) == 2
    assert theory.mmc_wait_percentile(99, 3, 0, 1) == 0
    assert theory.mmc_percentile(99, 3, 0, 2) == pytest.approx(2 * math.log(100))


@unhurried
@given(rho=BUSY, service=SECONDS, p=PERCENT)
def test_many_servers_of_which_there_is_one_are_one_server(rho, service, p):
    assert theory.erlang_c(1, rho) == pytest.approx(rho, **ABOUT)
    assert theory.mmc_time(1, rho, service) == pytest.approx(theory.mm1_time(rho, service), **ABOUT)
    assert theory.mmc_wait(1, rho, service) == pytest.approx(rho * theory.mm1_time(rho, service), **ABOUT)
    assert theory.mmc_percentile(p, 1, rho, service) == pytest.approx(theory.mm1_percentile(p, rho, service), **ABOUT)


@unhurried
@given(rho=BUSY, service=SECONDS)
def test_fixed_service_halves_the_wait(rho, service):
    one = theory.mmc_wait(1, rho, service)
    assert theory.md1_wait(rho, service) == pytest.approx(one / 2, **ABOUT)
    assert theory.md1_wait(rho, service) == pytest.approx(theory.kingman_wait(rho, service, 1, 0), **ABOUT)


@unhurried
@given(servers=SERVERS, rho=BUSY, service=SECONDS, arrivals=SCV, services=SCV)
def test_kingman_and_allen_cunneen_agree_with_each_other_and_with_exponential_times(
    servers, rho, service, arrivals, services
):
    assert theory.kingman_wait(rho, service, 1, 1) == pytest.approx(theory.mmc_wait(1, rho, service), **ABOUT)
    assert theory.allen_cunneen_wait(servers, rho, service, 1, 1) == theory.mmc_wait(servers, rho, service)
    assert theory.allen_cunneen_wait(1, rho, service, arrivals, services) == pytest.approx(
        theory.kingman_wait(rho, service, arrivals, services), **ABOUT
    )
    assert theory.kingman_wait(rho, service, 0, 0) == 0


@unhurried
@given(servers=st.integers(min_value=1, max_value=60), rho=st.floats(min_value=0.05, max_value=0.99), p=PERCENT)
def test_the_distribution_at_its_percentile_says_p(servers, rho, p):
    """P(T > t) integrated by hand over the wait: 1 − C of no wait, and C of an exponential one."""
    t, delayed = theory.mmc_percentile(p, servers, rho, 1), theory.erlang_c(servers, rho)
    drain = servers * (1 - rho)
    if abs(drain - 1) < 1e-6:
        both = (1 + t) * math.exp(-t)
    else:
        both = (drain * math.exp(-t) - math.exp(-drain * t)) / (drain - 1)
    assert 1 - p / 100 == pytest.approx((1 - delayed) * math.exp(-t) + delayed * both, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("servers", "rho"), [(2, 0.5), (4, 0.75), (5, 0.8), (5, 0.8 - 1e-13), (5, 0.8 + 1e-9)])
def test_percentiles_pass_through_the_point_where_both_rates_are_equal(servers, rho):
    """There c servers drain the queue as fast as one serves, and the textbook's formula divides 0 by 0."""
    t = theory.mmc_percentile(99, servers, rho, 1)
    delayed = theory.erlang_c(servers, rho)
    assert math.exp(-t) * (1 + delayed * t) == pytest.approx(0.01, rel=1e-6)


@unhurried
@given(servers=SERVERS, rho=BUSY, low=PERCENT, high=PERCENT)
def test_percentiles_rise_with_p_and_are_no_shorter_than_either_part(servers, rho, low, high):
    low, high = sorted((low, high))
    assert theory.mmc_percentile(low, servers, rho, 1) <= theory.mmc_percentile(high, servers, rho, 1)
    wait = theory.mmc_wait_percentile(high, servers, rho, 1)
    assert theory.mmc_wait_percentile(low, servers, rho, 1) <= wait
    alone = -math.log1p(-high / 100)
    whole = theory.mmc_percentile(high, servers, rho, 1)
    assert max(wait, alone) * (1 - 1e-9) <= whole
    assert wait == 0 or theory.erlang_c(servers, rho) * math.exp(-wait * servers * (1 - rho)) == pytest.approx(
        1 - high / 100, rel=1e-6
    )


@pytest.mark.parametrize("servers", [1, 3, 40])
def test_the_percentiles_have_the_mean_that_the_formula_gives(servers):
    """The mean is the integral of the quantile function."""
    shares = (np.arange(200_000) + 0.5) / 200_000
    times = theory.mmc_percentile(100 * shares, servers, 0.9, 2.0)
    assert times.mean() == pytest.approx(theory.mmc_time(servers, 0.9, 2.0), rel=1e-3)
    waits = theory.mmc_wait_percentile(100 * shares, servers, 0.9, 2.0)
    assert waits.mean() == pytest.approx(theory.mmc_wait(servers, 0.9, 2.0), rel=1e-3)
    assert (waits == 0).mean() == pytest.approx(1 - theory.erlang_c(servers, 0.9), abs=1e-4)


OUTSIDE = {
    "utilisation": [(math.nan,), (-0.1,), (1.0,), (1.2,)],
    "service": [(0,), (-1,), (math.inf,)],
    "servers": [(0,), (1.5,), (-2,), (math.inf,)],
    "percentile": [(-1,), (100,), (math.nan,)],
    "scv": [(-0.1,), (math.nan,)],
}
FORMULAS = [
    (theory.erlang_c, ("servers", "utilisation")),
    (theory.mm1_time, ("utilisation", "service")),
    (theory.mm1_percentile, ("percentile", "utilisation", "service")),
    (theory.md1_wait, ("utilisation", "service")),
    (theory.mmc_wait, ("servers", "utilisation", "service")),
    (theory.mmc_time, ("servers", "utilisation", "service")),
    (theory.mmc_wait_percentile, ("percentile", "servers", "utilisation", "service")),
    (theory.mmc_percentile, ("percentile", "servers", "utilisation", "service")),
    (theory.kingman_wait, ("utilisation", "service", "scv", "scv")),
    (theory.allen_cunneen_wait, ("servers", "utilisation", "service", "scv", "scv")),
]
FINE = {"utilisation": 0.8, "service": 0.1, "servers": 3, "percentile": 99, "scv": 2.0}


@pytest.mark.parametrize(("formula", "names"), FORMULAS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_argument_of_every_formula_has_its_domain(formula, names):
    assert formula(*(FINE[name] for name in names)) > 0
    for place, name in enumerate(names):
        for (outside,) in OUTSIDE[name]:
            arguments = [FINE[other] for other in names]
            arguments[place] = outside
            with pytest.raises(theory.OutOfDomain, match=f"Expected .*{name}"):
                formula(*arguments)


@pytest.mark.parametrize(("formula", "names"), FORMULAS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_formula_of_an_array_is_the_array_of_the_formula(formula, names):
    for place, name in enumerate(names):
        arguments = [FINE[other] for other in names]
        several = [FINE[name], FINE[name] / 2 if name in ("utilisation", "service", "scv") else FINE[name] - 1]
        arguments[place] = np.array(several)
        many = formula(*arguments)
        assert isinstance(many, np.ndarray)
        for value, one in zip(several, many, strict=True):
            arguments[place] = value
            assert type(formula(*arguments)) is float
            assert formula(*arguments) == pytest.approx(one, rel=1e-12)


def test_overload_is_explained():
    with pytest.raises(ValueError, match=r"got 1\. A queue .* grows without end.*add servers"):
        theory.mmc_wait(4, 1.0, 0.1)


def test_erlang_b_takes_overload_but_no_negative_load():
    assert theory.erlang_b(2, 1000) == pytest.approx(0.998, abs=1e-3)
    with pytest.raises(theory.OutOfDomain, match="load in erlangs >= 0"):
        theory.erlang_b(2, -1)
