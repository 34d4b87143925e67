"""Eviction policies: which key a full cache evicts, and so which requests of a trace are hits.

Every cache here holds `capacity` keys of equal size and, except for "static", inserts each key that it misses. Lists
are rings in arrays: `after` and `before` have an element for each key, and one more for each ring, at which it begins
and ends.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalelab.simulate import compiled
from scalelab.theory import OutOfDomain

Keys: TypeAlias = NDArray[np.int64]
Hits: TypeAlias = NDArray[np.bool_]
Policy = Literal["FIFO", "LRU", "LFU", "CLOCK", "SIEVE", "S3-FIFO", "RANDOM", "static", "Belady"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

SPARSE = 4  # keys are renumbered if one is at least this many times the number of requests
SMALL, GHOST, TWICE, MOST = 0.1, 0.9, 2, 3  # S3-FIFO: shares of the capacity, hits to move, highest count


def hits(policy: Policy, trace: ArrayLike, capacity: int, *, seed: int = 1) -> int:
    """Return how many requests of the trace are hits. Arguments and errors: as `replay`."""
    return int(np.count_nonzero(replay(policy, trace, capacity, seed=seed)))


def replay(policy: Policy, trace: ArrayLike, capacity: int, *, seed: int = 1) -> Hits:
    """Return which requests of the trace are hits in a cache that is empty at first, as booleans of shape (requests,).

    trace: the key of each request, whole numbers, shape (requests,); capacity: number of keys that the cache holds,
    >= 1; seed: for RANDOM. Raises OutOfDomain. A full cache evicts, according to the policy:

    - FIFO: the key that was inserted first. LRU: the least recently requested key. RANDOM: any key.
    - LFU: the key requested least often since it was inserted; among equals, the one with that count the longest.
    - CLOCK: the key inserted first, but a key requested since then is moved to the end instead (F. J. Corbató, 1969).
    - SIEVE: the same, but such a key stays in its place, and the hand moves on (Zhang et al., NSDI 2024).
    - S3-FIFO: new keys first enter a small queue, a tenth of the capacity. They move to the main queue, a CLOCK that
      counts to 3, if requested twice there, or again soon after (Yang et al., SOSP 2023). As in libCacheSim, until the
      first eviction the main queue takes the keys for which the small one has no room.
    - Belady: the key whose next request is furthest in the future, which must be known. No cache that inserts every
      missed key has more hits (L. A. Belady, IBM Systems Journal 5, 1966).

    "static" evicts nothing: from the start, it holds the keys requested most often in this trace.
    """
    if policy not in POLICIES:
        raise OutOfDomain(f"Expected a policy among {', '.join(map(repr, POLICIES))}; got {policy!r}.")
    if capacity != int(capacity) or capacity < 1:
        raise OutOfDomain(f"Expected capacity, a whole number >= 1; got {capacity}.")
    requests, keys = _numbered(trace)
    hit = np.zeros(len(requests), np.bool_)
    if policy == "static":
        asked = np.bincount(requests, minlength=keys)
        held = np.zeros(keys, np.bool_)
        held[np.argsort(-asked, kind="stable")[: int(capacity)]] = True
        return held[requests]
    if policy == "RANDOM":
        slots = min(int(capacity), max(keys, 1))
        thrown = np.random.default_rng(seed).integers(slots, size=len(requests))
        compiled(_random)(requests, keys, slots, thrown, hit)
        return hit
    machines = {"FIFO": _fifo, "LRU": _lru, "LFU": _lfu, "CLOCK": _clock, "SIEVE": _sieve, "S3-FIFO": _s3fifo}
    compiled(machines.get(policy, _belady))(requests, keys, int(capacity), hit)
    return hit


def _numbered(trace: ArrayLike) -> tuple[Keys, int]:
    """Return the trace with keys from 0 and a number above all keys; negative or sparse keys are renumbered."""
    given = np.asarray(trace)
    if given.ndim != 1 or not (given.dtype.kind in "iu" or given.size == 0):
        raise OutOfDomain(
            f"Expected a flat trace of whole numbers; got {given.dtype} of shape {given.shape}. "
            "numpy.unique(keys, return_inverse=True)[1] makes numbers of anything that can be sorted."
        )
    if given.size == 0:
        return np.zeros(0, np.int64), 0
    if int(given.min()) < 0 or int(given.max()) >= SPARSE * given.size:
        given = np.unique(given, return_inverse=True)[1]
    return np.ascontiguousarray(given, dtype=np.int64), int(given.max()) + 1


def _fifo(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    slots, used, hand = np.empty(min(capacity, keys), np.int64), 0, 0
    cached = np.zeros(keys, np.bool_)
    for i in range(len(trace)):
        key = trace[i]
        if cached[key]:
            hit[i] = True
            continue
        if used < capacity:
            slots[used] = key
            used += 1
        else:
            cached[slots[hand]] = False
            slots[hand] = key
            hand = hand + 1 if hand + 1 < capacity else 0
        cached[key] = True


def _random(trace: Keys, keys: int, capacity: int, thrown: Keys, hit: Hits) -> None:
    slots, used = np.empty(capacity, np.int64), 0
    cached = np.zeros(keys, np.bool_)
    for i in range(len(trace)):
        key = trace[i]
        if cached[key]:
            hit[i] = True
            continue
        slot = used
        if used < capacity:
            used += 1
        else:
            slot = thrown[i]
            cached[slots[slot]] = False
        slots[slot] = key
        cached[key] = True


def _clock(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    """The queue is a ring of slots: a key that moves to the end stays in its slot, and the hand passes it."""
    slots, used, hand = np.empty(min(capacity, keys), np.int64), 0, 0
    cached, asked = np.zeros(keys, np.bool_), np.zeros(keys, np.bool_)
    for i in range(len(trace)):
        key = trace[i]
        if cached[key]:
            hit[i] = True
            asked[key] = True
            continue
        if used < capacity:
            slots[used] = key
            used += 1
        else:
            while asked[slots[hand]]:
                asked[slots[hand]] = False
                hand = hand + 1 if hand + 1 < capacity else 0
            cached[slots[hand]] = False
            slots[hand] = key
            hand = hand + 1 if hand + 1 < capacity else 0
        cached[key] = True
        asked[key] = False


def _lru(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    """after[keys] is the most recently requested key, before[keys] the least recently requested one."""
    after, before = np.full(keys + 1, keys, np.int32), np.full(keys + 1, keys, np.int32)
    cached, used = np.zeros(keys, np.bool_), 0
    for i in range(len(trace)):
        key = trace[i]
        leaves = key
        if cached[key]:
            hit[i] = True
        elif used < capacity:
            used += 1
            leaves = keys
        else:
            leaves = before[keys]
            cached[leaves] = False
        if leaves != keys:
            after[before[leaves]] = after[leaves]
            before[after[leaves]] = before[leaves]
        cached[key] = True
        first = after[keys]
        after[key], before[key] = first, keys
        before[first] = after[keys] = key


def _sieve(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    """after[keys] is the key inserted last, before[keys] the key inserted first; the hand moves from first to last."""
    after, before = np.full(keys + 1, keys, np.int32), np.full(keys + 1, keys, np.int32)
    cached, asked = np.zeros(keys, np.bool_), np.zeros(keys, np.bool_)
    used, hand = 0, keys
    for i in range(len(trace)):
        key = trace[i]
        if cached[key]:
            hit[i] = True
            asked[key] = True
            continue
        if used < capacity:
            used += 1
        else:
            leaves = before[keys] if hand == keys else hand
            while asked[leaves]:
                asked[leaves] = False
                leaves = before[leaves]
                if leaves == keys:
                    leaves = before[keys]
            hand = before[leaves]
            after[before[leaves]] = after[leaves]
            before[after[leaves]] = before[leaves]
            cached[leaves] = False
        cached[key] = True
        asked[key] = False
        first = after[keys]
        after[key], before[key] = first, keys
        before[first] = after[keys] = key


def _lfu(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    """There is a ring for each number of uses, which begins at keys + uses; keys join it at its end."""
    uses = np.zeros(keys, np.int64)
    for i in range(len(trace)):
        uses[trace[i]] += 1
    rings = keys + uses.max() + 2 if keys else 0
    after, before = np.arange(rings), np.arange(rings)
    uses[:] = 0
    used, least = 0, 1
    for i in range(len(trace)):
        key = trace[i]
        if uses[key]:
            hit[i] = True
        elif used < capacity:
            used += 1
        else:
            leaves = after[keys + least]
            after[keys + least] = after[leaves]
            before[after[leaves]] = keys + least
            uses[leaves] = 0
        if uses[key]:
            after[before[key]] = after[key]
            before[after[key]] = before[key]
            if uses[key] == least and after[keys + least] == keys + least:
                least += 1
        else:
            least = 1
        uses[key] += 1
        ring = keys + uses[key]
        last = before[ring]
        after[key], before[key] = ring, last
        after[last] = before[ring] = key


def _s3fifo(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:  # noqa: PLR0915 - a loop has no helpers here
    """Three rings begin at keys + 0 (the small queue), + 1 (main) and + 2 (the ghosts, recently evicted keys).

    place[key] is the ring that contains the key, or 3 if none does.
    """
    after, before = np.arange(keys + 3), np.arange(keys + 3)
    place, asked = np.full(keys, 3, np.int8), np.zeros(keys, np.int8)
    size = np.zeros(4, np.int64)
    room = max(int(capacity * SMALL), 1)
    ghosts, main_room = int(capacity * GHOST), capacity - room
    evicted = False
    for i in range(len(trace)):
        key = trace[i]
        if place[key] < 2:
            hit[i] = True
            asked[key] = min(asked[key] + 1, MOST)
            continue
        goes_to = 0
        if place[key] == 2:
            after[before[key]] = after[key]
            before[after[key]] = before[key]
            size[2] -= 1
            place[key] = 3
            goes_to = 1
        ring = 1 if size[1] > main_room or size[0] == 0 else 0
        while size[0] + size[1] >= capacity:
            evicted = True
            if size[ring] == 0:
                ring = 1 - ring
            leaves = after[keys + ring]
            after[keys + ring] = after[leaves]
            before[after[leaves]] = keys + ring
            size[ring] -= 1
            if ring == 1:
                to = 1 if asked[leaves] else 3
                asked[leaves] -= 1
            else:
                to = 1 if asked[leaves] >= TWICE else 2
                asked[leaves] = 0
            if to == 2 and size[2] >= ghosts:
                if ghosts == 0:
                    to = 3
                else:
                    gone = after[keys + 2]
                    after[keys + 2] = after[gone]
                    before[after[gone]] = keys + 2
                    size[2] -= 1
                    place[gone] = 3
            place[leaves] = to
            if to < 3:
                last = before[keys + to]
                after[leaves], before[leaves] = keys + to, last
                after[last] = before[keys + to] = leaves
                size[to] += 1
        if goes_to == 0 and not evicted and size[0] >= room:
            goes_to = 1
        last = before[keys + goes_to]
        after[key], before[key] = keys + goes_to, last
        after[last] = before[keys + goes_to] = key
        size[goes_to] += 1
        place[key] = goes_to
        asked[key] = 0


def _belady(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    """The cached keys form a heap; the key at its top is the one whose next use is furthest away."""
    n = len(trace)
    following, comes = np.empty(n, np.int64), np.full(keys, n, np.int64)
    for j in range(n):
        i = n - 1 - j
        following[i] = comes[trace[i]]
        comes[trace[i]] = i
    heap, used = np.empty(min(capacity, keys), np.int64), 0
    where = np.full(keys, -1, np.int64)  # position of each key in the heap
    for i in range(n):
        key = trace[i]
        comes[key] = following[i]
        at = where[key]
        if at >= 0:
            hit[i] = True
        elif used < capacity:
            at = used
            used += 1
        else:
            where[heap[0]] = -1
            at, child = 0, 1
            while child < used:
                if child + 1 < used and comes[heap[child + 1]] > comes[heap[child]]:
                    child += 1
                if comes[heap[child]] <= comes[key]:
                    break
                heap[at] = heap[child]
                where[heap[at]] = at
                at, child = child, 2 * child + 1
        while at > 0 and comes[heap[(at - 1) // 2]] < comes[key]:
            heap[at] = heap[(at - 1) // 2]
            where[heap[at]] = at
            at = (at - 1) // 2
        heap[at] = key
        where[key] = at
