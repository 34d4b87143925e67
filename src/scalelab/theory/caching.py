"""Hit rates of caches, from the keys' popularity and the capacity, or from the time to live.

All formulas assume independent requests: the probability that a key is requested next does not depend on earlier
requests. A capacity counts keys of equal size; a popularity holds the probability of each key.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scalelab.theory._domain import (
    Floats,
    OutOfDomain,
    ScalarOrArray,
    check_non_negative,
    check_whole,
    floats,
    require,
    unwrap_scalar,
)


def zipf_popularity(keys: int, alpha: float) -> Floats:
    """Return the probability of each key by Zipf's law, proportional to 1/rank^α.

    keys: whole number >= 1; alpha: >= 0, 0 if all keys are equally popular; result of shape (keys,), the most popular
    first, sum 1. Raises OutOfDomain. Source: L. Breslau et al., "Web caching and Zipf-like distributions", INFOCOM
    (1999).
    """
    ranks = np.arange(1, int(check_whole(keys, "keys")) + 1)
    weights = ranks ** -float(check_non_negative(alpha, "alpha"))
    popularity: Floats = weights / weights.sum()
    return popularity


def che_time(popularity: ArrayLike, capacity: ArrayLike) -> ScalarOrArray:
    """Return the number of requests after which LRU evicts an unused key: T with Σ(1 − e^(−pT)) = capacity.

    popularity: shape (keys,), sum 1; capacity: keys, >= 0; result in requests, infinite if all keys fit. Raises
    OutOfDomain. Source: H. Che, Y. Tung and Z. Wang, "Hierarchical Web caching systems: modeling, design and
    experimental results", IEEE Journal on Selected Areas in Communications 20 (2002).
    """
    return unwrap_scalar(
        _characteristic_time(_check_popularity(popularity), check_non_negative(capacity, "capacity"), _lru_occupancy)
    )


def che_hit_rate(popularity: ArrayLike, capacity: ArrayLike) -> ScalarOrArray:
    """Return the approximate hit rate of LRU: Σ p(1 − e^(−pT)), with T from `che_time`.

    Arguments and errors: as `che_time`. Sources: as `che_time`; on its accuracy, C. Fricker, P. Robert and J. Roberts,
    "A versatile and accurate approximation for LRU cache performance", ITC 24 (2012).
    """
    return _hit_rate(popularity, capacity, _lru_occupancy)


def fifo_hit_rate(popularity: ArrayLike, capacity: ArrayLike) -> ScalarOrArray:
    """Return the approximate hit rate of FIFO, and of RANDOM: Σ p·pT/(1 + pT) with Σ pT/(1 + pT) = capacity.

    Arguments and errors: as `che_time`. Sources: for the equality of both, E. Gelenbe, "A unified approach to the
    evaluation of a class of replacement algorithms", IEEE Transactions on Computers 22 (1973); for the approximation,
    C. Fricker, P. Robert and J. Roberts, as for `che_hit_rate`.
    """
    return _hit_rate(popularity, capacity, _fifo_occupancy)


def static_hit_rate(popularity: ArrayLike, capacity: ArrayLike) -> ScalarOrArray:
    """Return the hit rate of a cache that always holds the most popular keys: the sum of their probabilities.

    In the long run, no policy without knowledge of future requests has a higher hit rate. capacity: whole number of
    keys, >= 0. popularity and errors: as `che_time`.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(-np.sort(-_check_popularity(popularity)))])
    sizes = check_non_negative(capacity, "capacity")
    require(sizes == np.floor(sizes), sizes, "capacity, a whole number of keys")
    return unwrap_scalar(cumulative[np.minimum(sizes, len(cumulative) - 1).astype(np.int64)])


def ttl_hit_rate(rate: ArrayLike, ttl: ArrayLike) -> ScalarOrArray:
    """Return the hit rate of one key that is kept for `ttl` seconds after each fetch: λT/(1 + λT).

    rate λ: requests per second for this key, Poisson, >= 0; ttl T: seconds, >= 0. Each fetch is followed by λT hits on
    average. Raises OutOfDomain.
    """
    hits_per_fetch = check_non_negative(rate, "rate") * check_non_negative(ttl, "ttl")
    return unwrap_scalar(hits_per_fetch / (1 + hits_per_fetch))


def ttl_stale_share(rate: ArrayLike, ttl: ArrayLike, changes: ArrayLike) -> ScalarOrArray:
    """Return the share of a key's answers that are stale, if the source changes at random moments.

    (λT − λ(1 − e^(−μT))/μ)/(1 + λT): the age of a value at a hit is uniform between 0 and T, and the source has not
    changed within that age with probability e^(−μ·age). rate λ, ttl T: as `ttl_hit_rate`; changes μ: per second,
    Poisson, >= 0. Raises OutOfDomain.
    """
    lam, lifetime, mu = np.broadcast_arrays(
        check_non_negative(rate, "rate"), check_non_negative(ttl, "ttl"), check_non_negative(changes, "changes")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        fresh_time = np.where(mu * lifetime > 0, -np.expm1(-mu * lifetime) / mu, lifetime)
    return unwrap_scalar(lam * (lifetime - fresh_time) / (1 + lam * lifetime))


def _lru_occupancy(requests: Floats) -> Floats:
    occupancy: Floats = -np.expm1(-requests)
    return occupancy


def _fifo_occupancy(requests: Floats) -> Floats:
    return requests / (1 + requests)


def _check_popularity(popularity: ArrayLike) -> Floats:
    p = floats(popularity)
    if p.ndim != 1 or not p.size or not (p >= 0).all() or not np.isclose(p.sum(), 1, rtol=0, atol=1e-6):
        raise OutOfDomain(
            f"Expected a flat array of probabilities whose sum is 1; got shape {p.shape}, sum {p.sum():g}. "
            "Divide counts by their sum."
        )
    return p


def _hit_rate(popularity: ArrayLike, capacity: ArrayLike, occupancy: Callable[[Floats], Floats]) -> ScalarOrArray:
    p, sizes = _check_popularity(popularity), check_non_negative(capacity, "capacity")
    times = _characteristic_time(p, sizes, occupancy)
    rates = [float((p * occupancy(p * t)).sum()) if np.isfinite(t) else 1.0 for t in np.ravel(times)]
    return unwrap_scalar(np.reshape(rates, sizes.shape))


def _characteristic_time(p: Floats, capacity: Floats, occupancy: Callable[[Floats], Floats]) -> Floats:
    """Return T with Σ occupancy(pT) = capacity, by bisection to the precision of a float; infinite if all keys fit."""
    requested = p[p > 0]
    times = []
    for size in np.ravel(capacity):
        if size == 0 or size >= len(requested):
            times.append(0.0 if size == 0 else np.inf)
            continue
        low = high = float(size)  # each request adds at most one key
        while occupancy(requested * high).sum() < size:
            high *= 2
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if occupancy(requested * middle).sum() < size else (low, middle)
        times.append((low + high) / 2)
    return np.reshape(np.array(times), capacity.shape)
