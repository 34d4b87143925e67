"""Find the parts of the course, and read the front matter of its chapters."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scalelab.errors import ScalelabError

RECORD = Path(".scalelab", "workspace.json")
"""In a student's workspace, the file that says which course it belongs to."""
MARKERS = ("_config.yml", "_toc.yml", "chapters")
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
REQUIRED = ("title", "principle", "systems", "minutes", "prerequisites", "objectives")


class CourseNotFound(ScalelabError):
    """Neither the start folder nor a folder above it holds the course."""


class NoSuchChapter(ScalelabError):
    """The course has no chapter of that number or name."""


class FrontMatterError(ScalelabError):
    """A chapter's front matter is missing, is not a YAML mapping, or lacks a key."""


@dataclass(frozen=True)
class Course:
    """The folders of one checkout of the course."""

    root: Path

    @property
    def chapters(self) -> Path:
        return self.root / "chapters"

    @property
    def exercises(self) -> Path:
        return self.root / "exercises"

    @property
    def solutions(self) -> Path:
        return self.root / "solutions"

    @property
    def build(self) -> Path:
        return self.root / "_build"

    @property
    def html(self) -> Path:
        return self.build / "html"


@dataclass(frozen=True)
class Chapter:
    """One chapter; `minutes` is the reading and running time that its author plans for, `systems` what it runs."""

    path: Path
    title: str
    principle: str
    systems: str
    minutes: int
    prerequisites: tuple[str, ...]
    objectives: tuple[str, ...]

    @property
    def slug(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return self.slug.split("_")[0]


def find_course(start: Path | None = None) -> Course:
    """Return the course in the folder `start` (default: the working directory) or in one above it.

    If there is none, return the course of the workspace there. Raises CourseNotFound.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if _is_course(folder):
            return Course(folder)
    for folder in (start, *start.parents):
        if (folder / RECORD).is_file():
            return Course(_course_of(folder))
    raise CourseNotFound(
        f"No course at {start} or above it: expected a folder with {', '.join(MARKERS)}. "
        "Change into a checkout of the course, or name one with --course DIR."
    )


def _is_course(folder: Path) -> bool:
    return all((folder / marker).exists() for marker in MARKERS)


def _course_of(workspace: Path) -> Path:
    """Return the folder of the course that a workspace was made from. Raises CourseNotFound."""
    try:
        folder = Path(str(json.loads((workspace / RECORD).read_text(encoding="utf-8"))["course"]))
    except (OSError, ValueError, KeyError, TypeError):
        folder = Path()
    if folder != Path() and _is_course(folder):
        return folder
    raise CourseNotFound(
        f"{workspace} is a workspace, and its course is no longer where it was ({folder}). In the course's own folder, "
        f"run `scalelab start {workspace}`, or name the course with --course DIR."
    )


def front_matter(path: Path) -> dict[str, Any]:
    """Return the YAML header of a text notebook. Raises FrontMatterError."""
    match = FRONT_MATTER.match(path.read_text(encoding="utf-8"))
    if match is None:
        raise FrontMatterError(f"{path}: no front matter; begin the file with a YAML block between two '---' lines.")
    try:
        data = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
        raise FrontMatterError(f"{path}: the front matter is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise FrontMatterError(f"{path}: the front matter must be a mapping, not {type(data).__name__}.")
    return data


def chapters(course: Course) -> list[Chapter]:
    """Return every chapter, in the order of their numbers. Raises FrontMatterError."""
    return [read_chapter(path) for path in sorted(course.chapters.glob("[0-9][0-9]_*.md"))]


def find_chapter(course: Course, wanted: str) -> Chapter:
    """Return the chapter whose number or name is `wanted`, such as 2, 02 or 02_laws. Raises NoSuchChapter."""
    written = chapters(course)
    for chapter in written:
        if wanted == chapter.slug or wanted.zfill(2) == chapter.number:
            return chapter
    names = ", ".join(chapter.slug for chapter in written)
    raise NoSuchChapter(f"Expected a chapter or its number; got {wanted!r}. There are {names}.")


def read_chapter(path: Path) -> Chapter:
    """Return the chapter at `path`. Raises FrontMatterError."""
    data = front_matter(path)
    missing = [key for key in REQUIRED if key not in data]
    if missing:
        raise FrontMatterError(f"{path}: the front matter lacks {', '.join(missing)}.")
    return Chapter(
        path=path,
        title=str(data["title"]),
        principle=str(data["principle"]),
        systems=str(data["systems"]),
        minutes=int(data["minutes"]),
        prerequisites=tuple(data["prerequisites"]),
        objectives=tuple(data["objectives"]),
    )
