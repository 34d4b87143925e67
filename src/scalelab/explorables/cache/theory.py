"""Five caches with the same requests: the hit rates that theory gives."""

from __future__ import annotations

from scalelab.explorables.knobs import State, knobs
from scalelab.theory import che_hit_rate, fifo_hit_rate, static_hit_rate, zipf_popularity

KEYS = 10_000


def expected(state: State) -> dict[str, float]:
    """Return the hit rates of LRU (Che), FIFO, and a cache that always holds the most popular keys.

    They count the requests that are no scan; with a scan, only the last is known without a simulation.
    """
    popularity = zipf_popularity(KEYS, state["skew"] / 100)
    static = {"static": float(static_hit_rate(popularity, state["size"]))}
    if state["scan"]:
        return static
    return {
        "lru": float(che_hit_rate(popularity, state["size"])),
        "fifo": float(fifo_hit_rate(popularity, state["size"])),
        **static,
    }


def describe(state: State) -> str:
    """Return what theory says, for a reader without JavaScript."""
    says = expected({**state, "scan": 0})
    policies = next(knob.choices for knob in knobs("cache") if knob.name == "policy")
    scan = (
        f" Here, {state['scan']} % of each 2,000 requests are a scan: keys that are asked for only once."
        if state["scan"]
        else ""
    )
    return (
        f"{len(policies)} caches ({', '.join(policies)}), each for {state['size']:,} of 10,000 keys, get the same "
        f"requests by Zipf's law with α = {state['skew'] / 100:.1f}. {'Without a scan, theory' if scan else 'Theory'} "
        f"gives a hit rate of {says['lru'] * 100:.0f} % for LRU (Che), {says['fifo'] * 100:.0f} % for FIFO, and "
        f"{says['static'] * 100:.0f} % for the best static set.{scan}"
    )
