"""Writes vectors/queue.json from the Python model; run it after a change of the model that was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scalelab.explorables import _queue_model as queue

VECTORS = Path(__file__).parent / "vectors" / "queue.json"

# Each case: the state a run starts with, then the milliseconds that pass.
CASES: dict[str, tuple[dict[str, Any], list[int | float]]] = {
    "defaults": ({}, [10_000]),
    "long enough to be trusted": ({"load": 50, "scv": 0}, [60_000]),
    "almost full": ({"seed": 1, "load": 95}, [30_000]),
    "no steady state": ({"seed": 2, "load": 100}, [10_000]),
    "overloaded without a limit": ({"seed": 3, "load": 120, "servers": 4}, [10_000]),
    "overloaded with a limit": ({"seed": 4, "load": 120, "servers": 4, "limit": 10}, [10_000]),
    "most servers": ({"seed": 5, "load": 99, "servers": 32}, [2_000]),
    "little to do": ({"seed": 6, "load": 5, "servers": 32}, [10_000]),
    "always equally long": ({"seed": 7, "scv": 0}, [20_000]),
    "two servers, always equally long": ({"seed": 8, "scv": 0, "servers": 2, "load": 90}, [10_000]),
    "most variable": ({"seed": 2**32 - 1, "scv": 8}, [20_000]),
    "most variable, many servers": ({"seed": 9, "scv": 8, "servers": 20, "load": 90}, [3_000]),
    "no place to wait": ({"seed": 10, "limit": 0, "servers": 5, "scv": 4}, [10_000]),
    "one place to wait": ({"seed": 11, "limit": 1, "load": 110}, [10_000]),
    "a limit without a formula": ({"seed": 0, "limit": 20, "scv": 3}, [10_000]),
    "the longest line but one": ({"seed": 12, "limit": 99, "load": 100}, [20_000]),
    "nothing yet": ({"seed": 13}, [0]),
    "nobody has waited": ({"seed": 14, "load": 10, "servers": 20}, [500]),
    "odd steps": ({"seed": 15, "servers": 3}, [16.667, 0.25, 33.3, 1_949.783, 3_000]),
}


def play(state: dict[str, Any], script: list[int | float]) -> dict[str, Any]:
    model = queue.create_model(state)
    for ms in script:
        queue.advance(model, ms)
    return {"readout": queue.readout(model), "theory": queue.theory(model.knobs)}


def main() -> None:
    vectors = [
        {"name": name, "state": state, "script": script, **play(state, script)}
        for name, (state, script) in CASES.items()
    ]
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
