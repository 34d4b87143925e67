"""A time budget for an experiment: less work on a slow machine, and a line of output that says so."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import DisplayHandle

from scalelab.errors import ScalelabError

Item = TypeVar("Item")


class BudgetError(ScalelabError):
    """A budget is not above 0 s, or `least` does not fit the number of items."""


def within(
    items: Iterable[Item],
    seconds: float,
    *,
    least: int = 1,
    what: str = "points",
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Item]:
    """Yield items as long as the next one is likely to end within the budget.

    items: the work, the most important first. seconds: budget for all of them; the next item is expected to take as
    long as the longest so far. least: this many items are yielded however long they take. Shows the progress, and
    leaves one line: how many of how many items were done, and in what time. what: the items' name in that line. Raises
    BudgetError.
    """
    todo = list(items)
    if seconds <= 0 or not 1 <= least <= max(len(todo), 1):
        raise BudgetError(
            f"Expected a budget above 0 s and 1 <= least <= {len(todo)} {what}; got {seconds} s and {least}."
        )
    line = _Line()
    start, longest, done = clock(), 0.0, 0
    try:
        for item in todo:
            began = clock()
            if done >= least and began - start + longest > seconds:
                break
            line.show(f"{done} of {len(todo)} {what}, {began - start:.1f} s", share=done / len(todo))
            yield item
            longest = max(longest, clock() - began)
            done += 1
    finally:
        took = clock() - start
        if done == len(todo):
            line.show(f"{done} of {len(todo)} {what} in {took:.1f} s", budget=seconds, took=took)
        else:
            line.show(
                f"Scaled down to this machine: {done} of {len(todo)} {what} in {took:.1f} s, of a budget of "
                f"{seconds:g} s.",
                budget=seconds,
                took=took,
            )


class _Line:
    """One line of output that rewrites itself; on a plain terminal only its last state is printed."""

    def __init__(self) -> None:
        self._handle = DisplayHandle() if InteractiveShell.initialized() else None  # type: ignore[no-untyped-call]
        self._shown = False

    def show(self, text: str, *, share: float | None = None, budget: float = 0.0, took: float = 0.0) -> None:
        if self._handle is None:
            if share is None:
                print(text)
            return
        bar = "" if share is None else f'<progress value="{share:.3f}" aria-label="done"></progress> '
        page = f'<p class="sl-budget">{bar}{html.escape(text)}</p>'
        record = {"kind": "budget", "text": text, "budget": budget, "took": round(took, 3)}
        show: Callable[..., None] = self._handle.update if self._shown else self._handle.display
        show({"text/plain": text, "text/html": page}, raw=True, metadata={"scalelab": record})
        self._shown = True
