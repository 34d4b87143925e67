"""Three laws of scaling on one chart, beside measured points: the values of the laws.

Knobs are whole numbers: the serial share and contention in thousandths, coherency in millionths. Measured points and
the reader's prediction are given by the chapter, in the unit in which one worker does `rate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias, TypedDict

import numpy as np

from scalelab.explorables.knobs import KnobError, State
from scalelab.measure import Interval
from scalelab.predictions import Prediction
from scalelab.theory import amdahl, gustafson, usl, usl_peak

Point: TypeAlias = list[float]  # workers, low, median, high


class Given(TypedDict):
    """A chapter's data: points as [workers, low, median, high], `rate` and `unit` of one worker, a prediction."""

    points: list[Point]
    rate: float
    unit: str
    prediction: str
    predicted: float | None


def given(
    points: Iterable[Sequence[float | Interval]] = (),
    rate: float = 1.0,
    unit: str = "×",
    prediction: Prediction | str = "",
) -> Given:
    """Check a chapter's data and put it into the form that the figure takes.

    points: pairs of workers and their throughput, a number or an Interval, in `unit`; rate: one worker's throughput, in
    `unit` ("×" and 1: speed-ups); prediction: the reader's, made by `predict`, or its key. Raises KnobError.
    """
    return {
        "points": [_point(pair) for pair in points],
        "rate": _positive(rate, "rate"),
        "unit": unit,
        "prediction": prediction if isinstance(prediction, str) else prediction.key,
        "predicted": None if isinstance(prediction, str) else prediction.number,
    }


def expected(state: State) -> dict[str, dict[str, float]]:
    """Return, per law, the speed-up `at` the number of workers and the highest there is (`most`, if it has an end).

    For the universal scalability law also `most_at`: with how many workers.
    """
    serial, alpha, beta = state["serial"] / 1000, state["contention"] / 1000, state["coherency"] / 1e6
    peak = max(1.0, float(usl_peak(alpha, beta)))
    laws = {
        "amdahl": {"at": float(amdahl(state["workers"], serial)), "most": float(amdahl(math.inf, serial))},
        "gustafson": {"at": float(gustafson(state["workers"], serial))},
        "usl": {"at": float(usl(state["workers"], alpha, beta)), "most_at": peak},
    }
    laws["usl"]["most"] = float(usl(peak, alpha, beta)) if peak < math.inf else 1 / alpha if alpha else math.inf
    return {law: {key: value for key, value in says.items() if value < math.inf} for law, says in laws.items()}


def describe(state: State, beside: Given) -> str:
    """Return what theory says, for a reader without JavaScript."""
    laws, rate, unit = expected(state), beside["rate"], beside["unit"]
    most, at = laws["amdahl"].get("most"), laws["usl"].get("most_at")
    ceiling = "without limit" if most is None else f"with any number at most {_short(rate * most)} {unit}"
    peak = (
        "it has no peak"
        if at is None
        else f"its peak, {_short(rate * laws['usl']['most'])} {unit}, is at {at:,.0f} workers"
    )
    coherency = f"{state['coherency'] / 1e6:f}".rstrip("0").rstrip(".")
    return (
        f"With a serial share of {state['serial'] / 10:g} %, {state['workers']:,} workers do "
        f"{_short(rate * laws['amdahl']['at'])} {unit} by Amdahl's law, {ceiling}, and "
        f"{_short(rate * laws['gustafson']['at'])} {unit} by Gustafson's. The universal scalability law with "
        f"contention {state['contention'] / 1000:g} and coherency {coherency} says "
        f"{_short(rate * laws['usl']['at'])} {unit}; {peak}.{_miss(state, beside)}"
    )


def _miss(state: State, beside: Given) -> str:
    if not beside["points"]:
        return ""
    workers, _, medians, _ = np.transpose(beside["points"])
    law = beside["rate"] * usl(workers, state["contention"] / 1000, state["coherency"] / 1e6)
    miss = np.sqrt(np.mean((law / medians - 1) ** 2))
    return f" From the {len(workers)} measured points it is {miss * 100:.0f} % away."


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _point(pair: Sequence[float | Interval]) -> Point:
    if len(pair) != 2:
        raise KnobError(f"points: expected pairs of workers and what they did, got {pair!r}")
    workers, seen = pair
    values = (seen.low, seen.median, seen.high) if isinstance(seen, Interval) else (seen, seen, seen)
    if isinstance(workers, Interval) or not 1 <= workers < math.inf:
        raise KnobError(f"points: expected workers >= 1, got {workers!r}")
    return [float(workers), *(_positive(value, "points") for value in values)]


def _positive(value: float, name: str) -> float:
    if not 0 < value < math.inf:
        raise KnobError(f"{name}: expected numbers above 0, got {value!r}")
    return float(value)
