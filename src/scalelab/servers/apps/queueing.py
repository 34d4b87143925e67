"""Servers to put load on: one whose queue follows theory exactly, and one that uses the processor for each request."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from scalelab.servers.apps._process import ask, python_server
from scalelab.servers.spec import ServiceError

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
        """Set the counters to zero; requests in the system stay. Raises ServiceError if the server does not answer."""
        ask(self.url, "reset")

    def pause(self, seconds: float) -> None:
        """Freeze the whole server for `seconds` from now: it reads nothing and answers nothing.

        Returns at once. Raises ServiceError if `seconds` is not above 0 and finite, or if the server does not answer.
        """
        if not 0 < seconds < math.inf:
            raise ServiceError(f"Expected a pause above 0 s; got {seconds}.")
        ask(self.url, f"pause?{urlencode({'seconds': seconds})}")


@dataclass(frozen=True)
class QueueStats:
    """The server's counters since it was last reset, `seconds` ago.

    arrived, completed, refused: requests; in_system: requests waiting or in service now; most_in_system: the largest
    number at one moment; in_system_seconds: the number in the system integrated over time, so in_system_seconds /
    seconds is its mean; busy_seconds, waited_seconds: sums of the service times and waiting times of the completed
    requests.
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
        """Return the server's counters. Raises ServiceError if the server does not answer."""
        return QueueStats(**ask(self.url, "stats"))


@dataclass(frozen=True)
class WorkStats:
    """The server's counters since it was last reset, `seconds` ago; cpu_seconds: processor time of its process."""

    arrived: int
    completed: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class WorkServer(LoadedServer):
    def stats(self) -> WorkStats:
        """Return the server's counters. Raises ServiceError if the server does not answer."""
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
    """Run a server that answers `GET /job/<i>` when the request has waited its turn and for its service time.

    service: mean service time in seconds. distribution: of the service times, drawn from `seed` and the request's
    number. scv: squared coefficient of variation of the hyperexponential distribution, > 1. servers: how many requests
    are in service at once. policy: "one queue" for all servers, first come first served; or a queue for each server,
    chosen at random, in turn ("round robin"), as the shorter of two random queues, or as the shortest of all. limit:
    the server answers 503 while that many requests are in the system. Requests wait for their service time without
    using the processor, and turns are computed on the server's own clock, so response times are those of the
    theoretical queue plus the cost of HTTP. Raises ServiceError if an argument is invalid or the server does not start.
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
    with python_server("scalelab.servers.apps._queue_app", options) as ready:
        server = QueueServer(f"http://127.0.0.1:{ready['port']}")
        server.reset()
        yield server


@contextmanager
def work_server(cost: float = 0.002) -> Iterator[WorkServer]:
    """Run a server that uses the processor for each `GET /job/<i>`: one core, one request at a time.

    cost: seconds of processor time per request, calibrated when the server starts, without the cost of HTTP; for the
    true cost, divide cpu_seconds by completed from `stats`. Raises ServiceError if `cost` is not above 0 or the server
    does not start.
    """
    if cost <= 0:
        raise ServiceError(f"Expected a cost above 0 s per request; got {cost}.")
    with python_server("scalelab.servers.apps._work_app", {"cost": cost}) as ready:
        server = WorkServer(f"http://127.0.0.1:{ready['port']}")
        server.reset()
        yield server
