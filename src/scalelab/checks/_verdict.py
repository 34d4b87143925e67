"""A check's verdict: which expectations hold, as data, and the same in words for the person who mends the answer."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from scalelab.checks import _side, _words
from scalelab.checks._run import Seen, observed
from scalelab.checks._words import Unmet
from scalelab.errors import ScalelabError

MISSING = object()
PRINTED_LINES = 12
PRINTED_CHARACTERS = 200_000
WIDTH = 92
COMES_TO_AN_END = "your answer comes to an end"
KEEPS_RUNNING = "your answer runs until its check is over"


class CheckFailed(ScalelabError):
    """At least one expectation of a check does not hold; in Jupyter it shows its text and no frames."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class EmptyCheck(ScalelabError):
    """A check ended without an expectation: it could not fail."""


def fields_of(data: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Return `data` if it is a dictionary with these fields and no others; raises ValueError."""
    if not isinstance(data, dict) or data.keys() != kinds.keys():
        raise ValueError(f"expected the fields {', '.join(kinds)}")
    for name, kind in kinds.items():
        if type(data[name]) is not kind:
            raise ValueError(f"expected {name} to be of type {kind.__name__}, not {type(data[name]).__name__}")
    return data


@dataclass(frozen=True)
class Expectation:
    """One thing that a check expects of an answer, stated by `right`.

    If it did not hold, `words` are the author's on it, `seen` is the value that came instead, and `idea` the name of
    the wrong idea, if the check knows it. `detail` says what the answer did; it may quote the answer, so no idea is
    recognised by it.
    """

    right: str
    held: bool
    words: str = ""
    seen: str = ""
    idea: str = ""
    detail: str = ""

    @property
    def explanation(self) -> list[str]:
        """The lines to read below an expectation that did not hold; none of them is wrapped."""
        seen = f"Seen: {self.seen}" if self.seen else ""
        return [line for text in (self.detail, self.words, seen) for line in text.splitlines()]

    def __str__(self) -> str:
        if self.held:
            return f"✓ {self.right}"
        return "\n".join([f"✗ {self.right}", *map(_wrapped, self.explanation)])

    @classmethod
    def from_data(cls, data: Any) -> Expectation:
        """Return the expectation that `asdict` made this of. Raises ValueError."""
        kinds = dict.fromkeys(("right", "held", "words", "seen", "idea", "detail"), str) | {"held": bool}
        return cls(**fields_of(data, kinds))


@dataclass(frozen=True)
class Verdict:
    """The result of one check.

    `printed` is what each run of the answer printed, its first lines; `never_awaited` names coroutines that nobody
    awaited. `ended` is "" unless the answer's process ended before the check did: then "timed out" or "ended".
    """

    exercise: str
    expectations: tuple[Expectation, ...]
    printed: tuple[str, ...] = ()
    never_awaited: tuple[str, ...] = ()
    ended: str = ""

    @property
    def passed(self) -> bool:
        return bool(self.expectations) and all(expectation.held for expectation in self.expectations)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.expectations), *self.remarks])

    @property
    def remarks(self) -> list[str]:
        """Further facts if the check failed: coroutines never awaited, and the answer's output."""
        if self.passed:
            return []
        names = ", ".join(f"`{name}`" for name in self.never_awaited)
        forgotten = [f"Called, but never awaited, so that nothing of it has run: {names}"] if names else []
        return [*forgotten, *("Your code printed:\n" + textwrap.indent(text, "  ") for text in self.printed)]

    def as_data(self) -> dict[str, Any]:
        """Return the verdict as JSON has it, with `passed`."""
        expectations = [asdict(expectation) for expectation in self.expectations]
        lists = {"printed": list(self.printed), "never_awaited": list(self.never_awaited)}
        return (
            {"exercise": self.exercise, "passed": self.passed, "expectations": expectations}
            | lists
            | {"ended": self.ended}
        )

    @classmethod
    def from_data(cls, data: Any) -> Verdict:
        """Return the verdict that `as_data` made this of. Raises ValueError."""
        kinds = {"exercise": str, "passed": bool, "expectations": list, "printed": list, "never_awaited": list}
        fields = fields_of(data, kinds | {"ended": str})
        printed, never_awaited = fields["printed"], fields["never_awaited"]
        if not all(isinstance(text, str) for text in (*printed, *never_awaited)):
            raise ValueError("expected texts in printed and never_awaited")
        expectations = tuple(map(Expectation.from_data, fields["expectations"]))
        verdict = cls(fields["exercise"], expectations, tuple(printed), tuple(never_awaited), fields["ended"])
        if verdict.passed != fields["passed"]:
            raise ValueError("expected passed to agree with the expectations")
        return verdict


def recognised(expectations: Iterable[Expectation], wrong: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names of the wrong ideas behind the expectations that did not hold.

    An expectation names its idea itself; if it does not, its ideas are those of `wrong`, pairs of name and message,
    whose message is in its words.
    """
    names: list[str] = []
    for expectation in expectations:
        if not expectation.held:
            text = _on_one_line(expectation.words)
            known = [name for name, message in wrong if _on_one_line(message) in text]
            names += [expectation.idea] if expectation.idea else known
    return list(dict.fromkeys(names))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


verdicts: list[Verdict] = []
"""The verdicts of this process, in their order."""
listeners: list[Callable[[Verdict], None]] = []
"""Each is called with every verdict as soon as it is complete, also if the check failed."""


class Expect:
    """Collects the expectations of a check, and prints each; made by `verdict`."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self.expectations: list[Expectation] = []
        self.runs: list[Seen] = []
        self.ended = ""
        self._stream = stream

    def __call__(
        self,
        condition: object,
        right: str,
        *,
        otherwise: str | Callable[[], str],
        idea: str = "",
        saw: object = MISSING,
    ) -> bool:
        """Print whether `condition` holds; if not, say why in the words of `otherwise`, and `saw`, what came instead.

        `right` states what should hold, as a sentence without a full stop. `otherwise` and `saw` may be functions; they
        are called only if it does not. `idea` names the wrong idea behind that; if the words depend on the answer,
        `otherwise` may be an `Idea`, which names its own. Returns whether it holds, so that what follows from it can be
        left out.
        """
        if condition:
            self.add(Expectation(right, held=True))
            return True
        text = otherwise if isinstance(otherwise, str) else otherwise()
        seen = ""
        try:
            if saw is not MISSING:
                seen = _words.short(saw() if callable(saw) else saw) or "''"
        finally:
            self.add(Expectation(right, False, str(text), seen, _words.idea_of(text) or idea))
        return False

    def add(self, expectation: Expectation) -> None:
        """Take an expectation into the verdict, and print it."""
        self.expectations.append(expectation)
        self.write(str(expectation))

    def fail(self, right: str, text: str, *, idea: str = "", detail: str = "") -> None:
        """Add an expectation that does not hold."""
        self.add(Expectation(right, False, text, "", idea, detail))

    def write(self, text: str) -> None:
        """Write a line of the verdict; not by print, which the answer's cell may have bound anew."""
        self._stream.write(text + "\n")

    def close(self, printed: str = "") -> None:
        """Publish the verdict; raise CheckFailed if anything did not hold, EmptyCheck if nothing was expected.

        `printed` is what was printed outside of runs.
        """
        if not self.expectations:
            raise EmptyCheck(f"The check {self.name!r} expects nothing; call expect(…) in its body.")
        texts = tuple(first_lines(text) for text in (*(run.printed for run in self.runs), printed) if text.strip())
        forgotten = tuple(sorted({name for run in self.runs for name in run.never_awaited}))
        verdict = Verdict(self.name, tuple(self.expectations), texts, forgotten, self.ended)
        verdicts.append(verdict)
        for listener in listeners:
            listener(verdict)
        if not verdict.passed:
            for remark in verdict.remarks:
                self.write(remark)
            if _side.current is None:
                from scalelab.checks import _help  # noqa: PLC0415 (it reads notebooks, and graders have no help)

                if where_help_is := _help.next_hint(self.name):
                    self.write(where_help_is)
            raise CheckFailed(f"{self.name}: not yet. The lines above that begin with ✗ say what is missing.")


class _Printed(io.StringIO):
    """Keeps the beginning of what is printed while a check runs; its verdict is written to `stream`."""

    def __init__(self) -> None:
        super().__init__()
        self.stream: TextIO = sys.stdout.stream if isinstance(sys.stdout, _Printed) else sys.stdout

    def write(self, text: str) -> int:
        return super().write(text) if self.tell() < PRINTED_CHARACTERS else len(text)


@contextmanager
def verdict(name: str) -> Iterator[Expect]:
    """Collect the expectations of one check, and fail if one does not hold.

        with verdict("ordered") as expect:
            expect(2 > 1, "two is more than one", otherwise="Count again.")

    Yields the function to call. An answer that raises is told in words, with the line in the student's cell. Whatever
    is printed meanwhile is shown only if the check fails. Raises CheckFailed at the end, EmptyCheck for a check without
    an expectation.
    """
    printed = _Printed()
    expect = Expect(name, printed.stream)
    check = sys._getframe(2)  # beyond this generator and contextlib's __enter__
    _words.check_files.add(check.f_code.co_filename)
    if _side.current is None:
        from scalelab.checks import _cells  # noqa: PLC0415 (a grader's answers have no cells)

        if older := _cells.older_answer(name, check):
            expect.fail(_cells.SEES_THE_LATEST, older)
            expect.close()
    token = observed.set(expect.runs)
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            yield expect
    except Unmet as failure:
        expect.fail(failure.right, failure.words, idea=failure.idea, detail=failure.detail)
    except (KeyboardInterrupt, SystemExit):
        printed.stream.write(printed.getvalue())  # the student has stopped it, and may look for the reason here
        raise
    except BaseException as error:  # also a cancellation, and a crash that the set-up has made up
        # Otherwise it follows from what has been told, or from the end of the answer's process.
        if all(expectation.held for expectation in expect.expectations) and _ending() is None:
            seen = (error, check.f_globals, check.f_code.co_filename)
            advice, given = _words.advice(*seen), _words.unusable(*seen)
            expect.fail("the check can use the answer", advice or given, detail=_words.error_text(*seen))
    finally:
        observed.reset(token)
    if ending := _ending():  # the check's own code may have caught it like any other error
        expect.ended, reason = ending
        expect.fail(COMES_TO_AN_END if expect.ended == "timed out" else KEEPS_RUNNING, reason)
    try:
        if _side.current is None:
            from scalelab.checks import _cells  # noqa: PLC0415

            for sentence in _cells.from_other_cells(name):
                expect.write(f"⚠ {sentence}")
        expect.close(printed.getvalue())
    except ScalelabError as error:
        raise error from None


def _ending() -> tuple[str, str] | None:
    """Return the state and the reason if the answer's process has ended. Only its side of the check knows."""
    return None if _side.current is None else _side.current.ending()


def hint(exercise: str | None = None) -> None:
    """Show one more hint on an exercise each time; default: the one whose check failed last here."""
    from scalelab.checks import _help  # noqa: PLC0415

    failed = next((name for name, passed in _latest().items() if not passed), "")
    _help.show_hint(failed if exercise is None else exercise)


def solution(exercise: str, *, show_me: bool = False) -> None:
    """Show the course's solution of an exercise that has passed its check, or of any with `show_me=True`."""
    from scalelab.checks import _help  # noqa: PLC0415

    _help.show_solution(exercise, show_me=show_me, passed=_latest().get(exercise, False))


def _latest() -> dict[str, bool]:
    """Return whether each exercise passed when it was checked last in this process, the latest first."""
    latest: dict[str, bool] = {}
    for earlier in reversed(verdicts):
        latest.setdefault(earlier.exercise, earlier.passed)
    return latest


def first_lines(text: str) -> str:
    """Return what is shown of something that an answer printed."""
    lines = text.splitlines()
    more = [f"… and {len(lines) - PRINTED_LINES} more lines"] if len(lines) > PRINTED_LINES else []
    return "\n".join([*map(_words.short, lines[:PRINTED_LINES]), *more])


def _wrapped(line: str) -> str:
    """Return a line indented by two, and wrapped: JupyterLab would break it in the middle of words."""
    return textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False)
