"""Summarise a sample: a percentile, or a median with its range."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from scalelab.errors import ScalelabError


class EmptySample(ScalelabError):
    """The sample has no values to summarise."""


@dataclass(frozen=True)
class Interval:
    """A median between two bounds, in the sample's unit: a confidence interval, or the range of a few runs."""

    low: float
    median: float
    high: float


def median_interval(runs: Iterable[float]) -> Interval:
    """Return the median of `runs` between their minimum and maximum. Raises EmptySample if there are no runs."""
    values = _array(runs)
    return Interval(float(values.min()), float(np.median(values)), float(values.max()))


def percentile(sample: Iterable[float], p: float) -> float:
    """Return the smallest value that at least `p` percent of the sample do not exceed (nearest rank).

    p: 0 < p <= 100, else ValueError. The result is always one of the sample's own values. Raises EmptySample.
    """
    if not 0 < p <= 100:
        raise ValueError(f"Expected a percentile in (0, 100]; got {p}.")
    values = np.sort(_array(sample))
    rank = math.ceil(p / 100 * len(values) - 1e-9)
    return float(values[max(rank, 1) - 1])


def _array(sample: Iterable[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = np.fromiter(sample, dtype=np.float64)
    if not len(values):
        raise EmptySample("Expected at least one value, got none: did the run before this cell finish?")
    return values
