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
from dataclasses import asdict
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from scalelab.errors import ScalelabError
from scalelab.grading.judge import judge
from scalelab.grading.kernels import kernels
from scalelab.grading.merge import Reference, read_reference
from scalelab.grading.nbval_run import Kernels, Stopped


class _Judge:
    """Judges tasks one after another, and keeps the warm kernels of the last set for the next."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self._held = ExitStack()
        self._for: tuple[str, bool] | None = None
        self._kernels = Kernels()

    def verdicts(self, task: dict[str, Any]) -> dict[str, Any]:
        """Return the verdicts of a task, by exercise, as plain data."""
        reference = _reference(task["reference"])
        if self._for != (reference.digest, task["sandbox"]):
            self.close()
            self._kernels = self._held.enter_context(kernels([reference], sandbox=task["sandbox"]))
            self._for = (reference.digest, task["sandbox"])
        found = judge(reference, task["answers"], timeout=task["timeout"], kernels=self._kernels, stop=self.stop)
        return {name: asdict(verdict) for name, verdict in found.items()}

    def close(self) -> None:
        self._for = None
        self._held.close()


def main() -> int:
    """Judge each line of the input, and write a line each: `verdicts`, or `error` and whether all tasks would fail."""
    # Whoever prints by mistake, prints to the log: the output is for results alone.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as results:
        os.dup2(2, 1)
        stop = threading.Event()
        judges = _Judge(stop)
        try:
            for line in _lines(sys.stdin, stop):
                print(json.dumps(_outcome(judges, line)), file=results, flush=True)
        except (Stopped, BrokenPipeError):
            return 1
        finally:
            judges.close()
    return 0


def _outcome(judges: _Judge, line: str) -> dict[str, Any]:
    try:
        return {"verdicts": judges.verdicts(json.loads(line))}
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
