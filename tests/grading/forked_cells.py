"""`python forked_cells.py`: run a set-up's cells once, then each of several lists of cells in a fork of its own.

Reads JSON from stdin: `setup`, a list of sources, and `runs`, a list of lists of sources. Writes JSON to stdout: for
each run what each cell printed, errors included, and the status that the process ended with.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

OUT = io.StringIO()
LONGEST_S = 120


# Not asyncio.run, which handles interrupts in its own way as long as it runs.


async def run(shell: Any, sources: list[str], into: list[str]) -> None:
    for source in sources:
        OUT.seek(0)
        OUT.truncate()
        await shell.run_cell_async(source, store_history=False, transformed_cell=shell.transform_cell(source))
        into.append(OUT.getvalue())


def in_a_fork(shell: Any, sources: list[str]) -> dict[str, Any]:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        signal.alarm(LONGEST_S)
        printed: list[str] = []
        try:
            asyncio.new_event_loop().run_until_complete(run(shell, sources, printed))
        finally:
            with os.fdopen(write, "wb") as pipe:
                pipe.write(json.dumps(printed).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return {"printed": json.loads(text or "[]"), "status": os.waitstatus_to_exitcode(status)}


def main() -> None:
    told = json.load(sys.stdin)
    results = sys.stdout
    settings = Config()
    settings.HistoryManager.enabled = False
    settings.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell.instance(config=settings)
    sys.stdout = sys.stderr = OUT
    printed: list[str] = []
    asyncio.new_event_loop().run_until_complete(run(shell, told["setup"], printed))
    assert not any(printed), printed
    json.dump([in_a_fork(shell, sources) for sources in told["runs"]], results)
    results.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
