"""Which figures there are, the states that tests put them in, and how their tables are read."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import product
from typing import Any

from playwright.sync_api import Page

from scalelab.explorables import bundle
from scalelab.explorables.knobs import Knob, knobs

OpenPage = Callable[..., Page]
LookAt = Callable[[str], Page]
Play = Callable[..., list[dict[str, Any]]]
Theory = Callable[..., list[dict[str, Any]]]
CALM = {"reduced_motion": "reduce"}
State = dict[str, int]


def moves(name: str) -> bool:
    """Return whether the figure has a clock."""
    return re.search(r"^  advance,$", bundle(name), re.MULTILINE) is not None


def values(knob: Knob) -> range:
    """Return all values of a knob; a switch is 0 or 1."""
    if knob.choices:
        return range(len(knob.choices))
    return range(2) if knob.max is None else range(knob.min, knob.max + 1, knob.step)


def extremes(name: str) -> list[State]:
    """Return the states that have every knob at one of its ends; the last has all of them at the upper end."""
    ends = [[(knob.name, values(knob)[end]) for end in (0, -1)] for knob in knobs(name)]
    return [switched(name, dict(state)) for state in product(*ends)]


def states(name: str, many: int, seed: int = 1) -> list[State]:
    """Return the extremes, and `many` states with knobs and seed at random."""
    chance = random.Random(seed)
    drawn = [{knob.name: chance.choice(values(knob)) for knob in knobs(name)} for _ in range(many)]
    return [{"seed": chance.randrange(2**32), **switched(name, state)} for state in (*extremes(name), *drawn)]


def switched(name: str, state: State) -> State:
    """Return the state with its switches as booleans."""
    switches = {knob.name for knob in knobs(name) if isinstance(knob.value, bool)}
    return {key: bool(value) if key in switches else value for key, value in state.items()}


def cells(page: Page, row: str) -> list[str]:
    """Return the texts of a row of the figure's table: one per column, measured and expected value together."""
    line = page.locator("tbody tr").filter(has=page.get_by_role("rowheader", name=row, exact=True)).locator("td")
    texts = [" ".join(cell.locator("b, span").all_inner_texts()).strip() for cell in line.all()]
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in texts]
