"""Requests wait in one line before a number of servers: the model of `queue.js` in Python.

Requests arrive at random (Poisson) and go to the first free server, or to the end of the line; where the line has
`limit` places and all are taken, they are refused. A service takes 10 ms in the mean. Its squared coefficient of
variation is `scv`: 0 is always 10 ms, 1 exponential, and above 1 hyperexponential with balanced means: many short ones
and a few long ones. Times are whole microseconds: `queue.js` agrees with this event for event.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from scalelab.theory import erlang_c, mmc_wait

from ._knobs import PREVIEW_MS, Knob, State, settings
from ._random import random
from ._sample import p99, place, spread

SERVICE_US = 10_000
NO_LIMIT = 100
KNOBS = (
    Knob("load", 80, low=5, high=120, unit="%"),
    Knob("servers", 1, low=1, high=32, unit="servers"),
    Knob("scv", 1, low=0, high=8),
    Knob("limit", NO_LIMIT, low=0, high=NO_LIMIT, unit="places"),
)
TRUSTED = 0.1  # the relative error of the mean wait below which a run is long enough
BATCHES = 16  # from so many batches on, up to twice as many, the error is told
FIRST_BATCH = 10
_SIZES = 0x9E3779B9  # what sets the second stream of chance apart from the first


class Readout(TypedDict):
    """Counts since the start, what is now in the line and in service; milliseconds; shares of 1.

    `error`: the half-width of the mean wait's 95 % interval, as a share of that mean; None while nobody has waited or
    the run is too short to tell.
    """

    now_us: int
    events: int
    arrived: int
    refused: int
    done: int
    waiting: int
    serving: int
    mean_wait_ms: float | None
    p99_wait_ms: float | None
    error: float | None
    mean_waiting: float
    busy: float


class Theory(TypedDict):
    """What theory says: `kind` of it, requests, milliseconds and shares of 1, each None where it says nothing.

    `kind`: "erlang" M/M/c, exact; "kingman", exact in the mean for one server; "allen-cunneen", an approximation for
    several; "limit" M/M/c/K, exact; "loss", exact for every service distribution; "none", no formula; "unstable".
    """

    kind: str
    mean_wait_ms: float | None
    p99_wait_ms: float | None
    mean_waiting: float | None
    busy: float | None
    refused: float | None
    growth: float


@dataclass(slots=True)
class Model:
    """A run under way; make it with `create_model`, and move it with `advance` only."""

    knobs: State
    gaps: Iterator[int]
    sizes: Iterator[int]
    ends: list[float]  # of the service under way, per server
    now: int = 0
    events: int = 0
    arrived: int = 0
    refused: int = 0
    done: int = 0
    next: int = 0
    serving: int = 0
    queue: deque[tuple[int, int]] = field(default_factory=deque)  # arrival and service time
    started: int = 0
    waited: int = 0
    counts: dict[int, int] = field(default_factory=dict)  # of waits, per bin
    waiting_area: int = 0
    busy_area: int = 0
    touched: int = 0
    batches: list[int] = field(default_factory=list)
    batch_size: int = FIRST_BATCH
    batch: int = 0
    batched: int = 0


def create_model(state: Mapping[str, object]) -> Model:
    """Return a run that has not begun. `state` may hold seed, load, servers, scv, limit; raises KnobError."""
    knobs = settings(KNOBS, state)
    model = Model(knobs, random(knobs["seed"]), random(knobs["seed"] ^ _SIZES), [math.inf] * knobs["servers"])
    model.next = _gap(model)
    return model


def advance(model: Model, ms: float) -> None:
    """Let `ms` milliseconds pass. Two halves do what the whole does."""
    until = model.now + math.floor(ms * 1000 + 0.5)
    while True:
        ends = min(model.ends)
        if min(ends, model.next) > until:
            break
        if ends <= model.next:
            _depart(model, model.ends.index(ends), int(ends))
        else:
            _arrive(model)
        model.events += 1
    _touch(model, until)
    model.now = until


def readout(model: Model) -> Readout:
    """Return where the run is, and what it measured from its start."""
    passed = max(1, model.now)
    return {
        "now_us": model.now,
        "events": model.events,
        "arrived": model.arrived,
        "refused": model.refused,
        "done": model.done,
        "waiting": len(model.queue),
        "serving": model.serving,
        "mean_wait_ms": model.waited / model.started / 1000 if model.started else None,
        "p99_wait_ms": p99(model.counts) / 1000 if model.started else None,
        "error": _error(model.batches),
        "mean_waiting": model.waiting_area / passed,
        "busy": model.busy_area / (passed * len(model.ends)),
    }


def theory(state: Mapping[str, object]) -> Theory:
    """Return what theory says of a run that never ends. Raises KnobError.

    Without a limit: Erlang C where services are exponential; else Kingman's formula (exact here, since arrivals are
    Poisson: Pollaczek and Khinchine's) and for several servers Allen and Cunneen's. Their p99 takes the wait of those
    who wait as exponential. With a limit: the stationary distribution of M/M/c/K; with no place to wait, Erlang's loss
    formula, which holds for every service distribution.
    """
    knobs = settings(KNOBS, state)
    load, servers, scv, limit = knobs["load"] / 100, knobs["servers"], knobs["scv"], knobs["limit"]
    service = SERVICE_US / 1000
    if limit < NO_LIMIT:
        return _limited(load, servers, scv, limit)
    if load >= 1:
        growth = (load - 1) * servers / service * 1000
        return {**_theory("unstable", growth=growth), "busy": 1.0, "refused": 0.0}
    delayed = float(erlang_c(servers, load))
    mean = float(mmc_wait(servers, load, service)) * (1 + scv) / 2
    kind = "erlang" if scv == 1 else "kingman" if servers == 1 else "allen-cunneen"
    return {
        **_theory(kind),
        "mean_wait_ms": mean,
        "p99_wait_ms": max(0.0, mean / delayed * math.log(100 * delayed)),
        "mean_waiting": load * servers / service * mean,
        "busy": load,
        "refused": 0.0,
    }


def describe(state: Mapping[str, object]) -> str:
    """Return what the figure shows at first, for a reader without JavaScript."""
    model = create_model(state)
    advance(model, PREVIEW_MS)
    seen, expected, knobs = readout(model), theory(state), model.knobs
    servers = f"{knobs['servers']} server{'' if knobs['servers'] == 1 else 's'}"
    limit = "" if knobs["limit"] == NO_LIMIT else f" and the line has {knobs['limit']} places"
    said = (
        f"Requests of 10 ms in the mean (squared coefficient of variation {knobs['scv']}) offer {servers} "
        f"{knobs['load']} % of what they can serve{limit}. In {seen['arrived']:,} simulated requests the mean wait is "
        f"{_ms(seen['mean_wait_ms'])} and the p99 wait {_ms(seen['p99_wait_ms'])}; "
    )
    if expected["kind"] == "unstable":
        return f"{said}there is no steady state, the line grows by {expected['growth']:,.0f} requests/s."
    if expected["mean_wait_ms"] is None:
        return f"{said}no simple formula covers this case."
    error = seen["error"]
    trust = (
        "" if error is None or error <= TRUSTED else f" So short a run knows the mean to ± {error * 100:.0f} % only."
    )
    return f"{said}theory says {_ms(expected['mean_wait_ms'])} and {_ms(expected['p99_wait_ms'])}.{trust}"


def _ms(value: float | None) -> str:
    return "none yet" if value is None else f"{value:,.1f} ms" if value < 10 else f"{value:,.0f} ms"


def _exponential(chance: int) -> float:
    return -math.log((chance + 1) / 2**32)


def _gap(model: Model) -> int:
    mean = SERVICE_US * 100 / (model.knobs["load"] * model.knobs["servers"])
    return math.floor(_exponential(next(model.gaps)) * mean + 0.5)


def _size(model: Model) -> int:
    """A service time. Every kind takes two draws, so that the same seed gives the same requests in the same order."""
    kind, chance, scv = next(model.sizes), next(model.sizes), model.knobs["scv"]
    if scv == 0:
        return SERVICE_US
    short = (1 + math.sqrt((scv - 1) / (scv + 1))) / 2
    share = short if kind < short * 2**32 else 1 - short
    return math.floor(_exponential(chance) * (SERVICE_US / (2 * share)) + 0.5)


def _touch(model: Model, time: int) -> None:
    passed = time - model.touched
    model.waiting_area += passed * len(model.queue)
    model.busy_area += passed * model.serving
    model.touched = time


def _arrive(model: Model) -> None:
    time = model.next
    _touch(model, time)
    size = _size(model)
    if model.serving < len(model.ends):
        model.serving += 1
        _start(model, model.ends.index(math.inf), time, size, 0)
    elif model.knobs["limit"] == NO_LIMIT or len(model.queue) < model.knobs["limit"]:
        model.queue.append((time, size))
    else:
        model.refused += 1
    model.arrived += 1
    model.next += _gap(model)


def _depart(model: Model, server: int, time: int) -> None:
    _touch(model, time)
    model.done += 1
    if model.queue:
        at, size = model.queue.popleft()
        _start(model, server, time, size, time - at)
    else:
        model.serving -= 1
        model.ends[server] = math.inf


def _start(model: Model, server: int, time: int, size: int, wait: int) -> None:
    model.ends[server] = time + size
    model.started += 1
    model.waited += wait
    model.counts[place(wait)] = model.counts.get(place(wait), 0) + 1
    model.batch += wait
    model.batched += 1
    if model.batched < model.batch_size:
        return
    model.batches.append(model.batch)
    model.batch = model.batched = 0
    if len(model.batches) == 2 * BATCHES:
        model.batches = [a + b for a, b in zip(model.batches[::2], model.batches[1::2], strict=True)]
        model.batch_size *= 2


def _error(batches: list[int]) -> float | None:
    total = sum(batches)
    return spread(batches) / (total / len(batches)) if len(batches) >= BATCHES and total else None


def _theory(kind: str, *, growth: float = 0.0) -> Theory:
    return {
        "kind": kind,
        "mean_wait_ms": None,
        "p99_wait_ms": None,
        "mean_waiting": None,
        "busy": None,
        "refused": None,
        "growth": growth,
    }


def _limited(load: float, servers: int, scv: int, limit: int) -> Theory:
    if scv != 1 and limit:
        return _theory("none")
    weights = [1.0]
    for n in range(1, servers + limit + 1):
        weights.append(weights[-1] * load * servers / min(n, servers))
    total = sum(weights)
    refused = weights[-1] / total
    lines = [weight / (total - weights[-1]) for weight in weights[servers:-1]]  # an admitted one finds i in line
    per_service = SERVICE_US / 1000 / servers
    mean = sum(share * (i + 1) for i, share in enumerate(lines)) * per_service
    return {
        "kind": "limit" if limit else "loss",
        "mean_wait_ms": mean,
        "p99_wait_ms": _crossing(lambda ms: _tail(lines, ms / per_service), 0.01, per_service),
        "mean_waiting": load / per_service * (1 - refused) * mean,
        "busy": load * (1 - refused),
        "refused": refused,
        "growth": 0.0,
    }


def _tail(lines: list[float], time: float) -> float:
    """The share that waits longer than `time` services at full work: who finds i in line waits for i + 1 of them."""
    term = at_most = math.exp(-time)  # a Poisson number of services ends within that time
    total = 0.0
    for i, share in enumerate(lines):
        total += share * at_most
        term *= time / (i + 1)
        at_most += term
    return total


def _crossing(tail: Callable[[float], float], share: float, step: float) -> float:
    """Return where `tail`, which falls, comes down to `share`."""
    if tail(0) <= share:
        return 0.0
    low, high = 0.0, step
    while tail(high) > share:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle) > share else (low, middle)
    return high
