"""A process that judges what comes in on its standard input, a line each: what a Dask worker has its work done by.

A Dask worker is often a daemonic process, which may have no children of multiprocessing's; and here judging ends when
the worker does, however that ends, because then the input does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from scalelab.errors import ScalelabError
from scalelab.grading.judging.judge import Judge, judging
from scalelab.grading.judging.session import Stopped
from scalelab.grading.merge import Reference, read_reference


class _Judges:
    """Judges tasks one after another, and keeps the fork server of the last set for the next."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self._held = ExitStack()
        self._for: tuple[str, bool, float] | None = None
        self._judge: Judge | None = None

    def results(self, task: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
        """Return each submission's number and results, as plain data."""
        reference = _reference(task["reference"])
        wanted = (reference.digest, task["sandbox"], task["timeout"])
        if self._judge is None or self._for != wanted:
            self.close()
            self._judge = self._held.enter_context(judging([reference], sandbox=wanted[1], cpu_s=wanted[2]))
            self._for = wanted
        judged = self._judge.judge(reference, task["submissions"], self.stop)
        return [(number, {name: one.as_data() for name, one in results.items()}) for number, results in judged]

    def close(self) -> None:
        self._for = None
        self._held.close()


def main() -> int:
    """Judge each line of the input, and write a line each: `results`, or `error` and whether all tasks would fail."""
    # Whoever prints by mistake, prints to the log: the output is for results alone.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as results:
        os.dup2(2, 1)
        stop = threading.Event()
        judges = _Judges(stop)
        try:
            for line in _lines(sys.stdin, stop):
                print(json.dumps(_outcome(judges, line)), file=results, flush=True)
        except (Stopped, BrokenPipeError):
            return 1
        finally:
            judges.close()
    return 0


def _outcome(judges: _Judges, line: str) -> dict[str, Any]:
    try:
        return {"results": judges.results(json.loads(line))}
    except Stopped:
        raise
    except ScalelabError as error:
        return {"error": str(error), "fatal": True}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "fatal": False}


def _lines(stream: TextIO, stop: threading.Event) -> Iterator[str]:
    """Yield the stream's lines; set `stop` as soon as it ends, also while a line is in work."""
    lines: Queue[str | None] = Queue()

    def listen() -> None:
        for line in stream:
            lines.put(line)
        stop.set()
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while (line := lines.get()) is not None:
        yield line


def _reference(text: str) -> Reference:
    with TemporaryDirectory(prefix="scalelab-") as folder:
        path = Path(folder) / "reference.ipynb"
        path.write_text(text, encoding="utf-8", newline="\n")
        return read_reference(path)


if __name__ == "__main__":
    sys.exit(main())
