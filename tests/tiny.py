"""A tiny course of one exercise set; tests change its text and use it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scalelab.author.sync import sync
from scalelab.checks import Expectation, Verdict
from scalelab.course import Course
from scalelab.student.run_tracker import digest, mark

FOLDER = Path(__file__).parent / "tiny_course"
SLUG = "01_tiny"
PROMPT = '+++ {"role": "prompt"'
POINTS = {"add": 3, "ordered": 3, "mend": 2}
"""The exercises that tests of the grader keep, and their points."""
RIGHT = {
    "add": "def add(a, b):\n    return a + b",
    "ordered": "async def ordered(jobs):\n    return await asyncio.gather(*jobs)",
    "mend": "def count(word, seen=[]):\n    seen.append(word)\n    return len(seen)",
}
"""Right answers to them."""


def tiny_course(root: Path) -> Course:
    """Copy the tiny course to `root`, which must not exist, without generated files."""
    shutil.copytree(FOLDER, root, ignore=shutil.ignore_patterns("golden"))
    return Course(root)


def source(course: Course) -> Path:
    return course.solutions / f"{SLUG}.md"


def change(course: Course, *changes: tuple[str, str]) -> None:
    """Replace text in the set's source; each text to replace must be there once."""
    text = source(course).read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, (text.count(old), old)
        text = text.replace(old, new)
    source(course).write_text(text, encoding="utf-8")


def keep_exercises(course: Course, names: Iterable[str]) -> None:
    """Keep these exercises of the set's source, and drop the others."""
    head, *parts = source(course).read_text(encoding="utf-8").split(PROMPT)
    kept = [part for part in parts if any(f'"exercise": "{name}"' in part for name in names)]
    source(course).write_text(PROMPT.join([head, *kept]), encoding="utf-8")


def quiet_sync(course: Course, *, force: bool = False) -> list[str]:
    """Sync, and return what it reported."""
    said: list[str] = []
    sync(course, force=force, report=said.append)
    return said


def load(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    return data


def save(path: Path, notebook: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def student_path(course: Course) -> Path:
    return course.exercises / f"{SLUG}.ipynb"


def reference_path(course: Course) -> Path:
    return course.solutions / f"{SLUG}.ipynb"


def cell(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the cell with this id."""
    found = [one for one in notebook["cells"] if one["id"] == name]
    assert len(found) == 1, name
    one = found[0]
    assert isinstance(one, dict)
    return one


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Change the notebook in a file, and return it."""
    notebook = load(path)
    edit(notebook)
    save(path, notebook)
    return notebook


def check_outputs(name: str, answer: str, *, passed: bool = True) -> list[dict[str, Any]]:
    """Return what a check's cell shows in a workspace after it has run on this answer."""
    verdict = Verdict(name, (Expectation("all is well", passed),))
    stream = {"output_type": "stream", "name": "stdout", "text": f"{verdict}\n"}
    data = mark({name: digest(answer)}, verdict.as_data())
    return [stream, {"output_type": "display_data", "metadata": {}, "data": data}]
