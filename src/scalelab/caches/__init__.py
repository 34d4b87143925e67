"""Caches without a clock of their own: traces of requests, which of them a policy answers, and what an expiry sets off.

The same arguments give the same numbers in every run. Policies and stampedes are compiled by Numba on first use, which
takes seconds and is kept on disk for the next process.
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
