"""Fit laws of scaling to measured points, with intervals that show how well the points determine each parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from scalelab.errors import ScalelabError
from scalelab.theory._domain import Floats, OutOfDomain, ScalarOrArray, floats, require
from scalelab.theory.laws import amdahl, usl

MIN_LOADS = 6  # for three parameters; Gunther's own advice
NEGLIGIBLE = 1e-6  # as a share of the time at the largest load: no measurement distinguishes it from 0


class TooFewPoints(ScalelabError):
    """There are too few points to determine a law's parameters and their error."""


@dataclass(frozen=True)
class Fit:
    """A fit of Amdahl's law: the serial share, and the ends of its 95 % interval."""

    serial: float
    low: float
    high: float


@dataclass(frozen=True)
class UslFit:
    """A fit of the universal scalability law.

    rate: throughput of one worker; contention, coherency: shares; intervals: (low, high) at 95 % for each of these
    three names; peak: the n with the highest throughput, math.inf if coherency is 0; peak_interval: the same for the
    peak, with math.inf for high if the points do not distinguish coherency from 0, so that there may be no peak;
    measured: the smallest and the largest n of the points.
    """

    rate: float
    contention: float
    coherency: float
    intervals: Mapping[str, tuple[float, float]]
    peak: float
    peak_interval: tuple[float, float]
    measured: tuple[float, float]

    def predict(self, n: ArrayLike) -> ScalarOrArray:
        """Return the throughput of n >= 1 workers by the law; `within_data` tells if n is in the measured range."""
        return usl(n, self.contention, self.coherency, self.rate)

    def within_data(self, n: ArrayLike) -> Any:
        """Return True if n lies in the measured range; for an array, an array of booleans."""
        array = floats(n)
        inside = (array >= self.measured[0]) & (array <= self.measured[1])
        return bool(inside) if array.ndim == 0 else inside

    def __str__(self) -> str:
        """Return one line: each value with its interval, and whether the peak was measured or is uncertain."""
        parameters = ", ".join(
            f"{name} {getattr(self, name):.3g} ({low:.3g} to {high:.3g})"
            for name, (low, high) in self.intervals.items()
        )
        low, high = self.peak_interval
        if math.isinf(high):
            caveat = (
                f"these points do not tell coherency from 0, so a peak need not exist, and none lies below {low:.3g}"
            )
            return f"{parameters}; {'no peak' if math.isinf(self.peak) else f'peak at {self.peak:.3g}'}: {caveat}"
        position = "inside" if self.within_data(self.peak) else "outside"
        return f"{parameters}; peak at {self.peak:.3g} ({low:.3g} to {high:.3g}), {position} the measured range"


def fit_amdahl(n: ArrayLike, speedup: ArrayLike) -> Fit:
    """Return Amdahl's law fitted to measured speed-ups by least squares of logarithms, for proportional errors.

    n: processors, >= 1, shape (points,); speedup: relative to one processor, > 0, same shape. Points at n = 1 are
    ignored, because there the law gives 1 for any serial share. Raises TooFewPoints below 2 points with n > 1,
    OutOfDomain.
    """
    loads, speed = _points(n, speedup, "speedup")
    loads, speed = loads[loads > 1], speed[loads > 1]
    if len(loads) < 2:
        raise TooFewPoints(
            f"Expected at least 2 points with n > 1, got {len(loads)}: "
            "measure more numbers of processors, or one of them several times."
        )
    start = np.clip(np.median((loads / speed - 1) / (loads - 1)), 0.0, 1.0)
    (serial,), covariance = _least_squares(lambda x, s: np.log(amdahl(x, s)), loads, np.log(speed), [start], [1.0])
    half_width = _quantile(len(loads) - 1) * math.sqrt(covariance[0, 0])
    return Fit(float(serial), max(float(serial) - half_width, 0.0), min(float(serial) + half_width, 1.0))


def fit_usl(
    n: ArrayLike, throughput: ArrayLike, *, errors: Literal["proportional", "constant"] = "proportional"
) -> UslFit:
    """Return the universal scalability law fitted to measured throughputs by least squares.

    n: workers or concurrent requests, >= 1, shape (points,), at least 6 different ones; throughput: in any unit, > 0,
    same shape; errors: "proportional" if the measurement error is the same share of each value, as in timings (then the
    logarithms are fitted), or "constant" if it is the same for all values, as most published fits assume. Contention is
    bounded to [0, 1], coherency to >= 0. The intervals are those of the linearised fit with Student's t, cut at these
    bounds; the peak's is Fieller's interval of the ratio (1 − α)/β, which stays valid if β is small. Raises
    TooFewPoints, OutOfDomain. Sources: N. J. Gunther, Guerrilla Capacity Planning (2007); E. C. Fieller, "Some problems
    in interval estimation", Journal of the Royal Statistical Society B 16 (1954).
    """
    if errors not in ("proportional", "constant"):
        raise OutOfDomain(f"Expected errors 'proportional' or 'constant'; got {errors!r}.")
    transform: Callable[[Floats], Floats] = np.log if errors == "proportional" else np.asarray
    loads, measured = _points(n, throughput, "throughput")
    if (distinct := len(np.unique(loads))) < MIN_LOADS:
        raise TooFewPoints(
            f"Expected at least {MIN_LOADS} different loads for three parameters and their intervals, "
            f"got {distinct}: measure at more values of n."
        )
    # Scaled so that each parameter is about the share of the time that its term takes at the largest load.
    max_load, max_throughput = loads.max(), measured.max()
    scale = np.array([max_throughput, 1 / max_load, 1 / max_load**2])

    def law(x: Floats, gamma: float, alpha: float, beta: float) -> Floats:
        return transform(gamma * x / (1 + alpha * (x - 1) / max_load + beta * x * (x - 1) / max_load**2))

    columns = np.stack([np.ones_like(loads), (loads - 1) / max_load, loads * (loads - 1) / max_load**2])
    relative_time = loads * max_throughput / measured
    coefficients, *_ = np.linalg.lstsq((columns / relative_time).T, np.ones_like(loads), rcond=None)
    inverse_rate, contention, coherency = coefficients
    gamma = 1 / inverse_rate if inverse_rate > 0 else 1.0
    start = [gamma, np.clip(contention * gamma, 0.0, max_load), max(coherency * gamma, 0.0)]
    scaled, covariance = _least_squares(
        law, loads, transform(measured / max_throughput), start, [np.inf, max_load, np.inf]
    )
    values = np.where(scaled < [0, NEGLIGIBLE, NEGLIGIBLE], 0.0, scaled) * scale
    rate, alpha, beta = (float(value) for value in values)
    covariance = covariance * np.outer(scale, scale)
    quantile = _quantile(len(loads) - 3)
    half_width = quantile * np.sqrt(np.diag(covariance))
    low, high = np.maximum(values - half_width, 0.0), np.minimum(values + half_width, [math.inf, 1.0, math.inf])
    return UslFit(
        rate,
        alpha,
        beta,
        {name: (float(low[i]), float(high[i])) for i, name in enumerate(("rate", "contention", "coherency"))},
        math.sqrt((1 - alpha) / beta) if beta > 0 else math.inf,
        _peak_interval(1 - alpha, beta, covariance[1:, 1:], quantile),
        (float(loads.min()), float(max_load)),
    )


def _peak_interval(a: float, b: float, covariance: Floats, quantile: float) -> tuple[float, float]:
    """Return the square root of Fieller's interval of a/b, with a = 1 − α and b = β, for positive peaks only."""
    square = quantile**2
    var_a, var_b, cov_ab = square * covariance[0, 0], square * covariance[1, 1], -square * covariance[0, 1]
    # θ lies in the interval if (a − θb)² <= t²·Var(a − θb): a quadratic kθ² − 2mθ + c <= 0.
    k, m, c = b * b - var_b, a * b - cov_ab, a * a - var_a
    discriminant = m * m - k * c
    if k > 0:
        root = math.sqrt(max(discriminant, 0.0))
        return math.sqrt(max((m - root) / k, 0.0)), math.sqrt(max((m + root) / k, 0.0))
    if c <= 0 or discriminant < 0:
        return 0.0, math.inf
    return math.sqrt(c / (m + math.sqrt(discriminant))), math.inf


def _points(n: ArrayLike, y: ArrayLike, name: str) -> tuple[Floats, Floats]:
    loads, values = floats(n), floats(y)
    if loads.ndim != 1 or loads.shape != values.shape:
        raise OutOfDomain(
            f"Expected one {name} for each n, both flat; got shapes {loads.shape} and {values.shape}. "
            f"Pass two lists of equal length."
        )
    require((loads >= 1) & np.isfinite(loads), loads, "n >= 1 and finite")
    require((values > 0) & np.isfinite(values), values, f"{name} > 0 and finite", " Leave failed runs out.")
    return loads, values


def _least_squares(
    law: Callable[..., Floats], x: Floats, y: Floats, start: list[Any], upper: list[float]
) -> tuple[Floats, Floats]:
    from scipy.optimize import curve_fit  # noqa: PLC0415 - takes half a second, so only if a law is fitted

    bounds = ([0.0] * len(start), upper)
    parameters, covariance = curve_fit(
        law, x, y, start, bounds=bounds, x_scale="jac", xtol=1e-14, ftol=1e-14, gtol=1e-14, max_nfev=10_000
    )
    return parameters, covariance


def _quantile(degrees_of_freedom: int) -> float:
    from scipy.special import stdtrit  # noqa: PLC0415 - as above

    return float(stdtrit(degrees_of_freedom, 0.975))
