"""Hit rates of caches, from the keys' popularity and the capacity, or from the time to live.

All formulas assume independent requests: which key is requested next does not depend on earlier requests. A capacity
counts keys of equal size; a popularity is the probability of each key.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scalelab.theory._domain import Answer, Floats, OutOfDomain, answer, at_least_zero, floats, require, whole


def zipf_popularity(keys: int, alpha: float) -> Floats:
    """Return the probability of each key by Zipf's law, proportional to 1/rank^α.

    keys: whole number >= 1; alpha: >= 0, 0 if all keys are equally popular; result of shape (keys,), the most popular
    first, sum 1. Raises OutOfDomain. Source: L. Breslau et al., "Web caching and Zipf-like distributions", INFOCOM
    (1999).
    """
    ranks = np.arange(1, int(whole(keys, "keys")) + 1)
    weights = ranks ** -float(at_least_zero(alpha, "alpha"))
    popularity: Floats = weights / weights.sum()
    return popularity


def che_time(popularity: ArrayLike, capacity: ArrayLike) -> Answer:
    """Return after how many requests LRU evicts a key that is not requested again: T with Σ(1 − e^(−pT)) = capacity.

    popularity: shape (keys,), sum 1; capacity: keys, >= 0; result in requests, infinite if all keys fit. Raises
    OutOfDomain. Source: H. Che, Y. Tung and Z. Wang, "Hierarchical Web caching systems: modeling, design and
    experimental results", IEEE Journal on Selected Areas in Communications 20 (2002).
    """
    return answer(_time(_popularity(popularity), at_least_zero(capacity, "capacity"), _asked_within))


def che_hit_rate(popularity: ArrayLike, capacity: ArrayLike) -> Answer:
    """Return the approximate hit rate of LRU: Σ p(1 − e^(−pT)), with T from `che_time`.

    Arguments and errors: as `che_time`. Sources: as there; why it is so accurate: C. Fricker, P. Robert and J. Roberts,
    "A versatile and accurate approximation for LRU cache performance", ITC 24 (2012).
    """
    return _hit_rate(popularity, capacity, _asked_within)


def fifo_hit_rate(popularity: ArrayLike, capacity: ArrayLike) -> Answer:
    """Return the approximate hit rate of FIFO, and of RANDOM: Σ p·pT/(1 + pT) with Σ pT/(1 + pT) = capacity.

    Arguments and errors: as `che_time`. Sources: for the equality of both, E. Gelenbe, "A unified approach to the
    evaluation of a class of replacement algorithms", IEEE Transactions on Computers 22 (1973); for the approximation,
    C. Fricker, P. Robert and J. Roberts, as for `che_hit_rate`.
    """
    return _hit_rate(popularity, capacity, _there_at_random)


def static_hit_rate(popularity: ArrayLike, capacity: ArrayLike) -> Answer:
    """Return the hit rate of a cache that always holds the most popular keys: the sum of their probabilities.

    In the long run, no policy that does not know the next request has a higher hit rate. capacity: whole number of
    keys, >= 0. popularity and errors: as `che_time`.
    """
    up_to = np.concatenate([[0.0], np.cumsum(-np.sort(-_popularity(popularity)))])
    held = at_least_zero(capacity, "capacity")
    require(held == np.floor(held), held, "capacity, a whole number of keys")
    return answer(up_to[np.minimum(held, len(up_to) - 1).astype(np.int64)])


def ttl_hit_rate(rate: ArrayLike, ttl: ArrayLike) -> Answer:
    """Return the hit rate of one key that is kept for `ttl` seconds after each fetch: λT/(1 + λT).

    rate λ: requests per second for this key, Poisson, >= 0; ttl T: seconds, >= 0. Each fetch is followed by λT hits on
    average. Raises OutOfDomain.
    """
    each = at_least_zero(rate, "rate") * at_least_zero(ttl, "ttl")
    return answer(each / (1 + each))


def ttl_stale_share(rate: ArrayLike, ttl: ArrayLike, changes: ArrayLike) -> Answer:
    """Return the share of a key's answers that are out of date, if the source changes at random moments.

    (λT − λ(1 − e^(−μT))/μ)/(1 + λT): a hit has any age from 0 to T with equal probability, and the source has not
    changed since with probability e^(−μ·age). rate λ, ttl T: as `ttl_hit_rate`; changes μ: per second, Poisson, >= 0.
    Raises OutOfDomain.
    """
    lam, life, mu = np.broadcast_arrays(
        at_least_zero(rate, "rate"), at_least_zero(ttl, "ttl"), at_least_zero(changes, "changes")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        fresh_for = np.where(mu * life > 0, -np.expm1(-mu * life) / mu, life)
    return answer(lam * (life - fresh_for) / (1 + lam * life))


def _asked_within(expected: Floats) -> Floats:
    asked: Floats = -np.expm1(-expected)
    return asked


def _there_at_random(expected: Floats) -> Floats:
    return expected / (1 + expected)


def _popularity(popularity: ArrayLike) -> Floats:
    p = floats(popularity)
    if p.ndim != 1 or not p.size or not (p >= 0).all() or not np.isclose(p.sum(), 1, rtol=0, atol=1e-6):
        raise OutOfDomain(
            f"Expected a flat array of probabilities whose sum is 1; got shape {p.shape}, sum {p.sum():g}. "
            "Divide counts by their sum."
        )
    return p


def _hit_rate(popularity: ArrayLike, capacity: ArrayLike, there: Callable[[Floats], Floats]) -> Answer:
    p, held = _popularity(popularity), at_least_zero(capacity, "capacity")
    time = _time(p, held, there)
    rates = [float((p * there(p * t)).sum()) if np.isfinite(t) else 1.0 for t in np.ravel(time)]
    return answer(np.reshape(rates, held.shape))


def _time(p: Floats, capacity: Floats, there: Callable[[Floats], Floats]) -> Floats:
    """Return T with Σ there(pT) = capacity, by bisection to the last digits of a float; infinite if all keys fit."""
    asked = p[p > 0]
    times = []
    for held in np.ravel(capacity):
        if held == 0 or held >= len(asked):
            times.append(0.0 if held == 0 else np.inf)
            continue
        low = high = float(held)  # each request adds at most one key
        while there(asked * high).sum() < held:
            high *= 2
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if there(asked * middle).sum() < held else (low, middle)
        times.append((low + high) / 2)
    return np.reshape(np.array(times), capacity.shape)
