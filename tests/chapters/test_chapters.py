"""Every chapter has its anatomy, and nbval finds every claim true once more."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from scalelab.author.execute import execute, recall
from scalelab.author.one_chapter import MEASURE_AGAIN
from scalelab.author.quiz import faults, questions
from scalelab.console import Progress
from scalelab.course import Chapter, Course, chapters, find_course

CHAPTERS = chapters(find_course(Path(__file__).parent))
RUNS = 3
CLOSING = ["Why yours may differ", "Checkpoint", "Sources"]
MEASURED = """
[a claim's measured value, which differs from run to run]
regex: measured [^<]* · claimed
replace: measured · claimed
"""


@pytest.fixture(scope="module", params=CHAPTERS, ids=lambda chapter: chapter.slug)
def chapter(request: pytest.FixtureRequest) -> Chapter:
    assert isinstance(request.param, Chapter)
    return request.param


@pytest.fixture(scope="module")
def executed(chapter: Chapter, course: Course) -> NotebookNode:
    execute(course, Progress(io.StringIO()), only=chapter.slug)
    notebook = recall(course, chapter)
    assert notebook is not None
    return notebook


def kinds(cell: NotebookNode) -> list[str]:
    """Return what the instruments said that each output of the cell is; "" for other outputs."""
    return [output.get("metadata", {}).get("scalelab", {}).get("kind", "") for output in cell.get("outputs", [])]


def sections(notebook: NotebookNode) -> dict[str, list[NotebookNode]]:
    """Return the cells below each heading of level 2."""
    found: dict[str, list[NotebookNode]] = {}
    heading = ""
    for cell in notebook.cells:
        headings = re.findall(r"^## (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        heading = headings[-1] if headings else heading
        found.setdefault(heading, []).append(cell)
    return found


def nbval(notebook: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Let nbval run `notebook` in this environment and compare the outputs that are marked for it."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *options, str(notebook)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=notebook.parent,
        check=False,
    )


def failing(notebook: Path, cells: int, *options: str) -> list[set[int]]:
    """Run a notebook of so many cells RUNS times, or until every cell has passed once.

    Return the numbers of the cells that had not passed yet, after each run.
    """
    after: list[set[int]] = []
    while len(after) < RUNS and (not after or after[-1]):
        judged = nbval(notebook, *options)
        failed = {int(number) for number in re.findall(r"FAILED \S+::Cell (\d+)", judged.stdout)}
        assert len(failed) == cells or f"{cells - len(failed)} passed" in judged.stdout, judged.stdout[-6000:]
        print(judged.stdout[-6000:])
        after.append(after[-1] & failed if after else failed)
    return after


def test_a_chapter_has_three_to_five_experiments_each_whole(executed: NotebookNode) -> None:
    experiments = {name: cells for name, cells in sections(executed).items() if name.startswith("Experiment")}
    assert 3 <= len(experiments) <= 5
    for name, cells in experiments.items():
        seen = [kind for cell in cells for kind in kinds(cell)]
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        for part in ("prediction", "figure", "claim"):
            assert part in seen, f"{name} has no {part}"
        assert seen.index("prediction") < seen.index("figure"), f"{name} asks after it has shown"
        assert "### Why" in text, f"{name} does not say why"
        assert re.search(r"break|mend", text, re.IGNORECASE), f"{name} breaks nothing, or mends nothing"


def test_a_chapter_refutes_beliefs_and_closes_with_what_a_reader_needs(executed: NotebookNode) -> None:
    text = "\n".join(cell.source for cell in executed.cells if cell.cell_type == "markdown")
    beliefs = [i for i, cell in enumerate(executed.cells) if "**What people believe" in cell.source]
    assert beliefs
    for i in beliefs:
        following = [kind for cell in executed.cells[i + 1 : i + 5] for kind in kinds(cell)]
        assert "claim" in following, f"no run refutes {executed.cells[i].source[:80]}"
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[-3:] == CLOSING
    assert "machine" in [kind for cell in sections(executed)[CLOSING[0]] for kind in kinds(cell)]
    assert list(questions(text)), "the checkpoint asks nothing"
    assert not list(faults(text))


def test_claims_of_a_chapter_are_told_apart(executed: NotebookNode) -> None:
    ids = [
        output.metadata.scalelab.id
        for cell in executed.cells
        for output, kind in zip(cell.get("outputs", []), kinds(cell), strict=True)
        if kind == "claim"
    ]
    assert len(ids) == len(set(ids))


def test_nbval_finds_every_claim_true_again(
    chapter: Chapter, executed: NotebookNode, course: Course, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """nbval runs the whole chapter again, and holds each claim's line against the stored one.

    Each cell has RUNS runs: other work on the machine must not turn a measurement into a failure. The execution that
    the book shows has checked every claim: `scalelab test` runs the quickest chapter again, with --all each of them.
    """
    claims = [cell for cell in executed.cells if kinds(cell) and set(kinds(cell)) == {"claim"}]
    assert claims
    if not due(course, chapter):
        tell(f"{chapter.slug}: claims held when the chapter was executed for the book")
        return
    for cell in claims:
        cell.metadata.setdefault("tags", []).append("nbval-check-output")
    notebook, measured = tmp_path / f"{chapter.slug}.ipynb", tmp_path / "measured.cfg"
    nbformat.write(executed, notebook)
    measured.write_text(MEASURED, encoding="utf-8")
    options = ("--nbval-cell-timeout=300", f"--nbval-sanitize-with={measured}")
    cells = sum(cell.cell_type == "code" for cell in executed.cells)
    *earlier, failed = failing(notebook, cells, *options)
    if earlier:
        tell(f"{chapter.slug}: cells {earlier} failed in the first runs of nbval")
    assert not failed
    tell(f"{chapter.slug}: nbval found every claim true again")


def due(course: Course, chapter: Chapter) -> bool:
    """Return whether nbval runs the chapter again."""
    chosen = os.environ.get(MEASURE_AGAIN, "all")
    if chosen != "quickest":
        return chosen == "all"
    return min(execute(course, Progress(io.StringIO())), key=lambda one: one.seconds).slug == chapter.slug


def test_nbval_would_see_a_claim_that_no_longer_holds(tmp_path: Path) -> None:
    """The test above can fail: a claim whose bound breaks in every run is a failure there."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell('from scalelab import claim\nclaim("it grows", 1, at_least=2)')]
    path = tmp_path / "broken.ipynb"
    nbformat.write(notebook, path)
    assert failing(path, 1) == [{0}] * RUNS
    assert "This claim does not hold here: it grows" in nbval(path).stdout


def test_a_claim_that_holds_in_one_of_several_runs_is_true(tmp_path: Path) -> None:
    count = "import pathlib\nruns = pathlib.Path('runs')\nruns.mkdir(exist_ok=True)"
    sources = [
        f"{count}\n(runs / str(len([*runs.iterdir()]))).touch()",
        "assert len([*runs.iterdir()]) == 2",
        "assert len([*runs.iterdir()]) == 1",
    ]
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path = tmp_path / "unsteady.ipynb"
    nbformat.write(notebook, path)
    assert failing(path, 3) == [{1}, set()]
