"""Servers to put load on: one whose queue follows theory exactly, and one that works for each request."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from scalelab.services.process import ServiceError, ask, python_server

Distribution = Literal["exponential", "fixed", "hyperexponential"]
Policy = Literal["one queue", "random", "round robin", "two choices", "shortest"]
DISTRIBUTIONS = ("exponential", "fixed", "hyperexponential")
POLICIES = ("one queue", "random", "round robin", "two choices", "shortest")


@dataclass(frozen=True)
class LoadedServer:
    """A running server; `url` is its address."""

    url: str

    def work(self, i: int) -> str:
        """Return the URL of request `i`."""
        return f"{self.url}/job/{i}"

    def reset(self) -> None:
        """Set the counters to zero; requests in the system stay in it. Raises ServiceError when the server is gone."""
        ask(self.url, "reset")

    def pause(self, seconds: float) -> None:
        """Let the whole server stand still so long, from now: it reads nothing and answers nothing.

        Returns at once. Raises ServiceError when the server is gone.
        """
        if not 0 < seconds < math.inf:
            raise ServiceError(f"Expected a pause above 0 s; got {seconds}.")
        ask(self.url, f"pause?{urlencode({'seconds': seconds})}")


@dataclass(frozen=True)
class QueueStats:
    """What the server counted in the `seconds` since it was last reset.

    arrived, completed, refused: requests; in_system: waiting or in service now, most_in_system: at most at one moment;
    in_system_seconds: their number integrated over time, so in_system_seconds / seconds is its mean; busy_seconds and
    waited_seconds: service times and waiting times of the completed requests, summed.
    """

    arrived: int
    completed: int
    refused: int
    in_system: int
    most_in_system: int
    seconds: float
    in_system_seconds: float
    busy_seconds: float
    waited_seconds: float


@dataclass(frozen=True)
class QueueServer(LoadedServer):
    def stats(self) -> QueueStats:
        """Return what the server counted. Raises ServiceError when it is gone."""
        return QueueStats(**ask(self.url, "stats"))


@dataclass(frozen=True)
class WorkStats:
    """What the server counted in the `seconds` since it was last reset; cpu_seconds: processor time of its process."""

    arrived: int
    completed: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class WorkServer(LoadedServer):
    def stats(self) -> WorkStats:
        """Return what the server counted. Raises ServiceError when it is gone."""
        return WorkStats(**ask(self.url, "stats"))


@contextmanager
def queue_server(
    service: float = 0.01,
    *,
    distribution: Distribution = "exponential",
    scv: float = 1.0,
    servers: int = 1,
    policy: Policy = "one queue",
    seed: int = 2,
    limit: int | None = None,
) -> Iterator[QueueServer]:
    """Run a server that answers `GET /job/<i>` after the request has had its turn and its service time.

    service: mean service time in seconds. distribution: of the service times, drawn from `seed` and the request's
    number. scv: squared coefficient of variation of the hyperexponential one, > 1. servers: how many requests are in
    service at once. policy: one queue for all servers, first come first served; or a queue per server, chosen at
    random, in turn, as the shorter of two chosen at random, or as the shortest of all. limit: answers 503 while so many
    are in the system. The service time is waited for, not worked: turns follow the queue's arithmetic on the server's
    own clock, so the answers are those of the theory's queue, plus what HTTP costs. Raises ServiceError.
    """
    if service <= 0 or servers < 1 or (limit is not None and limit < 1):
        raise ServiceError(f"Expected service > 0 s, servers >= 1 and limit >= 1; got {service}, {servers}, {limit}.")
    if distribution not in DISTRIBUTIONS or policy not in POLICIES:
        raise ServiceError(
            f"Expected a distribution of {', '.join(DISTRIBUTIONS)} and a policy of {', '.join(POLICIES)}; "
            f"got {distribution!r} and {policy!r}."
        )
    if (distribution == "hyperexponential") != (scv > 1):
        raise ServiceError(f"Expected scv > 1 for the hyperexponential distribution, and only there; got {scv}.")
    options = {
        "mean": service,
        "distribution": distribution,
        "scv": scv,
        "servers": servers,
        "policy": policy,
        "seed": seed,
        "limit": limit,
    }
    with python_server("scalelab.services._queue_app", options) as ready:
        server = QueueServer(f"http://127.0.0.1:{ready['port']}")
        server.reset()
        yield server


@contextmanager
def work_server(cost: float = 0.002) -> Iterator[WorkServer]:
    """Run a server that works for each `GET /job/<i>`: it keeps one core busy, and serves one request at a time.

    cost: seconds of processor time per request, calibrated when the server starts; HTTP comes on top, so take the true
    cost from `stats`: cpu_seconds / completed. Raises ServiceError.
    """
    if cost <= 0:
        raise ServiceError(f"Expected a cost above 0 s per request; got {cost}.")
    with python_server("scalelab.services._work_app", {"cost": cost}) as ready:
        server = WorkServer(f"http://127.0.0.1:{ready['port']}")
        server.reset()
        yield server
