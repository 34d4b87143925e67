"""This course's own exercises: every rule is kept, and nbval as released agrees with the references."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scalelab.author.lint import check
from scalelab.course import Course
from scalelab.exercises.source import read_set, sources
from scalelab.running.kernel import jupyter_environment
from tiny import cell, load, save


def run_nbval(folder: Path, *notebooks: Path) -> dict[str, int]:
    """Run nbval, without anything of ours, and return how many cells had which outcome."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", str(folder / "pytest.ini"), "--rootdir", str(folder)),
            *("-p", "nbval.plugin", "-p", "no:cacheprovider", "--nbval-lax", "-q", "--color=no", *map(str, notebooks)),
        ],
        env=jupyter_environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return {outcome: int(number) for number, outcome in re.findall(r"(\d+) (\w+)", run.stdout.splitlines()[-1])}


@pytest.mark.timeout(1200)  # hundreds of answers, each in a process of its own
def test_every_rule_is_kept(course: Course) -> None:
    assert "\n".join(map(str, check(course))) == ""


def test_nbval_agrees_with_every_reference(course: Course, tmp_path: Path) -> None:
    references = [course.solutions / f"{path.stem}.ipynb" for path in sources(course)]
    cells = sum(one["cell_type"] == "code" for path in references for one in load(path)["cells"])
    outcomes = run_nbval(tmp_path, *references)
    assert outcomes["passed"] == cells
    assert not {"failed", "error", "errors"} & outcomes.keys()


def test_nbval_sees_a_starter_fail(course: Course, tmp_path: Path) -> None:
    path = sources(course)[0]
    last = read_set(path).exercises[-1]
    notebook = load(course.solutions / f"{path.stem}.ipynb")
    cell(notebook, last.id)["source"] = last.starter
    assert run_nbval(tmp_path, save(tmp_path / "starter.ipynb", notebook))["failed"] >= 1
