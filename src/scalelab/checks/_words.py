"""Words on errors in a student's code: short values, the line in the cell, the next step."""

from __future__ import annotations

import asyncio
import inspect
import linecache
import re
import reprlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any

from scalelab.errors import ScalelabError

LONGEST = 160  # characters of a value
LEAVES = 3  # errors of a group that are told
NOT_WRITTEN = "Not written yet: the answer's cell holds what it came with. Fill it in and run it, then this one."

ANSWER_FILE = "<answer>"
"""Where `linecache` has the source of an answer that runs in another process."""

PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"

check_files: set[str] = set()  # the cells that checks stand in; no line of theirs is the student's


class Idea(str):
    """An author's words on a wrong idea, with the idea's name: Idea("no-lock", "Two threads read the same number.")."""

    name: str

    def __new__(cls, name: str, text: str) -> Idea:
        idea = super().__new__(cls, text)
        idea.name = name
        return idea


def idea_of(text: str) -> str:
    """Return the name of an `Idea`; "" for other words."""
    return text.name if isinstance(text, Idea) else ""


class Unmet(ScalelabError):
    """An answer does not meet an expectation: `right` states the expectation, the text explains the mistake.

    `idea` names the wrong idea, unless the text is an `Idea`. `detail` comes first and describes what the answer did;
    only `detail` quotes the answer.
    """

    def __init__(self, right: str, text: str, *, idea: str = "", detail: str = "") -> None:
        super().__init__("\n".join(filter(None, (detail, text))))
        self.right, self.words, self.detail = right, str(text), detail
        self.idea = idea_of(text) or idea


class _Repr(reprlib.Repr):
    def repr1(self, x: Any, level: int) -> str:
        is_numpy_scalar = type(x).__module__ == "numpy" and getattr(x, "shape", None) == ()
        plain = x.item() if is_numpy_scalar else list(x) if isinstance(x, list) else x
        return super().repr1(plain, level)  # as an answer in another process sends it


_repr = _Repr()
_repr.maxlist = _repr.maxtuple = _repr.maxset = _repr.maxdeque = 8
_repr.maxdict = 6
_repr.maxstring = _repr.maxother = 100
_repr.maxlevel = 4


def short(value: Any) -> str:
    """Return a value as text that fits on a line or two."""
    text = value if isinstance(value, str) else _repr.repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]} … {text[-17:]}"


def place(frame: FrameType | int, line: int | None = None) -> str:
    """Return "line 4 of your cell: `await queue.get()`" for a frame of the student's code, or a line elsewhere."""
    if isinstance(frame, int):
        return place_in_answer(frame)
    number = frame.f_lineno if line is None else line
    source = linecache.getline(frame.f_code.co_filename, number, frame.f_globals).strip()
    return f"line {number} of your cell" + (f": `{short(source)}`" if source else "")


def place_in_answer(line: int) -> str:
    """Return the words of `place` for a line of an answer that runs in another process."""
    source = linecache.getline(ANSWER_FILE, line).strip()
    return f"line {line} of your cell" + (f": `{short(source)}`" if source else "")


def caller(namespace: dict[str, Any]) -> str:
    """Return the line of the student's running coroutine, in the words of `place`; "" if there is none."""
    frame: FrameType | None = sys._getframe(1)
    nearest = ""
    while frame is not None:
        if frame.f_globals is namespace:
            nearest = nearest or place(frame)
            if frame.f_code.co_flags & inspect.CO_COROUTINE:
                return place(frame)
        frame = frame.f_back
    return nearest


def of_coroutine(task: asyncio.Task[Any]) -> str:
    """Return the name of the coroutine that a task runs."""
    coroutine = task.get_coro()
    return getattr(coroutine, "__name__", type(coroutine).__name__)


def waiting(tasks: Iterable[asyncio.Task[Any]], namespace: dict[str, Any], skip: str = "") -> str:
    """Return the first few lines of the student's code in which tasks wait; arguments as for `error_text`."""
    places = set()
    for task in tasks:
        coroutine: Any = task.get_coro()
        innermost = None
        while coroutine is not None:
            frame = getattr(coroutine, "cr_frame", None)
            if frame is not None and frame.f_globals is namespace and frame.f_code.co_filename != skip:
                innermost = frame
            coroutine = getattr(coroutine, "cr_await", None)
        if innermost is not None:
            places.add((innermost.f_lineno, f"`{innermost.f_code.co_name}` waits in {place(innermost)}"))
    return "\n".join(text for _, text in sorted(places)[:LEAVES])


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in a group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def error_text(error: BaseException, namespace: dict[str, Any], skip: str = "") -> str:
    """Return type, message and the student's line of an error, and of the first errors in a group.

    The student's code is what runs in `namespace`, except for the file `skip`, the check's own cell.
    """
    name = type(error).__name__
    message = " ".join(str(error).split())
    lines = [f"{name}: {short(message)}" if message else name]
    line = _line_of(error, namespace, skip)
    if line:
        lines.append(f"It was raised in {line}")
    lines += getattr(error, "__notes__", [])
    if isinstance(error, BaseExceptionGroup):
        inside = list(leaves(error))
        for inner in inside[:LEAVES]:
            lines.append("In the group: " + error_text(inner, namespace, skip).replace(".\n", "\n").replace("\n", ". "))
        if len(inside) > LEAVES:
            lines.append(f"… and {len(inside) - LEAVES} more.")
    return "\n".join(lines)


def explained(error: BaseException) -> str:
    """Return words on the error of an answer's cell: type, message, the student's line, and advice if there is any."""
    lines = [error_text(error, {}), advice(error, {})]
    if isinstance(error, SyntaxError) and error.lineno:
        lines.insert(1, f"Python cannot read {place_in_answer(error.lineno)}")
    return "\n".join(filter(None, lines))


def advice(error: BaseException, namespace: dict[str, Any], skip: str = "") -> str | None:
    """Return advice on an error that has a usual cause, or None; arguments as for `error_text`."""
    return next(filter(None, (_advice(inner, namespace, skip) for inner in leaves(error))), None)


def _advice(error: BaseException, namespace: dict[str, Any], skip: str) -> str | None:
    text, hint = str(error), None
    in_answer = _line_of(error, namespace, skip) is not None
    match error:
        case NotImplementedError():
            hint = NOT_WRITTEN
        case NameError() if not in_answer:
            hint = (
                f"There is no {_name_in(text)} yet. Run the answer's cell; if you did, compare the name with the task."
            )
        case NameError():
            hint = f"Look where {_name_in(text)} gets its value, and whether that line runs before this one."
        case TypeError() if not in_answer and "argument" in text:
            hint = "The check calls your function as the task says: compare the names and the number of its arguments."
        case RuntimeError() if "asyncio.run()" in text:
            hint = "A loop is running already, and your function runs in it: `await` instead of `asyncio.run`."
        case TypeError() | AttributeError() if "coroutine" in text:
            hint = (
                "To call a coroutine function gives a coroutine object and runs nothing; the value comes with `await`."
            )
        case asyncio.InvalidStateError():
            hint = "You ask a task for its result before it is done. When is it certain to be?"
        case ImportError() if (module := re.search(r"(?:from|module named) '(\w+)", text)) is not None and (
            module[1] in sys.stdlib_module_names
        ):
            hint = f"{PYTHON}, which runs your answer here, does not have this; a later version may."
        case SyntaxError():
            later = _later_version(error.text or "", error.msg)
            hint = f"{PYTHON} runs your answer here, and does not know this; it came with Python {later}."
            if not later:
                hint = "Look for a missing colon, bracket or quote: here, or in the line above."
        case RuntimeError() if "raised StopIteration" in text or type(error).__name__ == "StopIteration":
            hint = (
                "`next` found no value: there was none left. Give it a default, as in `next(values, None)`, and say "
                "what your function does then."
            )
        case StopIteration():
            return _advice(RuntimeError("it raised StopIteration"), namespace, skip)
    return hint


LATER_SYNTAX = (
    ((3, 12), re.compile(r"\s*type\s+\w+\s*[\[=]|\s*(?:async\s+def|def|class)\s+\w+\s*\[")),
    ((3, 12), re.compile(r".*\b[rR]?[fF][rR]?([\"'])[^\"'{}]*\{[^\"'{}]*\1[^\"'{}]*\1[^\"'{}]*\}")),
    ((3, 14), re.compile(r"\s*except\*?\s+[\w.]+\s*,\s*[\w.]+[\w., ]*:|.*\b[tT][\"']")),
)
"""Lines that only later versions can read: type parameters, quotes inside an f-string, `except A, B:`, t-strings."""
LONGEST_SEARCHED = 500


def _later_version(line: str, message: str) -> str:
    """Return the version of Python that can read a line which this one cannot, or ""."""
    line = line[:LONGEST_SEARCHED]
    if "f-string" in message and ("backslash" in message or "#" in message):
        return "3.12"
    later = (version for version, syntax in LATER_SYNTAX if version > sys.version_info[:2] and syntax.match(line))
    return ".".join(map(str, next(later, ())))


def unusable(error: BaseException, namespace: dict[str, Any], skip: str) -> str:
    """Return words on what an answer gave, if the check's own line could not use it; "" otherwise.

    They name the values in the expression that failed: usually one of them is of another type than the task asks for.
    """
    if not isinstance(error, (TypeError, AttributeError, ValueError)) or _line_of(error, namespace, skip) is not None:
        return ""
    trace = [part for part in _traceback(error) if part.tb_frame.f_code.co_filename == skip]
    if not trace:
        return ""
    frame = trace[-1].tb_frame
    place = list(frame.f_code.co_positions())[trace[-1].tb_lasti // 2]
    names = dict.fromkeys(NAME.findall(_segment(skip, *place)))
    values = {name: value for name, value in {**frame.f_globals, **frame.f_locals}.items() if name in names}
    given = [
        f"`{name}` is {_article(type(values[name]).__name__)}: {short(values[name])}"
        for name in names
        if name in values and not callable(values[name]) and not inspect.ismodule(values[name])
    ]
    return "\n".join(["The check could not use what your answer gave.", *given[:LEAVES]]) if given else ""


NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*")


def _traceback(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _segment(file: str, line: int | None, last: int | None, begin: int | None, end: int | None) -> str:
    """Return the text of an expression, which is given by its lines and columns (in bytes of UTF-8)."""
    if line is None or last is None or begin is None or end is None:
        return ""
    lines = [linecache.getline(file, number).encode() for number in range(line, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    return b" ".join(lines).decode(errors="replace")


def _article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiouAEIOU' else 'a'} {noun}"


def _name_in(text: str) -> str:
    match = re.search(r"'(\w+)'", text)
    return f"`{match.group(1)}`" if match else "such a name"


def _line_of(error: BaseException, namespace: dict[str, Any], skip: str) -> str | None:
    if (line := getattr(error, "answers_line", None)) is not None:  # it came from an answer in another process
        return place_in_answer(line)
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, (StopIteration, StopAsyncIteration)):
        error = error.__cause__  # Python has replaced it in a generator
    line_of_cell, cell = None, None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_globals is namespace and frame.f_code.co_filename != skip:
            cell = cell or frame.f_code.co_filename  # which the check has called; others are the set-up's
            if frame.f_code.co_filename == cell:
                line_of_cell = place(frame, line)
    return line_of_cell
