"""In a workspace's kernel: save each check's verdict with its output, and which answers had run before it.

They are an output without a visible form: JupyterLab shows nothing, and saves it with the check's cell.
"""

from __future__ import annotations

import hashlib
from typing import Any

from scalelab.checks import _cells
from scalelab.notebooks.untrusted import RAN
from scalelab.running.verdicts import verdict_since, verdicts_so_far

CHECK = "-check"

checks: dict[str, dict[str, str] | None] = {}
"""For each check that has run, by id: digests of the cells run before it passed; None if it failed on its last run."""
ran: dict[str, str] = {}
"""For each other cell that has run in this kernel, by id: its digest."""


def digest(source: str) -> str:
    """Return a short digest of a cell's text, without the white space around it."""
    return hashlib.sha256(source.strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def mark(ran: dict[str, str], verdict: dict[str, Any] | None) -> dict[str, Any]:
    """Return the MIME data to save with a check's output."""
    return {RAN: {"ran": ran, "verdict": verdict}}


def load_ipython_extension(shell: Any) -> None:
    """Register a hook that notes each cell the kernel runs."""
    count = verdicts_so_far()

    def note(result: Any) -> None:
        nonlocal count
        before, count = count, verdicts_so_far()
        _note(shell, result, before)

    shell.events.register("post_run_cell", note)


def _note(shell: Any, result: Any, before: int) -> None:
    name = getattr(result.info, "cell_id", None)
    if not name or result.info.silent:
        return
    error = result.error_before_exec or result.error_in_exec
    source = result.info.raw_cell if error else shell.transform_cell(result.info.raw_cell)
    _cells.note_run(name, source, "" if error is None else f"{type(error).__name__}: {error}")
    if not name.endswith(CHECK):
        ran[name] = digest(result.info.raw_cell)
        return
    verdict = verdict_since(before, ok=bool(result.success))
    checks[name] = dict(ran) if verdict and verdict["passed"] else None
    shell.display_pub.publish(data=mark(dict(ran), verdict), metadata={})
