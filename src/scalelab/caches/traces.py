"""Traces: the key of each request as a whole number, in the order of the requests."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from scalelab import theory
from scalelab.theory import OutOfDomain

Keys: TypeAlias = NDArray[np.int64]


def zipf(keys: int, alpha: float, requests: int, seed: int) -> Keys:
    """Return independent requests with Zipf popularity: key k is requested in proportion to 1/(k+1)^α.

    keys: number of keys, >= 1, key 0 the most popular; alpha: >= 0, 0 if all keys are equally popular; requests: >= 0;
    result of shape (requests,). The popularity itself is `scalelab.theory.zipf_popularity`. Raises OutOfDomain.
    """
    cumulative = np.cumsum(theory.zipf_popularity(keys, alpha))
    draws = np.random.default_rng(seed).random(_whole(requests, "requests", minimum=0))
    return np.searchsorted(cumulative / cumulative[-1], draws, side="right").astype(np.int64)


def loop(keys: int, requests: int) -> Keys:
    """Return requests that repeat all keys in order: 0, 1, …, keys−1, 0, 1, …

    keys: >= 1; requests: >= 0; result of shape (requests,). Raises OutOfDomain.
    """
    return np.arange(_whole(requests, "requests", minimum=0)) % _whole(keys, "keys")


def scan(keys: int, alpha: float, requests: int, seed: int, *, every: int, length: int) -> Keys:
    """Return Zipf requests with scans between them: after every `every` of them, `length` keys requested once each.

    A scanned key is new, numbered from `keys` upwards, and never requested again. every: >= 1; length: >= 0; requests:
    number of both kinds together. The other arguments, the result and errors: as `zipf`, whose requests these are, in
    order.
    """
    every, length = _whole(every, "every"), _whole(length, "length", minimum=0)
    position = np.arange(_whole(requests, "requests", minimum=0)) % (every + length)
    scanned = position >= every
    trace = np.empty(len(position), np.int64)
    trace[~scanned] = zipf(keys, alpha, int((~scanned).sum()), seed)
    trace[scanned] = keys + np.arange(int(scanned.sum()))
    return trace


def shifting(keys: int, alpha: float, requests: int, seed: int, *, every: int) -> Keys:
    """Return Zipf requests for news: the newest key is the most popular one.

    After every `every` requests there is a newer key, so that each of the others falls by one rank and the least
    popular is no longer requested. every: >= 1. keys: number of keys requested at one time; newer keys are numbered
    upwards from there. The other arguments, the result and errors: as `zipf`.
    """
    rank = zipf(keys, alpha, requests, seed)
    newest = keys - 1 + np.arange(len(rank)) // _whole(every, "every")
    return newest - rank


def _whole(value: int, name: str, minimum: int = 1) -> int:
    if value != int(value) or value < minimum:
        raise OutOfDomain(f"Expected {name}, a whole number >= {minimum}; got {value}.")
    return int(value)
