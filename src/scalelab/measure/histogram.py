"""High dynamic range histograms of latencies, in seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from hdrh.histogram import HdrHistogram

from scalelab.errors import ScalelabError

UNITS_PER_SECOND = 1_000_000
"""The histogram counts whole units: microseconds."""


class HistogramError(ScalelabError):
    """A histogram was given invalid values, or has no counts to summarise."""


class Histogram:
    """Counts of latencies from 1 µs to `highest` seconds, each kept to `digits` significant digits.

    Its memory depends only on these two, not on the number of latencies as a list's does, and histograms of several
    hosts can be added, which percentiles cannot. A latency above `highest` is counted as `highest`, and shorter
    latencies than 1 µs as 1 µs. Source: G. Tene, HdrHistogram (hdrhistogram.org).
    """

    def __init__(self, highest: float = 60.0, digits: int = 3) -> None:
        if highest <= 2 / UNITS_PER_SECOND or digits not in range(1, 6):
            raise HistogramError(f"Expected highest > 2e-6 s and 1 to 5 digits; got {highest} s and {digits}.")
        self.highest, self.digits = highest, digits
        self._counts = HdrHistogram(1, round(highest * UNITS_PER_SECOND), digits)

    @classmethod
    def of(cls, latencies: Iterable[float], highest: float = 60.0, digits: int = 3) -> Histogram:
        """Return the histogram of `latencies` in seconds, without NaN values (requests without an answer)."""
        histogram = cls(highest, digits)
        for latency in latencies:
            if not math.isnan(latency):
                histogram.record(latency)
        return histogram

    def record(self, latency: float, count: int = 1) -> None:
        """Count a latency in seconds `count` times. Raises HistogramError if it is below 0 or NaN."""
        if not latency >= 0:
            raise HistogramError(f"Expected a latency of 0 s or more; got {latency}.")
        units = min(max(round(latency * UNITS_PER_SECOND), 1), round(self.highest * UNITS_PER_SECOND))
        self._counts.record_value(units, count)

    def add(self, other: Histogram) -> None:
        """Add the counts of another histogram. Raises HistogramError if its `highest` or `digits` differ."""
        if (self.highest, self.digits) != (other.highest, other.digits):
            raise HistogramError(
                f"Expected a histogram up to {self.highest} s with {self.digits} digits; got one up to "
                f"{other.highest} s with {other.digits}. Make both with the same numbers."
            )
        self._counts.add(other._counts)

    def percentile(self, p: float) -> float:
        """Return the smallest latency in seconds that at least `p` percent of all do not exceed (nearest rank).

        p: 0 < p <= 100. Raises HistogramError if p is out of range or nothing was counted.
        """
        if not 0 < p <= 100:
            raise HistogramError(f"Expected a percentile in (0, 100]; got {p}.")
        self._require_counts()
        # hdrh rounds the rank to the nearest; like `percentile`, we want the first rank that covers p percent.
        rank = max(math.ceil(p / 100 * self.count - 1e-9), 1)
        return float(self._counts.get_value_at_percentile(100 * rank / self.count)) / UNITS_PER_SECOND

    @property
    def count(self) -> int:
        return int(self._counts.get_total_count())

    @property
    def mean(self) -> float:
        """Mean in seconds, to the histogram's digits. Raises HistogramError if nothing was counted."""
        self._require_counts()
        return float(self._counts.get_mean_value()) / UNITS_PER_SECOND

    @property
    def max(self) -> float:
        """Largest latency in seconds, to the histogram's digits. Raises HistogramError if nothing was counted."""
        return self.percentile(100)

    @property
    def memory(self) -> int:
        """Size of the counts in bytes, independent of the number of latencies."""
        return int(self._counts.encoder.payload.counts_len) * int(self._counts.get_word_size())

    def counts(self) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """Return the non-empty buckets: upper edges in seconds, ascending, and the number of latencies in each."""
        buckets = [
            (item.value_iterated_to / UNITS_PER_SECOND, item.count_added_in_this_iter_step)
            for item in self._counts.get_recorded_iterator()
        ]
        edges, counts = zip(*buckets, strict=True) if buckets else ((), ())
        return np.array(edges, dtype=np.float64), np.array(counts, dtype=np.int64)

    def _require_counts(self) -> None:
        if not self.count:
            raise HistogramError("This histogram is empty: did the run before this cell finish?")
