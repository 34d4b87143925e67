"""The commands for authors: build and publish the site, test the course, and keep exercises and recordings in step."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalelab.cli.options import FAILED, FILE, chosen_course, course_option, open_option, port_option
from scalelab.console import Progress

if TYPE_CHECKING:
    from scalelab.course import Course

QUICK = "not (book or browser or kernel or lab or peer or sandbox or server)"
"""The tests without a marker of what they need; tests/conftest.py sets the markers."""
SKIP_PROVEN = "SCALELAB_SKIP_PROVEN"
"""The environment variable under which tests skip what tests/proven.py finds proven."""
NAMES_A_CHAPTER = re.compile(r"\d{1,2}(_\w+)?")

url_option = click.option(
    "--url",
    default="",
    help="The site's address: gives pages whole addresses for shared links, and the site a sitemap.",
)


@click.command()
@port_option
@open_option
@course_option
def lab(port: int | None, open_browser: bool) -> None:
    """Serve JupyterLab in the folder of the course until Ctrl-C, for authors.

    A chapter's text there opens as a notebook. Students use `scalelab start`.
    """
    course = chosen_course()
    from scalelab.lab.serve import serve

    serve(course, Progress(), book=False, port=port, open_browser=open_browser)


@click.command()
@url_option
@click.option("--out", type=FILE, metavar="DIR", help="Copy the site to DIR: new, empty, or an earlier copy.")
@course_option
def book(url: str, out: Path | None) -> None:
    """Build the site for publishing.

    Its links are relative: any address below any host will do, and any file server.
    """
    course = chosen_course()
    from scalelab.author.build import build, publish

    progress = Progress()
    site = build(course, progress, url=url)
    if out is not None:
        publish(course, out)
        site = out
    progress.say(f"The site: {site}")


@click.command()
@url_option
@click.option("--out", type=FILE, metavar="DIR", default=Path("dist"), help="Write into DIR (default: dist).")
@course_option
def release(url: str, out: Path) -> None:
    """Build the site, and write it with its notebooks as one zip with a checksum.

    The SHA-256 is written beside it. The same site gives the same bytes.
    """
    course = chosen_course()
    from scalelab.author.build import build
    from scalelab.author.release import release as pack

    progress = Progress()
    build(course, progress, url=url)
    for path in pack(course, out):
        progress.say(str(path))


@click.command(
    # Without -h, which pytest's arguments may contain: `-kthreads`.
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
    options_metavar="[OPTIONS]",
)
@click.option("--quick", is_flag=True, help="Only style, types, and tests that need nothing but Python.")
@click.option("--all", "again", is_flag=True, help="Test again what passed before and has not changed since.")
@click.option(
    "--under-load",
    "times",
    type=click.IntRange(min=1),
    metavar="TIMES",
    help="With a chapter: run its cells so often beside two busy loops, and list which claims and cells failed.",
)
@click.argument("arguments", nargs=-1, metavar="[CHAPTER | PYTEST ARGUMENTS]", type=click.UNPROCESSED)
@course_option
def test(quick: bool, again: bool, times: int | None, arguments: tuple[str, ...]) -> int:
    """Test the course, or one chapter: `scalelab test 08` runs its cells, claims and exercises, and builds its page.

    Other arguments go to pytest: `scalelab test -k grading`.
    """
    course = chosen_course()
    if arguments and NAMES_A_CHAPTER.fullmatch(arguments[0]):
        if quick or len(arguments) > 1:
            raise click.UsageError(f"Expected chapter {arguments[0]} alone, or with --all or --under-load.")
        return _test_chapter(course, arguments[0], again=again, times=times)
    if times is not None:
        raise click.UsageError("--under-load runs one chapter: give its number, such as `scalelab test 08`.")
    from scalelab.author.one_chapter import CHAPTER_TESTS, MEASURE_AGAIN

    def pytest(*arguments: str) -> int:
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.run(command, cwd=course.root, env=environment, check=False).returncode

    environment = dict(os.environ)
    if quick:
        return pytest("-m", QUICK, "--numprocesses=2", *arguments)
    if arguments:
        return pytest(*arguments)
    if not again:
        environment |= {MEASURE_AGAIN: "quickest", SKIP_PROVEN: "1"}
    # Chapters measure: they are executed with nothing beside them.
    subprocess.run([sys.executable, "-m", "scalelab.cli", "book"], cwd=course.root, check=False)
    alone = pytest(CHAPTER_TESTS)
    # Two workers per core of the machines that this is meant for: most tests wait for what they started.
    shared = pytest(f"--ignore={CHAPTER_TESTS}", "--numprocesses=4", "--dist=loadfile", "--no-loadscope-reorder")
    return alone or shared


def _test_chapter(course: Course, wanted: str, *, again: bool, times: int | None) -> int:
    from scalelab.author.one_chapter import examine_chapter
    from scalelab.author.under_load import report, run_under_load
    from scalelab.course import find_chapter

    chapter = find_chapter(course, wanted)
    progress = Progress()
    if times is None:
        results = examine_chapter(course, chapter, progress, again=again)
        return FAILED if any(result.passed is False for result in results) else 0
    trials = run_under_load(course, chapter, times, progress)
    progress.say("\n".join(report(trials)))
    return 0 if trials.passed else FAILED


@click.command()
@click.argument("chapter")
@course_option
def record(chapter: str) -> None:
    """Run a chapter, and renew its recorded runs, for machines that lack what its experiments need.

    CHAPTER is its number or name, such as 02 or 02_laws.
    """
    course = chosen_course()
    from scalelab.author.record import record as record_runs

    record_runs(course, chapter, Progress())


@click.command()
@course_option
def clean() -> None:
    """Remove the folder _build: the site and the executed chapters; your notebooks stay."""
    course = chosen_course()
    from scalelab.author.build import clean as remove_build

    remove_build(course, Progress())


@click.command()
@click.option("--force", is_flag=True, help="Write over a student notebook that holds answers.")
@course_option
def sync(force: bool) -> None:
    """Write the student notebooks and the executed references from the exercise sets in solutions/."""
    course = chosen_course()
    from scalelab.author.sync import sync as write_notebooks

    write_notebooks(course, force=force)


@click.command()
@course_option
def check() -> int:
    """Check chapters and exercises against the rules of the course; name file, rule and mend of each fault.

    The exit status is 1 if there are any.
    """
    course = chosen_course()
    from scalelab.author.lint import check as find_faults

    return FAILED if find_faults(course) else 0


@click.command()
@click.argument("folder", type=FILE)
@course_option
def nbgrader(folder: Path) -> None:
    """Write the exercise sets as assignments of nbgrader.

    They go into nbgrader's course folder FOLDER, which need not exist yet, as source/SET/SET.ipynb, with the settings
    that it needs. Then run `nbgrader generate_assignment SET` in that folder.
    """
    course = chosen_course()
    from scalelab.exercises.source import read_set, sources
    from scalelab.grading.outputs.nbgrader_export import export

    for path in sources(course):
        print(export(read_set(path), folder))


COMMANDS = (lab, book, release, test, record, clean)
COURSE_COMMANDS = (sync, check, nbgrader)
"""The commands below `scalelab course`."""
