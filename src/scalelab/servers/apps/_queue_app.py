"""The process behind `queue_server`."""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
from collections import deque
from dataclasses import dataclass, field

from aiohttp import web

from scalelab.servers.apps._app import run_loaded


@dataclass
class Counters:
    since: float = 0.0
    arrived: int = 0
    completed: int = 0
    refused: int = 0
    in_system: int = 0
    most_in_system: int = 0
    in_system_seconds: float = 0.0
    busy_seconds: float = 0.0
    waited_seconds: float = 0.0
    changed: float = 0.0

    def change(self, now: float, by: int) -> None:
        """Add `by` to the number of requests in the system at time `now`, and update its integral over time."""
        self.in_system_seconds += self.in_system * (now - self.changed)
        self.changed = now
        self.in_system += by
        self.most_in_system = max(self.most_in_system, self.in_system)


@dataclass
class Service:
    """The options of `queue_server`; `ends` holds, for each server, the completion times of its requests."""

    mean: float
    distribution: str
    scv: float
    servers: int
    policy: str
    seed: int
    limit: int | None
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self.ends: list[deque[float]] = [deque() for _ in range(self.servers)]
        self.choices = random.Random(self.seed)
        self.turn = 0

    def service_time(self, i: int) -> float:
        """Return request i's service time in seconds: the same in every run with this seed."""
        draws = random.Random(self.seed * 1_000_003 + i)
        if self.distribution == "fixed":
            return self.mean
        if self.distribution == "exponential":
            return draws.expovariate(1 / self.mean)
        # Two exponential phases with balanced means: each phase has half of all the work.
        share = (1 + math.sqrt((self.scv - 1) / (self.scv + 1))) / 2
        chosen = share if draws.random() < share else 1 - share
        return draws.expovariate(2 * chosen / self.mean)

    def choose(self, now: float) -> int:
        """Return the index of the server for a request that arrives at `now`."""
        for ends in self.ends:
            while ends and ends[0] <= now:
                ends.popleft()
        everyone = range(self.servers)
        if self.policy == "one queue":  # the server that is free first takes the next request
            return min(everyone, key=lambda k: self.ends[k][-1] if self.ends[k] else now)
        if self.policy == "round robin":
            self.turn = (self.turn + 1) % self.servers
            return self.turn
        if self.policy == "random":
            return self.choices.randrange(self.servers)
        asked = self.choices.sample(everyone, min(2, self.servers)) if self.policy == "two choices" else list(everyone)
        fewest = min(len(self.ends[k]) for k in asked)
        return self.choices.choice([k for k in asked if len(self.ends[k]) == fewest])

    async def work(self, request: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()
        now, counters = loop.time(), self.counters
        if self.limit is not None and counters.in_system >= self.limit:
            counters.refused += 1
            return web.json_response({"error": "full", "limit": self.limit}, status=503)
        i = int(request.match_info["i"])
        ends = self.ends[server := self.choose(now)]
        # Start times are computed, not slept: a late wake-up delays one answer, but never the next request's start.
        begins = max(now, ends[-1]) if ends else now
        takes = self.service_time(i)
        ends.append(begins + takes)
        counters.arrived += 1
        counters.change(now, +1)
        try:
            while (left := begins + takes - loop.time()) > 0:
                await asyncio.sleep(left)
        finally:
            counters.change(loop.time(), -1)
        counters.completed += 1
        counters.busy_seconds += takes
        counters.waited_seconds += begins - now
        return web.json_response({"item": i, "server": server})

    async def stats(self, request: web.Request) -> web.Response:
        now = asyncio.get_running_loop().time()
        self.counters.change(now, 0)
        shown = {name: value for name, value in vars(self.counters).items() if name not in ("since", "changed")}
        return web.json_response({**shown, "seconds": now - self.counters.since})

    async def reset(self, request: web.Request) -> web.Response:
        """Zero the counters; requests in the system stay in it."""
        now, inside = asyncio.get_running_loop().time(), self.counters.in_system
        # In place: a request in progress keeps a reference to these counters and updates them when it ends.
        vars(self.counters).update(vars(Counters(since=now, changed=now, in_system=inside, most_in_system=inside)))
        return web.json_response({})


if __name__ == "__main__":
    run_loaded(Service(**json.loads(sys.argv[1])))
