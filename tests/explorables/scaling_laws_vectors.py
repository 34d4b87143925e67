"""Writes vectors/scaling_laws.json from the Python model; run it after a change of the model that was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scalelab.explorables import _scaling_laws_model as scaling_laws

VECTORS = Path(__file__).parent / "vectors" / "scaling_laws.json"

# Each case: a state, and what a chapter gives besides.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {}),
    "no serial part, no contention, no coherency": ({"serial": 0, "contention": 0, "coherency": 0}, {}),
    "contention without coherency": ({"coherency": 0, "workers": 1000}, {}),
    "coherency without contention": ({"contention": 0, "coherency": 5}, {}),
    "all at their highest": ({"serial": 500, "contention": 300, "coherency": 2000, "workers": 1000}, {}),
    "two workers": ({"serial": 5, "workers": 2}, {}),
    "points of speed-up": ({}, {"points": [(1, 1), (2, 1.9), (8, 5.5), (44, 14.1), (128, 9.2)]}),
    "points of throughput": (
        {"contention": 13, "coherency": 25, "workers": 600},
        {"points": [(1, 39.5), (10, 350.25), (120, 1420.0)], "rate": 40.2, "unit": "turns/s"},
    ),
}


def play(state: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    return {"readout": scaling_laws.readout(state, scaling_laws.given(**given))}


def main() -> None:
    vectors = [
        {"name": name, "state": state, "given": scaling_laws.given(**given), **play(state, given)}
        for name, (state, given) in CASES.items()
    ]
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
