"""The source of an exercise set: what is read from it, and what is said when its form is broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalelab.exercises.source import KINDS, Exercise, ExerciseSet, SourceError, Wrong, read_set
from tiny import SLUG, change, source, tiny_course


def test_reads_every_part_of_a_set(tmp_path: Path) -> None:
    exercises = read_set(source(tiny_course(tmp_path / "course")))

    assert (exercises.slug, exercises.title, exercises.minutes) == (SLUG, "Exercises: tiny", 10)
    assert exercises.intro.startswith("# Exercises: tiny")
    assert [text.splitlines()[0] for text in exercises.setup] == ["import asyncio"]
    assert [(one.id, one.kind, one.points) for one in exercises.exercises] == [
        ("add", "fill in", 3),
        ("last", "trace", 2),
        ("ordered", "write", 3),
        ("mend", "repair", 2),
    ]
    add = exercises.exercises[0]
    assert add.prompt == "## Add two numbers\n\nComplete `add`."
    assert add.hints == ("What joins two numbers?", "A plus.", "`a + b`")
    assert add.starter == "def add(a, b):\n    ..."
    assert add.solution == "def add(a, b):\n    return a + b"
    assert add.check.startswith("got = add(2, 3)")
    assert add.hidden.startswith("got = add(-4, 9)")
    assert (add.check_points, add.hidden_points) == (1, 2)
    assert add.wrongs[1] == Wrong("subtracts", "You subtract.", "def add(a, b):\n    return a - b")
    assert add.reading.startswith("Read on:")


HINT = '+++ {"role": "hint"}\nA plus.\n\n'
BROKEN = {
    "no front matter": ("---\ntitle", "title", "no front matter"),
    "front matter is no YAML": ("minutes: 10", "minutes: [10", "not valid YAML"),
    "no title": ('title: "Exercises: tiny"\n', "", "lacks the key title"),
    "another chapter": ("chapter: 01_tiny", "chapter: 02_other", "chapter is '02_other'"),
    "minutes in words": ("minutes: 10", "minutes: ten", "minutes is 'ten'"),
    "another kernel": ("name: python3\n", "name: pypy\n", "kernelspec is"),
    "no introduction": ("# Exercises: tiny\n\nFour small exercises.\n", "", "has no introduction"),
    "two hints": (HINT, "", "has 2 hints, expected three"),
    "an unknown role": ("role: hidden\npoints: 2", "role: secret\npoints: 2", "no role is called 'secret'"),
    "no role": (HINT, HINT + "+++\n\nStray text.\n\n", "a markdown cell has no role"),
    "an unknown kind": ('"kind": "fill in"', '"kind": "essay"', "the kind 'essay' is unknown"),
    "an id with a hyphen": ('"exercise": "add"', '"exercise": "add-up"', "the id 'add-up' is not usable"),
    "an id of a column": ('"exercise": "add"', '"exercise": "total"', "the id 'total' is not usable"),
    "an id twice": ('"exercise": "last"', '"exercise": "add"', "'add' is used twice"),
    "no id": ('"exercise": "add", ', "", "a prompt needs exercise"),
    "no points": ("role: hidden\npoints: 2", "role: hidden", "a hidden needs points"),
    "points of nothing": ("role: hidden\npoints: 2", "role: hidden\npoints: 0", "points are 0"),
    "points as truth": ("role: hidden\npoints: 2", "role: hidden\npoints: true", "points are True"),
    "a stray key": ("name: no-return", "nam: 1\nname: no-return", "a wrong has no nam"),
    "a name in two words": ("name: no-return", "name: no return", "'no return' is not kebab-case"),
    "a name twice": ("name: subtracts", "name: no-return", "two wrong answers are called 'no-return'"),
    "an empty message": ("message: You subtract.", 'message: ""', "the wrong answer subtracts has no message"),
    "a wrong order": (HINT, HINT.replace("hint", "reading"), "a hint comes after a reading"),
    "two readings": ("Read on: `help(range)`.", 'A.\n\n+++ {"role": "reading"}\nB.', "has 2 reading cells"),
    "Markdown as a check": (HINT, HINT.replace('"hint"', '"check", "points": 1'), "a check is a code cell"),
    "metadata is no JSON": ('+++ {"role": "hint"}\nA plus.', '+++ {"role": "hint"\nA plus.', "is not valid"),
    "set-up in an exercise": ("role: starter\n---\nfor", "role: setup\n---\nfor", "setup cell is inside"),
}


@pytest.mark.parametrize(("old", "new", "rule"), BROKEN.values(), ids=BROKEN)
def test_says_what_is_broken(tmp_path: Path, old: str, new: str, rule: str) -> None:
    course = tiny_course(tmp_path / "course")
    change(course, (old, new))

    with pytest.raises(SourceError) as caught:
        read_set(source(course), name="solutions/01_tiny.md")

    fitting = [problem for problem in caught.value.problems if rule in problem.rule]
    assert fitting, caught.value
    assert all(problem.file == "solutions/01_tiny.md" and problem.mend for problem in fitting)


def test_no_exercise_and_no_utf8_are_said(tmp_path: Path) -> None:
    course = tiny_course(tmp_path / "course")
    text = source(course).read_text(encoding="utf-8")
    source(course).write_text(text[: text.index("+++")], encoding="utf-8")
    with pytest.raises(SourceError, match="has no exercise; open one with"):
        read_set(source(course))
    source(course).write_bytes(text.encode("utf-16"))
    with pytest.raises(SourceError, match=r"is not UTF-8 text .*; save it as UTF-8"):
        read_set(source(course))


def test_all_problems_are_said_at_once_with_their_lines(tmp_path: Path) -> None:
    course = tiny_course(tmp_path / "course")
    change(course, (HINT, ""), ('"kind": "trace"', '"kind": "guess"'), ("message: You subtract.", "message: 5"))

    with pytest.raises(SourceError) as caught:
        read_set(source(course))

    lines = source(course).read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines, start=1) if '"exercise": "add"' in line)
    fence = lines.index("message: 5") + 1 - 4
    assert {problem.where for problem in caught.value.problems} >= {f"exercise add (line {first})", f"line {fence}"}
    assert len(caught.value.problems) == 3


LETTERS = st.characters(codec="utf-8", categories=["L", "N"], include_characters=" .=()✓'\"_")
LINES = st.lists(st.text(LETTERS, min_size=1, max_size=12).map(lambda line: f"x{line}x"), min_size=1, max_size=3)
TEXT = LINES.map("\n".join)
IDS = st.from_regex(r"[a-z][a-z0-9_]{3,8}", fullmatch=True).filter(lambda name: name not in {"student", "total"})
POINTS = st.integers(1, 20)
NAMES = st.from_regex(r"[a-z][a-z0-9]{1,5}-[a-z]{1,5}", fullmatch=True)
WRONGS = st.lists(st.builds(Wrong, NAMES, TEXT, TEXT), max_size=3, unique_by=lambda wrong: wrong.name)
EXERCISES = st.builds(
    Exercise,
    id=IDS.filter(lambda name: name != "exercises"),
    kind=st.sampled_from(KINDS),
    line=st.just(0),
    prompt=TEXT,
    hints=st.tuples(TEXT, TEXT, TEXT),
    starter=TEXT,
    solution=TEXT,
    check=TEXT,
    check_points=POINTS,
    hidden=TEXT,
    hidden_points=POINTS,
    wrongs=WRONGS.map(tuple),
    reading=TEXT,
)
SETS = st.builds(
    ExerciseSet,
    slug=st.just(SLUG),
    title=TEXT.map(lambda text: text.splitlines()[0]),
    minutes=POINTS,
    intro=TEXT,
    setup=st.lists(TEXT, max_size=2).map(tuple),
    exercises=st.lists(EXERCISES, min_size=1, max_size=3, unique_by=lambda one: one.id).map(tuple),
)


def written(exercises: ExerciseSet) -> str:
    """Write a set as its author would."""

    def plain(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    def text(role: str, body: str, **metadata: object) -> str:
        return f"+++ {plain({'role': role, **metadata})}\n{body}\n"

    def code(role: str, body: str, **metadata: object) -> str:
        head = "\n".join(f"{key}: {plain(value)}" for key, value in {"role": role, **metadata}.items())
        return f"```{{code-cell}} ipython3\n---\n{head}\n---\n{body}\n```\n"

    parts = [
        f"---\ntitle: {plain(exercises.title)}\nchapter: {exercises.slug}\nminutes: {exercises.minutes}\n"
        "kernelspec: {name: python3, display_name: Python 3, language: python}\n---\n",
        f"{exercises.intro}\n",
        *(code("setup", body) for body in exercises.setup),
    ]
    for one in exercises.exercises:
        parts += [
            text("prompt", one.prompt, exercise=one.id, kind=one.kind),
            *(text("hint", hint) for hint in one.hints),
            code("starter", one.starter),
            code("solution", one.solution),
            code("check", one.check, points=one.check_points),
            code("hidden", one.hidden, points=one.hidden_points),
            *(code("wrong", wrong.source, name=wrong.name, message=wrong.message) for wrong in one.wrongs),
            text("reading", one.reading),
        ]
    return "\n".join(parts)


@given(SETS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_is_read(exercises: ExerciseSet) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, f"{SLUG}.md")
        path.write_text(written(exercises), encoding="utf-8")
        read = read_set(path)
    assert replace(read, exercises=tuple(replace(one, line=0) for one in read.exercises)) == exercises
