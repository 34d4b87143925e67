"""The commands for students: open the workspace, work on exercises, hand in, and examine the machine."""

from __future__ import annotations

import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalelab.cli.options import (
    FAILED,
    FILE,
    SectionedGroup,
    chosen_course,
    course_option,
    open_option,
    port_option,
    workspace_option,
)
from scalelab.console import Progress
from scalelab.errors import ScalelabError

if TYPE_CHECKING:
    from scalelab.course import Course


@click.command()
@click.argument("folder", metavar="[DIR]", required=False, type=FILE)
@click.option("--prepare", is_flag=True, help="Make the workspace, and end: for an editor or a server of your own.")
@port_option
@open_option
@course_option
def start(folder: Path | None, prepare: bool, port: int | None, open_browser: bool) -> None:
    """Open your own workspace in JupyterLab: chapters and exercises, and how far you are.

    Chapters and exercises are put as notebooks into DIR (default: the workspace used last, else a folder beside the
    course's), or brought up to date there without touching your answers. Nothing is built. Ctrl-C ends JupyterLab.
    """
    course = chosen_course()
    if not prepare:
        _serve_workspace(course, folder, Progress(), book=False, port=port, open_browser=open_browser)
        return
    from scalelab.student.install import prepare as make_workspace
    from scalelab.student.workspace import workspace_folder

    make_workspace(course, workspace_folder(course, folder))


@click.group(cls=SectionedGroup, invoke_without_command=True, subcommand_metavar="[COMMAND]")
@port_option
@open_option
@workspace_option
@course_option
@click.pass_context
def course(context: click.Context, port: int | None, open_browser: bool, workspace: Path | None) -> None:
    """Build the book if it is out of date, then serve it beside your workspace in JupyterLab until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    course = chosen_course()
    from scalelab.author.build import build

    progress = Progress()
    try:
        build(course, progress)
    except ScalelabError as error:
        error.add_note("`scalelab start` opens JupyterLab without the book.")
        raise
    _serve_workspace(course, workspace, progress, book=True, port=port, open_browser=open_browser)


def _serve_workspace(
    course: Course, folder: Path | None, progress: Progress, *, book: bool, port: int | None, open_browser: bool
) -> None:
    from scalelab.lab.serve import serve
    from scalelab.student.install import opened
    from scalelab.student.workspace import AlreadyOpen, workspace_folder

    try:
        with opened(course, workspace_folder(course, folder), progress.say) as workspace:
            serve(course, progress, workspace=workspace, book=book, port=port, open_browser=open_browser)
    except AlreadyOpen as error:
        progress.say(str(error))
        if open_browser:
            webbrowser.open(error.link)


@click.command()
@click.argument("chapter", metavar="[NN]", required=False)
@workspace_option
@course_option
def progress(chapter: str | None, workspace: Path | None) -> None:
    """Show how far you are in each chapter's exercises.

    This is read from your notebooks as they were last saved. NN is one chapter's number, for more on each exercise.
    """
    course = chosen_course()
    from scalelab.student.start_page import LEGEND, table, total_line
    from scalelab.student.status_pages import refresh, rows
    from scalelab.student.workspace import existing_workspace

    folder = existing_workspace(course, workspace)
    shown = [row for row in rows(course, folder) if not chapter or row.number == chapter]
    print("\n".join([*table(shown, every=bool(chapter)), "", total_line(shown), LEGEND, str(folder.root)]))
    refresh(course, folder)


@click.command()
@click.argument("exercise")
@workspace_option
@course_option
def reset(exercise: str, workspace: Path | None) -> None:
    """Bring back an exercise as the course has it; your answer is kept in a notebook beside it.

    EXERCISE is its name, such as turns, or 08/turns if two chapters have one of this name.
    """
    course = chosen_course()
    from scalelab.student.install import reset as bring_back
    from scalelab.student.workspace import existing_workspace

    bring_back(course, existing_workspace(course, workspace), exercise)


@click.command("submit-check")
@click.argument("file", type=FILE)
@course_option
def submit_check(file: Path) -> None:
    """Before you hand in: run your answers as the grader does, and write the file to hand in.

    Each answer in FILE, a notebook of your workspace's exercises, runs alone in a fresh Python, with the checks that
    you see.
    """
    course = chosen_course()
    from scalelab.student.hand_in import submit_check as run_and_pack

    run_and_pack(course, file)


@click.command()
@click.argument("notebook", metavar="SET")
@click.option(
    "--python",
    is_flag=True,
    help="Write the answers into a plain Python file beside the notebook, to edit there; both are kept in step.",
)
@click.option("--once", is_flag=True, help="Check once and end; the exit status is 1 if an answer does not pass yet.")
@workspace_option
@course_option
def watch(notebook: str, python: bool, once: bool, workspace: Path | None) -> int:
    """Check your answers again whenever you save them in an editor.

    SET is an exercise set's number or name, such as 08, or the notebook's file. The first answer that does not pass is
    shown with the reason. On a terminal, keys give hints, a solution, and the end.
    """
    from scalelab.course import CourseNotFound
    from scalelab.student.watch import find_notebook
    from scalelab.student.watch import watch as check_at_each_save
    from scalelab.student.workspace import workspace_folder

    with suppress(CourseNotFound):  # a notebook alone is enough
        workspace = workspace_folder(chosen_course(), workspace)
    passed = check_at_each_save(find_notebook(notebook, workspace), as_python=python, once=once)
    return FAILED if once and not passed else 0


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print JSON, for a report of a problem.")
def doctor(as_data: bool) -> int:
    """Show which of the components that the course can use this machine has, and how to get the rest.

    The exit status is 1 if a component is missing that the course needs.
    """
    from scalelab.doctor import all_found, as_json, examine, sandbox_finding, show

    findings = [*examine(), sandbox_finding()]
    if as_data:
        print(as_json(findings))
    else:
        show(findings)
    return 0 if all_found(findings) else FAILED


COMMANDS = (start, course, progress, watch, reset, submit_check, doctor)
