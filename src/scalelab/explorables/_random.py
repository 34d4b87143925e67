"""Chance that is the same in Python and in JavaScript."""

from __future__ import annotations

from collections.abc import Iterator

_MASK = 0xFFFFFFFF


def random(seed: int) -> Iterator[int]:
    """Yield whole numbers from 0 to 2**32 - 1 for ever: Tommy Ettinger's mulberry32, 32 bits of state."""
    state = seed & _MASK
    while True:
        state = (state + 0x6D2B79F5) & _MASK
        mixed = ((state ^ state >> 15) * (state | 1)) & _MASK
        mixed ^= (mixed + (mixed ^ mixed >> 7) * (mixed | 61)) & _MASK
        yield mixed ^ mixed >> 14
