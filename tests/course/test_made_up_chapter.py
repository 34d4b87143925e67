"""A chapter is two texts and an entry in `_toc.yml`: everything else finds it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from scalelab.author.lint import check
from scalelab.author.sync import sync
from scalelab.cli import main
from scalelab.course import Course, chapters, find_course
from scalelab.exercises.source import sources
from scalelab.student.install import prepare
from tiny import FOLDER, SLUG

MADE_UP = "99_made_up"
COPIED = ("_config.yml", "_toc.yml", "pyproject.toml", "book", "chapters", "exercises", "solutions", "tests")
CHAPTER = """\
---
title: Made-up things scale
principle: Nothing is edited for a chapter but its own texts.
systems: none at all
minutes: 7
prerequisites: []
objectives: [tell a made-up chapter from a real one]
file_format: mystnb
kernelspec: {name: python3, display_name: Python 3, language: python}
---

# Made-up things scale

```{code-cell} ipython3
from scalelab import claim

claim("A made-up claim holds", 3, at_least=2, unit="×")
```
"""
ATTACKS = "tests/grading/test_attacks.py::test_an_attack_on_a_set_costs_its_own_question_alone"
"""Attacks are texts of their own, which a chapter may do without."""


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """Copy the course without what was built, and add a chapter, its exercise set, and its entry."""
    original = find_course(Path(__file__).parent)
    copy = Course(tmp_path_factory.mktemp("made up") / "course")
    copy.root.mkdir()
    for name in COPIED:
        path = original.root / name
        if path.is_dir():
            shutil.copytree(path, copy.root / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(path, copy.root / name)
    (copy.chapters / f"{MADE_UP}.md").write_text(CHAPTER, encoding="utf-8")
    exercises = (FOLDER / "solutions" / f"{SLUG}.md").read_text(encoding="utf-8")
    (copy.solutions / f"{MADE_UP}.md").write_text(exercises.replace(SLUG, MADE_UP), encoding="utf-8")
    toc = copy.root / "_toc.yml"
    text = toc.read_text(encoding="utf-8")
    last = chapters(original)[-1].slug
    entry = re.search(rf"^ +- file: chapters/{last}\n(?: +.*{last}\n| +title:.*\n| +sections:\n)+", text, re.MULTILINE)
    assert entry is not None
    toc.write_text(text.replace(entry[0], entry[0] + entry[0].replace(last, MADE_UP)), encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def synced(made_up: Course) -> list[Path]:
    return sync(made_up, report=lambda line: None)


def test_sync_writes_its_notebooks_and_no_other(made_up: Course, synced: list[Path]) -> None:
    assert sorted(path.relative_to(made_up.root).as_posix() for path in synced) == [
        f"exercises/{MADE_UP}.ipynb",
        f"solutions/{MADE_UP}.ipynb",
    ]
    assert check(made_up, only=MADE_UP, report=lambda line: None) == []


@pytest.mark.timeout(900)  # it collects every test of the course
def test_every_test_of_a_chapter_or_a_set_has_one_for_it(made_up: Course) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"]
    collected = subprocess.run(command, cwd=made_up.root, capture_output=True, text=True, encoding="utf-8", check=False)
    assert collected.returncode == 0, collected.stdout[-3000:]
    slugs = {path.stem for path in sources(made_up)}
    ids = re.findall(rf"^(tests/\S+?)\[.*?\b({'|'.join(slugs)})\b", collected.stdout, re.MULTILINE)
    slugs_of = defaultdict(set)
    for function, slug in ids:
        slugs_of[function].add(slug)
    of_each = {function for function, seen in slugs_of.items() if seen >= slugs - {MADE_UP}} - {ATTACKS}
    assert "tests/chapters/test_chapters.py::test_nbval_finds_every_claim_true_again" in of_each
    assert "tests/course/test_exercise_sets.py::test_every_rule_is_kept" in of_each
    assert {function for function in of_each if MADE_UP not in slugs_of[function]} == set()


@pytest.mark.usefixtures("synced")
def test_a_workspace_has_its_notebooks(made_up: Course, tmp_path: Path) -> None:
    prepare(made_up, tmp_path / "workspace", report=lambda line: None)
    for folder in ("chapters", "exercises"):
        assert (tmp_path / "workspace" / folder / f"{MADE_UP}.ipynb").is_file()


@pytest.mark.usefixtures("synced")
def test_the_site_has_its_pages_and_leads_to_them(
    made_up: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pages that list chapters, and the made-up one's: the others would take minutes to execute."""
    course = Course(
        shutil.copytree(made_up.root, tmp_path / "course", ignore=shutil.ignore_patterns("tests", "_build"))
    )
    for path in [*course.chapters.glob("*.md"), *course.exercises.iterdir(), *course.solutions.iterdir()]:
        if path.stem != MADE_UP:
            path.unlink()
    toc = yaml.safe_load((course.root / "_toc.yml").read_text(encoding="utf-8"))
    toc["root"] = "book/syllabus"
    for part in toc["parts"]:
        part["chapters"] = [
            entry for entry in part["chapters"] if MADE_UP in entry["file"] or "claims" in entry["file"]
        ]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    (course.root / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    assert main(["--course", str(course.root), "test", "99"]) == 0
    assert re.search(r"^page +passed", capsys.readouterr().out, re.MULTILINE)
    syllabus, claims, chapter, exercises = (
        (course.html / page).read_text(encoding="utf-8")
        for page in (
            "book/syllabus.html",
            "book/claims.html",
            f"chapters/{MADE_UP}.html",
            f"exercises/{MADE_UP}.html",
        )
    )
    assert f'<a href="../chapters/{MADE_UP}.html">Made-up things scale</a>' in syllabus
    assert "none at all" in syllabus
    assert "7 minutes" in syllabus
    assert "A made-up claim holds" in claims
    assert "Nothing is edited for a chapter but its own texts." in chapter
    assert f"exercises/{MADE_UP}.html" in chapter
    assert f"{MADE_UP}.ipynb" in exercises
