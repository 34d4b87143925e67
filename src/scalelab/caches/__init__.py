"""Simulated caches: traces of requests, the hits of each eviction policy, and the stampede after an expiry.

The same arguments give the same numbers in every run. Policies and stampedes are compiled by Numba on first use, which
takes seconds; the result is kept on disk for the next process.
"""

from scalelab.caches.policies import POLICIES, Policy, hits, replay
from scalelab.caches.stampedes import CURES, Cure, Stampede, stampede
from scalelab.caches.traces import loop, scan, shifting, zipf

__all__ = [
    "CURES",
    "POLICIES",
    "Cure",
    "Policy",
    "Stampede",
    "hits",
    "loop",
    "replay",
    "scan",
    "shifting",
    "stampede",
    "zipf",
]
