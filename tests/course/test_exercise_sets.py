"""This course's own exercises: every rule is kept, and nbval as released agrees with the references."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scalelab.author.lint import check
from scalelab.course import Course, chapters, find_course
from scalelab.exercises.source import read_set, sources
from scalelab.running.kernel import jupyter_environment
from tiny import cell, load, save

COURSE = find_course(Path(__file__).parent)
SLUGS = [chapter.slug for chapter in chapters(COURSE)]
SETS = [path.stem for path in sources(COURSE)]


def run_nbval(folder: Path, notebook: Path) -> dict[str, int]:
    """Run nbval, without anything of ours, on a notebook, and return how many cells had which outcome."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", str(folder / "pytest.ini"), "--rootdir", str(folder)),
            *("-p", "nbval.plugin", "-p", "no:cacheprovider", "--nbval-lax", "-q", "--color=no", str(notebook)),
        ],
        env=jupyter_environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return {outcome: int(number) for number, outcome in re.findall(r"(\d+) (\w+)", run.stdout.splitlines()[-1])}


def texts_of(slug: str) -> list[str]:
    """Return the files of a chapter and its exercise set that exist, relative to the course."""
    names = (f"chapters/{slug}.md", f"exercises/{slug}.ipynb", f"solutions/{slug}.md", f"solutions/{slug}.ipynb")
    return [name for name in names if (COURSE.root / name).is_file()]


@pytest.mark.parametrize(
    "slug", [pytest.param(slug, marks=pytest.mark.proven_by(*texts_of(slug))) for slug in sorted({*SLUGS, *SETS})]
)
def test_every_rule_is_kept(course: Course, slug: str) -> None:
    assert "\n".join(map(str, check(course, only=slug))) == ""


def test_contents_chapters_and_sets_belong_together(course: Course) -> None:
    assert "\n".join(map(str, check(course, only="no chapter"))) == ""


@pytest.mark.parametrize(
    "slug", [pytest.param(slug, marks=pytest.mark.proven_by(f"solutions/{slug}.ipynb")) for slug in SETS]
)
def test_nbval_agrees_with_every_reference(course: Course, tmp_path: Path, slug: str) -> None:
    reference = course.solutions / f"{slug}.ipynb"
    cells = sum(one["cell_type"] == "code" for one in load(reference)["cells"])
    outcomes = run_nbval(tmp_path, reference)
    assert outcomes["passed"] == cells
    assert not {"failed", "error", "errors"} & outcomes.keys()


def test_nbval_sees_a_starter_fail(course: Course, tmp_path: Path) -> None:
    path = sources(course)[0]
    last = read_set(path).exercises[-1]
    notebook = load(course.solutions / f"{path.stem}.ipynb")
    cell(notebook, last.id)["source"] = last.starter
    assert run_nbval(tmp_path, save(tmp_path / "starter.ipynb", notebook))["failed"] >= 1
