"""The work that is left, reported while chapters are executed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress

from scalelab.console import Progress, count, seconds
from scalelab.course import Course


class Plan:
    """The chapters that a build executes; their cells' times in the last run give an estimate of the time left.

    Calls per chapter, in this order: `begin`, `ready` when its kernel has started, `tick` any number of times, `cell`
    at the end of each cell, `end`; after `restart`, continue from `ready`. `cells` then holds the time of each cell in
    seconds.
    """

    def __init__(self, course: Course, slugs: Sequence[str], progress: Progress) -> None:
        self._path = course.build / "times.json"
        self._progress = progress
        self._waiting = list(slugs)
        self._last: dict[str, list[float]] = {}
        with suppress(OSError, ValueError):
            self._last = json.loads(self._path.read_text(encoding="utf-8"))

    def begin(self, slug: str, of: int) -> None:
        """Begin the chapter `slug`, which has `of` cells to run."""
        self._waiting.remove(slug)
        self.slug, self.of = slug, of
        self.cells: list[float] = []
        self._progress.log(f"{slug}: executing {count(of, 'cell')}{self._about(slug)}; {self._then()}")
        self._progress.now(f"{slug}: starting its kernel")

    def ready(self) -> None:
        self._began = time.perf_counter()

    def tick(self) -> None:
        running = time.perf_counter() - self._began
        last = self._last.get(self.slug, [])
        remaining = sum(last[len(self.cells) :]) - running if len(last) == self.of else 0
        about = f", about {seconds(remaining)} left" if remaining > 0 else ""
        position = f"cell {len(self.cells) + 1} of {self.of}, {seconds(sum(self.cells) + running)} so far"
        self._progress.now(f"{self.slug}: {position}{about}; {self._then()}")

    def cell(self) -> None:
        now = time.perf_counter()
        self.cells.append(now - self._began)
        self._began = now
        self._progress.log(f"  cell {len(self.cells)} of {self.of}: {seconds(self.cells[-1])}")

    def restart(self) -> None:
        """Begin the chapter again because a claim did not hold."""
        position = f"cell {len(self.cells)} of {self.of}"
        self._progress.say(f"{self.slug}: a claim does not hold in {position}; executing the chapter once more")
        self.cells = []
        self._progress.now(f"{self.slug}: starting its kernel")

    def end(self, *, failed: bool) -> None:
        cells = f"failed in cell {len(self.cells)} of {self.of}" if failed else count(self.of, "cell")
        self._progress.say(f"{self.slug}: {cells}, {seconds(sum(self.cells))}; {self._then()}")
        if not failed:
            self._last[self.slug] = [round(cell, 3) for cell in self.cells]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._last), encoding="utf-8")

    def _about(self, *slugs: str) -> str:
        estimate = sum(sum(self._last.get(slug, [])) for slug in slugs)
        return f", about {seconds(estimate)} by the last run" if estimate else ""

    def _then(self) -> str:
        chapters = count(len(self._waiting), "chapter")
        return f"{chapters} left{self._about(*self._waiting)}" if self._waiting else "the last chapter"
