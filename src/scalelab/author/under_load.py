"""Run a chapter many times on a busy machine and count its failures: the proof of a new claim."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from scalelab import claims
from scalelab.author.build_progress import Plan
from scalelab.author.execute import read, run
from scalelab.claims import Claim, claim_from_metadata, number
from scalelab.console import Progress, count, seconds, table_lines, terminal_width
from scalelab.course import Chapter, Course
from scalelab.running.notebook import runs

LOOPS = 2
LOOP = """\
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
while True:
    pass
"""
"""A program that keeps a core busy. It also ends if its parent was killed, because its stdin then closes."""


@dataclass(frozen=True)
class Trials:
    """The results of several runs of a chapter.

    claims: for each claim's id, the claim as each run measured it, in order. failures: for each place (file, line,
    cell) where runs ended with an error, the messages in order; a claim that does not hold ends no run.
    """

    runs: int
    claims: dict[str, list[Claim]]
    failures: dict[str, list[str]]

    @property
    def passed(self) -> bool:
        return not self.failures and all(claim.holds for measured in self.claims.values() for claim in measured)


def run_under_load(course: Course, chapter: Chapter, times: int, progress: Progress) -> Trials:
    """Run the chapter's cells `times` times beside `LOOPS` busy loops; return what failed. The cache stays as it is."""
    trials = Trials(times, {}, {})
    with busy_loops(LOOPS):
        for trial in range(1, times + 1):
            began = time.perf_counter()
            notebook = read(course, chapter)
            # On a plain stream, a line per cell and run would bury the result.
            plan = Plan(course, [chapter.slug], progress if progress.live else Progress(io.StringIO()))
            plan.begin(chapter.slug, sum(runs(cell) for cell in notebook.cells))
            failure = run(course, chapter, notebook, plan, {claims.GO_ON: "1"})
            outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
            published = [output.get("metadata", {}).get("scalelab", {}) for output in outputs]
            measured = [claim_from_metadata(data) for data in published if data.get("kind") == "claim"]
            for claim in measured:
                trials.claims.setdefault(claim.id, []).append(claim)
            faults = count(sum(not claim.holds for claim in measured), "claim") + " failed"
            if failure is not None:
                place, _, message = failure.text.partition("\n")
                trials.failures.setdefault(place.rstrip(":"), []).append(message)
                faults += f", ended in {place.rstrip(':')}"
            progress.say(f"Run {trial} of {times}: {seconds(time.perf_counter() - began)}, {faults}")
    return trials


@contextmanager
def busy_loops(number: int) -> Iterator[list[int]]:
    """Keep `number` cores busy; yield the ids of the processes, and end these at the end of the block."""
    loops: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(number):
            command = [sys.executable, "-S", "-c", LOOP]
            loops.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL))
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.communicate()


def report(trials: Trials) -> list[str]:
    """Return lines that say which claims and cells failed how often, failures first, with the values measured."""
    lines = []
    for place, messages in trials.failures.items():
        lines.append(f"{len(messages)} of {count(trials.runs, 'run')} ended in {place}:")
        for message, times in Counter(messages).items():
            lines.append(message if times == len(messages) else f"{message}\n    ({count(times, 'time')})")
    by_failures = sorted(trials.claims.values(), key=_failed, reverse=True)
    rows = [
        (f"{_failed(measured)} of {len(measured)}", measured[0].text, measured[0].bound, _values(measured))
        for measured in by_failures
    ]
    if rows:
        lines += table_lines([("failed", "claim", "bound", "measured"), *rows], width=terminal_width())
    failed = sum(map(bool, map(_failed, by_failures)))
    lines.append(f"{count(len(rows), 'claim')}, {failed} of them failed; {count(len(trials.failures), 'cell')} failed.")
    return lines


def _failed(measured: Sequence[Claim]) -> int:
    return sum(not claim.holds for claim in measured)


def _values(measured: Sequence[Claim]) -> str:
    """Return every value of a claim that failed, and the range of the others."""
    values = sorted(claim.value for claim in measured)
    unit = measured[0].unit
    if _failed(measured):
        return " ".join(map(number, values)) + unit
    return (
        f"{number(values[0])}{unit}"
        if values[0] == values[-1]
        else f"{number(values[0])} to {number(values[-1])}{unit}"
    )
