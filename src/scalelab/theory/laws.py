"""Laws of scaling: the speed-up of more workers, and Little's law for requests in flight."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from scalelab.theory._domain import (
    Floats,
    ScalarOrArray,
    check_non_negative,
    check_positive,
    check_share,
    floats,
    require,
    unwrap_scalar,
)


def amdahl(n: ArrayLike, serial: ArrayLike) -> ScalarOrArray:
    """Return the speed-up of a job of fixed size on n processors, Amdahl's law: 1 / (s + (1 − s)/n).

    n: processors, >= 1 (math.inf gives the limit 1/s); serial: the share s of the one-processor time that cannot be
    split, in [0, 1]. Raises OutOfDomain. Source: G. M. Amdahl, "Validity of the single processor approach to achieving
    large scale computing capabilities", AFIPS Spring Joint Computer Conference (1967).
    """
    processors, s = _check_processors(n), check_share(serial, "serial share")
    with np.errstate(divide="ignore"):  # no serial part on infinitely many processors: infinitely fast
        return unwrap_scalar(1 / (s + (1 - s) / processors))


def gustafson(n: ArrayLike, serial: ArrayLike) -> ScalarOrArray:
    """Return the speed-up on n processors of a job whose parallel part grows with n, Gustafson's law: n − s(n − 1).

    n: processors, >= 1; serial: the share s of the n-processor time that is not parallel, in [0, 1]. Raises
    OutOfDomain. Source: J. L. Gustafson, "Reevaluating Amdahl's law", Communications of the ACM 31 (1988).
    """
    processors, s = _check_processors(n, finite=True), check_share(serial, "serial share")
    return unwrap_scalar(processors - s * (processors - 1))


def usl(n: ArrayLike, contention: ArrayLike, coherency: ArrayLike, rate: ArrayLike = 1.0) -> ScalarOrArray:
    """Return the throughput of n workers by the universal scalability law: rate·n / (1 + α(n − 1) + βn(n − 1)).

    n: workers or concurrent requests, >= 1; contention α: share of the work that is serial, in [0, 1]; coherency β:
    cost of agreement for each pair of workers, >= 0; rate: throughput of one worker, > 0, in the unit of the result (1
    gives the relative capacity). Raises OutOfDomain. Source: N. J. Gunther, Guerrilla Capacity Planning (2007).
    """
    workers = _check_processors(n, finite=True)
    alpha, beta = check_share(contention, "contention"), check_non_negative(coherency, "coherency")
    gamma = check_positive(rate, "rate")
    return unwrap_scalar(gamma * workers / (1 + alpha * (workers - 1) + beta * workers * (workers - 1)))


def usl_peak(contention: ArrayLike, coherency: ArrayLike) -> ScalarOrArray:
    """Return the number of workers with the highest throughput by the universal scalability law: √((1 − α)/β).

    contention α in [0, 1], coherency β >= 0. The result is infinite if β = 0: then throughput never falls. A result
    below 1 means that one worker is best. Raises OutOfDomain. Source: as `usl`.
    """
    alpha, beta = check_share(contention, "contention"), check_non_negative(coherency, "coherency")
    with np.errstate(divide="ignore", invalid="ignore"):
        return unwrap_scalar(np.where(beta == 0, math.inf, np.sqrt((1 - alpha) / beta)))


def throughput_ceiling(concurrency: ArrayLike, latency: ArrayLike, limit: ArrayLike = math.inf) -> ScalarOrArray:
    """Return the maximum throughput of `concurrency` callers in requests per second.

    Little's law, X = N/W, with at most `limit` of the callers in flight. concurrency >= 0, limit > 0: requests;
    latency: seconds per request, > 0. Raises OutOfDomain. Source: J. D. C. Little, "A proof for the queuing formula
    L = λW", Operations Research 9 (1961).
    """
    callers, seconds = check_non_negative(concurrency, "concurrency"), check_positive(latency, "latency")
    max_in_flight = floats(limit)
    require(max_in_flight > 0, max_in_flight, "limit > 0")
    return unwrap_scalar(np.minimum(callers, max_in_flight) / seconds)


def in_flight(throughput: ArrayLike, latency: ArrayLike) -> ScalarOrArray:
    """Return the mean number of requests in flight: Little's law, L = λW.

    throughput: requests per second, >= 0; latency: seconds, >= 0. Raises OutOfDomain. Source: as `throughput_ceiling`.
    """
    return unwrap_scalar(check_non_negative(throughput, "throughput") * check_non_negative(latency, "latency"))


def _check_processors(n: ArrayLike, *, finite: bool = False) -> Floats:
    array = floats(n)
    require((array >= 1) & (np.isfinite(array) | (not finite)), array, "n >= 1" + " and finite" * finite)
    return array
