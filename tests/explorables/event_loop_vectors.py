"""Writes vectors/event_loop.json from the Python model; run it after a change of the model that was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scalelab.explorables import _event_loop_model as event_loop

VECTORS = Path(__file__).parent / "vectors" / "event_loop.json"
LONGEST, SHORTEST = 1000, 50

# Each case: the state a run starts with, then what happens: milliseconds that pass, or knobs that are turned.
CASES: dict[str, tuple[dict[str, Any], list[int | float | dict[str, Any]]]] = {
    "defaults": ({}, [10_000]),
    "defaults, blocking": ({"blocking": True}, [10_000]),
    "another seed, blocking": ({"seed": 1961, "blocking": True}, [10_000]),
    "the largest seed": ({"seed": 2**32 - 1, "blocking": True}, [4_000]),
    "seed 0": ({"seed": 0}, [4_000]),
    "pool too small": ({"seed": 3, "rate": 600, "threads": 150}, [8_000]),
    "both overloaded": ({"seed": 4, "rate": 1000, "wait": LONGEST, "threads": 1, "blocking": True}, [6_000]),
    "one thread, little to do": ({"seed": 5, "rate": 50, "wait": SHORTEST, "threads": 1}, [9_000]),
    "most in flight": ({"seed": 6, "rate": 1000, "wait": LONGEST, "threads": 500}, [5_000]),
    "pool at its edge": ({"seed": 7, "rate": 400, "threads": 200}, [12_000]),
    "nothing yet": ({"seed": 9}, [0]),
    "no answer yet": ({"seed": 9, "wait": LONGEST}, [900]),
    "odd steps": ({"seed": 10, "blocking": True}, [16.667, 0.25, 33.3, 1_949.783, 3_000]),
    "knobs turned on the way": (
        {"seed": 11},
        [
            2_000,
            {"blocking": True},
            1_500.5,
            {"threads": 40, "wait": 120},
            1_999.5,
            {"rate": 900, "blocking": False},
            2_000,
            {"threads": 500, "wait": 50, "rate": 50},
            2_500,
        ],
    ),
}


def play(state: dict[str, Any], script: list[int | float | dict[str, Any]]) -> dict[str, Any]:
    model = event_loop.create_model(state)
    for act in script:
        if isinstance(act, dict):
            event_loop.set_knobs(model, act)
        else:
            event_loop.advance(model, act)
    return {"readout": event_loop.readout(model), "theory": event_loop.theory(model.knobs)}


def main() -> None:
    vectors = [
        {"name": name, "state": state, "script": script, **play(state, script)}
        for name, (state, script) in CASES.items()
    ]
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
