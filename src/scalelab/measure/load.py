"""Put load on a server: an open loop sends at the intended times, a closed loop waits for each answer first."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from scalelab.errors import ScalelabError
from scalelab.measure.histogram import Histogram
from scalelab.measure.sample import percentile

Array = np.ndarray[tuple[int], np.dtype[np.float64]]
Send = Callable[[int], Awaitable[object]]

YIELD_EVERY = 8


class LoadError(ScalelabError):
    """The requested load cannot be generated."""


@dataclass(frozen=True)
class Load:
    """The times and failures of all requests.

    Arrays have one element for each request, in the order of i; times are in seconds since the start. offered: the
    intended requests per second, NaN for a closed loop without a rate. intended: when a request should have been sent;
    sent: when it was sent; ended: when its answer arrived, NaN if it failed. failures: the number of errors by the name
    of the exception.
    """

    offered: float
    intended: Array
    sent: Array
    ended: Array
    failures: dict[str, int]

    @cached_property
    def latency(self) -> Array:
        """Seconds from the intended start to the answer, as a user experiences them. NaN if the request failed."""
        return self.ended - self.intended

    @cached_property
    def service(self) -> Array:
        """Seconds from the actual start to the answer, as a load generator that sent late sees them."""
        return self.ended - self.sent

    @cached_property
    def histogram(self) -> Histogram:
        """Histogram of `latency`, from the intended start."""
        return Histogram.of(self.latency)

    @cached_property
    def service_histogram(self) -> Histogram:
        """Histogram of `service`, from the actual start; coordinated omission hides the delay before it."""
        return Histogram.of(self.service)

    @property
    def errors(self) -> int:
        return sum(self.failures.values())

    @property
    def seconds(self) -> float:
        """Seconds from the first intended start to the last answer."""
        return float(np.nanmax(self.ended)) - float(self.intended[0]) if self.errors < len(self.ended) else 0.0

    @property
    def throughput(self) -> float:
        """Answers per second, from the first intended start to the last answer."""
        return (len(self.ended) - self.errors) / self.seconds if self.seconds else 0.0

    @property
    def in_flight(self) -> float:
        """Mean number of requests between their actual start and their answer, over `seconds`."""
        return float(np.nansum(self.service)) / self.seconds if self.seconds else 0.0

    def late(self, p: float = 99) -> float:
        """Return percentile `p` of the delay between intended and actual start, in seconds.

        For an open loop this checks the load generator itself: if the delay is not small compared with the latencies,
        the machine could not send at this rate, and the result says more about the generator than about the server.
        """
        return percentile(self.sent - self.intended, p)


async def open_loop(
    send: Send,
    rate: float,
    *,
    requests: int,
    arrivals: Literal["poisson", "even"] = "poisson",
    seed: int = 1,
    timeout: float | None = None,
) -> Load:
    """Send requests at their intended times, without waiting for earlier answers.

    send: called as `send(i)` for i = 0, 1, …; any exception counts as a failure. rate: mean requests per second.
    arrivals: "poisson" draws exponential gaps with `seed`, "even" makes all gaps equal. timeout: seconds from the
    intended start after which a request is cancelled. Returns when every request was answered, failed or was cancelled.
    Raises LoadError if an argument is out of range.
    """
    _require(rate > 0 and math.isfinite(rate), f"Expected a rate above 0 requests per second; got {rate}.")
    _require(requests >= 1, f"Expected at least one request; got {requests}.")
    _require(arrivals in ("poisson", "even"), f'Expected arrivals "poisson" or "even"; got {arrivals!r}.')
    if arrivals == "poisson":
        gaps = np.random.default_rng(seed).exponential(1 / rate, requests)
        intended = np.cumsum(gaps) - gaps[0]
    else:
        intended = np.arange(requests) / rate
    recorder = _Recorder(requests, timeout)
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.TaskGroup() as group:
        for i, due in enumerate(intended.tolist()):
            if (delay := start + due - loop.time()) > 0:
                await asyncio.sleep(delay)
            group.create_task(recorder.request(send, i, start, start + due))
            if i % YIELD_EVERY == 0:
                await asyncio.sleep(0)  # lets requests in progress run even if sending is behind schedule
    return recorder.load(rate, intended)


async def closed_loop(
    send: Send,
    users: int,
    *,
    requests: int,
    think: float = 0.0,
    rate: float | None = None,
    timeout: float | None = None,
) -> Load:
    """Let `users` send requests; each user sends the next request after the answer to the last.

    send, timeout: as for `open_loop`. requests: number for all users together. think: seconds between an answer and the
    next request, ignored if there is a rate. rate: requests per second of all users together, which gives each request
    an intended time; a user sends it late if the last answer has not arrived. Without a rate, the intended time of a
    request is when it is sent. Raises LoadError if an argument is out of range.
    """
    _require(users >= 1, f"Expected at least one user; got {users}.")
    _require(requests >= 1, f"Expected at least one request; got {requests}.")
    _require(think >= 0, f"Expected 0 s or more to think; got {think}.")
    _require(rate is None or rate > 0, f"Expected a rate above 0 requests per second; got {rate}.")
    recorder = _Recorder(requests, timeout)
    intended = np.zeros(requests)
    loop = asyncio.get_running_loop()
    start = loop.time()
    request_numbers = itertools.count()

    async def user(user_number: int) -> None:
        for turn in itertools.count():
            if rate is not None:
                due = start + (user_number + turn * users) / rate
                if (delay := due - loop.time()) > 0:
                    await asyncio.sleep(delay)
            elif turn and think:
                await asyncio.sleep(think)
            if (i := next(request_numbers)) >= requests:
                return
            if rate is None:
                due = loop.time()
            intended[i] = due - start
            await recorder.request(send, i, start, due)

    async with asyncio.TaskGroup() as group:
        for user_number in range(users):
            group.create_task(user(user_number))
    return recorder.load(math.nan if rate is None else rate, intended)


class _Recorder:
    """Records when each request was sent and ended."""

    def __init__(self, requests: int, timeout: float | None) -> None:
        self.sent, self.ended = np.full(requests, math.nan), np.full(requests, math.nan)
        self.failures: dict[str, int] = {}
        self.timeout = timeout

    async def request(self, send: Send, i: int, start: float, due: float) -> None:
        loop = asyncio.get_running_loop()
        self.sent[i] = loop.time() - start
        try:
            async with asyncio.timeout_at(None if self.timeout is None else due + self.timeout):
                await send(i)
        except Exception as error:  # any failure of the code under load is a result
            kind = type(error).__name__
            self.failures[kind] = self.failures.get(kind, 0) + 1
        else:
            self.ended[i] = loop.time() - start

    def load(self, offered: float, intended: Array) -> Load:
        return Load(offered, intended, self.sent, self.ended, self.failures)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise LoadError(message)
