"""Execute chapters one after another, and store the results where myst-nb finds them.

A chapter is read exactly as myst-nb reads it, so that Sphinx, which runs afterwards, finds every chapter in the cache
and executes none itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jupyter_book.config import get_final_config
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.main import JupyterCacheBase
from myst_nb.core.config import NbParserConfig
from myst_nb.core.read import create_nb_reader
from myst_parser.config.main import MdParserConfig
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

from scalelab.author.build_progress import Plan
from scalelab.author.execution_cache import cache_path
from scalelab.claims import ClaimFailed
from scalelab.console import Progress, count
from scalelab.course import Chapter, Course, chapters
from scalelab.errors import ScalelabError
from scalelab.running.kernel import jupyter_environment
from scalelab.running.notebook import run_notebook, runs

ANSI = re.compile(r"\x1b\[[0-9;]*m")
HEADING = re.compile(r"^#{1,2} +(.+?)\s*$", re.MULTILINE)
SHOWN_LINES = 8


class ChapterFailed(ScalelabError):
    """Cells of one or more chapters raised an exception: a claim that does not hold, or another error."""


class NotAMystNotebook(ScalelabError):
    """A chapter is not a MyST notebook: myst-nb would show its cells as text."""


@dataclass(frozen=True)
class Failure:
    """The reason why a chapter could not be executed to its end, and whether it was a claim that does not hold."""

    text: str
    of_claim: bool


@dataclass(frozen=True)
class Execution:
    """The time in seconds that a chapter took: in all, per code cell, and per section (heading of level 1 or 2)."""

    slug: str
    cells: tuple[float, ...]
    sections: dict[str, float]
    from_cache: bool

    @property
    def seconds(self) -> float:
        return sum(self.cells)


def execute(course: Course, progress: Progress, *, only: str = "", again: bool = False) -> list[Execution]:
    """Execute every chapter that is not in the cache, in order, and return the time that each chapter took.

    only: the slug of the only chapter to execute, or "" for all. again: execute chapters that are in the cache, too.
    If a claim does not hold, its chapter runs once more, and a message says so: a disturbance of a measurement is gone
    the second time, a false claim is not. A chapter that fails does not stop the others: their results are cached, then
    ChapterFailed names every failure. Raises NotAMystNotebook and FrontMatterError before anything runs.
    """
    with _store(course) as store:
        book = [(chapter, read(course, chapter)) for chapter in chapters(course) if only in ("", chapter.slug)]
        done = {chapter.slug: None if again else _recall(store, chapter, notebook) for chapter, notebook in book}
        todo = [(chapter, notebook) for chapter, notebook in book if done[chapter.slug] is None]
        plan = Plan(course, [chapter.slug for chapter, _ in todo], progress)
        failures = []
        for chapter, unrun in todo:
            notebook = unrun
            plan.begin(chapter.slug, sum(runs(cell) for cell in notebook.cells))
            failure = run(course, chapter, notebook, plan)
            if failure is not None and failure.of_claim:
                plan.restart()
                notebook = read(course, chapter)
                failure = run(course, chapter, notebook, plan)
            plan.end(failed=failure is not None)
            if failure is not None:
                failures.append(failure.text)
                continue
            execution = Execution(chapter.slug, tuple(plan.cells), _sections(notebook, plan.cells), from_cache=False)
            data = {"execution_seconds": execution.seconds, "cells": execution.cells, "sections": execution.sections}
            bundle = CacheBundleIn(notebook, str(chapter.path), data=data)
            store.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            done[chapter.slug] = execution
    if failures:
        raise ChapterFailed("\n\n".join([f"{len(failures)} of {count(len(book), 'chapter')} failed.", *failures]))
    return [execution for execution in done.values() if execution is not None]


def read(course: Course, chapter: Chapter) -> NotebookNode:
    """Return the chapter as the notebook that myst-nb makes of it. Raises NotAMystNotebook."""
    text = chapter.path.read_text(encoding="utf-8")
    config = _sphinx_config(course)
    markdown = MdParserConfig(enable_extensions=set(config.get("myst_enable_extensions", ())))
    reader = create_nb_reader(str(chapter.path), markdown, NbParserConfig(), text)
    if reader is None:
        raise NotAMystNotebook(
            f"{chapter.path}: expected a MyST notebook; the front matter lacks `file_format: mystnb`. Add that line."
        )
    notebook = reader.read(text)
    assert isinstance(notebook, NotebookNode)
    return notebook


def recall(course: Course, chapter: Chapter) -> NotebookNode | None:
    """Return the chapter with the outputs of its last execution, or None if the cache holds none."""
    with _store(course) as store, suppress(KeyError, ValueError):
        _, notebook = store.merge_match_into_notebook(read(course, chapter))
        assert isinstance(notebook, NotebookNode)
        return notebook
    return None


def executed_at(course: Course, chapter: Chapter) -> float | None:
    """Return the time when the chapter's cached execution was stored (POSIX seconds), or None if there is none."""
    with _store(course) as store, suppress(KeyError, ValueError):
        return float(store.match_cache_notebook(read(course, chapter)).created.timestamp())
    return None


@contextmanager
def _store(course: Course) -> Iterator[JupyterCacheBase]:
    store = JupyterCacheBase(cache_path(course))
    try:
        yield store
    finally:
        store.db.dispose()


def _sphinx_config(course: Course) -> dict[str, Any]:
    return _sphinx_config_of((course.root / "_config.yml").read_text(encoding="utf-8"))


@cache
def _sphinx_config_of(text: str) -> dict[str, Any]:
    config, _ = get_final_config(
        user_yaml=yaml.safe_load(text) or {}, cli_config={"latex_individualpages": False}, validate=False
    )
    assert isinstance(config, dict)
    return config


def _recall(store: JupyterCacheBase, chapter: Chapter, notebook: NotebookNode) -> Execution | None:
    """Return the times of the cached execution, or None if there is none or its entry is incomplete."""
    try:
        record = store.match_cache_notebook(notebook)
        store.get_cache_bundle(record.pk)
    except (KeyError, ValueError):
        return None
    data = record.data
    cells = tuple(data.get("cells") or (data.get("execution_seconds", 0.0),))
    return Execution(chapter.slug, cells, data.get("sections", {}), from_cache=True)


def run(
    course: Course, chapter: Chapter, notebook: NotebookNode, plan: Plan, variables: Mapping[str, str] | None = None
) -> Failure | None:
    """Run the cells of `notebook` in place; return None, or the failure.

    variables: environment variables for the kernel, added to those of this process.
    """
    log = _log(course, chapter, "kernel")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        failed = run_notebook(
            notebook,
            folder=course.chapters,
            environment={**jupyter_environment(), "IPYTHONDIR": str(course.build / ".ipython"), **(variables or {})},
            timeout=int(_sphinx_config(course).get("nb_execution_timeout", 300)),
            output=output,
            ready=plan.ready,
            tick=plan.tick,
            cell=plan.cell,
        )
    if failed is None:
        return None
    index, error = failed
    of_claim = isinstance(error, CellExecutionError) and error.ename == ClaimFailed.__name__
    return Failure(_failure_message(course, chapter, notebook, index, error), of_claim)


def _failure_message(course: Course, chapter: Chapter, notebook: NotebookNode, index: int, error: BaseException) -> str:
    """Return a message on the failed cell and its error; write the whole traceback to a file in `_build/logs`."""
    cell = notebook.cells[index]
    log = _log(course, chapter, "failure")
    log.write_text(ANSI.sub("", str(error)), encoding="utf-8")
    if isinstance(error, CellExecutionError):
        reason = ANSI.sub("", f"{error.ename}: {error.evalue}")
    elif isinstance(error, CellTimeoutError):
        reason = "The cell ran longer than `execute: timeout` in _config.yml allows."
    else:
        log = _log(course, chapter, "kernel")
        reason = "The kernel died while it ran the cell: out of memory, or ended by the cell or the system."
    path = chapter.path.relative_to(course.root).as_posix()
    line = notebook.metadata["source_map"][index] + 1
    number, after = (sum(map(runs, cells)) for cells in (notebook.cells[: index + 1], notebook.cells[index + 1 :]))
    source = cell.source.strip().splitlines()
    excerpt = source if len(source) <= SHOWN_LINES else [*source[: SHOWN_LINES - 1], "..."]
    return "\n".join(
        [
            f"{path}, line {line}, code cell {number} of {number + after}:",
            *(f"    {line}" for line in excerpt),
            reason,
            f"More in {log.relative_to(course.root).as_posix()}",
        ]
    )


def _log(course: Course, chapter: Chapter, kind: str) -> Path:
    return course.build / "logs" / f"{chapter.slug}.{kind}.log"


def _sections(notebook: NotebookNode, cells: Sequence[float]) -> dict[str, float]:
    spent: dict[str, float] = {}
    heading, times = "", iter(cells)
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (headings := HEADING.findall(cell.source)):
            heading = headings[-1]
        elif runs(cell):
            spent[heading] = round(spent.get(heading, 0.0) + next(times), 3)
    return spent
