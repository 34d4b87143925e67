"""The process behind `latency_server`: it prints its port as JSON, and ends when its standard input closes."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import weakref
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from scalelab.servers.apps._app import run_app


@dataclass
class Counters:
    requests: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    connections: int = 0
    answered: int = 0
    refused: int = 0
    abandoned: int = 0
    seconds_held: float = 0.0


@dataclass
class Service:
    """The options and the counters of `latency_server`."""

    latency: float
    spread: float
    seed: int
    capacity: int | None
    fail_every: int | None
    hang_every: int | None
    counters: Counters = field(default_factory=Counters)
    seen: weakref.WeakSet[asyncio.BaseTransport] = field(default_factory=weakref.WeakSet)

    def item_latency(self, i: int) -> float:
        """Return item i's own latency in seconds: the same in every run with this seed."""
        draw = random.Random(self.seed * 1_000_003 + i).uniform(-1, 1)
        return self.latency * (1 + self.spread * draw)

    async def item(self, request: web.Request) -> web.Response:
        i = int(request.match_info["i"])
        if request.transport is not None and request.transport not in self.seen:
            self.seen.add(request.transport)
            self.counters.connections += 1
        self.counters.requests += 1
        if self.capacity is not None and self.counters.in_flight >= self.capacity:
            self.counters.refused += 1
            return web.json_response({"error": "full", "capacity": self.capacity}, status=503)
        self.counters.in_flight += 1
        self.counters.most_in_flight = max(self.counters.most_in_flight, self.counters.in_flight)
        came = asyncio.get_running_loop().time()
        try:
            if _last_of_each(self.hang_every, i):
                await asyncio.Event().wait()
            await asyncio.sleep(self.item_latency(i))
        except asyncio.CancelledError:
            self.counters.abandoned += 1
            raise
        finally:
            self.counters.in_flight -= 1
        self.counters.answered += 1
        self.counters.seconds_held += asyncio.get_running_loop().time() - came
        if _last_of_each(self.fail_every, i):
            return web.json_response({"error": "broken item", "item": i}, status=500)
        return web.json_response({"item": i})

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(vars(self.counters))

    async def reset(self, request: web.Request) -> web.Response:
        """Zero the counters; requests in flight stay counted, and an open connection counts again when it is used."""
        self.counters = Counters(in_flight=self.counters.in_flight)
        self.seen.clear()
        return web.json_response(vars(self.counters))


def _last_of_each(every: int | None, i: int) -> bool:
    return every is not None and i % every == every - 1


def main(options: dict[str, Any]) -> None:
    service = Service(**options)
    run_app(
        [
            web.get(r"/item/{i:\d+}", service.item),
            web.get("/stats", service.stats),
            web.get("/reset", service.reset),
        ]
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
