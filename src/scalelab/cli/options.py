"""The options that several commands share, and groups whose help lists commands by audience."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from scalelab.course import Course

FAILED = 1
FILE = click.Path(readable=False, path_type=Path)  # handlers check a path, and say what is wrong with it
_COURSE = "scalelab.course"


def _remember_course(context: click.Context, parameter: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        context.meta[_COURSE] = folder


def chosen_course() -> Course:
    """Return the course that `--course` names, else the one around the current folder. Raises CourseNotFound."""
    from scalelab.course import find_course

    return find_course(click.get_current_context().meta.get(_COURSE))


course_option = click.option(
    "--course",
    type=FILE,
    metavar="DIR",
    expose_value=False,
    callback=_remember_course,
    help="The course (default: the folder you are in).",
)
port_option = click.option("--port", type=int, help="Serve on this port (default: the first free one from 8888).")
open_option = click.option("--open", "open_browser", is_flag=True, help="Open the link in your browser.")
workspace_option = click.option(
    "--workspace",
    type=FILE,
    metavar="DIR",
    help="Your workspace (default: the folder you are in, the one used last, or the one beside the course).",
)


class SectionedGroup(click.Group):
    """A group whose help lists its commands in sections, each with the first sentence of its own help."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sections: dict[str, Sequence[click.Command]] = {}

    def add_section(self, title: str, commands: Sequence[click.Command]) -> None:
        self._sections[title] = commands
        for command in commands:
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(str(command.name), command.get_short_help_str(limit=200)) for command in commands])
