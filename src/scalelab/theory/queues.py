"""Queueing formulas: the cost of utilisation and variability, for one server and for many.

Utilisation ρ is the share of the time that a server works: arrival rate × mean service time / servers. The scv, squared
coefficient of variation, is variance / mean²: 0 for fixed times, 1 for exponential ones. Queues are first come first
served and have no limit, except in `erlang_b`; arrivals and service times are independent of each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from scalelab.theory._domain import (
    Floats,
    ScalarOrArray,
    check_non_negative,
    check_positive,
    check_utilisation,
    check_whole,
    percent_to_share,
    unwrap_scalar,
)


def erlang_b(servers: ArrayLike, load: ArrayLike) -> ScalarOrArray:
    """Return the share of arrivals that are lost because all servers are busy (M/M/c/c).

    servers: whole number c >= 1; load: offered work in erlangs, arrival rate × mean service time, >= 0. Computed by the
    recurrence B(k) = aB(k−1)/(k + aB(k−1)), which does not overflow as factorials do. Raises OutOfDomain. Source: A. K.
    Erlang, "Solution of some problems in the theory of probabilities of significance in automatic telephone exchanges"
    (1917).
    """
    return unwrap_scalar(
        _blocking_probability(check_whole(servers, "servers"), check_non_negative(load, "load in erlangs"))
    )


def erlang_c(servers: ArrayLike, utilisation: ArrayLike) -> ScalarOrArray:
    """Return the probability that an arrival must wait (M/M/c).

    servers: whole number c >= 1; utilisation ρ in [0, 1). Raises OutOfDomain. Source: as `erlang_b`.
    """
    return unwrap_scalar(_waiting_probability(check_whole(servers, "servers"), check_utilisation(utilisation)))


def mm1_time(utilisation: ArrayLike, service: ArrayLike) -> ScalarOrArray:
    """Return the mean time in the system, waiting and service, with one server (M/M/1): τ/(1 − ρ).

    utilisation ρ in [0, 1); service: mean service time τ in seconds, > 0; result in seconds. Raises OutOfDomain.
    Source: L. Kleinrock, Queueing Systems, volume 1: Theory (1975).
    """
    return unwrap_scalar(check_positive(service, "service") / (1 - check_utilisation(utilisation)))


def mm1_percentile(p: ArrayLike, utilisation: ArrayLike, service: ArrayLike) -> ScalarOrArray:
    """Return percentile p of the time in the system, waiting and service (M/M/1): −ln(1 − p/100)·τ/(1 − ρ).

    The time in the system is exponentially distributed. p: percent, in [0, 100); the other arguments and the source: as
    `mm1_time`. Raises OutOfDomain.
    """
    return unwrap_scalar(
        -np.log1p(-percent_to_share(p)) * check_positive(service, "service") / (1 - check_utilisation(utilisation))
    )


def md1_wait(utilisation: ArrayLike, service: ArrayLike) -> ScalarOrArray:
    """Return the mean wait for one server with a fixed service time (M/D/1): ρτ/(2(1 − ρ)).

    utilisation ρ in [0, 1); service τ in seconds, > 0; result in seconds, without the service. Raises OutOfDomain.
    Source: F. Pollaczek, "Über eine Aufgabe der Wahrscheinlichkeitstheorie", Mathematische Zeitschrift 32 (1930).
    """
    rho = check_utilisation(utilisation)
    return unwrap_scalar(rho * check_positive(service, "service") / (2 * (1 - rho)))


def mmc_wait(servers: ArrayLike, utilisation: ArrayLike, service: ArrayLike) -> ScalarOrArray:
    """Return the mean wait in one queue for c servers (M/M/c): C(c, ρ)·τ/(c(1 − ρ)), with C from `erlang_c`.

    servers: whole number c >= 1; utilisation ρ of each server in [0, 1); service: mean service time τ in seconds, > 0;
    result in seconds, without the service. Raises OutOfDomain. Source: L. Kleinrock, Queueing Systems, volume 1: Theory
    (1975).
    """
    c, rho, tau = check_whole(servers, "servers"), check_utilisation(utilisation), check_positive(service, "service")
    return unwrap_scalar(_waiting_probability(c, rho) * tau / (c * (1 - rho)))


def mmc_time(servers: ArrayLike, utilisation: ArrayLike, service: ArrayLike) -> ScalarOrArray:
    """Return the mean time in the system, waiting and service, with one queue for c servers (M/M/c).

    Arguments, errors and source: as `mmc_wait`.
    """
    return unwrap_scalar(mmc_wait(servers, utilisation, service) + check_positive(service, "service"))


def mmc_wait_percentile(p: ArrayLike, servers: ArrayLike, utilisation: ArrayLike, service: ArrayLike) -> ScalarOrArray:
    """Return percentile p of the wait (M/M/c): 0 if at least p percent of the requests do not wait.

    p: percent, in [0, 100). The waits of the requests that wait are exponential with mean τ/(c(1 − ρ)). The other
    arguments, errors and source: as `mmc_wait`.
    """
    c, rho, tau = check_whole(servers, "servers"), check_utilisation(utilisation), check_positive(service, "service")
    with np.errstate(divide="ignore"):  # nobody waits at ρ = 0
        exponent = np.log(_waiting_probability(c, rho)) - np.log1p(-percent_to_share(p))
    return unwrap_scalar(np.maximum(exponent, 0.0) * tau / (c * (1 - rho)))


def mmc_percentile(p: ArrayLike, servers: ArrayLike, utilisation: ArrayLike, service: ArrayLike) -> ScalarOrArray:
    """Return percentile p of the time in the system, waiting and service (M/M/c).

    p: percent, in [0, 100). Computed by bisection on the exact distribution, to the last digits of a float. The other
    arguments, errors and source: as `mmc_wait`.
    """
    share, c, rho, tau = np.broadcast_arrays(
        percent_to_share(p),
        check_whole(servers, "servers"),
        check_utilisation(utilisation),
        check_positive(service, "service"),
    )
    waiting, log_tail = _waiting_probability(c, rho), np.log1p(-share)
    drain = c * (1 - rho)  # times in units of τ from here

    def log_tail_at(t: Floats) -> Floats:
        """Return log P(T > t): service is exponential with rate 1; the wait, if any, with rate `drain`."""
        gap = drain - 1
        x = gap * t
        # The integral of e^(−gap·s) over 0 … t, scaled by its larger exponent to stay finite on both sides of gap = 0.
        with np.errstate(divide="ignore", invalid="ignore"):
            integral = np.where(np.abs(x) < 1e-12, t, -np.expm1(-np.abs(x)) / np.abs(gap))
        exponent = np.maximum(-x, 0.0)
        result: Floats = -t + exponent + np.log(np.exp(-exponent) + waiting * integral)
        return result

    low = -log_tail  # the service alone takes this long
    high = low * (1 + 1 / np.minimum(drain, 1.0)) + 1.0
    while (too_low := log_tail_at(high) > log_tail).any():
        high = np.where(too_low, 2 * high, high)
    for _ in range(80):
        middle = (low + high) / 2
        below_root = log_tail_at(middle) > log_tail
        low, high = np.where(below_root, middle, low), np.where(below_root, high, middle)
    return unwrap_scalar((low + high) / 2 * tau)


def kingman_wait(
    utilisation: ArrayLike, service: ArrayLike, scv_arrivals: ArrayLike, scv_service: ArrayLike
) -> ScalarOrArray:
    """Return the approximate mean wait for one server with any distributions (G/G/1): ρ/(1 − ρ)·(ca² + cs²)/2·τ.

    An approximation, good near ρ = 1, exact for Poisson arrivals (scv_arrivals = 1). utilisation ρ in [0, 1); service:
    mean service time τ in seconds, > 0; scv_arrivals, scv_service: squared coefficients of variation of the gaps
    between arrivals and of the service times, >= 0; the gaps must be independent of each other. Result in seconds.
    Raises OutOfDomain. Source: J. F. C. Kingman, "The single server queue in heavy traffic", Proceedings of the
    Cambridge Philosophical Society 57 (1961).
    """
    rho = check_utilisation(utilisation)
    return unwrap_scalar(rho / (1 - rho) * _variability(scv_arrivals, scv_service) * check_positive(service, "service"))


def allen_cunneen_wait(
    servers: ArrayLike,
    utilisation: ArrayLike,
    service: ArrayLike,
    scv_arrivals: ArrayLike,
    scv_service: ArrayLike,
) -> ScalarOrArray:
    """Return the approximate mean wait in one queue for c servers with any distributions (G/G/c).

    The wait of M/M/c times (ca² + cs²)/2: an approximation, exact for M/M/c. Arguments and errors: as `mmc_wait` and
    `kingman_wait`. Source: A. O. Allen, Probability, Statistics, and Queueing Theory with Computer Science
    Applications, 2nd edition (1990).
    """
    return unwrap_scalar(mmc_wait(servers, utilisation, service) * _variability(scv_arrivals, scv_service))


def _variability(scv_arrivals: ArrayLike, scv_service: ArrayLike) -> Floats:
    scv_sum: Floats = check_non_negative(scv_arrivals, "scv_arrivals") + check_non_negative(scv_service, "scv_service")
    return scv_sum / 2


def _blocking_probability(servers: Floats, load: Floats) -> Floats:
    c, a = np.broadcast_arrays(servers, load)
    current, result = np.ones(c.shape), np.ones(c.shape)
    for k in range(1, int(c.max(initial=0)) + 1):
        current = a * current / (k + a * current)
        result = np.where(c == k, current, result)
    return result


def _waiting_probability(servers: Floats, utilisation: Floats) -> Floats:
    blocking = _blocking_probability(servers, servers * utilisation)
    waiting: Floats = blocking / (1 - utilisation * (1 - blocking))
    return waiting
