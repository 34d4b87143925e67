"""Test one chapter: its cells and claims, its exercise set, its anatomy, and its page."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from scalelab.author.build import BookFailed, build
from scalelab.author.execute import ChapterFailed, execute, recall
from scalelab.author.lint import check
from scalelab.console import Progress, count, seconds, table_lines
from scalelab.course import Chapter, Course, chapters

CHAPTER_TESTS = "tests/chapters"
"""The tests of every chapter; each has the chapter's slug in its id."""

MEASURE_AGAIN = "SCALELAB_MEASURE_AGAIN"
"""The environment variable that tells these tests which chapters nbval runs again: all (default), quickest, or none."""


@dataclass(frozen=True)
class Result:
    """The result of one part: None if it could not be tested, and the reason or the time it took."""

    part: str
    passed: bool | None
    note: str


def examine_chapter(course: Course, chapter: Chapter, progress: Progress, *, again: bool = False) -> list[Result]:
    """Test everything about one chapter, report it, and return the result of each part.

    Cells that ran before on the same library are not run again, unless `again`. The page is built, and its links are
    checked, if all other chapters have been executed. Raises NotAMystNotebook and FrontMatterError.
    """
    results: list[Result] = []

    def part(name: str, passes: Callable[[], bool | str]) -> None:
        """Run one part; its function returns whether it passed, or the reason why it cannot be tested."""
        progress.say(f"\n{chapter.slug}: {name}")
        began = time.perf_counter()
        passed = passes()
        if isinstance(passed, str):
            progress.say(passed)
            results.append(Result(name, None, passed))
        else:
            results.append(Result(name, passed, seconds(time.perf_counter() - began)))

    part("cells and claims", lambda: _cells(course, chapter, progress, again))
    part("exercise set", lambda: _exercises(course, chapter, progress))
    if results[0].passed:  # otherwise there is no executed chapter to look at
        part("anatomy", lambda: _anatomy(course, chapter))
        part("page", lambda: _page(course, progress))
    marks = {True: "passed", False: "failed", None: "not tested"}
    rows = [(result.part, marks[result.passed], result.note) for result in results]
    progress.say("\n".join(["", *table_lines(rows)]))
    return results


def _cells(course: Course, chapter: Chapter, progress: Progress, again: bool) -> bool:
    try:
        (execution,) = execute(course, progress, only=chapter.slug, again=again)
    except ChapterFailed as failed:
        progress.say(str(failed))
        return False
    if execution.from_cache:
        progress.say(f"Kept from an earlier run, which took {seconds(execution.seconds)}; --all runs the cells again.")
    return True


def _exercises(course: Course, chapter: Chapter, progress: Progress) -> bool | str:
    passed = not check(course, only=chapter.slug, report=progress.say)
    if passed and not (course.solutions / f"{chapter.slug}.md").is_file():
        return f"There is no set solutions/{chapter.slug}.md."
    return passed


def _anatomy(course: Course, chapter: Chapter) -> bool | str:
    if not (course.root / CHAPTER_TESTS).is_dir():
        return f"This course has no tests in {CHAPTER_TESTS}."
    command = [sys.executable, "-m", "pytest", "-q", CHAPTER_TESTS, "-k", chapter.slug]
    environment = os.environ | {MEASURE_AGAIN: "none"}
    return subprocess.run(command, cwd=course.root, env=environment, check=False).returncode == 0


def _page(course: Course, progress: Progress) -> bool | str:
    lacking = [chapter.slug for chapter in chapters(course) if recall(course, chapter) is None]
    if lacking:
        return f"{count(len(lacking), 'chapter')} not executed yet ({', '.join(lacking)}); run `scalelab book` once."
    try:
        build(course, progress)
    except BookFailed as failed:
        progress.say(str(failed))
        return False
    return True
