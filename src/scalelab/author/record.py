"""Renew the recorded runs of a chapter: run it here, and store the data that its experiments measured."""

from __future__ import annotations

from dataclasses import dataclass

from scalelab import recordings
from scalelab.author.build_progress import Plan
from scalelab.author.execute import ChapterFailed, read, run
from scalelab.console import Progress
from scalelab.course import Course, find_chapter
from scalelab.running.notebook import runs


@dataclass(frozen=True)
class Recordings:
    """The names of the renewed runs, and of those that could not be renewed, with what this machine lacks for them."""

    renewed: tuple[str, ...]
    unchanged: dict[str, str]


def record(course: Course, wanted: str, progress: Progress) -> Recordings:
    """Run the chapter whose number or name is `wanted`, and store its experiments' data in the library.

    An experiment keeps its earlier recording if this machine lacks something for it. If the run fails half-way, the
    recordings made until then are kept. Raises NoSuchChapter and ChapterFailed.
    """
    chapter = find_chapter(course, wanted)
    notebook = read(course, chapter)
    plan = Plan(course, [chapter.slug], progress)
    plan.begin(chapter.slug, sum(runs(cell) for cell in notebook.cells))
    failure = run(course, chapter, notebook, plan, {recordings.FOLDER_VARIABLE: str(recordings.FOLDER)})
    plan.end(failed=failure is not None)
    outputs = [
        output.get("metadata", {}).get("scalelab", {}) for cell in notebook.cells for output in cell.get("outputs", [])
    ]
    outcomes = [output for output in outputs if output.get("kind") == "recording"]
    recorded = Recordings(
        renewed=tuple(output["name"] for output in outcomes if output["state"] == "renewed"),
        unchanged={output["name"]: output["lacks"] for output in outcomes if output["state"] == "shown"},
    )
    for name in recorded.renewed:
        progress.say(f"{name}: recorded")
    for name, lacks in recorded.unchanged.items():
        progress.say(f"{name}: kept as it was, because this machine lacks {lacks}")
    if not outcomes:
        progress.say(f"{chapter.slug}: no experiment that can be recorded was run")
    if failure is not None:
        raise ChapterFailed(failure.text)
    return recorded
