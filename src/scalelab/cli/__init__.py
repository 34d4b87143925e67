"""The command `scalelab`: work on the course, build and serve it, test it, keep exercises in step, grade."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from scalelab.cli import author, grade, student
from scalelab.cli.options import SectionedGroup, course_option
from scalelab.errors import ScalelabError

REFUSED = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
COMPLETE = "_SCALELAB_COMPLETE"  # set by click's completion scripts


@click.group(cls=SectionedGroup, help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@course_option
def scalelab() -> None: ...


scalelab.add_section("For students", student.COMMANDS)
scalelab.add_section("For instructors", grade.COMMANDS)
scalelab.add_section("For authors", author.COMMANDS)
student.course.add_section("For authors", author.COURSE_COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 (something found), 2 (not possible), 130 (Ctrl-C)."""
    _replace_unencodable_characters()
    with _handle_signals_as_interrupt() as terminated:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        except ScalelabError as error:
            print("\n".join([f"scalelab: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
            return REFUSED
        except KeyboardInterrupt:
            print("\nscalelab: interrupted.", file=sys.stderr)
            return TERMINATED if terminated else INTERRUPTED


def _run(arguments: list[str]) -> int:
    # Not `scalelab.main`: it would take an EOFError of a handler for Ctrl-C, and a broken pipe for a success.
    if instruction := os.environ.get(COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(scalelab, {}, "scalelab", COMPLETE, instruction)
    try:
        with scalelab.make_context("scalelab", arguments) as context:
            return int(scalelab.invoke(context) or 0)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code


def _replace_unencodable_characters() -> None:
    """Replace characters that stdout or stderr cannot encode instead of crashing: a pipe on Windows has few of them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
            if sys.platform == "win32" and "PYTHONIOENCODING" not in os.environ:
                stream.reconfigure(encoding="utf-8")


@contextmanager
def _handle_signals_as_interrupt() -> Iterator[list[int]]:
    """Turn each request to end into Ctrl-C, so that everything that was started ends; yield the signals that came."""
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.raise_signal(signal.SIGINT)

    # Ctrl-C too: a script's background jobs start with it ignored.
    handlers: dict[str, Callable[[int, FrameType | None], object]] = {"SIGINT": signal.default_int_handler}
    handlers |= dict.fromkeys(("SIGTERM", "SIGHUP", "SIGBREAK"), end)
    numbers = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
