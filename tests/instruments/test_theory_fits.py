"""Fits recover what made the data, agree with a published one, and say what the data do not hold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab import theory
from scalelab.theory.fits import _peak_interval

LOADS = np.array([1.0, 2, 4, 8, 16, 32, 64])
# SPEC SDM91 on a Sun SPARCcenter 2000, and the fit of it that the R package usl by S. Möding prints.
SPEC_LOADS = [1, 18, 36, 72, 108, 144, 216]
SPEC = [64.9, 995.9, 1652.4, 1853.2, 1828.9, 1775.0, 1702.2]
T4 = 2.776445  # Student's t at 97.5 % with 7 − 3 degrees of freedom, from any table
unhurried = settings(deadline=None, max_examples=50)  # a busy machine


def noisy(values: np.ndarray, share: float, seed: int) -> np.ndarray:
    return values * np.random.default_rng(seed).normal(1, share, len(values))


def test_a_published_fit_and_its_standard_errors():
    fit = theory.fit_usl(SPEC_LOADS, SPEC, errors="constant")
    published = {
        "rate": (89.9952330, 14.2134894),
        "contention": (0.0277285, 0.0091217),
        "coherency": (0.0001044, 0.0000199),
    }
    for name, (value, error) in published.items():
        low, high = fit.intervals[name]
        assert getattr(fit, name) == pytest.approx(value, rel=1e-3)
        assert ((low + high) / 2, (high - low) / 2) == pytest.approx((value, T4 * error), rel=5e-3)
    assert fit.peak == pytest.approx(96.5, abs=0.1)
    assert (fit.predict(SPEC_LOADS) - SPEC).max() == pytest.approx(81.7, abs=0.1)  # the largest residuals it prints
    assert (fit.predict(SPEC_LOADS) - SPEC).min() == pytest.approx(-111.1, abs=0.1)


@unhurried
@given(
    rate=st.floats(min_value=1e-3, max_value=1e6),
    contention=st.floats(min_value=0, max_value=0.95),
    coherency=st.floats(min_value=1e-5, max_value=0.1),
    errors=st.sampled_from(["proportional", "constant"]),
)
def test_exact_points_give_back_what_made_them(rate, contention, coherency, errors):
    fit = theory.fit_usl(LOADS, theory.usl(LOADS, contention, coherency, rate), errors=errors)
    assert fit.rate == pytest.approx(rate, rel=1e-3)
    assert fit.contention == pytest.approx(contention, abs=1e-3)
    assert fit.coherency == pytest.approx(coherency, rel=1e-2)
    assert fit.peak == pytest.approx(theory.usl_peak(contention, coherency), rel=1e-2)
    assert fit.predict(64) == pytest.approx(theory.usl(64, contention, coherency, rate), rel=1e-3)


@unhurried
@given(serial=st.floats(min_value=0, max_value=1))
def test_exact_speed_ups_give_back_the_serial_share(serial):
    fit = theory.fit_amdahl(LOADS, theory.amdahl(LOADS, serial))
    assert fit.serial == pytest.approx(serial, abs=1e-6)
    assert 0 <= fit.low <= fit.serial <= fit.high <= 1


@pytest.mark.parametrize("errors", ["proportional", "constant"])
@pytest.mark.parametrize("contention", [0.0, 0.03])
def test_without_coherency_the_fit_has_no_peak_and_says_so(contention, errors):
    fit = theory.fit_usl(LOADS, theory.usl(LOADS, contention, 0, 50), errors=errors)
    assert fit.coherency == 0
    assert fit.peak == fit.peak_interval[1] == math.inf
    assert "no peak: these points do not tell coherency from 0" in str(fit)
    assert not fit.within_data(fit.peak)


@pytest.mark.parametrize(
    ("contention", "coherency"), [(0.03, 0.0005), (0.05, 0.00005), (0.05, 0.0), (0.0, 0.001), (0.8, 0.001)]
)
@pytest.mark.parametrize("errors", ["proportional", "constant"])
def test_the_intervals_hold_the_truth_about_95_times_in_100(contention, coherency, errors):
    """200 seeded sweeps with 2 % noise of the kind that the fit assumes: 181 to 200 is what chance leaves at 95 %."""
    true = theory.usl(LOADS, contention, coherency, 50)
    wanted = (50, contention, coherency, theory.usl_peak(contention, coherency))
    rng, held = np.random.default_rng(5), np.zeros(4)
    for _ in range(200):
        noise = rng.normal(0, 0.02, len(LOADS)) * (true if errors == "proportional" else true.max() / 2)
        fit = theory.fit_usl(LOADS, true + noise, errors=errors)
        intervals = (*fit.intervals.values(), fit.peak_interval)
        held += [low <= value <= high for value, (low, high) in zip(wanted, intervals, strict=True)]
        assert fit.peak_interval[0] <= fit.peak <= fit.peak_interval[1]
        assert math.isinf(fit.peak_interval[1]) == (fit.intervals["coherency"][0] == 0)
    assert held.min() >= 181
    assert held[0] < 200 or held[2] < 200  # an interval that holds everything tells nothing


@pytest.mark.parametrize("together", [-0.9, 0.0, 0.9])
def test_the_peaks_interval_minds_how_contention_and_coherency_err_together(together):
    """Estimates drawn from a normal distribution, for which Fieller's interval is exact: 95 in 100, however related."""
    covariance = np.outer([0.05, 0.004], [0.05, 0.004]) * [[1, together], [together, 1]]
    drawn = np.random.default_rng(6).multivariate_normal([0.8, 0.02], covariance, 4000)
    held = [
        low <= math.sqrt(0.2 / 0.02) <= high
        for alpha, beta in drawn
        for low, high in [_peak_interval(1 - alpha, beta, covariance, 1.959964)]
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_amdahls_interval_holds_the_truth_about_95_times_in_100():
    held = narrow = 0
    for seed in range(200):
        fit = theory.fit_amdahl(LOADS, noisy(theory.amdahl(LOADS, 0.05), 0.02, seed))
        held += fit.low <= 0.05 <= fit.high
        narrow += fit.high - fit.low < 0.01
    assert 181 <= held < 200
    assert narrow > 180


def test_the_peak_is_inside_or_outside_what_was_measured():
    inside = theory.fit_usl(LOADS, noisy(theory.usl(LOADS, 0.03, 0.0025, 50), 0.02, 1))
    assert inside.within_data(inside.peak)
    assert "inside the measured range" in str(inside)
    outside = theory.fit_usl(LOADS, noisy(theory.usl(LOADS, 0.03, 0.0001, 50), 0.01, 1))
    assert outside.peak > 64
    assert not outside.within_data(outside.peak)
    assert "outside the measured range" in str(outside)
    assert outside.within_data([0.5, 1, 30, 64, 65]).tolist() == [False, True, True, True, False]


def test_points_that_bend_too_little_leave_the_peak_open():
    fit = theory.fit_usl(LOADS, noisy(theory.usl(LOADS, 0.03, 0.00001, 50), 0.05, 3))
    assert fit.peak_interval[1] == math.inf
    assert fit.peak_interval[0] > 10  # so much is known: no peak below
    assert "a peak need not exist" in str(fit)


@pytest.mark.parametrize("data", [50 * LOADS**1.1, 50 * LOADS**-0.3, np.full(7, 50.0)])
def test_points_that_no_law_of_this_kind_makes_keep_to_the_bounds(data):
    """Faster than linear, falling from the start, flat: α stays in [0, 1], β at >= 0, the curve near the points."""
    fit = theory.fit_usl(LOADS, data)
    assert 0 <= fit.contention <= 1
    assert fit.coherency >= 0
    assert fit.predict(LOADS) == pytest.approx(data, rel=0.6)


def test_repeated_measurements_narrow_the_interval():
    once = theory.fit_usl(LOADS, noisy(theory.usl(LOADS, 0.03, 0.0005, 50), 0.02, 7))
    nine = np.tile(LOADS, 9)
    often = theory.fit_usl(nine, noisy(theory.usl(nine, 0.03, 0.0005, 50), 0.02, 7))
    assert np.ptp(often.intervals["contention"]) < np.ptp(once.intervals["contention"])


def test_order_and_unit_do_not_matter():
    data = noisy(theory.usl(LOADS, 0.03, 0.0005, 50), 0.02, 8)
    fit, other = theory.fit_usl(LOADS, data), theory.fit_usl(LOADS[::-1].tolist(), (1000 * data[::-1]).tolist())
    assert other.contention == pytest.approx(fit.contention, rel=1e-4)
    assert other.rate == pytest.approx(1000 * fit.rate, rel=1e-4)


def test_five_loads_are_too_few_however_often_measured():
    loads = [1, 2, 4, 8, 16] * 4
    with pytest.raises(theory.TooFewPoints, match=r"at least 6 different loads.*got 5: measure at more"):
        theory.fit_usl(loads, theory.usl(loads, 0.03, 0.001))


@pytest.mark.parametrize("loads", [[], [1], [1, 1, 1], [1, 1, 2]])
def test_amdahl_needs_two_runs_on_more_than_one_processor(loads):
    with pytest.raises(theory.TooFewPoints, match="at least 2 points with n > 1"):
        theory.fit_amdahl(loads, np.ones(len(loads)))


def test_points_on_one_processor_change_nothing():
    """There the law says 1 whatever the share: counting them would only feign certainty."""
    data = [1.9, 3.4, 6.1]
    assert theory.fit_amdahl([2, 4, 8], data) == theory.fit_amdahl([1, 1, 2, 4, 8], [1, 1, *data])


@pytest.mark.parametrize("fit", [theory.fit_amdahl, theory.fit_usl])
@pytest.mark.parametrize(
    ("n", "y", "expected"),
    [
        ([1, 2, 4], [1, 2], "one .* for each n"),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], "both flat"),
        ([0, 2, 4], [1, 2, 3], "n >= 1"),
        ([1, 2, math.inf], [1, 2, 3], "n >= 1 and finite"),
        ([1, 2, 4], [1, 0, 3], "> 0 and finite; got 0. Leave failed runs out"),
        ([1, 2, 4], [1, math.nan, 3], "> 0 and finite"),
    ],
)
def test_points_outside_the_domain_are_named(fit, n, y, expected):
    with pytest.raises(theory.OutOfDomain, match=expected):
        fit(n, y)


def test_an_unknown_kind_of_error_is_refused():
    with pytest.raises(theory.OutOfDomain, match="'proportional' or 'constant'; got 'relative'"):
        theory.fit_usl(LOADS, LOADS, errors="relative")
