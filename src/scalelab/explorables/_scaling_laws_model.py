"""Three laws of scaling on one chart, beside measured points: what `scaling_laws.js` computes, in Python.

Knobs are whole numbers: the serial share and contention in thousandths, coherency in millionths. Measured points and
the reader's prediction are given by the chapter, in the unit in which one worker does `rate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypedDict

from scalelab.measure import Interval
from scalelab.predictions import Prediction
from scalelab.theory import amdahl, gustafson, usl, usl_peak

from ._knobs import Knob, KnobError, State, settings

KNOBS = (
    Knob("serial", 50, low=0, high=500, step=5, unit="thousandths"),
    Knob("workers", 64, low=2, high=1000, unit="workers"),
    Knob("contention", 30, low=0, high=300, unit="thousandths"),
    Knob("coherency", 500, low=0, high=2000, step=5, unit="millionths"),
)
GIVEN = ("points", "rate", "unit", "prediction")

Point: TypeAlias = list[float]  # workers, low, median, high


class Given(TypedDict):
    """What a chapter gives: points as [workers, low, median, high], `rate` and `unit` of one worker, a prediction."""

    points: list[Point]
    rate: float
    unit: str
    prediction: str
    predicted: float | None


class Law(TypedDict):
    """What a law says: at `workers`, per worker, at most (None: no limit) and with how many (None: ever more).

    `miss`: how far it is from the points, root mean square of the relative differences; None without points.
    """

    at: float
    each: float
    most: float | None
    most_at: float | None
    miss: float | None


class Readout(TypedDict):
    amdahl: Law
    gustafson: Law
    usl: Law


def given(
    points: Iterable[Sequence[float | Interval]] = (),
    rate: float = 1.0,
    unit: str = "×",
    prediction: Prediction | str = "",
) -> Given:
    """Check what a chapter gives and put it into the form that the figure takes.

    points: pairs of workers and what they did, a number or an Interval, in `unit`; rate: what one worker does, in
    `unit` ("×" and 1: speed-ups); prediction: the reader's, made by `predict`, or its key. Raises KnobError.
    """
    return {
        "points": [_point(pair) for pair in points],
        "rate": _positive(rate, "rate"),
        "unit": unit,
        "prediction": prediction if isinstance(prediction, str) else prediction.key,
        "predicted": None if isinstance(prediction, str) else prediction.number,
    }


def readout(state: Mapping[str, object], beside: Given) -> Readout:
    """Return what the three laws say for this state. Raises KnobError."""
    knobs = settings(KNOBS, state)
    serial, alpha, beta = knobs["serial"] / 1000, knobs["contention"] / 1000, knobs["coherency"] / 1e6
    workers, rate = knobs["workers"], beside["rate"]
    peak = max(1.0, float(usl_peak(alpha, beta)))
    if math.isfinite(peak):
        most: float | None = float(usl(peak, alpha, beta, rate))
    else:
        most = rate / alpha if alpha else None

    def law(values: Mapping[float, float], most: float | None, most_at: float | None = None) -> Law:
        off = [values[n] / median - 1 for n, _, median, _ in beside["points"]]
        miss = math.sqrt(sum(one * one for one in off) / len(off)) if off else None
        at = values[workers]
        return {"at": at, "each": at / (workers * rate), "most": most, "most_at": most_at, "miss": miss}

    every: list[float] = [workers, *(point[0] for point in beside["points"])]
    return {
        "amdahl": law({n: rate * float(amdahl(n, serial)) for n in every}, rate / serial if serial else None),
        "gustafson": law({n: rate * float(gustafson(n, serial)) for n in every}, None),
        "usl": law({n: float(usl(n, alpha, beta, rate)) for n in every}, most, peak if math.isfinite(peak) else None),
    }


def describe(state: State, beside: Given) -> str:
    """Return what the figure shows at first, for a reader without JavaScript."""
    laws, unit = readout(state, beside), beside["unit"]
    most, at = laws["amdahl"]["most"], laws["usl"]["most_at"]
    ceiling = "without limit" if most is None else f"with any number at most {_short(most)} {unit}"
    peak = (
        "it has no peak"
        if at is None
        else f"its peak, {_short(laws['usl']['most'] or 0)} {unit}, is at {at:,.0f} workers"
    )
    coherency = f"{state['coherency'] / 1e6:f}".rstrip("0").rstrip(".")
    count = len(beside["points"])
    miss = laws["usl"]["miss"]
    measured = "" if miss is None else f" From the {count} measured points it is {miss * 100:.0f} % away."
    return (
        f"With a serial share of {state['serial'] / 10:g} %, {state['workers']:,} workers do "
        f"{_short(laws['amdahl']['at'])} {unit} by Amdahl's law, {ceiling}, and {_short(laws['gustafson']['at'])} "
        f"{unit} by Gustafson's. The universal scalability law with contention {state['contention'] / 1000:g} and "
        f"coherency {coherency} says {_short(laws['usl']['at'])} {unit}; {peak}.{measured}"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _point(pair: Sequence[float | Interval]) -> Point:
    if len(pair) != 2:
        raise KnobError(f"points: expected pairs of workers and what they did, came {pair!r}")
    workers, seen = pair
    values = (seen.low, seen.median, seen.high) if isinstance(seen, Interval) else (seen, seen, seen)
    if isinstance(workers, Interval) or not 1 <= workers < math.inf:
        raise KnobError(f"points: expected workers >= 1, came {workers!r}")
    return [float(workers), *(_positive(value, "points") for value in values)]


def _positive(value: float, name: str) -> float:
    if not 0 < value < math.inf:
        raise KnobError(f"{name}: expected numbers above 0, came {value!r}")
    return float(value)
