"""Writes vectors/cache.json from the Python model; run it after a change of the model that was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scalelab.explorables import _cache_model as cache

VECTORS = Path(__file__).parent / "vectors" / "cache.json"

# Each case: the state a run starts with, then the milliseconds that pass.
CASES: dict[str, tuple[dict[str, Any], list[int | float]]] = {
    "defaults": ({}, [10_000]),
    "batches made one": ({"seed": 1, "size": 40}, [21_000]),
    "a scan": ({"seed": 2, "scan": 20, "policy": 3}, [15_000]),
    "a scan of half the requests": ({"seed": 3, "scan": 50, "size": 500}, [12_345]),
    "a scan, long enough for an error": ({"seed": 4, "scan": 5, "size": 20, "skew": 120}, [70_000]),
    "the smallest, all alike": ({"seed": 5, "size": 10, "skew": 0}, [20_000]),
    "the largest": ({"seed": 6, "size": 1000, "skew": 60}, [25_000]),
    "the most skewed": ({"seed": 7, "size": 30, "skew": 150}, [20_000]),
    "not full": ({"seed": 2**32 - 1, "size": 1000, "skew": 150}, [3_000]),
    "in the midst of a scan": ({"seed": 8, "scan": 40, "size": 150}, [9_500]),
    "nothing yet": ({"seed": 9}, [0]),
    "less than a batch": ({"seed": 10}, [99]),
    "odd steps": ({"seed": 11, "scan": 10, "size": 100}, [16.667, 0.25, 33.3, 1_949.783, 6_000]),
}


def play(state: dict[str, Any], script: list[int | float]) -> dict[str, Any]:
    model = cache.create_model(state)
    for ms in script:
        cache.advance(model, ms)
    return {"readout": cache.readout(model), "theory": cache.theory(model.knobs)}


def main() -> None:
    vectors = [
        {"name": name, "state": state, "script": script, **play(state, script)}
        for name, (state, script) in CASES.items()
    ]
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
