"""Functions of checks that work wherever the answer runs: in a notebook's process, or in a process of its own.

In a student's notebook `current` is None. In the grader it is the `Side` of the answer that is being judged; `run`
and `interleave` use it, too.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import linecache
import math
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from scalelab.checks._words import Unmet
from scalelab.checks._world import NeverEnds, settle_errors
from scalelab.errors import ScalelabError


class AnswerEnded(ScalelabError):
    """The answer's process ended during a check; the text tells the student why.

    `state` is "timed out" or "ended".
    """

    def __init__(self, text: str, state: str = "ended") -> None:
        super().__init__(text)
        self.state = state


class Side(Protocol):
    """An answer in another process."""

    def attempt(self, *args: Any, **options: Any) -> Any:
        """Return an object that replaces `_run.Attempt`."""

    def turns(self, *args: Any) -> Any:
        """Return an object that replaces `_interleave.Turns`."""

    def assemble(self, program: str, file: str, names: dict[str, Any]) -> dict[str, Any]:
        """Run the lines of a program; return the names that it defines."""

    def by_reference(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the answer, leave the result in the answer's process, and return a stand-in for it."""

    def beside(self, function: Any) -> Any:
        """Return a stand-in for a function of the set-up or of this package, in the answer's process."""

    def shared_list(self, values: Iterable[Any]) -> list[Any]:
        """Return a list that both processes hold."""

    def called_in_loop(self) -> bool:
        """Whether the answer's current call of a check's function comes from the thread of its event loop."""

    def ending(self) -> tuple[str, str] | None:
        """Return the state ("timed out" or "ended") and the reason if the answer's process has ended, else None."""


current: Side | None = None
STOPPED = "function raised StopIteration"
"""As Python says of a generator."""
_programs = itertools.count(1)


class Clock:
    """A clock to give to an answer: calling it returns `now`, which only the check sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def shared_list(values: Iterable[Any]) -> list[Any]:
    """Return a list that a check shares with an answer: each sees the other's changes."""
    return list(values) if current is None else current.shared_list(values)


def shared(value: Any, *names: str) -> Any:
    """Allow an answer to set these attributes of an object; it may read all public ones. Return the object.

    account = shared(Account(1, 100), "balance")
    """
    value.answers_may_set = names
    return value


def called_in_loop() -> bool:
    """Whether the answer has called the check's function from the thread of its event loop."""
    return asyncio._get_running_loop() is not None if current is None else current.called_in_loop()


def source(definition: Callable[..., Any]) -> str:
    """Return the text of a function of the answer, or of the methods of a class; "" if there is none."""
    return beside(_source)(definition)  # type: ignore[no-any-return]


def by_reference(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function of the answer, and leave the result in the answer's process, in which it can be changed.

    by_reference(find, "boots").append("mine")
    """
    return function(*args, **kwargs) if current is None else current.by_reference(function, args, kwargs)


def beside(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function or class of the set-up that runs in the answer's process.

    Its objects stay there, and it calls the answer without messages. So it can use counted keys, arrays, weak
    references and tracemalloc. Its result comes back as data. An answer can falsify it: if points depend on it,
    compare it with something that is seen here.
    """
    return function if current is None else current.beside(function)


def call_each(function: Callable[..., Any], *columns: Iterable[Any], max_lines: float = math.inf) -> list[Any]:
    """Return [function(*args) for args in zip(*columns)], with one message for all calls.

    Raises NeverEnds after `max_lines` lines of Python, so that an endless loop ends in a notebook as well.
    """
    calls = [list(args) for args in zip(*columns, strict=True)]
    return _one_for_each(calls, beside(_call_each)(function, calls, max_lines))


def count_lines(function: Callable[..., Any], *columns: Iterable[Any]) -> tuple[list[Any], int]:
    """Return [function(*args) for args in zip(*columns)], and the number of lines of Python that these calls run.

    The first argument of each call is a key; each look-up or comparison of a key counts as a line, too. An answer can
    find out that its lines are counted: a check that compares their number must also compare what the calls did.
    """
    calls = [list(args) for args in zip(*columns, strict=True)]
    results, lines = beside(_count_lines)(function, calls)
    return _one_for_each(calls, results), int(lines)


def time_calls(function: Callable[..., Any], *columns: Iterable[Any], parts: int = 1) -> tuple[list[Any], float]:
    """Return [function(*args) for args in zip(*columns)], and the processor time in seconds of the quickest part.

    The calls are timed in `parts` of the same length, because other programs and the collection of garbage lengthen
    some of them. Compare only times of one process, such as those of a small and of a large input. If the clock is
    coarse (15 ms on Windows), short parts take 0 s. Raises ValueError if the calls cannot be divided into the parts.
    """
    calls = [list(args) for args in zip(*columns, strict=True)]
    if not calls or len(calls) % parts:
        raise ValueError(f"{len(calls)} calls cannot be divided into {parts} parts of the same length")
    results, seconds = beside(_time_calls)(function, calls, parts)
    return _one_for_each(calls, results), float(seconds)


def instances(definition: Any, count: int) -> list[Any]:
    """Run the answer's cell `count` times, each with its own globals; return its function or class from each run.

    The instances stand for the processes of one service: they share only objects that the check gives to all of them.
    """
    return beside(_instances)(definition, count)  # type: ignore[no-any-return]


def defined_names(cls: Any) -> set[str]:
    """Return the names that a class of the answer defines itself."""
    return set(beside(_defined_names)(cls))


def assemble(program: str, **names: Any) -> dict[str, Any]:
    """Run the lines of `program`, with `names` given, and return the names that they define.

    Raises Unmet if Python cannot read the lines, or if they fail.
    """
    right = "the lines are a program"
    if not isinstance(program, str):
        raise Unmet(right, f"The answer should be text, and is a {type(program).__name__}.")
    file = f"<program {next(_programs)}>"
    linecache.cache[file] = (len(program), None, program.splitlines(keepends=True), file)
    namespace = dict(names)
    try:
        if current is not None:
            return current.assemble(program, file, namespace)
        exec(compile(program, file, "exec", dont_inherit=True), namespace)
    except SyntaxError as error:
        line = f" line {error.lineno}: `{(error.text or '').strip()}`" if error.lineno else ""
        raise Unmet(right, f"Python cannot read{line} ({error.msg}). Which line must stand right above it?") from None
    except AnswerEnded:
        raise
    except Exception as error:
        raise Unmet(right, "", detail=f"Running the lines raised {type(error).__name__}: {error}") from None
    return namespace


def _one_for_each(calls: list[list[Any]], results: Any) -> list[Any]:
    if not isinstance(results, list) or len(results) != len(calls):  # it comes from the answer's process
        raise RuntimeError(f"{len(calls)} calls have not given {len(calls)} results")
    return results


def _call_each(function: Callable[..., Any], calls: Iterable[Iterable[Any]], max_lines: float) -> list[Any]:
    if max_lines == math.inf:
        return [_called(function, args) for args in calls]
    return _traced(function, calls, max_lines)[0]


def _called(function: Callable[..., Any], args: Iterable[Any]) -> Any:
    """Call a function; its StopIteration, which would end the caller's loop silently, becomes a RuntimeError."""
    try:
        return function(*args)
    except (StopIteration, StopAsyncIteration) as error:
        raise RuntimeError(STOPPED).with_traceback(error.__traceback__) from None


def _functions(definition: Any) -> list[Any]:
    return [value for value in (definition, *vars(definition).values()) if inspect.isfunction(value)]


def _source(definition: Any) -> str:
    try:
        return "".join(map(inspect.getsource, _functions(definition)))
    except (OSError, TypeError):
        return ""


def _instances(definition: Any, count: int) -> list[Any]:
    namespaces: list[dict[str, Any]] = []
    for function in _functions(definition):
        file = function.__code__.co_filename
        lines = ["\n" if line[0] in "%!" else line for line in linecache.getlines(file)]  # as IPython reads a cell
        if not namespaces and (cell := "".join(lines)):
            for _ in range(count):
                namespaces.append(dict(function.__globals__))
                exec(compile(cell, file, "exec", dont_inherit=True), namespaces[-1])
    if not namespaces:
        raise ScalelabError("The answer's cell cannot be run again. Run it without a magic such as %%time.")
    return [namespace[definition.__name__] for namespace in namespaces]


def _defined_names(cls: Any) -> list[str]:
    return [name for name in vars(cls) if isinstance(name, str)]


class _Key:
    """A key; each look-up or comparison of it runs a line of Python."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return hash(self.value)

    def __eq__(self, other: object) -> bool:
        return bool(self.value == (other.value if isinstance(other, _Key) else other))


_settrace = sys.settrace


_process_time = time.process_time


def _time_calls(function: Callable[..., Any], calls: list[list[Any]], parts: int) -> tuple[list[Any], float]:
    """Make the calls; return their results, and the processor time of the quickest part of them in seconds."""
    results, seconds, size = [], [], len(calls) // parts
    for start in range(0, len(calls), size):
        begun = _process_time()
        results += [_called(function, args) for args in calls[start : start + size]]
        seconds.append(_process_time() - begun)
    return results, min(seconds)


def _count_lines(function: Callable[..., Any], calls: list[list[Any]]) -> tuple[list[Any], int]:
    return _traced(function, [(_Key(args[0]), *args[1:]) for args in calls])


def _traced(
    function: Callable[..., Any], calls: Iterable[Iterable[Any]], max_lines: float = math.inf
) -> tuple[list[Any], int]:
    """Make the calls; return their results, and how many lines of Python ran."""
    count, before = 0, sys.gettrace()

    def note(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        if count > max_lines:
            raise NeverEnds(f"more than {max_lines} lines have run")
        return note

    settle_errors()
    _settrace(note)
    try:
        return [_called(function, args) for args in calls], count
    finally:
        _settrace(before)
