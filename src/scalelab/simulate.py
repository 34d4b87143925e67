"""Simulated queues: arrivals and service times drawn from a seed, and how long each request waits.

The same arguments give the same numbers in every run. `waits` with one server is plain NumPy. Numba compiles the other
queues on first use, which takes about a second, and stores the result on disk for the next process.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalelab.theory import OutOfDomain

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]
Distribution = Literal["fixed", "exponential", "hyperexponential", "lognormal"]
Policy = Literal["random", "round robin", "two choices", "shortest"]


def poisson(rate: float, n: int, seed: int) -> Floats:
    """Return n arrival times of a Poisson process: independent exponential gaps.

    rate: arrivals per second, > 0; n >= 0; result in seconds, ascending, shape (n,). Raises OutOfDomain.
    """
    return np.cumsum(np.random.default_rng(seed).exponential(1 / _above_zero(rate, "rate"), _size(n)))


def bursts(
    rate: float, n: int, seed: int, *, factor: float = 4.0, share: float = 0.2, length: float | None = None
) -> Floats:
    """Return n arrival times at the same mean rate as `poisson`, but crowded into bursts.

    A Poisson process whose rate changes: it is `factor` × rate during bursts, which fill `share` of the time; the
    remaining arrivals fall into the pauses between bursts (none if factor × share = 1). The lengths of bursts and
    pauses are exponential; a burst lasts `length` seconds on average (default: 100/rate). rate: mean arrivals per
    second, > 0; n >= 0; share in (0, 1); factor from 1 to 1/share; result in seconds, ascending, shape (n,). Raises
    OutOfDomain. Source: W. Fischer and K. Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook",
    Performance Evaluation 18 (1993).
    """
    rate, n = _above_zero(rate, "rate"), _size(n)
    burst_length = _above_zero(100 / rate if length is None else length, "length")
    if not (0 < share < 1 and factor >= 1 and factor * share <= 1 + 1e-12):
        raise OutOfDomain(
            f"Expected 0 < share < 1 and 1 <= factor <= 1/share; got share {share:g}, factor {factor:g}: "
            "a burst cannot bring more than all arrivals."
        )
    rng = np.random.default_rng(seed)
    # Arrivals at rate 1, on a clock whose speed is the current rate of the process.
    unit_times = np.cumsum(rng.exponential(1.0, n))
    mean_lengths = np.array([burst_length, burst_length * (1 - share) / share])
    speed = np.array([factor, max(1 - factor * share, 0.0) / (1 - share)]) * rate
    first_phase = int(rng.random() >= share)
    times, cumulative_rate = [np.zeros(1)], [np.zeros(1)]
    while n and cumulative_rate[-1][-1] < unit_times[-1]:
        phase = (first_phase + np.arange(1024)) % 2
        durations = rng.exponential(1.0, 1024) * mean_lengths[phase]
        times.append(times[-1][-1] + np.cumsum(durations))
        cumulative_rate.append(cumulative_rate[-1][-1] + np.cumsum(durations * speed[phase]))
    arrivals: Floats = np.interp(unit_times, np.concatenate(cumulative_rate), np.concatenate(times))
    return arrivals


def service_times(distribution: Distribution, mean: float, n: int, seed: int, scv: float | None = None) -> Floats:
    """Return n independent service times in seconds, shape (n,).

    distribution: "fixed", "exponential", "hyperexponential" (a mix of short and long exponential times, scv >= 1) or
    "lognormal" (a long tail, scv > 0); mean in seconds, > 0; n >= 0; scv: squared coefficient of variation, required
    for the last two and fixed for the first two (0 and 1). Raises OutOfDomain. Source of the mix, whose two halves
    bring equal work: H. C. Tijms, Stochastic Models: An Algorithmic Approach (1994).
    """
    mean, n, rng = _above_zero(mean, "mean"), _size(n), np.random.default_rng(seed)
    min_scv = {"fixed": 0.0, "exponential": 1.0, "hyperexponential": 1.0, "lognormal": 0.0}
    if distribution not in min_scv:
        raise OutOfDomain(f"Expected a distribution among {', '.join(map(repr, min_scv))}; got {distribution!r}.")
    if distribution in ("fixed", "exponential"):
        if scv is not None and scv != min_scv[distribution]:
            raise OutOfDomain(
                f"Expected scv {min_scv[distribution]:g} or none for {distribution} times; got {scv:g}. "
                "Choose 'hyperexponential' or 'lognormal' for another."
            )
        return np.full(n, mean) if distribution == "fixed" else rng.exponential(mean, n)
    if scv is None or not min_scv[distribution] <= scv < math.inf or scv == 0:
        domain = ">= 1" if distribution == "hyperexponential" else "> 0"
        raise OutOfDomain(f"Expected scv {domain} for {distribution} times; got {scv}.")
    if distribution == "lognormal":
        return rng.lognormal(math.log(mean) - math.log1p(scv) / 2, math.sqrt(math.log1p(scv)), n)
    short = (1 + math.sqrt((scv - 1) / (scv + 1))) / 2
    means = np.where(rng.random(n) < short, mean / (2 * short), mean / (2 * (1 - short)))
    return rng.exponential(1.0, n) * means


def waits(arrivals: ArrayLike, services: ArrayLike, servers: int = 1) -> Floats:
    """Return the wait of each request in one queue, first come first served, for `servers` servers (G/G/c).

    arrivals: ascending times in seconds, shape (n,); services: seconds >= 0, same shape; servers: whole number >= 1;
    result in seconds, without the service, shape (n,). Raises OutOfDomain. Sources: D. V. Lindley, "The theory of
    queues with a single server", Proceedings of the Cambridge Philosophical Society 48 (1952); J. Kiefer and J.
    Wolfowitz, "On the theory of queues with many servers", Transactions of the AMS 78 (1955).
    """
    arrival_times, work = _check_arrivals(arrivals, services)
    servers = _size(servers, "servers", minimum=1)
    if servers == 1:
        # Work of all earlier arrivals minus the time so far; the wait is its excess over its minimum so far.
        excess = np.cumsum(work) - work - arrival_times
        return excess - np.minimum.accumulate(excess)
    result = np.empty_like(arrival_times)
    compiled(_one_queue)(arrival_times, work, np.zeros(servers), result)
    return result


def dispatched(arrivals: ArrayLike, services: ArrayLike, servers: int, policy: Policy, seed: int = 1) -> Floats:
    """Return the wait of each request if every server has its own queue and a policy picks a server at arrival.

    policy: "random"; "round robin"; "two choices" (of two different servers at random, the one with fewer requests);
    "shortest" (the server with the fewest requests; among equals, the first from a random start). Requests in service
    count. The other arguments, the result and errors: as `waits`. Source of two choices: M. Mitzenmacher, "The power of
    two choices in randomized load balancing", IEEE Transactions on Parallel and Distributed Systems 12 (2001).
    """
    arrival_times, work = _check_arrivals(arrivals, services)
    servers, n = _size(servers, "servers", minimum=1), len(arrival_times)
    rng = np.random.default_rng(seed)
    if policy not in get_args(Policy):
        raise OutOfDomain(
            f"Expected a policy among {', '.join(map(repr, get_args(Policy)))}; got {policy!r}. "
            "One queue before all servers is scalelab.simulate.waits."
        )
    first = np.arange(n) % servers if policy == "round robin" else rng.integers(servers, size=n)
    result = np.empty(n)
    if policy in ("random", "round robin") or servers == 1:
        compiled(_separate_queues)(arrival_times, work, first, np.zeros(servers), result)
        return result
    step = rng.integers(1, servers, size=n) if policy == "two choices" else np.ones(n, dtype=np.int64)
    probes = 2 if policy == "two choices" else servers
    compiled(_shortest_queue)(arrival_times, work, first, step, probes, servers, result)
    return result


@functools.cache
def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Return the loop compiled by Numba, and store it on disk if there is a writable folder for it."""
    import numba  # noqa: PLC0415 - takes half a second, so only for these loops

    try:
        jitted: Any = numba.njit(cache=True)(function)
    except RuntimeError:  # no writable folder: compile again in each process
        jitted = numba.njit(function)
    return jitted  # type: ignore[no-any-return]


def _one_queue(arrivals: Floats, services: Floats, free: Floats, result: Floats) -> None:
    """Fill `result` with waits; `free` is a heap of the times when the servers become free."""
    servers = len(free)
    for i in range(len(arrivals)):
        start = max(arrivals[i], free[0])
        result[i] = start - arrivals[i]
        done = start + services[i]
        slot, child = 0, 1
        while child < servers:
            if child + 1 < servers and free[child + 1] < free[child]:
                child += 1
            if free[child] >= done:
                break
            free[slot] = free[child]
            slot, child = child, 2 * child + 1
        free[slot] = done


def _separate_queues(arrivals: Floats, services: Floats, choice: Indices, free: Floats, result: Floats) -> None:
    """Fill `result` with waits; request i goes to server choice[i]."""
    for i in range(len(arrivals)):
        server = choice[i]
        start = max(arrivals[i], free[server])
        result[i] = start - arrivals[i]
        free[server] = start + services[i]


def _shortest_queue(  # noqa: PLR0917 - a compiled loop takes only arrays and numbers
    arrivals: Floats, services: Floats, first: Indices, step: Indices, probes: int, servers: int, result: Floats
) -> None:
    """Fill `result` with waits; request i goes to the shortest of `looks` queues from first[i], step[i] apart.

    Each queue is a linked list of request indices that starts with the request in service; a probe of a queue removes
    the finished requests.
    """
    count = np.zeros(servers, np.int64)
    head, tail = np.zeros(servers, np.int64), np.zeros(servers, np.int64)
    free = np.zeros(servers)
    next_request, done = np.zeros(len(arrivals), np.int64), np.zeros(len(arrivals))
    for i in range(len(arrivals)):
        now = arrivals[i]
        server = first[i]
        shortest = server
        for probe in range(probes):
            while count[server] > 0 and done[head[server]] <= now:
                head[server] = next_request[head[server]]
                count[server] -= 1
            if count[server] < count[shortest]:
                shortest = server
            if count[shortest] == 0 or probe + 1 == probes:
                break
            server += step[i]
            if server >= servers:
                server -= servers
        start = max(now, free[shortest])
        result[i] = start - now
        free[shortest] = done[i] = start + services[i]
        if count[shortest] == 0:
            head[shortest] = i
        else:
            next_request[tail[shortest]] = i
        tail[shortest] = i
        count[shortest] += 1


def _check_arrivals(arrivals: ArrayLike, services: ArrayLike) -> tuple[Floats, Floats]:
    arrival_times = np.ascontiguousarray(arrivals, dtype=np.float64)
    work = np.ascontiguousarray(services, dtype=np.float64)
    if arrival_times.ndim != 1 or arrival_times.shape != work.shape:
        raise OutOfDomain(
            f"Expected one service time for each arrival, both flat; got shapes {arrival_times.shape} and {work.shape}."
        )
    if not (np.isfinite(arrival_times).all() and (np.diff(arrival_times) >= 0).all()):
        raise OutOfDomain(
            "Expected arrivals in ascending order, all finite; got others. Sort them: numpy.sort(arrivals)."
        )
    if not (np.isfinite(work).all() and (work >= 0).all()):
        raise OutOfDomain("Expected service times >= 0, all finite; got others.")
    return arrival_times, work


def _above_zero(value: float, name: str) -> float:
    if not 0 < value < math.inf:
        raise OutOfDomain(f"Expected {name} > 0; got {value:g}.")
    return float(value)


def _size(value: int, name: str = "n", minimum: int = 0) -> int:
    if value != int(value) or value < minimum:
        raise OutOfDomain(f"Expected {name}, a whole number >= {minimum}; got {value}.")
    return int(value)
