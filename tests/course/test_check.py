"""The rules of the course: each broken one is found, and answers are really run, each by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scalelab.author import lint as check_module
from scalelab.author.lint import Problem, check
from scalelab.course import Course
from tiny import (
    cell,
    change,
    edited,
    keep_exercises,
    quiet_sync,
    reference_path,
    source,
    student_path,
    tiny_course,
)


def problems_of(course: Course) -> list[Problem]:
    said: list[str] = []
    problems = check(course, report=said.append)
    assert [str(problem) for problem in problems] == [line for line in said if line in set(map(str, problems))]
    return problems


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two courses in step: `full`, which keeps every rule, and `short`, with one exercise and one wrong answer."""
    root = tmp_path_factory.mktemp("templates")
    quiet_sync(tiny_course(root / "full"))
    short = tiny_course(root / "short")
    keep_exercises(short, ["add"])
    text = source(short).read_text(encoding="utf-8")
    begin, end = (
        text.index("```{code-cell} ipython3\n---\nrole: wrong\nname: subtracts"),
        text.index('+++ {"role": "read'),
    )
    source(short).write_text(text[:begin] + text[end:], encoding="utf-8")
    quiet_sync(short)
    return root


@pytest.fixture
def full(templates: Path, tmp_path: Path) -> Course:
    return Course(shutil.copytree(templates / "full", tmp_path / "course"))


@pytest.fixture
def short(templates: Path, tmp_path: Path) -> Course:
    return Course(shutil.copytree(templates / "short", tmp_path / "course"))


def test_a_course_that_keeps_every_rule(full: Course) -> None:
    said: list[str] = []
    before = {path: path.read_bytes() for path in full.root.rglob("*") if path.is_file()}
    assert check(full, report=said.append) == []
    assert said[0].startswith("solutions/01_tiny.md: 24 answers run in ")
    assert said[1:] == ["Every rule is kept."]
    assert {path: path.read_bytes() for path in full.root.rglob("*") if path.is_file()} == before


def test_a_problem_is_one_sentence_with_file_rule_and_mend() -> None:
    problem = Problem("solutions/01_tiny.md", "exercise add (line 3)", "has 2 hints", "write another")
    assert str(problem) == "solutions/01_tiny.md, exercise add (line 3): has 2 hints; write another."
    assert str(Problem("_toc.yml", "", "is empty", "fill it")) == "_toc.yml: is empty; fill it."


def test_answers_that_do_not_do_what_they_should(full: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "CUT_OFF_S", 8.0)
    change(
        full,
        # add: the starter works, and wrong answers pass, say something else, do not end, or end their process.
        ("def add(a, b):\n    ...", "def add(a, b):\n    return a + b"),
        ("def add(a, b):\n    a + b\n", "def add(a, b):\n    return a + b\n"),
        ("message: You subtract.", "message: Not what it says."),
        ("    return a * b", "    while True:\n        pass"),
        ("    return abs(a) + abs(b)", "    import os\n    os._exit(3)"),
        # last: the solution raises.
        ("answer = 9\n", "answer = 9 / 0\n"),
        # ordered: the solution fails its hidden check, and a wrong answer raises by itself.
        ("\n    return await asyncio.gather(*jobs)\n", "\n    return (await asyncio.gather(*jobs))[:3]\n"),
        ("    return list(reversed(await asyncio.gather(*jobs)))", "    return None\nraise KeyError('early')"),
    )
    rules = {
        (problem.where.split(" ")[1], problem.rule) for problem in problems_of(full) if "exercise" in problem.where
    }
    assert rules == {
        ("add", "the starter passes its visible check"),
        ("add", "the wrong answer no-return passes both checks"),
        ("add", "the wrong answer subtracts fails without its message 'Not what it says.' (it shows 'You subtract.')"),
        ("add", "the wrong answer multiplies did not end within 8 s, and was stopped"),
        ("add", "the wrong answer loses-the-sign ended its process with status 3"),
        ("last", "the solution raises (ZeroDivisionError: division by zero)"),
        ("ordered", "the solution fails its hidden cell (Not in order.)"),
        ("ordered", "the wrong answer backwards raises by itself (KeyError: 'early')"),
    }


def test_an_answer_cannot_influence_another(short: Course) -> None:
    """The starter comes first; it spoils the folder, the built-ins and the modules for whoever would come after it."""
    spoil = (
        "import builtins, os, pathlib, sys\n"
        "pathlib.Path('asyncio.py').write_text('1/0')\n"
        "pathlib.Path(os.environ['IPYTHONDIR'], 'profile_default', 'startup').mkdir(parents=True, exist_ok=True)\n"
        "pathlib.Path(os.environ['IPYTHONDIR'], 'profile_default', 'startup', 'x.py').write_text('1/0')\n"
        "builtins.print = None\n"
        "def add(a, b):\n    ..."
    )
    change(short, ("def add(a, b):\n    ...", spoil))
    quiet_sync(short)
    assert [problem.rule for problem in problems_of(short)] == [
        "has 1 exercise, expected four or more",
        "the last exercise is of kind 'fill in'",
        "has 1 wrong answer, expected four or more",
    ]


def test_words_that_a_traceback_quotes_from_the_check_are_not_said(short: Course) -> None:
    change(short, ('-1: "You subtract."', '-1: "Some words."'), ("message: Return the sum.", "message: Some words."))
    rules = [problem.rule for problem in problems_of(short)]
    assert "the wrong answer no-return fails without its message 'Some words.' (it shows 'Return the sum.')" in rules


def test_messages_must_differ_and_hints_be_found(tmp_path: Path) -> None:
    course = tiny_course(tmp_path / "course")
    keep_exercises(course, ["add"])
    change(
        course,
        ("message: You subtract.", "message: You"),
        ("got = add(2, 3)\n", "got = add(2, 3)  # not by checks.verdict('sum'), though\n"),
    )
    rules = [problem.rule for problem in problems_of(course)]
    assert "the message of subtracts is also in that of multiplies" in rules
    assert "the visible check's verdict is named 'sum', so that hints on it are not found" in rules


def test_a_setup_cell_that_fails_is_said(short: Course) -> None:
    change(short, ("import asyncio\n", "import no_such_module\n"))
    rules = [problem.rule for problem in problems_of(short)]
    assert "a set-up cell fails (ModuleNotFoundError: No module named 'no_such_module')" in rules


def test_a_broken_form_is_said_and_the_rest_is_checked(short: Course) -> None:
    (short.solutions / "00_broken.md").write_text("no front matter", encoding="utf-8")
    (short.chapters / "00_broken.md").write_text("no front matter either", encoding="utf-8")
    files = {problem.file for problem in problems_of(short)}
    assert files >= {"solutions/00_broken.md", "chapters/00_broken.md", "solutions/01_tiny.md"}


EDITS = {
    "edited by hand": (student_path, lambda n: cell(n, "add").update(source="x = 1"), "differs from what its source"),
    "run and saved": (student_path, lambda n: cell(n, "add").update(execution_count=1), "differs from what its source"),
    "no output": (reference_path, lambda n: cell(n, "add-check").update(outputs=[]), "has no stored output"),
    "not run": (reference_path, lambda n: cell(n, "add-check").update(execution_count=None), "has no stored output"),
    "stderr": (reference_path, lambda n: cell(n, "add-check")["outputs"][0].update(name="stderr"), "shows stderr"),
    "solution changed": (
        reference_path,
        lambda n: cell(n, "add").update(source="x = 1"),
        "differs from what its source",
    ),
    "digest": (
        reference_path,
        lambda n: n["metadata"]["scalelab"].update(digest="0"),
        "from another state of its source",
    ),
    "another output": (reference_path, lambda n: printed(n, "✓ 2 and 3 are 6\n"), "the reference '✓ 2 and 3 are 6'"),
    "no notebook": (reference_path, lambda n: n.pop("cells"), "the reference is not a notebook"),
    "a cell of no type": (student_path, lambda n: cell(n, "add").update(cell_type="poem"), "is not a valid notebook"),
}


def printed(notebook: dict[str, Any], text: str) -> None:
    cell(notebook, "add-check")["outputs"][0].update(text=[text])


@pytest.mark.parametrize(("path", "edit", "rule"), EDITS.values(), ids=EDITS)
def test_a_damaged_notebook_is_found(
    short: Course, path: Callable[[Course], Path], edit: Callable[[dict[str, Any]], object], rule: str
) -> None:
    edited(path(short), edit)
    found = [problem for problem in problems_of(short) if rule in problem.rule]
    assert found
    assert {problem.file for problem in found} <= {
        path(short).relative_to(short.root).as_posix(),
        "solutions/01_tiny.md",
    }
    assert all("scalelab course sync" in problem.mend or "print" in problem.mend for problem in found)


def test_metadata_that_nbgrader_would_refuse(short: Course) -> None:
    def spoil(notebook: dict[str, Any]) -> None:
        changes: dict[str, dict[str, object]] = {
            "intro": {"schema_version": 2},
            "setup-1": {"colour": "red"},
            "add": {"grade_id": "add check"},
            "add-prompt": {"checksum": "abc"},
            "add-check": {"points": -1},
            "add-hint-1": {"points": 1},
        }
        for name, values in changes.items():
            cell(notebook, name)["metadata"]["nbgrader"].update(values)
        del cell(notebook, "add-hint-2")["metadata"]["nbgrader"]["locked"]
        del cell(notebook, "add-reading")["metadata"]["nbgrader"]

    edited(student_path(short), spoil)
    found = {
        (problem.where, problem.rule.partition("(")[2]) for problem in problems_of(short) if "schema 3" in problem.rule
    }
    assert found == {
        ("cell intro", "3 was expected)"),
        ("cell setup-1", "Additional properties are not allowed ('colour' was unexpected))"),
        ("cell add", "'add check' does not match '^[a-zA-Z0-9_\\\\-]+$')"),
        ("cell add-prompt", "'abc' is too short)"),
        ("cell add-check", "-1 is less than the minimum of 0)"),
        ("cell add-hint-1", "False schema does not allow 1)"),
        ("cell add-hint-2", "'locked' is a required property)"),
        ("cell add-reading", "None is not of type 'object')"),
    }


def test_outputs_that_differ_between_machines(short: Course) -> None:
    text = "✓ /home/ann/x.py, C:\\Users, <Task at 0x7f3a11c0>, 2026-11-22, 20:17:38\n"
    edited(reference_path(short), lambda notebook: printed(notebook, text))
    found = [problem.rule for problem in problems_of(short) if "differs between machines" in problem.rule]
    assert found == [
        f"its output holds {what}, which differs between machines"
        for what in (
            "an absolute path (/home/ann)",
            "a memory address (0x7f3a11c0)",
            "a date (2026-11-22)",
            "a time of day (20:17:38)",
        )
    ]
    edited(reference_path(short), lambda notebook: printed(notebook, "✓ C:\\Users is read\n"))
    assert any("absolute path (C:\\U)" in problem.rule for problem in problems_of(short))
    edited(reference_path(short), lambda notebook: printed(notebook, "✓ https://a.test/home/x and /item/3 came\n"))
    assert not any("differs between machines" in problem.rule for problem in problems_of(short))


def test_missing_and_stray_notebooks(short: Course) -> None:
    student_path(short).unlink()
    (short.exercises / "07_gone.ipynb").write_text("{}", encoding="utf-8")
    (short.solutions / "07_gone.ipynb").write_text("{}", encoding="utf-8")
    found = {(problem.file, problem.rule) for problem in problems_of(short)}
    assert found >= {
        ("exercises/01_tiny.ipynb", "the student notebook does not exist"),
        ("exercises/07_gone.ipynb", "has no source solutions/07_gone.md"),
        ("solutions/07_gone.ipynb", "has no source solutions/07_gone.md"),
    }


def test_table_of_contents_and_chapters_name_each_other(short: Course) -> None:
    listed = "  - file: chapters/02_gone\n" * 2
    toc = f"format: jb-book\nroot: book/index\nparts:\n- chapters:\n{listed}"
    (short.root / "_toc.yml").write_text(toc, encoding="utf-8")
    found = {str(problem) for problem in problems_of(short) if problem.file == "_toc.yml"}
    assert found == {
        "_toc.yml: does not list chapters/01_tiny; add '- file: chapters/01_tiny'.",
        "_toc.yml: lists chapters/02_gone, which does not exist; write the chapter or remove the line.",
        "_toc.yml: lists chapters/02_gone twice; keep one line.",
    }
    (short.root / "_toc.yml").write_text("a: [", encoding="utf-8")
    assert any("cannot be read" in problem.rule for problem in problems_of(short))


def test_a_chapter_names_only_sets_that_exist(short: Course) -> None:
    chapter = short.chapters / "01_tiny.md"
    chapter.write_text(chapter.read_text(encoding="utf-8") + "\nSee exercises/05_none.ipynb.\n", encoding="utf-8")
    assert any(problem.rule.startswith("names exercises/05_none") for problem in problems_of(short))


def test_a_set_has_a_chapter(short: Course) -> None:
    (short.chapters / "01_tiny.md").unlink()
    assert any(problem.rule == "there is no chapter chapters/01_tiny.md" for problem in problems_of(short))


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("minutes: 5", "minutes: soon", "minutes is 'soon'"),
        ("objectives: [test the machinery of exercises]", "objectives: []", "objectives is empty"),
        ("objectives: [test the machinery of exercises]", "objectives: all", "objectives is not a list of texts"),
        ("prerequisites: []\n", "", "lacks prerequisites"),
        ("title: Tiny", "title: ' '", "title is not text"),
        ("title: Tiny", "title: [", "the front matter is not valid YAML"),
    ],
)
def test_front_matter_of_chapters(short: Course, old: str, new: str, rule: str) -> None:
    chapter = short.chapters / "01_tiny.md"
    chapter.write_text(chapter.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    found = [problem for problem in problems_of(short) if problem.rule.startswith(rule)]
    assert [(problem.file, problem.where) for problem in found] == [("chapters/01_tiny.md", "front matter")]
