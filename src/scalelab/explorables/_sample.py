"""What the figures' runs keep of a sample that grows: counts per bin, and how far its mean can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

_T_95 = 2.1  # Student's t of 95 %, for 16 to 32 batches


def place(wait: int) -> int:
    """Return the bin of a whole number: as wide as 1/64 of what it holds, or narrower; below 128 each has its own."""
    shift = max(0, wait.bit_length() - 7)
    return shift * 64 + (wait >> shift)


def middle(bin: int) -> float:
    """Return the middle of what falls into a bin."""
    shift = max(0, bin // 64 - 1)
    width = 1 << shift
    return (bin - shift * 64) * width + (width - 1) / 2


def p99(counts: Mapping[int, int]) -> float:
    """Return the middle of the bin that the 99th percentile is in, from how many are in each bin; not for none."""
    rank = math.ceil(sum(counts.values()) * 0.99)
    for bin in sorted(counts):
        rank -= counts[bin]
        if rank <= 0:
            return middle(bin)
    raise AssertionError("the counts make up all there are")


def spread(batches: list[int]) -> float:
    """Return the half-width of the 95 % interval of the batches' mean.

    Where neighbours are alike the batches are too short, and the interval is widened for that.
    """
    mean = sum(batches) / len(batches)
    off = [batch - mean for batch in batches]
    square = sum(one * one for one in off)
    if not square:
        return 0.0
    alike = sum(one * after for one, after in pairwise(off)) / square + 1 / len(off)
    alike = min(0.9, max(0.0, alike))
    return _T_95 * math.sqrt(square / (len(off) - 1) / len(off) * (1 + alike) / (1 - alike))
