"""The same requests go to five caches with five policies: the model of `cache.js` in Python.

A thousand requests arrive per second, evenly. They ask for 10,000 keys by Zipf's law: key k in proportion to
1/(k+1)^α, where α is `skew` hundredths. Of each 2,000 requests the last `scan` per cent are a scan: keys that are asked
for once, one after the other. Every cache has `size` slots, is empty at first and takes in what it misses. `policy` is
the one that is looked at. `cache.js` agrees with this request for request, and both with `scalelab.caches`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from scalelab.theory import static_hit_rate, zipf_popularity

from ._knobs import PREVIEW_MS, Knob, State, settings
from ._random import random
from ._sample import spread

KEYS = 10_000
REQUEST_US = 1000
PERIOD = 2000
POLICIES: Final = ("FIFO", "LRU", "CLOCK", "SIEVE", "S3-FIFO")
KNOBS = (
    Knob("policy", 1, choices=POLICIES),
    Knob("size", 200, low=10, high=1000, step=10, unit="keys"),
    Knob("skew", 100, low=0, high=150, step=10, unit="hundredths"),
    Knob("scan", 0, low=0, high=50, step=5, unit="%"),
)
TRUSTED = 0.01  # a run is long enough when it knows each hit rate to ± 1 percentage point
BATCHES = 32  # from so many batches on, up to twice as many, the error is told
FIRST_BATCH = 100


class Seen(TypedDict):
    """Of one cache: hits since the start; `rate`, hits as a share of the requests that were no scan, over the later
    half of the run, and the half-width of its 95 % interval, both None while it is too short to tell; and how many
    slots hold one of the `size` most popular keys, or a scanned one."""

    hits: int
    rate: float | None
    error: float | None
    popular: int
    scanned: int


class Readout(TypedDict):
    """Counts since the start; `settled`: the caches were full when the later half of the run began."""

    now_us: int
    events: int
    requests: int
    scanned: int
    held: int
    settled: bool
    caches: dict[str, Seen]
    static: Seen


class Theory(TypedDict):
    """Hit rates of the requests that are no scan: LRU's by Che, FIFO's, that of the most popular keys, held for good.

    With a scan, the first two are what they would be if its requests came one by one between the others.
    """

    lru: float
    fifo: float
    static: float


class _Cache(Protocol):
    def ask(self, key: int) -> bool: ...

    def keys(self) -> list[int]: ...


@dataclass(slots=True)
class Model:
    """A run under way; make it with `create_model`, and move it with `advance` only."""

    knobs: State
    draws: Iterator[int]
    up_to: list[int]  # per key, of 2**32
    caches: list[_Cache]
    batch_size: int
    now: int = 0
    requests: int = 0
    scanned: int = 0
    full_at: int | None = None
    hits: list[int] = field(default_factory=lambda: [0] * (len(POLICIES) + 1))  # the last: the best static set
    batch: list[int] = field(default_factory=lambda: [0] * (len(POLICIES) + 1))
    batches: list[list[int]] = field(default_factory=list)


def create_model(state: Mapping[str, object]) -> Model:
    """Return a run that has not begun. `state` may hold seed, policy, size, skew, scan; raises KnobError."""
    knobs = settings(KNOBS, state)
    weights = list(accumulate((rank + 1) ** (-knobs["skew"] / 100) for rank in range(KEYS)))
    up_to = [math.floor(weight / weights[-1] * 2**32 + 0.5) for weight in weights]
    size = knobs["size"]
    every: list[_Cache] = [_Fifo(size), _Lru(size), _Clock(size), _Sieve(size), _S3Fifo(size)]
    return Model(knobs, random(knobs["seed"]), up_to, every, PERIOD if knobs["scan"] else FIRST_BATCH)


def advance(model: Model, ms: float) -> None:
    """Let `ms` milliseconds pass. Two halves do what the whole does."""
    until = model.now + math.floor(ms * 1000 + 0.5)
    while (model.requests + 1) * REQUEST_US <= until:
        request(model)
    model.now = until


def request(model: Model) -> int:
    """Let one request come, and return the key it asks for; a scanned key is a new one, from 10,000 upwards."""
    size = model.knobs["size"]
    if model.requests % PERIOD >= PERIOD - PERIOD * model.knobs["scan"] // 100:
        key = KEYS + model.scanned
        model.scanned += 1
    else:
        key = bisect_right(model.up_to, next(model.draws))
    model.requests += 1
    for i, answered in enumerate([*(cache.ask(key) for cache in model.caches), key < size]):
        model.hits[i] += answered
        model.batch[i] += answered
    if model.full_at is None and len(model.caches[0].keys()) == size:
        model.full_at = model.requests
    if model.requests % model.batch_size == 0:
        model.batches.append(model.batch)
        model.batch = [0] * len(model.batch)
        if len(model.batches) == 2 * BATCHES:
            twos = zip(model.batches[::2], model.batches[1::2], strict=True)
            model.batches = [[a + b for a, b in zip(*two, strict=True)] for two in twos]
            model.batch_size *= 2
    return key


def readout(model: Model) -> Readout:
    """Return where the run is, and what it measured."""
    size = model.knobs["size"]
    held = [cache.keys() for cache in model.caches]
    full = model.full_at
    return {
        "now_us": model.now,
        "events": model.requests * len(POLICIES),
        "requests": model.requests,
        "scanned": model.scanned,
        "held": len(held[0]),
        "settled": full is not None and full <= len(model.batches) // 2 * model.batch_size,
        "caches": {policy: _seen(model, i, held[i]) for i, policy in enumerate(POLICIES)},
        "static": _seen(model, len(POLICIES), list(range(size))),
    }


def theory(state: Mapping[str, object]) -> Theory:
    """Return what theory says of a run that never ends. Raises KnobError.

    As `scalelab.theory.che_hit_rate` and `fifo_hit_rate`, with the scan's requests strewn among the others: each brings
    a key that fills a slot for one stay.
    """
    knobs = settings(KNOBS, state)
    popularity = zipf_popularity(KEYS, knobs["skew"] / 100)
    scan, size = knobs["scan"] / 100, knobs["size"]
    rates = []
    for there in (_asked_within, _there_at_random):
        low, high = 0.0, float(size)
        while there(popularity * (1 - scan) * high).sum() + scan * high < size:
            high *= 2
        for _ in range(60):
            middle = (low + high) / 2
            filled = there(popularity * (1 - scan) * middle).sum() + scan * middle
            low, high = (middle, high) if filled < size else (low, middle)
        rates.append(float((popularity * there(popularity * (1 - scan) * high)).sum()))
    return {"lru": rates[0], "fifo": rates[1], "static": float(static_hit_rate(popularity, size))}


def describe(state: Mapping[str, object]) -> str:
    """Return what the figure shows at first, for a reader without JavaScript."""
    model = create_model(state)
    advance(model, PREVIEW_MS)
    seen, expected, knobs = readout(model), theory(state), model.knobs
    rates = ", ".join(
        f"{policy} {cache['rate'] * 100:.0f} %" for policy, cache in seen["caches"].items() if cache["rate"] is not None
    )
    chosen = POLICIES[knobs["policy"]]
    cache = seen["caches"][chosen]
    scan = f", and of each 2,000 requests {knobs['scan']} % are a scan" if knobs["scan"] else ""
    return (
        f"Caches for {knobs['size']:,} of 10,000 keys, asked for by Zipf's law with α = {knobs['skew'] / 100:.1f}"
        f"{scan}. After {seen['requests']:,} simulated requests the hit rates are: {rates}. Theory says "
        f"{expected['lru'] * 100:.0f} % for LRU (Che), {expected['fifo'] * 100:.0f} % for FIFO"
        f"{', if the scan came piecemeal' if scan else ''}, and {expected['static'] * 100:.0f} % for the best static "
        f"set. {chosen} holds {cache['popular']:,} of the {knobs['size']:,} most popular keys and "
        f"{cache['scanned']:,} scanned ones."
    )


def _asked_within(expected: NDArray[np.float64]) -> NDArray[np.float64]:
    asked: NDArray[np.float64] = -np.expm1(-expected)
    return asked


def _there_at_random(expected: NDArray[np.float64]) -> NDArray[np.float64]:
    return expected / (1 + expected)


def _seen(model: Model, i: int, keys: list[int]) -> Seen:
    later = [batch[i] for batch in model.batches[len(model.batches) // 2 :]]
    each = model.batch_size * (100 - model.knobs["scan"]) / 100
    return {
        "hits": model.hits[i],
        "rate": sum(later) / (len(later) * each) if later else None,
        "error": spread(later) / each if len(model.batches) >= BATCHES else None,
        "popular": sum(key < model.knobs["size"] for key in keys),
        "scanned": sum(key >= KEYS for key in keys),
    }


class _Fifo:
    def __init__(self, size: int) -> None:
        self.size = size
        self.held: OrderedDict[int, bool] = OrderedDict()  # the first to go first; whether it was asked for since

    def ask(self, key: int) -> bool:
        if key in self.held:
            self.hit(key)
            return True
        if len(self.held) == self.size:
            self.evict()
        self.held[key] = False
        return False

    def hit(self, key: int) -> None:
        pass

    def evict(self) -> None:
        self.held.popitem(last=False)

    def keys(self) -> list[int]:
        return list(self.held)


class _Lru(_Fifo):
    def hit(self, key: int) -> None:
        self.held.move_to_end(key)


class _Clock(_Fifo):
    def hit(self, key: int) -> None:
        self.held[key] = True

    def evict(self) -> None:
        while True:
            key, asked = self.held.popitem(last=False)
            if not asked:
                return
            self.held[key] = False


class _Sieve(_Clock):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.ahead: deque[int] = deque()  # from the hand to the newest
        self.passed: deque[int] = deque()  # from the oldest to the hand

    def ask(self, key: int) -> bool:
        answered = super().ask(key)
        if not answered:
            self.ahead.append(key)
        return answered

    def evict(self) -> None:
        while True:
            if not self.ahead:
                self.ahead, self.passed = self.passed, self.ahead
            key = self.ahead.popleft()
            if not self.held[key]:
                break
            self.held[key] = False
            self.passed.append(key)
        del self.held[key]
        if not self.ahead:  # the hand is at the end: it begins anew, below the key that comes
            self.ahead, self.passed = self.passed, self.ahead


class _S3Fifo:
    """A small queue, a main one, and the keys that the small one threw out lately."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.room, self.remembered = max(int(size * 0.1), 1), int(size * 0.9)
        self.small: OrderedDict[int, int] = OrderedDict()  # how often each was asked for since it came, up to 3
        self.main: OrderedDict[int, int] = OrderedDict()
        self.ghosts: OrderedDict[int, None] = OrderedDict()
        self.evicted = False

    def ask(self, key: int) -> bool:
        for held in (self.small, self.main):
            if key in held:
                held[key] = min(held[key] + 1, 3)
                return True
        known = self.ghosts.pop(key, 0) is None
        from_main = len(self.main) > self.size - self.room or not self.small
        while len(self.small) + len(self.main) >= self.size:
            self.evicted = True
            if not (self.main if from_main else self.small):
                from_main = not from_main
            if from_main:
                self._from_main()
            else:
                self._from_small()
        full = not self.evicted and len(self.small) >= self.room
        (self.main if known or full else self.small)[key] = 0
        return False

    def _from_main(self) -> None:
        key, asked = self.main.popitem(last=False)
        if asked:
            self.main[key] = asked - 1

    def _from_small(self) -> None:
        key, asked = self.small.popitem(last=False)
        if asked > 1:
            self.main[key] = 0
        elif self.remembered:
            if len(self.ghosts) >= self.remembered:
                self.ghosts.popitem(last=False)
            self.ghosts[key] = None

    def keys(self) -> list[int]:
        return [*self.small, *self.main]
