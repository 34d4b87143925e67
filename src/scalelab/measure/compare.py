"""Compare functions in one run: interleaved calls, an interval for each ratio, and the run's own noise floor."""

from __future__ import annotations

import gc
import html
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scalelab.errors import ScalelabError
from scalelab.measure.sample import Interval

Array = np.ndarray[tuple[int], np.dtype[np.float64]]

CONFIDENCE = 0.95
MIN_ROUNDS = 6
TIMER_STEPS = 1000


class ComparisonError(ScalelabError):
    """The given functions, options or times cannot be compared."""


@dataclass(frozen=True)
class Comparison:
    """The times that `compare` measured.

    times: for each name, seconds in each round, shape (rounds,). control: the same for the extra calls of the first
    function. warm_up: for each name, seconds of its first call, which no other result includes.
    """

    times: Mapping[str, Array]
    control: Array
    warm_up: Mapping[str, float]

    @property
    def first(self) -> str:
        """The name of the first function, with which the others are compared."""
        return next(iter(self.times))

    @property
    def floor(self) -> Interval:
        """The noise floor of this run: the ratio of the first function's times to its own times."""
        return paired_ratio(self.control, self.times[self.first])

    def ratio(self, name: str, to: str) -> Interval:
        """Return how many times as long `name` takes as `to`, with its 95 % confidence interval."""
        return paired_ratio(self._of(name), self._of(to))

    def differs(self, name: str, to: str) -> bool:
        """Return True if the whole interval of the ratio lies outside the noise floor and its reciprocal."""
        ratio, floor = self.ratio(name, to), self.floor
        return ratio.low > max(floor.high, 1 / floor.low) or ratio.high < min(floor.low, 1 / floor.high)

    def verdict(self, name: str, to: str) -> str:
        """Return a sentence with the ratio, and whether it is a difference or below the noise floor."""
        ratio, floor = self.ratio(name, to), self.floor
        sentence = f"{name} takes {_range_text(ratio)} times as long as {to}"
        if self.differs(name, to):
            return f"{sentence}: a difference."
        return f"{sentence}: below the noise floor, for {self.first} against itself is {_range_text(floor)}."

    def _of(self, name: str) -> Array:
        if name not in self.times:
            raise ComparisonError(f"Expected one of {', '.join(self.times)}; got {name!r}.")
        return self.times[name]

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        rows = [("", "median", f"times {self.first}", "95 % interval", "first call")]
        for name, times in self.times.items():
            ratio = self.floor if name == self.first else self.ratio(name, self.first)
            label = f"{name} (against itself)" if name == self.first else name
            interval = f"{ratio.low:.4g} – {ratio.high:.4g}"
            warm_up = duration(self.warm_up[name])
            rows.append((label, duration(float(np.median(times))), f"{ratio.median:.4g}", interval, warm_up))
        text = "\n".join(
            "  ".join(f"{cell:<28}" if i == 0 else f"{cell:>14}" for i, cell in enumerate(r)) for r in rows
        )
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in rows[0])
        body = "".join(
            f'<tr><th scope="row">{html.escape(row[0])}</th>'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in rows[1:]
        )
        page = f'<table class="sl-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        return {"text/plain": text, "text/html": page}, {"scalelab": {"kind": "comparison"}}


def compare(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 40,
    order: Literal["ABAB", "AABB"] = "ABAB",
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time functions against each other in one run.

    functions: for each name, a function without arguments; the others are compared with the first. Every round calls
    each function once, and the first once more, so that the run measures its own noise floor. rounds: at least 6,
    because fewer give no 95 % interval. order: "ABAB" alternates the functions, so that a slow moment of the machine
    affects all of them; "AABB" runs all rounds of a function in a row, so that a drift of the machine looks like a
    difference. clock: returns seconds. Each function is first called once for `warm_up`. The garbage collector is off
    during a timed call. Raises ComparisonError if there is no function, or if `rounds` or `order` is invalid.
    """
    if not functions:
        raise ComparisonError("Expected at least one function to time, got none.")
    if rounds < MIN_ROUNDS:
        raise ComparisonError(f"Expected at least {MIN_ROUNDS} rounds for an interval of 95 %; got {rounds}.")
    if order not in ("ABAB", "AABB"):
        raise ComparisonError(f'Expected the order "ABAB" or "AABB"; got {order!r}.')
    warm_up = {name: _time_call(function, clock) for name, function in functions.items()}
    turns = [*functions.items(), (None, next(iter(functions.values())))]
    times: dict[str | None, list[float]] = {name: [] for name, _ in turns}
    if order == "ABAB":
        for i in range(rounds):
            # Reverse every other round: a function that always follows the same neighbour inherits its caches.
            for name, function in turns if i % 2 == 0 else reversed(turns):
                times[name].append(_time_call(function, clock))
    else:
        for name, function in turns:
            times[name] += [_time_call(function, clock) for _ in range(rounds)]
    control = np.array(times.pop(None))
    return Comparison({str(name): np.array(row) for name, row in times.items()}, control, warm_up)


def paired_ratio(a: Iterable[float], b: Iterable[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the median of the ratios a[i] / b[i], with an interval for it.

    a, b: > 0, of equal length, at least 6; a[i] and b[i] were measured next to each other. The ends of the interval are
    two of the sorted ratios, so it assumes no distribution; their ranks are quantiles of a binomial with p = ½ that
    leave at most 1 − confidence outside. Source: W. J. Conover, Practical Nonparametric Statistics (1999), section 3.2.
    Raises ComparisonError.
    """
    numerators, denominators = np.fromiter(a, dtype=np.float64), np.fromiter(b, dtype=np.float64)
    if len(numerators) != len(denominators) or len(numerators) < MIN_ROUNDS:
        raise ComparisonError(
            f"Expected two samples of one length, at least {MIN_ROUNDS}; got {len(numerators)} and {len(denominators)}."
        )
    if (numerators <= 0).any() or (denominators <= 0).any():
        raise ComparisonError(
            "A time of 0 was measured: the work is shorter than the timer's step. Let each call do more work."
        )
    from scipy.special import bdtrik  # noqa: PLC0415 - keeps the import of the package quick

    ratios = np.sort(numerators / denominators)
    rank = math.ceil(bdtrik((1 - confidence) / 2, len(ratios), 0.5))
    return Interval(float(ratios[rank - 1]), float(np.median(ratios)), float(ratios[-rank]))


def timer_step(clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the smallest step of `clock` in seconds, measured by reading it repeatedly."""
    steps = []
    for _ in range(TIMER_STEPS):
        before = after = clock()
        while after == before:
            after = clock()
        steps.append(after - before)
    return min(steps)


def duration(seconds: float) -> str:
    """Return a duration with three significant digits in a suitable unit, e.g. `3.21 µs`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _time_call(function: Callable[[], object], clock: Callable[[], float]) -> float:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        function()
        return clock() - start
    finally:
        if was_enabled:
            gc.enable()


def _range_text(interval: Interval) -> str:
    return f"{interval.low:.4g} to {interval.high:.4g}"
