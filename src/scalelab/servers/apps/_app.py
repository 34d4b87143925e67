"""Shared code of our servers: they serve on loopback, print their port, and end with their parent."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from aiohttp import web

from scalelab.servers.apps._process import allow_open_files

BACKLOG = 4096
ANSWERED_S = 0.005
"""Seconds between the answer to `/pause` and the pause, so that the answer is sent first."""


class Loaded(Protocol):
    """A service to put load on: it handles requests, reports its counters and resets them."""

    async def work(self, request: web.Request) -> web.Response: ...
    async def stats(self, request: web.Request) -> web.Response: ...
    async def reset(self, request: web.Request) -> web.Response: ...


def run_loaded(service: Loaded) -> None:
    """Serve `/job/<i>`, `/stats`, `/reset` and `/pause?seconds=` as `run_app` does."""
    run_app(
        [
            web.get(r"/job/{i:\d+}", service.work),
            web.get("/stats", service.stats),
            web.get("/reset", service.reset),
            web.get("/pause", pause),
        ]
    )


def run_app(routes: Iterable[web.RouteDef]) -> None:
    """Serve `routes` on a free port of 127.0.0.1, print the port as JSON, and return when standard input closes."""
    asyncio.run(_serve(routes))


async def _serve(routes: Iterable[web.RouteDef]) -> None:
    allow_open_files()
    app = web.Application()
    app.add_routes(routes)
    # handler_cancellation: cancel the handler if the client disconnects, so that it can count the request.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG, shutdown_timeout=0)
    await site.start()
    port = runner.addresses[0][1]
    print(json.dumps({"port": port}), flush=True)
    await _end_of_input()
    await runner.cleanup()


async def pause(request: web.Request) -> web.Response:
    """Answer, then block the whole process for `?seconds=`, as a long garbage collection would."""
    seconds = float(request.query["seconds"])
    asyncio.get_running_loop().call_later(ANSWERED_S, time.sleep, seconds)
    return web.json_response({"paused": seconds})


async def _end_of_input() -> None:
    """Return when standard input closes (a thread reads it, because not every system can poll pipes)."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()

    def read() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=read, daemon=True).start()
    await closed.wait()
