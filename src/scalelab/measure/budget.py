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
    """Yield items while the next one is likely to end within the budget.

    items: the work, the most important first. seconds: budget for all of them; the next item is expected to take as
    long as the longest so far. least: number of items that are yielded even if they exceed the budget. what: the plural
    noun for the items in the output, a line that shows the progress and finally the number of finished items and the
    time that they took. Raises BudgetError.
    """
    work = list(items)
    if seconds <= 0 or not 1 <= least <= max(len(work), 1):
        raise BudgetError(
            f"Expected a budget above 0 s and 1 <= least <= {len(work)} {what}; got {seconds} s and {least}."
        )
    line = _Line()
    start, longest, done = clock(), 0.0, 0
    try:
        for item in work:
            item_start = clock()
            if done >= least and item_start - start + longest > seconds:
                break
            line.show(f"{done} of {len(work)} {what}, {item_start - start:.1f} s", share=done / len(work))
            yield item
            longest = max(longest, clock() - item_start)
            done += 1
    finally:
        elapsed = clock() - start
        if done == len(work):
            line.show(f"{done} of {len(work)} {what} in {elapsed:.1f} s", budget=seconds, elapsed=elapsed)
        else:
            line.show(
                f"Scaled down to this machine: {done} of {len(work)} {what} in {elapsed:.1f} s, of a budget of "
                f"{seconds:g} s.",
                budget=seconds,
                elapsed=elapsed,
            )


class _Line:
    """A line of output that is updated in place; without a notebook, only its last state is printed."""

    def __init__(self) -> None:
        self._handle = DisplayHandle() if InteractiveShell.initialized() else None  # type: ignore[no-untyped-call]
        self._shown = False

    def show(self, text: str, *, share: float | None = None, budget: float = 0.0, elapsed: float = 0.0) -> None:
        if self._handle is None:
            if share is None:
                print(text)
            return
        bar = "" if share is None else f'<progress value="{share:.3f}" aria-label="done"></progress> '
        page = f'<p class="sl-budget">{bar}{html.escape(text)}</p>'
        record = {"kind": "budget", "text": text, "budget": budget, "took": round(elapsed, 3)}
        show: Callable[..., None] = self._handle.update if self._shown else self._handle.display
        show({"text/plain": text, "text/html": page}, raw=True, metadata={"scalelab": record})
        self._shown = True
