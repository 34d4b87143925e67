"""Queueing formulas: the cost of utilisation and variability, for one server and for many.

Utilisation ρ is the share of the time that a server works: arrival rate × mean service time / servers. The scv, squared
coefficient of variation, is variance / mean²: 0 for fixed times, 1 for exponential ones. Queues are first come first
served and have no limit, except in `erlang_b`; arrivals and service times are independent of each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from scalelab.theory._domain import Answer, Floats, above_zero, answer, at_least_zero, percents, utilisations, whole


def erlang_b(servers: ArrayLike, load: ArrayLike) -> Answer:
    """Return the share of arrivals that find all servers busy and are lost (M/M/c/c).

    servers: whole number c >= 1; load: offered work in erlangs, arrival rate × mean service time, >= 0. By the
    recurrence B(k) = aB(k−1)/(k + aB(k−1)), which neither over- nor underflows as factorials do. Raises OutOfDomain.
    Source: A. K. Erlang, "Solution of some problems in the theory of probabilities of significance in automatic
    telephone exchanges" (1917).
    """
    return answer(_blocked(whole(servers, "servers"), at_least_zero(load, "load in erlangs")))


def erlang_c(servers: ArrayLike, utilisation: ArrayLike) -> Answer:
    """Return the probability that an arrival must wait (M/M/c).

    servers: whole number c >= 1; utilisation ρ in [0, 1). Raises OutOfDomain. Source: as `erlang_b`.
    """
    return answer(_delayed(whole(servers, "servers"), utilisations(utilisation)))


def mm1_time(utilisation: ArrayLike, service: ArrayLike) -> Answer:
    """Return the mean time in the system, waiting and service, with one server (M/M/1): τ/(1 − ρ).

    utilisation ρ in [0, 1); service: mean service time τ in seconds, > 0; result in seconds. Raises OutOfDomain.
    Source: L. Kleinrock, Queueing Systems, volume 1: Theory (1975).
    """
    return answer(above_zero(service, "service") / (1 - utilisations(utilisation)))


def mm1_percentile(p: ArrayLike, utilisation: ArrayLike, service: ArrayLike) -> Answer:
    """Return percentile p of the time in the system, waiting and service (M/M/1): −ln(1 − p/100)·τ/(1 − ρ).

    The time in the system is exponentially distributed. p: percent, in [0, 100); the other arguments and the source: as
    `mm1_time`. Raises OutOfDomain.
    """
    return answer(-np.log1p(-percents(p)) * above_zero(service, "service") / (1 - utilisations(utilisation)))


def md1_wait(utilisation: ArrayLike, service: ArrayLike) -> Answer:
    """Return the mean wait for one server with a fixed service time (M/D/1): ρτ/(2(1 − ρ)).

    utilisation ρ in [0, 1); service τ in seconds, > 0; result in seconds, without the service. Raises OutOfDomain.
    Source: F. Pollaczek, "Über eine Aufgabe der Wahrscheinlichkeitstheorie", Mathematische Zeitschrift 32 (1930).
    """
    rho = utilisations(utilisation)
    return answer(rho * above_zero(service, "service") / (2 * (1 - rho)))


def mmc_wait(servers: ArrayLike, utilisation: ArrayLike, service: ArrayLike) -> Answer:
    """Return the mean wait in one queue for c servers (M/M/c): C(c, ρ)·τ/(c(1 − ρ)), with C from `erlang_c`.

    servers: whole number c >= 1; utilisation ρ of each server in [0, 1); service: mean service time τ in seconds, > 0;
    result in seconds, without the service. Raises OutOfDomain. Source: L. Kleinrock, Queueing Systems, volume 1: Theory
    (1975).
    """
    c, rho, tau = whole(servers, "servers"), utilisations(utilisation), above_zero(service, "service")
    return answer(_delayed(c, rho) * tau / (c * (1 - rho)))


def mmc_time(servers: ArrayLike, utilisation: ArrayLike, service: ArrayLike) -> Answer:
    """Return the mean time in the system, waiting and service, with one queue for c servers (M/M/c).

    Arguments, errors and source: as `mmc_wait`.
    """
    return answer(mmc_wait(servers, utilisation, service) + above_zero(service, "service"))


def mmc_wait_percentile(p: ArrayLike, servers: ArrayLike, utilisation: ArrayLike, service: ArrayLike) -> Answer:
    """Return percentile p of the wait (M/M/c): 0 if at least p percent of the requests do not wait.

    p: percent, in [0, 100). The waits of the requests that wait are exponential with mean τ/(c(1 − ρ)). The other
    arguments, errors and source: as `mmc_wait`.
    """
    c, rho, tau = whole(servers, "servers"), utilisations(utilisation), above_zero(service, "service")
    with np.errstate(divide="ignore"):  # nobody waits at ρ = 0
        of_those = np.log(_delayed(c, rho)) - np.log1p(-percents(p))
    return answer(np.maximum(of_those, 0.0) * tau / (c * (1 - rho)))


def mmc_percentile(p: ArrayLike, servers: ArrayLike, utilisation: ArrayLike, service: ArrayLike) -> Answer:
    """Return percentile p of the time in the system, waiting and service (M/M/c).

    p: percent, in [0, 100). Computed by bisection on the exact distribution, to the last digits of a float. The other
    arguments, errors and source: as `mmc_wait`.
    """
    share, c, rho, tau = np.broadcast_arrays(
        percents(p), whole(servers, "servers"), utilisations(utilisation), above_zero(service, "service")
    )
    delayed, drain, log_left = _delayed(c, rho), c * (1 - rho), np.log1p(-share)  # times in units of τ from here

    def log_longer(t: Floats) -> Floats:
        """Return log P(T > t): service is exponential with rate 1; the wait, if any, with rate `drain`."""
        gap = drain - 1
        x = gap * t
        # The integral of e^(−gap·s) over 0 … t, scaled by its larger exponent to stay finite on both sides of gap = 0.
        with np.errstate(divide="ignore", invalid="ignore"):
            both = np.where(np.abs(x) < 1e-12, t, -np.expm1(-np.abs(x)) / np.abs(gap))
        slowest = np.maximum(-x, 0.0)
        result: Floats = -t + slowest + np.log(np.exp(-slowest) + delayed * both)
        return result

    low = -log_left  # the service alone takes this long
    high = low * (1 + 1 / np.minimum(drain, 1.0)) + 1.0
    while (short := log_longer(high) > log_left).any():
        high = np.where(short, 2 * high, high)
    for _ in range(80):
        middle = (low + high) / 2
        above = log_longer(middle) > log_left
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return answer((low + high) / 2 * tau)


def kingman_wait(utilisation: ArrayLike, service: ArrayLike, scv_arrivals: ArrayLike, scv_service: ArrayLike) -> Answer:
    """Return the approximate mean wait for one server with any distributions (G/G/1): ρ/(1 − ρ)·(ca² + cs²)/2·τ.

    An approximation, good near ρ = 1, exact for Poisson arrivals (scv_arrivals = 1). utilisation ρ in [0, 1); service:
    mean service time τ in seconds, > 0; scv_arrivals, scv_service: squared coefficients of variation of the gaps
    between arrivals and of the service times, >= 0; the gaps must be independent of each other. Result in seconds.
    Raises OutOfDomain. Source: J. F. C. Kingman, "The single server queue in heavy traffic", Proceedings of the
    Cambridge Philosophical Society 57 (1961).
    """
    rho = utilisations(utilisation)
    return answer(rho / (1 - rho) * _variability(scv_arrivals, scv_service) * above_zero(service, "service"))


def allen_cunneen_wait(
    servers: ArrayLike,
    utilisation: ArrayLike,
    service: ArrayLike,
    scv_arrivals: ArrayLike,
    scv_service: ArrayLike,
) -> Answer:
    """Return the approximate mean wait in one queue for c servers with any distributions (G/G/c).

    The wait of M/M/c times (ca² + cs²)/2: an approximation, exact for M/M/c. Arguments and errors: as `mmc_wait` and
    `kingman_wait`. Source: A. O. Allen, Probability, Statistics, and Queueing Theory with Computer Science
    Applications, 2nd edition (1990).
    """
    return answer(mmc_wait(servers, utilisation, service) * _variability(scv_arrivals, scv_service))


def _variability(scv_arrivals: ArrayLike, scv_service: ArrayLike) -> Floats:
    both: Floats = at_least_zero(scv_arrivals, "scv_arrivals") + at_least_zero(scv_service, "scv_service")
    return both / 2


def _blocked(servers: Floats, load: Floats) -> Floats:
    c, a = np.broadcast_arrays(servers, load)
    current, result = np.ones(c.shape), np.ones(c.shape)
    for k in range(1, int(c.max(initial=0)) + 1):
        current = a * current / (k + a * current)
        result = np.where(c == k, current, result)
    return result


def _delayed(servers: Floats, utilisation: Floats) -> Floats:
    blocked = _blocked(servers, servers * utilisation)
    delayed: Floats = blocked / (1 - utilisation * (1 - blocked))
    return delayed
