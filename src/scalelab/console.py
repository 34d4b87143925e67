"""Progress of long work: a line that updates itself on a terminal, plain lines everywhere else."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO


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


def seconds(value: float) -> str:
    """Return a duration for people: `0.4 s`, `38 s`, `2 min 05 s`."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


def count(number: int, thing: str) -> str:
    """Return `1 cell`, `5 cells`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
