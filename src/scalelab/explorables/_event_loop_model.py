"""One event loop against a pool of threads, both given the same requests: the model of `event_loop.js` in Python.

A request needs the processor for one slice, waits for an answer elsewhere, needs the processor for a second slice,
and is done. The processor runs one slice at a time on either side: it is the thread of the loop, or the interpreter
lock that the pool's threads share. The pool holds at most `threads` requests; the rest queue. With `blocking`, one
request in 200 calls something that does not await: on the loop it keeps the processor all that time, in the pool it
keeps its own thread only. Times are whole microseconds: `event_loop.js` agrees with this event for event.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from ._knobs import PREVIEW_MS, Knob, State, settings
from ._random import random

KNOBS = (
    Knob("rate", 400, low=50, high=1000, step=10, unit="requests/s"),
    Knob("wait", 500, low=50, high=1000, step=10, unit="ms"),
    Knob("threads", 250, low=1, high=500, unit="threads"),
    Knob("blocking", False),
)
SLICE_US = 250
BLOCK_US = 250_000
BLOCK_ONE_IN = 200
BIN_US = 100_000
WINDOW_BINS = 50
_KINDS = 0x9E3779B9  # what sets the second stream of chance apart from the first


class SideReadout(TypedDict):
    """`done` … `ready` are counts now; the rest is of the last five seconds: per second, milliseconds, share of 1."""

    done: int
    in_flight: int
    queued: int
    ready: int
    mean_in_flight: float
    throughput: float
    p99_ms: float | None
    busy: float


class Readout(TypedDict):
    now_us: int
    events: int
    arrived: int
    loop: SideReadout
    pool: SideReadout


class SideTheory(TypedDict):
    """Rates per second, `in_flight` in requests (None: grows without end), `busy` a share of 1."""

    stable: bool
    ceiling: float
    throughput: float
    growth: float
    in_flight: float | None
    busy: float


class Theory(TypedDict):
    alone_ms: float
    loop: SideTheory
    pool: SideTheory


@dataclass(slots=True)
class _Request:
    id: int
    at: int
    blocks: bool
    resumed: bool = False


@dataclass(slots=True)
class _Bin:
    """What a tenth of a second measured: request-microseconds in flight, microseconds busy, latencies of those done."""

    area: int = 0
    busy: int = 0
    latencies: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Side:
    is_pool: bool
    queue: deque[_Request] = field(default_factory=deque)  # not yet taken by a thread
    ready: deque[_Request] = field(default_factory=deque)  # wants the processor
    waiting: list[tuple[int, int, _Request]] = field(default_factory=list)  # heap: waits for its answer
    running: _Request | None = None  # has the processor, until `ends`
    ends: int = 0
    in_flight: int = 0
    done: int = 0
    touched: int = 0
    bin: _Bin = field(default_factory=_Bin)
    bins: deque[_Bin] = field(default_factory=lambda: deque(maxlen=WINDOW_BINS))


@dataclass(slots=True)
class Model:
    """A run under way; make it with `create_model`, change it with `advance` and `set_knobs` only."""

    knobs: State
    gaps: Iterator[int]
    kinds: Iterator[int]
    now: int = 0
    events: int = 0
    arrived: int = 0
    next: int = 0
    loop: _Side = field(default_factory=lambda: _Side(is_pool=False))
    pool: _Side = field(default_factory=lambda: _Side(is_pool=True))


def create_model(state: Mapping[str, object]) -> Model:
    """Return a run that has not begun. `state` may hold seed, rate, wait, threads, blocking; raises KnobError."""
    knobs = settings(KNOBS, state)
    model = Model(knobs, random(knobs["seed"]), random(knobs["seed"] ^ _KINDS))
    model.next = _gap(model)
    return model


def set_knobs(model: Model, state: Mapping[str, object]) -> None:
    """Turn knobs of a run that is under way; the seed stays. Raises KnobError."""
    model.knobs = {**settings(KNOBS, {**model.knobs, **state}), "seed": model.knobs["seed"]}


def advance(model: Model, ms: float) -> None:
    """Let `ms` milliseconds pass. Two halves do what the whole does."""
    until = model.now + math.floor(ms * 1000 + 0.5)
    while model.now < until:
        full = (model.now // BIN_US + 1) * BIN_US
        stop = min(until, full)
        while model.next <= stop:
            _arrive(model)
            model.next += _gap(model)
        for side in (model.loop, model.pool):
            _run_side(model, side, stop)
            if stop == full:
                side.bins.append(side.bin)
                side.bin = _Bin()
        model.now = stop


def readout(model: Model) -> Readout:
    """Return where the run is, and what the last five seconds measured."""
    return {
        "now_us": model.now,
        "events": model.events,
        "arrived": model.arrived,
        "loop": _read_side(model.loop),
        "pool": _read_side(model.pool),
    }


def theory(state: Mapping[str, object]) -> Theory:
    """Return what theory says of both sides. Raises KnobError.

    Little: in flight = rate x time in flight. A side is stable while its rate is below its ceiling: the loop's is
    1 / (processor time per request), the pool's is threads / (time a request keeps one). The loop's delay per slice is
    Pollaczek and Khinchine's mean wait, which takes arrivals at the loop as independent. An overloaded loop takes
    first and second slices in the order they come, so it starts the share `kept` of what arrives and finishes the
    share `kept` of that: rate x (first x kept + second x kept**2) = 1 second of work per second.
    """
    knobs = settings(KNOBS, state)
    rate, wait, threads = knobs["rate"], knobs["wait"], knobs["threads"]
    one, block = SLICE_US / 1e6, BLOCK_US / 1e6
    share = 1 / BLOCK_ONE_IN if knobs["blocking"] else 0
    work = 2 * one + share * block
    held = wait / 1000 + work
    load = rate * work
    ceiling = min(threads / held, 1 / (2 * one))
    if load < 1:
        kept = 1.0
        square = ((1 - share) * one**2 + share * (one + block) ** 2 + one**2) / 2
        in_loop: float | None = rate * (held + 2 * rate * square / (1 - load))
    else:
        first = one + share * block
        kept = (math.sqrt(first**2 + 4 * one / rate) - first) / (2 * one)
        in_loop = None
    return {
        "alone_ms": wait + 2 * SLICE_US / 1000,
        "loop": _side_theory(rate, 1 / work, rate * kept**2, in_loop, load),
        "pool": _side_theory(rate, ceiling, min(rate, ceiling), min(rate * held, threads), rate * held / threads),
    }


def _side_theory(rate: int, ceiling: float, throughput: float, in_flight: float | None, load: float) -> SideTheory:
    return {
        "stable": rate < ceiling,
        "ceiling": ceiling,
        "throughput": throughput,
        "growth": rate - throughput,
        "in_flight": in_flight,
        "busy": min(1, load),
    }


def describe(state: Mapping[str, object]) -> str:
    """Return what the figure shows at first, for a reader without JavaScript."""

    def p99(blocking: bool) -> list[str]:
        run = create_model({**state, "blocking": blocking})
        advance(run, PREVIEW_MS)
        seen = readout(run)
        sides = (seen["loop"], seen["pool"])
        return [f"{side['p99_ms']:,.0f} ms" if side["p99_ms"] else "no answer yet" for side in sides]

    knobs = settings(KNOBS, state)
    threads = f"{knobs['threads']} thread{'' if knobs['threads'] == 1 else 's'}"
    (loop, pool), (blocked_loop, blocked_pool) = p99(False), p99(True)
    return (
        f"{knobs['rate']:,} requests/s arrive and wait {knobs['wait']:,} ms each. After 10 simulated seconds the p99 "
        f"latency of one event loop is {loop}, that of a pool of {threads} {pool}. When one handler in "
        f"{BLOCK_ONE_IN} blocks for {BLOCK_US // 1000} ms, the loop's is {blocked_loop}, "
        f"the pool's {blocked_pool}."
    )


def _gap(model: Model) -> int:
    return math.floor(-math.log((next(model.gaps) + 1) / 2**32) * (1e6 / model.knobs["rate"]) + 0.5)


def _arrive(model: Model) -> None:
    at = model.next
    blocks = next(model.kinds) % BLOCK_ONE_IN == 0 and bool(model.knobs["blocking"])
    for side in (model.loop, model.pool):
        _run_side(model, side, at)
        side.queue.append(_Request(model.arrived, at, blocks))
        _dispatch(side, model.knobs, at)
    model.arrived += 1
    model.events += 1


def _touch(side: _Side, time: int) -> None:
    passed = time - side.touched
    side.bin.area += passed * side.in_flight
    if side.running is not None:
        side.bin.busy += passed
    side.touched = time


def _dispatch(side: _Side, knobs: State, time: int) -> None:
    while side.queue and (not side.is_pool or side.in_flight < knobs["threads"]):
        side.in_flight += 1
        side.ready.append(side.queue.popleft())
    if side.running is None and side.ready:
        request = side.running = side.ready.popleft()
        holds = request.blocks and not request.resumed and not side.is_pool
        side.ends = time + SLICE_US + (BLOCK_US if holds else 0)


def _run_side(model: Model, side: _Side, until: int) -> None:
    while True:
        ends = side.ends if side.running is not None else math.inf
        due = side.waiting[0][0] if side.waiting else math.inf
        if min(ends, due) > until:
            break
        if due <= ends:
            time, _, request = heapq.heappop(side.waiting)
            _touch(side, time)
            request.resumed = True
            side.ready.append(request)
        elif side.running is not None:
            time, request = side.ends, side.running
            _touch(side, time)
            side.running = None
            if request.resumed:
                side.in_flight -= 1
                side.done += 1
                side.bin.latencies.append(time - request.at)
            else:
                own = BLOCK_US if request.blocks and side.is_pool else 0
                heapq.heappush(side.waiting, (time + model.knobs["wait"] * 1000 + own, request.id, request))
        model.events += 1
        _dispatch(side, model.knobs, time)
    _touch(side, until)


def _read_side(side: _Side) -> SideReadout:
    passed = max(1, len(side.bins)) * BIN_US
    latencies = sorted(latency for one in side.bins for latency in one.latencies)
    return {
        "done": side.done,
        "in_flight": side.in_flight,
        "queued": len(side.queue),
        "ready": len(side.ready),
        "mean_in_flight": sum(one.area for one in side.bins) / passed,
        "throughput": len(latencies) / passed * 1e6,
        "p99_ms": latencies[math.ceil(len(latencies) * 0.99) - 1] / 1000 if latencies else None,
        "busy": sum(one.busy for one in side.bins) / passed,
    }
