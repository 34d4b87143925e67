"""Eviction policies: which key a full cache evicts, and so which requests of a trace are hits.

Every cache here holds `capacity` keys of equal size and, except for "static", inserts each key that it misses. Linked
lists are rings in two arrays: `after` and `before` have an element for each key, and one more for each ring, its head.
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

SPARSE_FACTOR = 4  # keys are renumbered if the largest is at least this many times the number of requests
SMALL_SHARE, GHOST_SHARE, MOVE_AT_HITS, MAX_HITS = 0.1, 0.9, 2, 3  # S3-FIFO: shares of the capacity; numbers of hits


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
    requests, keys = _renumber(trace)
    hit = np.zeros(len(requests), np.bool_)
    if policy == "static":
        request_counts = np.bincount(requests, minlength=keys)
        cached = np.zeros(keys, np.bool_)
        cached[np.argsort(-request_counts, kind="stable")[: int(capacity)]] = True
        return cached[requests]
    if policy == "RANDOM":
        slots = min(int(capacity), max(keys, 1))
        victim_slots = np.random.default_rng(seed).integers(slots, size=len(requests))
        compiled(_random)(requests, keys, slots, victim_slots, hit)
        return hit
    loops = {"FIFO": _fifo, "LRU": _lru, "LFU": _lfu, "CLOCK": _clock, "SIEVE": _sieve, "S3-FIFO": _s3fifo}
    compiled(loops.get(policy, _belady))(requests, keys, int(capacity), hit)
    return hit


def _renumber(trace: ArrayLike) -> tuple[Keys, int]:
    """Return the trace with keys from 0, and a number above all keys; negative or sparse keys get new numbers."""
    keys = np.asarray(trace)
    if keys.ndim != 1 or not (keys.dtype.kind in "iu" or keys.size == 0):
        raise OutOfDomain(
            f"Expected a flat trace of whole numbers; got {keys.dtype} of shape {keys.shape}. "
            "numpy.unique(keys, return_inverse=True)[1] makes numbers of anything that can be sorted."
        )
    if keys.size == 0:
        return np.zeros(0, np.int64), 0
    if int(keys.min()) < 0 or int(keys.max()) >= SPARSE_FACTOR * keys.size:
        keys = np.unique(keys, return_inverse=True)[1]
    return np.ascontiguousarray(keys, dtype=np.int64), int(keys.max()) + 1


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


def _random(trace: Keys, keys: int, capacity: int, victim_slots: Keys, hit: Hits) -> None:
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
            slot = victim_slots[i]
            cached[slots[slot]] = False
        slots[slot] = key
        cached[key] = True


def _clock(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    """The queue is a circular buffer: a key that moves to the end stays in its slot, and the hand passes it."""
    slots, used, hand = np.empty(min(capacity, keys), np.int64), 0, 0
    cached, referenced = np.zeros(keys, np.bool_), np.zeros(keys, np.bool_)
    for i in range(len(trace)):
        key = trace[i]
        if cached[key]:
            hit[i] = True
            referenced[key] = True
            continue
        if used < capacity:
            slots[used] = key
            used += 1
        else:
            while referenced[slots[hand]]:
                referenced[slots[hand]] = False
                hand = hand + 1 if hand + 1 < capacity else 0
            cached[slots[hand]] = False
            slots[hand] = key
            hand = hand + 1 if hand + 1 < capacity else 0
        cached[key] = True
        referenced[key] = False


def _lru(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    """after[keys] is the most recently requested key, before[keys] the least recently requested one."""
    after, before = np.full(keys + 1, keys, np.int32), np.full(keys + 1, keys, np.int32)
    cached, used = np.zeros(keys, np.bool_), 0
    for i in range(len(trace)):
        key = trace[i]
        unlinked = key
        if cached[key]:
            hit[i] = True
        elif used < capacity:
            used += 1
            unlinked = keys
        else:
            unlinked = before[keys]
            cached[unlinked] = False
        if unlinked != keys:
            after[before[unlinked]] = after[unlinked]
            before[after[unlinked]] = before[unlinked]
        cached[key] = True
        first = after[keys]
        after[key], before[key] = first, keys
        before[first] = after[keys] = key


def _sieve(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    """after[keys] is the key inserted last, before[keys] the key inserted first; the hand moves from first to last."""
    after, before = np.full(keys + 1, keys, np.int32), np.full(keys + 1, keys, np.int32)
    cached, visited = np.zeros(keys, np.bool_), np.zeros(keys, np.bool_)
    used, hand = 0, keys
    for i in range(len(trace)):
        key = trace[i]
        if cached[key]:
            hit[i] = True
            visited[key] = True
            continue
        if used < capacity:
            used += 1
        else:
            victim = before[keys] if hand == keys else hand
            while visited[victim]:
                visited[victim] = False
                victim = before[victim]
                if victim == keys:
                    victim = before[keys]
            hand = before[victim]
            after[before[victim]] = after[victim]
            before[after[victim]] = before[victim]
            cached[victim] = False
        cached[key] = True
        visited[key] = False
        first = after[keys]
        after[key], before[key] = first, keys
        before[first] = after[keys] = key


def _lfu(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    """Each number of uses has a ring, whose head is keys + uses; keys join it at its end."""
    uses = np.zeros(keys, np.int64)
    for i in range(len(trace)):
        uses[trace[i]] += 1
    rings = keys + uses.max() + 2 if keys else 0
    after, before = np.arange(rings), np.arange(rings)
    uses[:] = 0
    used, min_uses = 0, 1
    for i in range(len(trace)):
        key = trace[i]
        if uses[key]:
            hit[i] = True
        elif used < capacity:
            used += 1
        else:
            victim = after[keys + min_uses]
            after[keys + min_uses] = after[victim]
            before[after[victim]] = keys + min_uses
            uses[victim] = 0
        if uses[key]:
            after[before[key]] = after[key]
            before[after[key]] = before[key]
            if uses[key] == min_uses and after[keys + min_uses] == keys + min_uses:
                min_uses += 1
        else:
            min_uses = 1
        uses[key] += 1
        ring = keys + uses[key]
        last = before[ring]
        after[key], before[key] = ring, last
        after[last] = before[ring] = key


def _s3fifo(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:  # noqa: PLR0915 - a loop has no helpers here
    """The heads of three rings are keys + 0 (the small queue), + 1 (main) and + 2 (the ghosts, recently evicted keys).

    ring_of[key] is the ring that contains the key, or 3 if none does.
    """
    after, before = np.arange(keys + 3), np.arange(keys + 3)
    ring_of, hit_count = np.full(keys, 3, np.int8), np.zeros(keys, np.int8)
    size = np.zeros(4, np.int64)
    small_capacity = max(int(capacity * SMALL_SHARE), 1)
    ghost_capacity, main_capacity = int(capacity * GHOST_SHARE), capacity - small_capacity
    has_evicted = False
    for i in range(len(trace)):
        key = trace[i]
        if ring_of[key] < 2:
            hit[i] = True
            hit_count[key] = min(hit_count[key] + 1, MAX_HITS)
            continue
        target = 0
        if ring_of[key] == 2:
            after[before[key]] = after[key]
            before[after[key]] = before[key]
            size[2] -= 1
            ring_of[key] = 3
            target = 1
        ring = 1 if size[1] > main_capacity or size[0] == 0 else 0
        while size[0] + size[1] >= capacity:
            has_evicted = True
            if size[ring] == 0:
                ring = 1 - ring
            victim = after[keys + ring]
            after[keys + ring] = after[victim]
            before[after[victim]] = keys + ring
            size[ring] -= 1
            if ring == 1:
                destination = 1 if hit_count[victim] else 3
                hit_count[victim] -= 1
            else:
                destination = 1 if hit_count[victim] >= MOVE_AT_HITS else 2
                hit_count[victim] = 0
            if destination == 2 and size[2] >= ghost_capacity:
                if ghost_capacity == 0:
                    destination = 3
                else:
                    ghost = after[keys + 2]
                    after[keys + 2] = after[ghost]
                    before[after[ghost]] = keys + 2
                    size[2] -= 1
                    ring_of[ghost] = 3
            ring_of[victim] = destination
            if destination < 3:
                last = before[keys + destination]
                after[victim], before[victim] = keys + destination, last
                after[last] = before[keys + destination] = victim
                size[destination] += 1
        if target == 0 and not has_evicted and size[0] >= small_capacity:
            target = 1
        last = before[keys + target]
        after[key], before[key] = keys + target, last
        after[last] = before[keys + target] = key
        size[target] += 1
        ring_of[key] = target
        hit_count[key] = 0


def _belady(trace: Keys, keys: int, capacity: int, hit: Hits) -> None:
    """The cached keys form a heap; the key at its top is the one whose next use is furthest away."""
    n = len(trace)
    next_request, next_use = np.empty(n, np.int64), np.full(keys, n, np.int64)
    for j in range(n):
        i = n - 1 - j
        next_request[i] = next_use[trace[i]]
        next_use[trace[i]] = i
    heap, used = np.empty(min(capacity, keys), np.int64), 0
    position = np.full(keys, -1, np.int64)  # position of each key in the heap
    for i in range(n):
        key = trace[i]
        next_use[key] = next_request[i]
        slot = position[key]
        if slot >= 0:
            hit[i] = True
        elif used < capacity:
            slot = used
            used += 1
        else:
            position[heap[0]] = -1
            slot, child = 0, 1
            while child < used:
                if child + 1 < used and next_use[heap[child + 1]] > next_use[heap[child]]:
                    child += 1
                if next_use[heap[child]] <= next_use[key]:
                    break
                heap[slot] = heap[child]
                position[heap[slot]] = slot
                slot, child = child, 2 * child + 1
        while slot > 0 and next_use[heap[(slot - 1) // 2]] < next_use[key]:
            heap[slot] = heap[(slot - 1) // 2]
            position[heap[slot]] = slot
            slot = (slot - 1) // 2
        heap[slot] = key
        position[key] = slot
