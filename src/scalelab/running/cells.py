"""`python -m scalelab.running.cells`: run cells in order as a notebook's kernel does, but without a kernel.

Reads a JSON list of cell sources from stdin, and writes a JSON list to stdout: per cell, whether it ended without an
error (`ok`), its printed text (`printed`), its error message (`error`) and traceback (`traceback`), and the data of its
verdict (`verdict`; null if it made none). IPython runs the cells inside a running event loop, as ipykernel does; a
kernel would need three times as long to start. Modules that a shell would import only when it is created are imported
at the top, so that a fork need not import them.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from IPython.core import application, completer, completerlib, logger, magics, oinspect  # noqa: F401
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from scalelab.running.verdicts import verdict_since, verdicts_so_far


class Shell(InteractiveShell):
    """A shell that keeps errors apart from printed text, as a kernel does: a traceback quotes the cell's source."""

    raised = ("", "")

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        self.raised = (str(evalue), "\n".join(stb))


async def run(sources: list[str]) -> list[dict[str, Any]]:
    """Run the cells in one namespace, and return their results; a cell that raises does not stop those after it."""
    settings = Config()
    settings.HistoryManager.enabled = False
    settings.InteractiveShell.colors = "nocolor"
    shell = Shell.instance(config=settings)
    results = []
    for source in sources:
        printed = io.StringIO()
        shell.raised = ("", "")
        before = verdicts_so_far()
        with redirect_stdout(printed), redirect_stderr(printed):
            code = shell.transform_cell(source)  # type: ignore[no-untyped-call]
            result = await shell.run_cell_async(source, store_history=False, transformed_cell=code)
        error, traceback = shell.raised
        ok = bool(result.success)
        data = {"ok": ok, "printed": printed.getvalue(), "error": error, "traceback": traceback}
        results.append(data | {"verdict": verdict_since(before, ok=ok)})
    return results


def main() -> None:
    """Run the cells from stdin, and write their results to stdout."""
    sources = json.load(sys.stdin)
    # Output that bypasses sys.stdout must not mix with our JSON.
    results_file = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    results = asyncio.run(run(sources))
    json.dump(results, results_file)
    results_file.flush()
    # Threads that an answer left behind must not keep the process alive.
    os._exit(0)


if __name__ == "__main__":
    main()
