"""Output for people: a line that updates itself on a terminal, plain lines everywhere else; tables; numbers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

UNLIMITED = 100_000
"""A width in columns that breaks no line."""


class Progress:
    """Lines for a person who waits. `live` says whether the stream is a terminal, on which lines can be rewritten."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        self.live = self.stream.isatty()
        self._shown = 0

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        print(text, file=self.stream, flush=True)

    def now(self, text: str) -> None:
        """Show what is happening on the updating line; on a plain stream, do nothing."""
        if not self.live:
            return
        text = text[: shutil.get_terminal_size().columns - 1]
        self._clear()
        print(text, end="", file=self.stream, flush=True)
        self._shown = len(text)

    def log(self, text: str) -> None:
        """Print a step that the updating line has already shown; only a plain stream gets it."""
        if not self.live:
            self.say(text)

    def _clear(self) -> None:
        if self._shown:
            print("\r" + " " * self._shown, end="\r", file=self.stream)
            self._shown = 0


def terminal_width() -> int:
    """Return the columns of the terminal that stdout is; in a pipe or a log, lines are not broken."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED


def table_lines(rows: Sequence[Sequence[str]], *, width: int = UNLIMITED, numbers: bool = False) -> list[str]:
    """Return the lines of a table that is at most `width` columns wide; long cells are continued on the next line.

    If `numbers` is true, all columns but the first are aligned right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for index in range(len(rows[0])):
        grid.add_column(justify="right" if numbers and index else "left", overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))  # as text, brackets are brackets
    # Plain lines, whatever the environment says about colours, notebooks, or the console of Windows.
    plain = Console(width=width, color_system=None, force_jupyter=False, legacy_windows=False)
    with plain.capture() as lines:
        plain.print(grid)
    return [line.rstrip() for line in lines.get().removesuffix("\n").split("\n")]


def seconds(value: float) -> str:
    """Return a duration for people: `0.4 s`, `38 s`, `2 min 05 s`."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


def count(number: int, thing: str) -> str:
    """Return `1 cell`, `5 cells`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
