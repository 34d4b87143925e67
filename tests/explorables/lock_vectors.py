"""Writes vectors/lock.json from the Python model; run it after a change of the model that was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scalelab.explorables import _lock_model as lock

VECTORS = Path(__file__).parent / "vectors" / "lock.json"

# Each case: the state a run starts with, then the milliseconds that pass.
CASES: dict[str, tuple[dict[str, Any], list[int | float]]] = {
    "defaults": ({}, [10_000]),
    "alone": ({"seed": 1, "threads": 0}, [10_000]),
    "one busy thread": ({"seed": 2, "threads": 1}, [20_000]),
    "most threads": ({"seed": 3, "threads": 8, "interval": 20_000, "work": 100}, [30_000]),
    "the shortest interval": ({"seed": 4, "threads": 8, "interval": 500}, [5_000]),
    "turns shorter than the interval": ({"seed": 5, "threads": 4, "work": 2}, [10_000]),
    "turns as long as the interval": ({"seed": 6, "threads": 3, "work": 5}, [10_000]),
    "turns that end between two intervals": ({"seed": 7, "threads": 3, "work": 7}, [10_000]),
    "half I/O": ({"seed": 8, "threads": 4, "io": 50}, [30_000]),
    "mostly I/O": ({"seed": 2**32 - 1, "threads": 8, "io": 90, "work": 7}, [20_000]),
    "one thread, mostly I/O": ({"seed": 9, "threads": 1, "io": 90, "work": 1}, [20_000]),
    "nothing yet": ({"seed": 10}, [0]),
    "nobody has waited": ({"seed": 11}, [1]),
    "odd steps": ({"seed": 12, "io": 20}, [16.667, 0.25, 33.3, 1_949.783, 3_000]),
}


def play(state: dict[str, Any], script: list[int | float]) -> dict[str, Any]:
    model = lock.create_model(state)
    for ms in script:
        lock.advance(model, ms)
    return {"readout": lock.readout(model), "theory": lock.theory(model.knobs)}


def main() -> None:
    vectors = [
        {"name": name, "state": state, "script": script, **play(state, script)}
        for name, (state, script) in CASES.items()
    ]
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
