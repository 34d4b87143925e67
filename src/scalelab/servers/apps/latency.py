"""A dependency that makes its clients wait: an aiohttp server with seeded latencies, in its own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scalelab.servers.apps._process import ask, python_server


@dataclass(frozen=True)
class ServerStats:
    """The server's own counters since it started or was last reset.

    requests: requests that reached it; most_in_flight: the largest number in flight at one moment; connections: TCP
    connections that carried them; answered: answers it finished; refused: answers 503 because it was full; abandoned:
    requests whose client disconnected before the answer; seconds_held: time that the answered requests spent in it,
    summed.
    """

    requests: int
    most_in_flight: int
    in_flight: int
    connections: int
    answered: int
    refused: int
    abandoned: int
    seconds_held: float

    @property
    def mean_latency(self) -> float:
        """Mean time in seconds that an answered request spent in the server."""
        return self.seconds_held / self.answered if self.answered else 0.0


@dataclass(frozen=True)
class LatencyServer:
    """A running server; `url` is its address, `latency` its mean latency in seconds."""

    url: str
    latency: float

    def item(self, i: int) -> str:
        """Return the URL of item `i`."""
        return f"{self.url}/item/{i}"

    def items(self, n: int) -> list[str]:
        """Return the URLs of items 0 to n − 1."""
        return [self.item(i) for i in range(n)]

    def stats(self) -> ServerStats:
        """Return the server's counters. Raises ServiceError if the server does not answer."""
        return ServerStats(**ask(self.url, "stats"))

    def reset(self) -> None:
        """Set the counters to zero. Raises ServiceError if the server does not answer."""
        ask(self.url, "reset")


@contextmanager
def latency_server(
    latency: float = 0.05,
    *,
    spread: float = 0.2,
    seed: int = 8,
    capacity: int | None = None,
    fail_every: int | None = None,
    hang_every: int | None = None,
) -> Iterator[LatencyServer]:
    """Run a server that answers `GET /item/<i>` with a JSON object after that item's own latency.

    latency: mean, in seconds. spread: an item's latency is uniform in latency·(1 ± spread), drawn from `seed` and the
    item's number, so every client meets the same latencies. capacity: the server answers 503 at once while that many
    requests are in flight. fail_every: of every `fail_every` items, the last is answered with status 500. hang_every:
    of every `hang_every` items, the last is never answered. Raises ServiceError if the server cannot start.
    """
    options = {
        "latency": latency,
        "spread": spread,
        "seed": seed,
        "capacity": capacity,
        "fail_every": fail_every,
        "hang_every": hang_every,
    }
    with python_server("scalelab.servers.apps._latency_app", options) as ready:
        yield LatencyServer(url=f"http://127.0.0.1:{ready['port']}", latency=latency)
