"""Build the book: execute changed chapters, let Jupyter Book write the site; do nothing if nothing changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scalelab.author.execution_cache import LIBRARY, cache_key, files_below, fingerprint, prune
from scalelab.console import Progress, seconds
from scalelab.course import Course
from scalelab.errors import ScalelabError
from scalelab.notebooks.lock import locked
from scalelab.running.kernel import jupyter_environment

ANSI = re.compile(r"\x1b\[[0-9;]*m")
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
SOURCES = ("book", "chapters", "exercises")
SHOWN_SECONDS = 1.0
ADDRESS = "SCALELAB_BOOK_URL"
"""The environment variable that gives the site's address to the book's own extension."""

PUBLISHED = ".scalelab-book"
"""Marks a folder that `publish` filled and may fill again."""


class BookFailed(ScalelabError):
    """Jupyter Book found something wrong with the pages; warnings are errors."""


class NoAddress(ScalelabError):
    """The given site address is not a valid http or https address."""


class FolderTaken(ScalelabError):
    """The folder to publish to holds something other than an earlier book."""


def build(course: Course, progress: Progress | None = None, *, url: str = "") -> Path:
    """Build the book if it is out of date, and return the folder of the site.

    url: the site's future address, if it is known: pages then have a picture that any site can show beside a link, and
    there is a sitemap. Waits for another build of the same course. Raises ChapterFailed, NotAMystNotebook,
    FrontMatterError, BookFailed and NoAddress.
    """
    if url and not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", url):
        raise NoAddress(f"{url}: expected the site's address, such as https://example.org/course/. Give it whole.")
    progress = progress or Progress()
    with _one_at_a_time(course, progress):
        stamp = {"inputs": _inputs(course), "pages": _pages(course), "url": url}
        before = _stamp(course)
        if before == stamp and (course.html / "index.html").is_file():
            progress.say("The book is up to date.")
            return course.html
        if before.get("pages") != stamp["pages"]:
            _forget_pages(course)
        _execute(course, progress)
        _write_pages(course, progress, url)
        _stamp_file(course).write_text(json.dumps(stamp), encoding="utf-8")
    return course.html


def publish(course: Course, out: Path) -> None:
    """Copy the built site to `out`: a new or empty folder, or one that an earlier call filled. Raises FolderTaken."""
    if out.exists() and not (out / PUBLISHED).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FolderTaken(
            f"{out}: expected a new folder, an empty one, or an earlier book. Name another, or empty this one."
        )
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(course.html, out, ignore=shutil.ignore_patterns(".buildinfo"))
    # GitHub Pages leaves out folders that begin with an underscore, unless this file is there.
    (out / ".nojekyll").touch()
    (out / PUBLISHED).touch()


def clean(course: Course, progress: Progress) -> None:
    """Remove everything that was generated in `_build`, executed chapters included."""
    if not course.build.exists():
        progress.say(f"{course.build}: nothing to remove.")
        return
    with _one_at_a_time(course, progress):
        for path in course.build.iterdir():
            if path != _lock_file(course):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(course.build)
    progress.say(f"{course.build}: removed.")


@contextmanager
def _one_at_a_time(course: Course, progress: Progress) -> Iterator[None]:
    with locked(_lock_file(course), lambda: progress.say("Another build of this course is running; waiting for it.")):
        yield


def _lock_file(course: Course) -> Path:
    return course.build / ".lock"


def _stamp_file(course: Course) -> Path:
    return course.build / ".built.json"


def _stamp(course: Course) -> dict[str, object]:
    try:
        stamp = json.loads(_stamp_file(course).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _sources(course: Course) -> list[Path]:
    below = [path for name in SOURCES for path in files_below(course.root / name)]
    return below + [path for pattern in ("*.md", "*.yml", "*.bib") for path in course.root.glob(pattern)]


def _inputs(course: Course) -> str:
    """Return hashes of everything that a page depends on; the head of an exercise page comes from the set's source."""
    sources = [*_sources(course), *course.solutions.glob("*.md")]
    return " ".join([cache_key(course), fingerprint(LIBRARY, files_below(LIBRARY)), fingerprint(course.root, sources)])


def _pages(course: Course) -> list[str]:
    pages = [path for path in _sources(course) if path.suffix in {".md", ".ipynb"}]
    return sorted(path.relative_to(course.root).as_posix() for path in pages)


def _forget_pages(course: Course) -> None:
    """Remove the site, because Sphinx would keep pages in it whose files are gone."""
    for folder in (course.html, course.build / ".doctrees", course.build / "jupyter_execute"):
        shutil.rmtree(folder, ignore_errors=True)


def _execute(course: Course, progress: Progress) -> None:
    from scalelab.author.execute import execute  # Takes seconds to import; not needed for an unchanged book.

    executions = execute(course, progress)
    prune(course)
    progress.say("What executing took:")
    for execution in executions:
        cached = " (kept from an earlier build)" if execution.from_cache else ""
        progress.say(f"  {execution.slug}: {seconds(execution.seconds)}{cached}")
        for section, spent in execution.sections.items():
            if spent >= SHOWN_SECONDS and not execution.from_cache:
                progress.say(f"    {section}: {seconds(spent)}")


def _write_pages(course: Course, progress: Progress, url: str) -> None:
    began = time.perf_counter()
    logs = course.build / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(course.root), "-W", "--keep-going"]
    environment = jupyter_environment() | {"NO_COLOR": "1", "PYTHONUTF8": "1", ADDRESS: url}
    progress.log("Writing the pages")
    try:
        with (logs / "pages.log").open("w", encoding="utf-8") as log, (logs / "warnings.log").open("w+b") as warnings:
            with subprocess.Popen(
                command, env=environment, text=True, encoding="utf-8", stdout=subprocess.PIPE, stderr=warnings
            ) as process:
                try:
                    for line in process.stdout or ():
                        log.write(line)
                        progress.now(f"Writing the pages: {line.strip()}")
                except BaseException:
                    process.kill()
                    raise
            warnings.seek(0)
            complaints = ANSI.sub("", warnings.read().decode("utf-8", errors="replace")).strip()
        if process.returncode != 0:
            raise BookFailed(
                f"The pages have faults:\n{_faults(complaints, course)}\nAll of it: _build/logs/warnings.log"
            )
    except BaseException:
        # Otherwise Sphinx would neither repeat warnings about pages it has read nor write those it had yet to write.
        shutil.rmtree(course.build / ".doctrees", ignore_errors=True)
        raise
    progress.say(f"The pages are written, {seconds(time.perf_counter() - began)}.")


def _faults(stderr: str, course: Course) -> str:
    """Return Sphinx's complaints, without tracebacks of its own code and with paths from the course's root."""
    return stderr.partition("Traceback (most recent call last):")[0].strip().replace(str(course.root) + os.sep, "")
