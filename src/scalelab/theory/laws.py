"""Laws of scaling: how much faster more workers can be, and Little's law for requests in flight."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from scalelab.theory._domain import Answer, Floats, above_zero, answer, at_least_zero, floats, require, shares


def amdahl(n: ArrayLike, serial: ArrayLike) -> Answer:
    """Return how many times faster a job of fixed size runs on n processors: 1 / (s + (1 − s)/n).

    n: processors, >= 1 (math.inf gives the limit 1/s); serial: the share s of the one-processor time that cannot be
    split, in [0, 1]. Raises OutOfDomain. Source: G. M. Amdahl, "Validity of the single processor approach to achieving
    large scale computing capabilities", AFIPS Spring Joint Computer Conference (1967).
    """
    processors, s = _processors(n), shares(serial, "serial share")
    with np.errstate(divide="ignore"):  # no serial part on infinitely many processors: infinitely fast
        return answer(1 / (s + (1 - s) / processors))


def gustafson(n: ArrayLike, serial: ArrayLike) -> Answer:
    """Return how many times more work n processors do in the same time, if the parallel part grows: n − s(n − 1).

    n: processors, >= 1; serial: the share s of the n-processor time that is not split, in [0, 1]. Raises OutOfDomain.
    Source: J. L. Gustafson, "Reevaluating Amdahl's law", Communications of the ACM 31 (1988).
    """
    processors, s = _processors(n, finite=True), shares(serial, "serial share")
    return answer(processors - s * (processors - 1))


def usl(n: ArrayLike, contention: ArrayLike, coherency: ArrayLike, rate: ArrayLike = 1.0) -> Answer:
    """Return the throughput of n workers by the universal scalability law: rate·n / (1 + α(n − 1) + βn(n − 1)).

    n: workers or concurrent requests, >= 1; contention α: share of the work that must wait its turn, in [0, 1];
    coherency β: cost of agreement for each pair, >= 0; rate: throughput of one worker, > 0, in the unit of the result
    (1 gives the relative capacity). Raises OutOfDomain. Source: N. J. Gunther, Guerrilla Capacity Planning (2007).
    """
    workers = _processors(n, finite=True)
    alpha, beta = shares(contention, "contention"), at_least_zero(coherency, "coherency")
    gamma = above_zero(rate, "rate")
    return answer(gamma * workers / (1 + alpha * (workers - 1) + beta * workers * (workers - 1)))


def usl_peak(contention: ArrayLike, coherency: ArrayLike) -> Answer:
    """Return the number of workers with the highest throughput by the universal scalability law: √((1 − α)/β).

    contention α in [0, 1], coherency β >= 0. The result is infinite if β = 0: then throughput never falls. A result
    below 1 means that one worker is best. Raises OutOfDomain. Source: as `usl`.
    """
    alpha, beta = shares(contention, "contention"), at_least_zero(coherency, "coherency")
    with np.errstate(divide="ignore", invalid="ignore"):
        return answer(np.where(beta == 0, math.inf, np.sqrt((1 - alpha) / beta)))


def throughput_ceiling(concurrency: ArrayLike, latency: ArrayLike, limit: ArrayLike = math.inf) -> Answer:
    """Return the most requests per second that `concurrency` callers can complete.

    Little's law, X = N/W, with at most `limit` of the callers in flight. concurrency >= 0, limit > 0: requests;
    latency: seconds per request, > 0. Raises OutOfDomain. Source: J. D. C. Little, "A proof for the queuing formula
    L = λW", Operations Research 9 (1961).
    """
    callers, seconds, most = at_least_zero(concurrency, "concurrency"), above_zero(latency, "latency"), floats(limit)
    require(most > 0, most, "limit > 0")
    return answer(np.minimum(callers, most) / seconds)


def in_flight(throughput: ArrayLike, latency: ArrayLike) -> Answer:
    """Return the mean number of requests in flight: Little's law, L = λW.

    throughput: requests per second, >= 0; latency: seconds, >= 0. Raises OutOfDomain. Source: as `throughput_ceiling`.
    """
    return answer(at_least_zero(throughput, "throughput") * at_least_zero(latency, "latency"))


def _processors(n: ArrayLike, *, finite: bool = False) -> Floats:
    array = floats(n)
    require((array >= 1) & (np.isfinite(array) | (not finite)), array, "n >= 1" + " and finite" * finite)
    return array
