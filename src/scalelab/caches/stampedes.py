"""Stampedes: one popular value expires, and until it is recomputed, every request misses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from scalelab.simulate import compiled
from scalelab.theory import OutOfDomain

Floats: TypeAlias = NDArray[np.float64]
Cure = Literal["nothing", "lock", "single-flight", "XFetch"]
CURES: tuple[Cure, ...] = get_args(Cure)


@dataclass(frozen=True)
class Stampede:
    """Results for one key: counts of events, and the simulated `seconds`.

    requests: number of requests; recomputations: number that they started; waited: requests that waited for a new value
    because the old one had expired. cycle: seconds, see `per_expiry`.
    """

    requests: int
    recomputations: int
    waited: int
    seconds: float
    cycle: float

    @property
    def per_expiry(self) -> float:
        """Recomputations per `cycle` (TTL, recomputation and mean wait for the next request); 1 would be enough."""
        return self.recomputations * self.cycle / self.seconds


def stampede(
    rate: float,
    recompute: float,
    ttl: float,
    cure: Cure = "nothing",
    *,
    beta: float = 1.0,
    instances: int = 1,
    expiries: int = 1000,
    seed: int = 1,
) -> Stampede:
    """Simulate requests for one key whose value lives for `ttl` seconds after it was written.

    rate: requests per second, Poisson, > 0; recompute: seconds to compute a new value, > 0; ttl: seconds, > 0. cure:

    - nothing: each request that finds the value expired recomputes it, and waits for it.
    - lock: only the first such request recomputes it; the others wait for its value.
    - single-flight: the same inside each of `instances` processes, over which requests are spread at random.
    - XFetch: as with nothing, but requests before the expiry may also recompute it, with a probability that rises as
      the expiry nears: if now − recompute·β·ln U >= expiry, U uniform in (0, 1]; they are answered with the old value.

    expiries: how many cycles to simulate, >= 1. Raises OutOfDomain. Source: A. Vattani, F. Chierichetti and K.
    Lowenstein, "Optimal probabilistic cache stampede prevention", PVLDB 8 (2015).
    """
    for name, value in {"rate": rate, "recompute": recompute, "ttl": ttl}.items():
        if not 0 < value < math.inf:
            raise OutOfDomain(f"Expected {name} > 0; got {value:g}.")
    for name, number in {"instances": instances, "expiries": expiries}.items():
        if number != int(number) or number < 1:
            raise OutOfDomain(f"Expected {name}, a whole number >= 1; got {number}.")
    if not 0 <= beta < math.inf:
        raise OutOfDomain(f"Expected beta >= 0; got {beta:g}.")
    if cure not in CURES:
        raise OutOfDomain(f"Expected a cure among {', '.join(map(repr, CURES))}; got {cure!r}.")
    cycle = ttl + recompute + 1 / rate
    rng = np.random.default_rng(seed)
    n = math.ceil(expiries * cycle * rate)
    arrivals = np.cumsum(rng.exponential(1 / rate, n))
    early = rng.exponential(recompute * beta, n) if cure == "XFetch" else np.zeros(n)
    flights = {"lock": 1, "single-flight": int(instances)}.get(cure, 0)
    flight = rng.integers(flights, size=n) if flights else np.full(n, -1)
    counts = np.zeros(2, np.int64)
    compiled(_simulate_key)(arrivals, early, flight, max(flights, 1), recompute, ttl, counts)
    return Stampede(n, int(counts[0]), int(counts[1]), float(arrivals[-1]), cycle)


def _simulate_key(  # noqa: PLR0917 - a compiled loop takes only arrays and numbers
    arrivals: Floats,
    early: Floats,
    flight: NDArray[np.int64],
    flights: int,
    recompute: float,
    ttl: float,
    counts: NDArray[np.int64],
) -> None:
    """Count recomputations and waits. Recomputations take equally long, so they end in the order of their starts."""
    start_times, finished = np.empty(len(arrivals)), 0
    busy_until = np.full(flights, -1.0)
    expiry, started = ttl, 0
    for i in range(len(arrivals)):
        now = arrivals[i]
        while finished < started and start_times[finished] + recompute <= now:
            expiry = start_times[finished] + recompute + ttl
            finished += 1
        if now + early[i] < expiry:
            continue
        if now >= expiry:
            counts[1] += 1
        if flight[i] >= 0:
            if busy_until[flight[i]] > now:
                continue
            busy_until[flight[i]] = now + recompute
        start_times[started] = now
        started += 1
    counts[0] = started
