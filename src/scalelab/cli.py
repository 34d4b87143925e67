"""The command `scalelab`: work on the course, build and serve it, test it, keep exercises in step, grade."""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from scalelab.console import Progress
from scalelab.course import Course, find_course
from scalelab.errors import ScalelabError

FAILED = 1
REFUSED = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
CHAPTER_TESTS = "tests/chapters"
KEPT_CHAPTERS = "SCALELAB_KEPT_CHAPTERS"  # tells tests which chapters were not executed for them


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 (something found), 2 (not possible), 130 (Ctrl-C)."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if rest and options.run is not _test:
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    options.rest = rest
    _can_say_everything()
    with _ends_like_ctrl_c() as terminated:
        try:
            course = None if options.run in (_doctor, _watch) else find_course(getattr(options, "course", None))
            return int(options.run(course, options))
        except ScalelabError as error:
            print("\n".join([f"scalelab: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
            return REFUSED
        except KeyboardInterrupt:
            print("\nscalelab: interrupted.", file=sys.stderr)
            return TERMINATED if terminated else INTERRUPTED


def _can_say_everything() -> None:
    """Let no letter that a stream cannot write end the command: a pipe on Windows has few of them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
            if sys.platform == "win32" and "PYTHONIOENCODING" not in os.environ:
                stream.reconfigure(encoding="utf-8")


@contextmanager
def _ends_like_ctrl_c() -> Iterator[list[int]]:
    """Let a request to end take the same way as Ctrl-C, so that all that was started ends; yield what came."""
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


def _course(course: Course, options: argparse.Namespace) -> int:
    from scalelab.author.build import build

    progress = Progress()
    try:
        build(course, progress)
    except ScalelabError as error:
        error.add_note("`scalelab start` opens JupyterLab without the book.")
        raise
    return _serve_workspace(course, options, progress, book=True)


def _start(course: Course, options: argparse.Namespace) -> int:
    if options.prepare:
        from scalelab.student.install import prepare
        from scalelab.student.workspace import workspace_folder

        prepare(course, workspace_folder(course, options.workspace))
        return 0
    return _serve_workspace(course, options, Progress(), book=False)


def _serve_workspace(course: Course, options: argparse.Namespace, progress: Progress, *, book: bool) -> int:
    from scalelab.lab.serve import serve
    from scalelab.student.install import opened
    from scalelab.student.workspace import AlreadyOpen, workspace_folder

    try:
        with opened(course, workspace_folder(course, options.workspace), progress.say) as workspace:
            serve(course, progress, workspace=workspace, book=book, port=options.port, open_browser=options.open)
    except AlreadyOpen as found:
        progress.say(str(found))
        if options.open:
            webbrowser.open(found.link)
    return 0


def _lab(course: Course, options: argparse.Namespace) -> int:
    from scalelab.lab.serve import serve

    serve(course, Progress(), book=False, port=options.port, open_browser=options.open)
    return 0


def _submit_check(course: Course, options: argparse.Namespace) -> int:
    from scalelab.student.hand_in import submit_check

    submit_check(course, options.file)
    return 0


def _reset(course: Course, options: argparse.Namespace) -> int:
    from scalelab.student.install import reset
    from scalelab.student.workspace import existing_workspace

    reset(course, existing_workspace(course, options.workspace), options.exercise)
    return 0


def _progress(course: Course, options: argparse.Namespace) -> int:
    from scalelab.student.start_page import LEGEND, table, total_line
    from scalelab.student.status_pages import refresh, rows
    from scalelab.student.workspace import existing_workspace

    workspace = existing_workspace(course, options.workspace)
    found = [row for row in rows(course, workspace) if not options.chapter or row.number == options.chapter]
    print("\n".join([*table(found, every=bool(options.chapter)), "", total_line(found), LEGEND, str(workspace.root)]))
    refresh(course, workspace)
    return 0


def _book(course: Course, options: argparse.Namespace) -> int:
    from scalelab.author.build import build, publish

    progress = Progress()
    site = build(course, progress, url=options.url)
    if options.out is not None:
        publish(course, options.out)
        site = options.out
    progress.say(f"The site: {site}")
    return 0


def _release(course: Course, options: argparse.Namespace) -> int:
    from scalelab.author.build import build
    from scalelab.author.release import release

    progress = Progress()
    build(course, progress, url=options.url)
    for path in release(course, options.out):
        progress.say(str(path))
    return 0


def _test(course: Course, options: argparse.Namespace) -> int:
    from scalelab.author.execute import recall
    from scalelab.course import chapters

    def pytest(*arguments: str) -> int:
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.run(command, cwd=course.root, env=environment, check=False).returncode

    environment = dict(os.environ)
    if options.rest:
        return pytest(*options.rest)
    environment[KEPT_CHAPTERS] = ",".join(one.slug for one in chapters(course) if recall(course, one) is not None)
    # Chapters measure: they are executed, and judged again, with nothing beside them.
    subprocess.run([sys.executable, "-m", "scalelab.cli", "book"], cwd=course.root, check=False)
    alone = pytest(CHAPTER_TESTS)
    # Two workers per core of the machines that this is meant for: most tests wait for what they started.
    shared = pytest(f"--ignore={CHAPTER_TESTS}", "--numprocesses=4", "--dist=loadfile", "--no-loadscope-reorder")
    return alone or shared


def _clean(course: Course, options: argparse.Namespace) -> int:
    from scalelab.author.build import clean

    clean(course, Progress())
    return 0


def _sync(course: Course, options: argparse.Namespace) -> int:
    from scalelab.author.sync import sync

    sync(course, force=options.force)
    return 0


def _check(course: Course, options: argparse.Namespace) -> int:
    from scalelab.author.lint import check

    return FAILED if check(course) else 0


def _nbgrader(course: Course, options: argparse.Namespace) -> int:
    from scalelab.exercises.source import read_set, sources
    from scalelab.grading.outputs.nbgrader_export import export

    for path in sources(course):
        print(export(read_set(path), options.folder))
    return 0


def _record(course: Course, options: argparse.Namespace) -> int:
    from scalelab.author.record import record

    record(course, options.chapter, Progress())
    return 0


def _doctor(course: None, options: argparse.Namespace) -> int:
    from scalelab.doctor import as_json, examine, sandbox_finding, show, well

    findings = [*examine(), sandbox_finding()]
    if options.json:
        print(as_json(findings))
    else:
        show(findings)
    return 0 if well(findings) else FAILED


def _watch(course: None, options: argparse.Namespace) -> int:
    from scalelab.course import CourseNotFound
    from scalelab.student.watch import find_notebook, watch
    from scalelab.student.workspace import workspace_folder

    workspace = options.workspace
    with suppress(CourseNotFound):  # a notebook alone is enough
        workspace = workspace_folder(find_course(getattr(options, "course", None)), options.workspace)
    passed = watch(find_notebook(options.notebook, workspace), as_python=options.python, once=options.once)
    return FAILED if options.once and not passed else 0


def _grade(course: Course, options: argparse.Namespace) -> int:
    from scalelab.grading.batch import grade
    from scalelab.grading.judging.judge import NoSandbox

    try:
        grade(
            options.submissions,
            options.out,
            course=course,
            jobs=options.jobs,
            timeout=options.timeout,
            sandbox=options.sandbox,
            again=options.again,
            keep_notebooks=options.keep_notebooks,
            dask=options.dask,
            roster=options.roster,
            canvas_ids=dict(options.canvas_id),
        )
    except NoSandbox as refused:
        return _grade_in_container(course, options, refused)
    return 0


def _grade_in_container(course: Course, options: argparse.Namespace, refused: ScalelabError) -> int:
    """Grade in a container where an engine answers. Raises `refused` where none does, or `--dask` was asked for."""
    from scalelab.grading.sandbox.container import find_engine, grade_in_container

    if options.dask:
        refused.add_note("--dask does not go with a container: without it, a container engine would be used.")
        raise refused
    engine, how = find_engine()
    if not engine:
        refused.add_note(f"Or let a container engine run the same command in a container: {how}.")
        raise refused
    passed_on = [f"--timeout={options.timeout}", *(["--again"] if options.again else [])]
    passed_on += ["--keep-notebooks"] if options.keep_notebooks else []
    passed_on += [] if options.jobs is None else [f"--jobs={options.jobs}"]
    passed_on += [f"--canvas-id={slug}={number}" for slug, number in options.canvas_id]
    return grade_in_container(
        engine, course, options.submissions, options.out, options=passed_on, roster=options.roster
    )


def _canvas_id(text: str) -> tuple[str, int]:
    """Return the exercise set and the number that SET=NUMBER names."""
    slug, _, number = text.partition("=")
    if not slug or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not SET=NUMBER, such as 08_asyncio=1234")
    return slug, int(number)


def _publishing(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    """Add the commands that make what others read: the site, and the course as one file."""
    site = argparse.ArgumentParser(add_help=False)
    site.add_argument(
        "--url",
        default="",
        help="where the site will stand: gives pages whole addresses for shared links, and the site a sitemap",
    )
    book = commands.add_parser(
        "book",
        parents=[where, site],
        help="build the site for publishing",
        description="Build the site. Its links are relative: any address below any host will do, and any file server.",
    )
    book.add_argument("--out", type=Path, metavar="DIR", help="copy the site to DIR: new, empty, or an earlier copy")
    book.set_defaults(run=_book)

    released = commands.add_parser(
        "release",
        parents=[where, site],
        help="pack the built site and its notebooks as a zip with a checksum",
        description="Build the site, and write it with the notebooks of chapters and exercises as one zip, with its "
        "SHA-256 beside it. The same site gives the same bytes.",
    )
    released.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("dist"), help="write into DIR (default: dist)"
    )
    released.set_defaults(run=_release)


def _parser() -> argparse.ArgumentParser:
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--course",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="the course (default: the folder you are in)",
    )
    serving = argparse.ArgumentParser(add_help=False)
    serving.add_argument("--port", type=int, help="serve on this port (default: the first free one from 8888)")
    serving.add_argument("--open", action="store_true", help="open the link in your browser")

    working = argparse.ArgumentParser(add_help=False)
    working.add_argument(
        "--workspace",
        type=Path,
        metavar="DIR",
        help="your workspace (default: the folder you are in, the one used last, or the one beside the course)",
    )
    parser = argparse.ArgumentParser(prog="scalelab", description=__doc__, parents=[where])
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    course = commands.add_parser(
        "course",
        parents=[where, serving, working],
        help="build the book, then serve it beside your workspace in JupyterLab until Ctrl-C",
        description="Build the book where it is out of date, then serve it beside your workspace in JupyterLab (see "
        "`scalelab start`) until Ctrl-C.",
    )
    course.set_defaults(run=_course)
    _add_author_commands(course, where)

    _add_student_commands(commands, where, serving, working)

    lab = commands.add_parser(
        "lab",
        parents=[where, serving],
        help="for authors: serve JupyterLab in the folder of the course",
        description="Serve JupyterLab in the folder of the course until Ctrl-C, for authors: a chapter's text there "
        "opens as a notebook. Students use `scalelab start`.",
    )
    lab.set_defaults(run=_lab)

    _publishing(commands, where)

    test = commands.add_parser(
        "test",
        parents=[where],
        help="run the tests",
        description="Run the tests of the course. Other arguments go to pytest: `scalelab test -k grading`.",
    )
    test.set_defaults(run=_test)

    record = commands.add_parser(
        "record",
        parents=[where],
        help="renew the recorded runs of a chapter",
        description="Run a chapter, and store what its experiments measured for machines that lack what they need.",
    )
    record.add_argument("chapter", metavar="CHAPTER", help="its number or name, such as 02 or 02_laws")
    record.set_defaults(run=_record)

    clean = commands.add_parser(
        "clean",
        parents=[where],
        help="remove everything built, executed chapters included",
        description="Remove the folder _build: the site and the executed chapters. Your notebooks stay.",
    )
    clean.set_defaults(run=_clean)

    doctor = commands.add_parser(
        "doctor",
        help="show what this machine has of all that the course can use",
        description="Show what was found of each component, whether the course needs it, and how to get the rest. "
        "Status 1: a needed one lacks.",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON, for a report of a problem")
    doctor.set_defaults(run=_doctor)

    _add_grade(commands, where)
    return parser


def _add_grade(commands: argparse._SubParsersAction[argparse.ArgumentParser], where: argparse.ArgumentParser) -> None:
    grade = commands.add_parser(
        "grade",
        parents=[where],
        help="grade submitted notebooks",
        description="Grade the notebooks below SUBMISSIONS with nbval, each answer in a sandbox. What cannot be graded "
        "is named. However a run ends, the same command goes on from what is finished.",
    )
    grade.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="a folder of notebooks, or one notebook")
    grade.add_argument(
        "--out", type=Path, metavar="GRADES", required=True, help="write grades, feedback and exports into GRADES"
    )
    grade.add_argument("--jobs", type=int, metavar="N", help="judge N submissions side by side (default: one per core)")
    grade.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        default=10.0,
        help="end an answer that computes for more than S seconds of processor time in one check (default: 10)",
    )
    grade.add_argument("--again", action="store_true", help="judge again what an earlier run has judged")
    grade.add_argument(
        "--no-sandbox",
        dest="sandbox",
        action="store_false",
        help="run answers with your own rights: only in a machine that holds nothing else, or for work that you trust",
    )
    grade.add_argument(
        "--keep-notebooks",
        action="store_true",
        help="write each submission's answers with their checks as a notebook into OUT/notebooks: "
        "`pytest --nbval-lax FILE` judges it by hand",
    )
    grade.add_argument("--dask", metavar="ADDRESS", help="judge on the workers of this Dask scheduler")
    grade.add_argument("--roster", type=Path, metavar="FILE", help="a CSV with the students' names and numbers")
    grade.add_argument(
        "--canvas-id",
        type=_canvas_id,
        action="append",
        default=[],
        metavar="SET=NUMBER",
        help="Canvas's number of a set's assignment; may be given once per set",
    )
    grade.set_defaults(run=_grade)


def _add_author_commands(course: argparse.ArgumentParser, where: argparse.ArgumentParser) -> None:
    parts = course.add_subparsers(title="for authors", metavar="COMMAND")
    sync = parts.add_parser(
        "sync",
        parents=[where],
        help="write the exercise notebooks from solutions/*.md",
        description="Write the student notebooks and the executed references from the exercise sets in solutions/.",
    )
    sync.add_argument("--force", action="store_true", help="write over a student notebook that holds answers")
    sync.set_defaults(run=_sync)
    check = parts.add_parser(
        "check",
        parents=[where],
        help="check chapters and exercises against the rules of the course",
        description="Check chapters and exercises; name file, rule and mend of each fault. Status 1: there are some.",
    )
    check.set_defaults(run=_check)
    nbgrader = parts.add_parser(
        "nbgrader",
        parents=[where],
        help="write the exercise sets as assignments of nbgrader",
        description="Write each exercise set into nbgrader's course folder FOLDER, as source/SET/SET.ipynb, with the "
        "settings that it needs. Then `nbgrader generate_assignment SET` in that folder.",
    )
    nbgrader.add_argument(
        "folder", type=Path, metavar="FOLDER", help="nbgrader's course folder, which may not exist yet"
    )
    nbgrader.set_defaults(run=_nbgrader)


def _add_student_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    where: argparse.ArgumentParser,
    serving: argparse.ArgumentParser,
    working: argparse.ArgumentParser,
) -> None:
    start = commands.add_parser(
        "start",
        parents=[where, serving],
        help="open your own workspace in JupyterLab: chapters and exercises, and how far you are",
        description="Put chapters and exercises as notebooks into the folder DIR, or bring what is there up to date "
        "without touching your answers, and open it in JupyterLab until Ctrl-C. Nothing is built.",
    )
    start.add_argument(
        "workspace",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="your workspace (default: the one used last, else a folder beside the course's)",
    )
    start.add_argument(
        "--prepare", action="store_true", help="make the workspace, and end: for an editor or a server of your own"
    )
    start.set_defaults(run=_start)

    progress = commands.add_parser(
        "progress",
        parents=[where, working],
        help="show how far you are in each chapter's exercises",
        description="Show how far you are. It is told from your notebooks as they were saved last.",
    )
    progress.add_argument(
        "chapter", nargs="?", metavar="NN", help="the number of one chapter, for more on each exercise"
    )
    progress.set_defaults(run=_progress)

    submit_check = commands.add_parser(
        "submit-check",
        parents=[where],
        help="before you hand in: run your answers as the grader does, and write the file to hand in",
        description="Run each answer in FILE alone in a fresh Python, as the grader does, with the checks that "
        "you see; say what passes, and write the file to hand in.",
    )
    submit_check.add_argument("file", type=Path, metavar="FILE", help="a notebook of your workspace's exercises")
    submit_check.set_defaults(run=_submit_check)

    reset = commands.add_parser(
        "reset",
        parents=[where, working],
        help="bring back an exercise as the course has it; your answer is kept beside it",
        description="Bring back an exercise as the course has it. Your answer is kept in a notebook beside it.",
    )
    reset.add_argument("exercise", metavar="EXERCISE", help="its name, such as turns, or 08/turns where two have one")
    reset.set_defaults(run=_reset)

    watch = commands.add_parser(
        "watch",
        parents=[where, working],
        help="check your answers again whenever you save them in an editor",
        description="Check the answers in an exercise notebook, and again at each save; show the first that does not "
        "pass and why. On a terminal, keys give hints, a solution, and the end.",
    )
    watch.add_argument("notebook", metavar="SET", help="a set's number or name, such as 08, or the notebook's file")
    watch.add_argument(
        "--python",
        action="store_true",
        help="write the answers into a plain Python file beside the notebook, to edit there; both are kept in step",
    )
    watch.add_argument("--once", action="store_true", help="check once and end; status 1: an answer does not pass yet")
    watch.set_defaults(run=_watch)


if __name__ == "__main__":
    sys.exit(main())
