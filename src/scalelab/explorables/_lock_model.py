"""Threads under one interpreter lock, a thread that answers requests among them: the model of `lock.js` in Python.

`threads` busy threads compute for `work` ms per turn; then each waits, `io` per cent of its own time, without the lock.
One more thread answers requests: it waits for one, 20 ms in the mean, needs the lock for 0.1 ms, lets go of it for a
call of 0.05 ms, and needs it for another 0.1 ms. Who asked for the lock first gets it first. Who holds it lets go when
it waits itself, or when another thread has asked for longer than `interval` µs. Times are whole microseconds:
`lock.js` agrees with this event for event.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from ._knobs import PREVIEW_MS, Knob, State, settings
from ._random import random
from ._sample import p99, place, spread

GAP_US = 20_000
SLICE_US = 100
CALL_US = 50
KNOBS = (
    Knob("threads", 2, low=0, high=8, unit="threads"),
    Knob("work", 50, low=1, high=100, unit="ms"),
    Knob("interval", 5000, low=500, high=20_000, step=500, unit="µs"),
    Knob("io", 0, low=0, high=90, step=5, unit="%"),
)
TRUSTED = 0.1  # a run is long enough when it knows the mean wait to ± 10 %, and
LEAST = 1000  # has seen so many waits: the p99 is then that of ten or more
BATCHES = 16  # from so many batches on, up to twice as many, the error is told
FIRST_BATCH = 10
_BUSY = 0x9E3779B9  # what sets the second stream of chance apart from the first
_NOBODY = -1


class Readout(TypedDict):
    """Counts since the start; milliseconds; shares of the time.

    A wait is that of the thread which answers requests, from asking for the lock to getting it; there are two to a
    request. `error`: the half-width of the mean wait's 95 % interval, as a share of that mean, None while it is too
    short to tell. `held`: the lock was held by any, `computed`: by a busy thread. `handed`: it went to another thread.
    """

    now_us: int
    events: int
    requests: int
    waits: int
    mean_wait_ms: float | None
    p99_wait_ms: float | None
    error: float | None
    mean_request_ms: float | None
    held: float
    computed: float
    handed: int


class Theory(TypedDict):
    """`most_ms`: no wait is longer; where the busy threads never wait, it is about the p99 as well. `request_ms`: no
    request takes longer."""

    most_ms: float
    request_ms: float


@dataclass(slots=True)
class Model:
    """A run under way; make it with `create_model`, and move it with `advance` only. Thread 0 answers requests."""

    knobs: State
    gaps: Iterator[int]
    busy: Iterator[int]
    wakes: list[float]  # per thread, infinite where it does not wait for anything but the lock
    left: list[int]  # per thread, of its turn
    asked: deque[tuple[int, int]] = field(default_factory=deque)  # thread and time
    holder: int = _NOBODY
    last: int = _NOBODY
    got: int = 0
    now: int = 0
    events: int = 0
    requests: int = 0
    begun: int = 0
    second: bool = False
    request_us: int = 0
    waits: int = 0
    waited: int = 0
    longest: int = 0
    held: int = 0
    computed: int = 0
    handed: int = 0
    counts: dict[int, int] = field(default_factory=dict)  # of waits, per bin
    batches: list[int] = field(default_factory=list)
    batch_size: int = FIRST_BATCH
    batch: int = 0
    batched: int = 0


def create_model(state: Mapping[str, object]) -> Model:
    """Return a run that has not begun. `state` may hold seed, threads, work, interval, io; raises KnobError."""
    knobs = settings(KNOBS, state)
    model = Model(knobs, random(knobs["seed"]), random(knobs["seed"] ^ _BUSY), [], [])
    work = knobs["work"] * 1000
    model.wakes = [_gap(model), *(next(model.busy) % work for _ in range(knobs["threads"]))]
    model.left = [SLICE_US, *([work] * knobs["threads"])]
    return model


def advance(model: Model, ms: float) -> None:
    """Let `ms` milliseconds pass. Two halves do what the whole does."""
    until = model.now + math.floor(ms * 1000 + 0.5)
    while True:
        ends, wakes = _ends(model), min(model.wakes)
        if min(ends, wakes) > until:
            break
        if ends <= wakes:
            _let_go(model, int(ends))
        else:
            _ask(model, model.wakes.index(wakes), int(wakes))
        if model.holder == _NOBODY and model.asked:
            _get(model, int(min(ends, wakes)))
    model.now = until


def readout(model: Model) -> Readout:
    """Return where the run is, and what it measured from its start."""
    passed = max(1, model.now)
    holds = model.now - model.got if model.holder != _NOBODY else 0
    return {
        "now_us": model.now,
        "events": model.events,
        "requests": model.requests,
        "waits": model.waits,
        "mean_wait_ms": model.waited / model.waits / 1000 if model.waits else None,
        "p99_wait_ms": min(p99(model.counts), model.longest) / 1000 if model.waits else None,
        "error": _error(model.batches),
        "mean_request_ms": model.request_us / model.requests / 1000 if model.requests else None,
        "held": (model.held + holds) / passed,
        "computed": (model.computed + (holds if model.holder > 0 else 0)) / passed,
        "handed": model.handed,
    }


def theory(state: Mapping[str, object]) -> Theory:
    """Return what no wait and no request can exceed. Raises KnobError.

    Who asks for the lock stands behind each busy thread once at most, and each keeps it for a switch interval, or for
    its turn where that is shorter.
    """
    knobs = settings(KNOBS, state)
    most = knobs["threads"] * min(knobs["interval"], knobs["work"] * 1000)
    return {"most_ms": most / 1000, "request_ms": (2 * (most + SLICE_US) + CALL_US) / 1000}


def describe(state: Mapping[str, object]) -> str:
    """Return what the figure shows at first, for a reader without JavaScript."""
    model = create_model(state)
    advance(model, PREVIEW_MS)
    seen, most, knobs = readout(model), theory(state)["most_ms"], model.knobs
    threads = f"{knobs['threads']} busy thread{'' if knobs['threads'] == 1 else 's'}"
    io = f", which wait {knobs['io']} % of their own time," if knobs["io"] else ""
    return (
        f"A thread that answers requests shares the interpreter lock with {threads}{io} at a switch interval of "
        f"{knobs['interval'] / 1000:g} ms. In {seen['requests']:,} simulated requests its p99 wait for the lock is "
        f"{_ms(seen['p99_wait_ms'])}; the rule, busy threads × switch interval, says {most:g} ms at most. The mean "
        f"request, which needs 0.2 ms of the lock, takes {_ms(seen['mean_request_ms'])}."
    )


def _ms(value: float | None) -> str:
    return "none yet" if value is None else f"{value:,.2f} ms" if value < 1 else f"{value:,.1f} ms"


def _exponential(chance: int, mean: float) -> int:
    return math.floor(-math.log((chance + 1) / 2**32) * mean + 0.5)


def _gap(model: Model) -> int:
    return _exponential(next(model.gaps), GAP_US)


def _ends(model: Model) -> float:
    """When the holder lets go: at the end of its turn, or an interval after it has kept the first one waiting."""
    if model.holder == _NOBODY:
        return math.inf
    turn = model.got + model.left[model.holder]
    if not model.asked:
        return turn
    return min(turn, max(model.got, model.asked[0][1]) + model.knobs["interval"])


def _ask(model: Model, thread: int, time: int) -> None:
    model.events += 1
    model.wakes[thread] = math.inf
    model.asked.append((thread, time))
    if thread == 0 and not model.second:
        model.begun = time


def _get(model: Model, time: int) -> None:
    model.events += 1
    thread, since = model.asked.popleft()
    model.handed += thread != model.last
    model.holder = model.last = thread
    model.got = time
    if thread == 0:
        _count(model, time - since)


def _let_go(model: Model, time: int) -> None:
    model.events += 1
    thread, spent = model.holder, time - model.got
    model.holder = _NOBODY
    model.held += spent
    model.left[thread] -= spent
    if thread:
        model.computed += spent
    if model.left[thread]:
        _ask(model, thread, time)
        return
    if thread:
        work, io = model.knobs["work"] * 1000, model.knobs["io"]
        model.left[thread] = work
        model.wakes[thread] = time + (_exponential(next(model.busy), work * io / (100 - io)) if io else 0)
        return
    model.left[0] = SLICE_US
    if model.second:
        model.requests += 1
        model.request_us += time - model.begun
    model.second = not model.second
    model.wakes[0] = time + (CALL_US if model.second else _gap(model))


def _count(model: Model, wait: int) -> None:
    model.waits += 1
    model.waited += wait
    model.longest = max(model.longest, wait)
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
