"""The command for instructors: grade submitted notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scalelab.cli.options import FILE, chosen_course, course_option
from scalelab.errors import ScalelabError

if TYPE_CHECKING:
    from scalelab.course import Course


def _canvas_ids(context: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> dict[str, int]:
    """Return the number of each exercise set that a SET=NUMBER names."""
    numbers = {}
    for text in texts:
        slug, _, number = text.partition("=")
        if not slug or not number.isdecimal():
            raise click.BadParameter(f"{text!r} is not SET=NUMBER, such as 08_asyncio=1234")
        numbers[slug] = int(number)
    return numbers


@click.command()
@click.argument("submissions", type=FILE)
@click.option(
    "--out", type=FILE, metavar="GRADES", required=True, help="Write grades, feedback and exports into GRADES."
)
@click.option("--jobs", type=int, metavar="N", help="Judge N submissions side by side (default: one per core).")
@click.option(
    "--timeout",
    type=float,
    metavar="S",
    default=10.0,
    help="End an answer that computes for more than S seconds of processor time in one check (default: 10).",
)
@click.option("--again", is_flag=True, help="Judge again what an earlier run has judged.")
@click.option(
    "--no-sandbox",
    is_flag=True,
    help="Run answers with your own rights: only in a machine that holds nothing else, or for work that you trust.",
)
@click.option(
    "--keep-notebooks",
    is_flag=True,
    help="Write each submission's answers with their checks as a notebook into OUT/notebooks: "
    "`pytest --nbval-lax FILE` judges it by hand.",
)
@click.option("--dask", metavar="ADDRESS", help="Judge on the workers of this Dask scheduler.")
@click.option("--roster", type=FILE, metavar="FILE", help="A CSV with the students' names and numbers.")
@click.option(
    "--canvas-id",
    "canvas_ids",
    multiple=True,
    callback=_canvas_ids,
    metavar="SET=NUMBER",
    help="Canvas's number of a set's assignment; may be given once per set.",
)
@course_option
def grade(submissions: Path, out: Path, *, no_sandbox: bool, dask: str | None, **options: Any) -> int:
    """Grade submitted notebooks with nbval, each answer in a sandbox.

    SUBMISSIONS is a folder of notebooks, or one notebook. Files that cannot be graded are named. However a run ends,
    the same command continues from what is finished.
    """
    course = chosen_course()
    from scalelab.grading.batch import grade as grade_all
    from scalelab.grading.judging.judge import NoSandbox

    try:
        grade_all(submissions, out, course=course, sandbox=not no_sandbox, dask=dask, **options)
    except NoSandbox as error:
        if dask:
            error.add_note("--dask does not go with a container: without it, a container engine would be used.")
            raise
        return _grade_in_container(course, submissions, out, error, **options)
    return 0


def _grade_in_container(
    course: Course,
    submissions: Path,
    out: Path,
    no_sandbox: ScalelabError,
    *,
    jobs: int | None,
    timeout: float,
    again: bool,
    keep_notebooks: bool,
    roster: Path | None,
    canvas_ids: dict[str, int],
) -> int:
    """Grade in a container if an engine answers. Raises `no_sandbox` if none does."""
    from scalelab.grading.sandbox.container import find_engine, grade_in_container

    engine, how = find_engine()
    if not engine:
        no_sandbox.add_note(f"Or let a container engine run the same command in a container: {how}.")
        raise no_sandbox
    options = [f"--timeout={timeout}", *(["--again"] if again else [])]
    options += ["--keep-notebooks"] if keep_notebooks else []
    options += [] if jobs is None else [f"--jobs={jobs}"]
    options += [f"--canvas-id={slug}={number}" for slug, number in canvas_ids.items()]
    return grade_in_container(engine, course, submissions, out, options=options, roster=roster)


COMMANDS = (grade,)
