"""A check's verdict: a line for each expectation, and words for whoever has to mend the answer."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scalelab import _help
from scalelab.checks import _words
from scalelab.checks._run import Seen, Unmet, observed
from scalelab.errors import ScalelabError

MISSING = object()
PRINTED_LINES = 12
WIDTH = 92


class CheckFailed(ScalelabError):
    """At least one expectation of a check does not hold; in Jupyter it shows its text and no frames."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class EmptyCheck(ScalelabError):
    """A check ended without an expectation: it could not fail."""


class Expect:
    """Takes down expectations; made by `verdict`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.failed = 0
        self.runs: list[Seen] = []

    def __call__(
        self, condition: object, right: str, *, otherwise: str | Callable[[], str], saw: object = MISSING
    ) -> bool:
        """Print whether `condition` holds; if not, say why in the words of `otherwise`, and `saw`, what came instead.

        `right` states what should hold, as a sentence without a full stop. `otherwise` and `saw` may be functions; they
        are called only if it does not. Returns whether it holds, so that what follows from it can be left out.
        """
        if condition:
            self.held += 1
            _write(f"✓ {right}")
            return True
        self.fail(right, otherwise if isinstance(otherwise, str) else otherwise())
        if saw is not MISSING:
            _write(_indented(f"Seen: {_words.short(saw() if callable(saw) else saw)}"))
        return False

    def fail(self, right: str, text: str) -> None:
        """Print that something does not hold, and the words on it."""
        self.failed += 1
        _write(f"✗ {right}\n{_indented(text)}")

    def close(self) -> None:
        """Raise CheckFailed if anything did not hold, EmptyCheck if nothing was expected."""
        if not self.held and not self.failed:
            raise EmptyCheck(f"The check {self.name!r} expects nothing; call expect(…) in its body.")
        _help.results.pop(self.name, None)
        _help.results[self.name] = not self.failed
        if self.failed:
            self._tell_what_else_was_seen()
            if where_help_is := _help.next_hint(self.name):
                _write(where_help_is)
            raise CheckFailed(f"{self.name}: not yet. The lines above that begin with ✗ say what is missing.")

    def _tell_what_else_was_seen(self) -> None:
        forgotten = sorted({name for run in self.runs for name in run.never_awaited})
        if forgotten:
            names = ", ".join(f"`{name}`" for name in forgotten)
            _write(f"Called, but never awaited, so that nothing of it has run: {names}")
        for run in self.runs:
            lines = run.printed.splitlines()
            if lines:
                more = [f"… and {len(lines) - PRINTED_LINES} more lines"] if len(lines) > PRINTED_LINES else []
                shown = [_words.short(line) for line in lines[:PRINTED_LINES]]
                _write("\n".join(["Your code printed:", *(f"  {line}" for line in (*shown, *more))]))


@contextmanager
def verdict(name: str) -> Iterator[Expect]:
    """Collect the expectations of one check, and fail if one does not hold.

        with verdict("ordered") as expect:
            expect(2 > 1, "two is more than one", otherwise="Count again.")

    Yields the function to call. An answer that raises is told in words, with the line in the student's cell. Raises
    CheckFailed at the end, EmptyCheck for a check without an expectation.
    """
    expect = Expect(name)
    check = sys._getframe(2)  # beyond this generator and contextlib's __enter__
    _words.check_files.add(check.f_code.co_filename)
    token = observed.set(expect.runs)
    try:
        yield expect
    except Unmet as failure:
        expect.fail(failure.right, str(failure))
    except Exception as error:
        if not expect.failed:  # else it follows from what has been told
            seen = (error, check.f_globals, check.f_code.co_filename)
            advice = _words.advice(*seen)
            expect.fail("the check can use the answer", "\n".join([_words.told(*seen), *([advice] if advice else [])]))
    finally:
        observed.reset(token)
    try:
        expect.close()
    except ScalelabError as error:
        raise error from None


def _indented(text: str) -> str:
    """Return a text indented by two, and wrapped: JupyterLab would break its lines in the middle of words."""
    wrapped = (
        textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False)
        for line in text.splitlines()
    )
    return "\n".join(wrapped)


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")  # not print, which the answer's cell may have bound anew
