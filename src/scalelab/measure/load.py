"""Put load on a server: an open loop sends at the intended times, a closed loop waits for answers first."""

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

TURN_AFTER = 8


class LoadError(ScalelabError):
    """The requested load cannot be generated."""


@dataclass(frozen=True)
class Load:
    """The times and failures of all requests.

    Arrays have one element for each request, in the order of i; times are in seconds since the start. offered: requests
    per second that were meant to be sent, NaN for a closed loop without a rate. intended: when a request was meant to
    be sent; sent: when it was sent; ended: when its answer came, NaN if it failed. failures: the number of errors of
    each kind.
    """

    offered: float
    intended: Array
    sent: Array
    ended: Array
    failures: dict[str, int]

    @cached_property
    def latency(self) -> Array:
        """Seconds from the intended start to the answer, which a user waits. NaN if the request failed."""
        return self.ended - self.intended

    @cached_property
    def service(self) -> Array:
        """Seconds from the actual start to the answer, as a load generator that waits for its turn sees them."""
        return self.ended - self.sent

    @cached_property
    def histogram(self) -> Histogram:
        """Histogram of `latency`, from the intended start."""
        return Histogram.of(self.latency)

    @cached_property
    def service_histogram(self) -> Histogram:
        """Histogram of `service`, from the actual start; coordinated omission hides the time before it."""
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
        """Mean number of requests between their actual start and their answer, over the same time."""
        return float(np.nansum(self.service)) / self.seconds if self.seconds else 0.0

    def late(self, p: float = 99) -> float:
        """Return percentile `p` of how late requests were sent, in seconds.

        For an open loop it checks the generator itself: if it is not small compared with the latencies, the machine
        could not send at this rate, and the result says more about the generator than about the server.
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
    arrivals: gaps drawn from an exponential distribution with `seed`, or all equal. timeout: seconds from the intended
    start after which a request is given up. Returns when every request was answered, failed or was given up. Raises
    LoadError if an argument is out of range.
    """
    _expect(rate > 0 and math.isfinite(rate), f"Expected a rate above 0 requests per second; got {rate}.")
    _expect(requests >= 1, f"Expected at least one request; got {requests}.")
    _expect(arrivals in ("poisson", "even"), f'Expected arrivals "poisson" or "even"; got {arrivals!r}.')
    if arrivals == "poisson":
        gaps = np.random.default_rng(seed).exponential(1 / rate, requests)
        intended = np.cumsum(gaps) - gaps[0]
    else:
        intended = np.arange(requests) / rate
    book = _Book(requests, timeout)
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.TaskGroup() as group:
        for i, due in enumerate(intended.tolist()):
            if (left := start + due - loop.time()) > 0:
                await asyncio.sleep(left)
            group.create_task(book.request(send, i, start, start + due))
            if i % TURN_AFTER == 0:
                await asyncio.sleep(0)  # lets requests in progress run even if sending is behind schedule
    return book.load(rate, intended)


async def closed_loop(
    send: Send,
    users: int,
    *,
    requests: int,
    think: float = 0.0,
    rate: float | None = None,
    timeout: float | None = None,
) -> Load:
    """Let `users` send requests, each the next one after the answer to its last.

    send, timeout: as for `open_loop`. requests: number for all users together. think: seconds between an answer and the
    next request, ignored if there is a rate. rate: requests per second that all users together mean to send: each then
    has an intended time for its next request, but sends it late if the last answer is still missing. Without a rate,
    the intended time of a request is when it is sent. Raises LoadError if an argument is out of range.
    """
    _expect(users >= 1, f"Expected at least one user; got {users}.")
    _expect(requests >= 1, f"Expected at least one request; got {requests}.")
    _expect(think >= 0, f"Expected 0 s or more to think; got {think}.")
    _expect(rate is None or rate > 0, f"Expected a rate above 0 requests per second; got {rate}.")
    book = _Book(requests, timeout)
    intended = np.zeros(requests)
    loop = asyncio.get_running_loop()
    start = loop.time()
    numbers = itertools.count()

    async def user(mine: int) -> None:
        for turn in itertools.count():
            if rate is not None:
                due = start + (mine + turn * users) / rate
                if (left := due - loop.time()) > 0:
                    await asyncio.sleep(left)
            elif turn and think:
                await asyncio.sleep(think)
            if (i := next(numbers)) >= requests:
                return
            if rate is None:
                due = loop.time()
            intended[i] = due - start
            await book.request(send, i, start, due)

    async with asyncio.TaskGroup() as group:
        for mine in range(users):
            group.create_task(user(mine))
    return book.load(math.nan if rate is None else rate, intended)


class _Book:
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


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LoadError(otherwise)
