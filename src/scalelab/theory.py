"""Formulas of scaling, each with its units, domain and source."""

from __future__ import annotations

import math


def throughput_ceiling(concurrency: float, latency: float, limit: float = math.inf) -> float:
    """Return the most requests per second that `concurrency` callers can complete.

    Little's law, X = N/W, with at most `limit` of the callers in flight. concurrency, limit: requests; latency: seconds
    per request, > 0. Source: J. D. C. Little, "A proof for the queuing formula L = λW", Operations Research 9 (1961).
    """
    if concurrency < 0 or latency <= 0 or limit <= 0:
        raise ValueError(
            f"Expected concurrency >= 0, latency > 0 s and limit > 0; got {concurrency}, {latency}, {limit}."
        )
    return min(concurrency, limit) / latency


def in_flight(throughput: float, latency: float) -> float:
    """Return the mean number of requests in flight: Little's law, L = λW.

    throughput: requests per second, >= 0; latency: seconds, >= 0. Source: as `throughput_ceiling`.
    """
    if throughput < 0 or latency < 0:
        raise ValueError(f"Expected throughput >= 0 and latency >= 0; got {throughput}, {latency}.")
    return throughput * latency
