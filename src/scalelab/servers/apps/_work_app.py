"""The process behind `work_server`."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass

from aiohttp import web

from scalelab.servers.apps._app import run_loaded

TRIAL_TURNS = 20_000
TRIALS = 9


def burn(turns: int) -> int:
    """Keep the processor busy for `turns` iterations of a loop."""
    state = 1
    for _ in range(turns):
        state = state * 1_103_515_245 + 12_345 & 0x7FFFFFFF
    return state


def turns_for(cost: float) -> int:
    """Return how many iterations of `burn` take `cost` seconds of processor time here: the median of a few trials."""
    taken = []
    for _ in range(TRIALS):
        start = time.thread_time()
        burn(TRIAL_TURNS)
        taken.append(time.thread_time() - start)
    return max(round(cost / statistics.median(taken) * TRIAL_TURNS), 1)


@dataclass
class Service:
    turns: int
    since: float = 0.0
    since_cpu: float = 0.0
    arrived: int = 0
    completed: int = 0

    async def work(self, request: web.Request) -> web.Response:
        self.arrived += 1
        state = burn(self.turns)
        self.completed += 1
        return web.json_response({"item": int(request.match_info["i"]), "state": state})

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "arrived": self.arrived,
                "completed": self.completed,
                "seconds": asyncio.get_running_loop().time() - self.since,
                "cpu_seconds": time.process_time() - self.since_cpu,
            }
        )

    async def reset(self, request: web.Request) -> web.Response:
        self.arrived = self.completed = 0
        self.since, self.since_cpu = asyncio.get_running_loop().time(), time.process_time()
        return web.json_response({})


if __name__ == "__main__":
    run_loaded(Service(turns_for(json.loads(sys.argv[1])["cost"])))
