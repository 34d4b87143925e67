"""Measure how late an event loop wakes its tasks."""

from __future__ import annotations

import asyncio
from types import TracebackType


class LoopLag:
    """Wake up every `interval` seconds on the running loop, and record how late each wake-up was.

    Use as `async with LoopLag() as lag:`; afterwards `lag.late` holds the delay of each wake-up in seconds, and
    `lag.worst` the largest delay.
    """

    def __init__(self, interval: float = 0.005) -> None:
        self.interval = interval
        self.late: list[float] = []

    @property
    def worst(self) -> float:
        return max(self.late, default=0.0)

    async def __aenter__(self) -> LoopLag:
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.sleep(self.interval)  # so that a block that never yielded to the loop is recorded, too
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self.interval
            await asyncio.sleep(self.interval)
            self.late.append(max(0.0, loop.time() - due))
