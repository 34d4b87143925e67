"""The knobs of an explorable, read from its knobs.json, and whether a state fits them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from scalelab.errors import ScalelabError

from .bundle import KNOBS, read

State: TypeAlias = dict[str, int | bool]
SEED = 8
SEEDS = 2**32


class KnobError(ScalelabError):
    """A state names a knob that the figure does not have, or a value that the knob does not take."""


@dataclass(frozen=True)
class Knob:
    """A range of whole numbers with a step. Without a range (`max` is None) it is a switch, off or on.

    With `choices` it is one of them, kept as its place among them; a state may name it instead.
    """

    name: str
    value: int | bool
    min: int = 0
    max: int | None = None
    step: int = 1
    unit: str = ""
    choices: tuple[str, ...] = ()

    def takes(self, value: object) -> bool:
        if self.choices:
            return not isinstance(value, bool) and value in range(len(self.choices))
        if self.max is None:
            return isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.min <= value <= self.max and (value - self.min) % self.step == 0

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.max is None:
            return "True or False"
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.min} to {self.max}{unit} in steps of {self.step}"


@cache
def knobs(name: str) -> tuple[Knob, ...]:
    """Return the knobs of the explorable `name`. Raises BundleError if no explorable has that name."""
    fields = ("name", "value", "min", "max", "step", "unit")
    return tuple(
        Knob(**{field: knob[field] for field in fields if field in knob}, choices=tuple(knob.get("choices", ())))
        for knob in json.loads(read(name, KNOBS))
    )


def settings(knobs: Sequence[Knob], given: Mapping[str, object]) -> State:
    """Complete `given` with the knobs' defaults and the seed's.

    Raises KnobError for a knob that does not exist, a value it does not take, or a seed outside 0 to 2**32 - 1.
    """
    known = {"seed", *(knob.name for knob in knobs)}
    if unknown := sorted(set(given) - known):
        raise KnobError(f"expected only {', '.join(sorted(known))}, got {', '.join(unknown)}")
    seed = given.get("seed", SEED)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS:
        raise KnobError(f"seed: expected a whole number from 0 to {SEEDS - 1}, got {seed!r}")
    state: State = {"seed": seed}
    for knob in knobs:
        value = given.get(knob.name, knob.value)
        if isinstance(value, str) and value in knob.choices:
            value = knob.choices.index(value)
        if not knob.takes(value) or not isinstance(value, int):
            raise KnobError(f"{knob.name}: expected {knob}, got {value!r}")
        state[knob.name] = value
    return state
