"""Judge tasks from standard input, one per line, for a Dask worker that has started this process.

A Dask worker is often a daemonic process, to which multiprocessing allows no children. And this process stops judging
when the worker ends, for any reason, because its standard input then ends, too.
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
from scalelab.exercises.reference import Reference, read_reference
from scalelab.grading.judging.judge import Judge, judging
from scalelab.grading.judging.nbval_run import Stopped


class _Judges:
    """Judges tasks one after another; the fork server is reused while the reference and the settings stay the same."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self._held = ExitStack()
        self._for: tuple[str, bool, float] | None = None
        self._judge: Judge | None = None

    def results(self, task: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
        """Return each submission's number and results, as plain data."""
        reference = _reference(task["reference"])
        settings = (reference.digest, task["sandbox"], task["timeout"])
        if self._judge is None or self._for != settings:
            self.close()
            self._judge = self._held.enter_context(judging([reference], sandbox=settings[1], cpu_s=settings[2]))
            self._for = settings
        judged = self._judge.judge(reference, task["submissions"], self.stop)
        return [(number, {name: result.as_data() for name, result in results.items()}) for number, results in judged]

    def close(self) -> None:
        self._for = None
        self._held.close()


def main() -> int:
    """Judge the task on each input line, and write a JSON line with its `results`, or with `error` and `fatal`.

    `fatal` is true if all tasks would fail. Returns the exit status: 1 if the input or the output was closed too early.
    """
    # Code that prints by mistake prints to standard error: standard output is for results alone.
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
    """Yield the stream's lines; set `stop` as soon as the stream ends, even while a line is being judged."""
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
