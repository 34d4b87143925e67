"""Grading as a whole: real kernels, real bad answers; each costs its own question and nothing else."""

from __future__ import annotations

import csv
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from scalelab.course.find import Course
from scalelab.course.notebooks import text_of
from scalelab.grading import BadInput, BadReference, Grade, QuestionGrade, Summary, grade, judge, zygote
from scalelab.grading.kernels import NoSandbox, kernels
from scalelab.grading.merge import PROLOGUE, VISIBLE, notebook, read_reference
from scalelab.grading.nbval_run import run
from scalelab.grading.zygote import NoZygote
from tiny import (
    POINTS,
    RIGHT,
    cell,
    change,
    keep_exercises,
    load,
    quiet_sync,
    reference_path,
    save,
    source,
    student_path,
    tiny_course,
)

TIMEOUT = 3.0
AMPLE = 60.0
TOGETHER_S = 1.0
"""A cell that takes longer beside others is judged again alone: this short, endless answers cost the tests less."""
LEFT_BEHIND = "scalelab-test-left-behind"
SLEEPER = f"[sys.executable, '-c', 'import time; time.sleep(600)', '{LEFT_BEHIND}']"
FULL = sum(POINTS.values())

BLANK = {"add": " ", "ordered": " ", "mend": " "}
ON_POSIX = sys.platform != "win32"
SANDBOX = sys.platform == "linux"
OF_THE_ANSWER = "The answer ran longer than 3 s."
# Two spoiled answers per submission, the third is right. Per case: the answer, its state, words of its feedback.
# Where there are several of each, the machine decides: what a flood leaves unsent may fill the kernel's memory before
# the time is over.
SPOILED = {
    "add": {
        "raises": ("1/0", "raised", "ZeroDivisionError: division by zero"),
        "endless-in-the-check": (
            "def add(a, b):\n    while True:\n        pass",
            "timed out",
            "The visible check ran longer than 3 s.",
        ),
        "exits-in-the-check": ("import os\ndef add(a, b):\n    os._exit(0)", "kernel died", "The visible check ended"),
        "says-nbval": ("# NBVAL_SKIP\n# NBVAL_RAISES_EXCEPTION\n1/0", "raised", "ZeroDivisionError"),
        "null-byte": ("x = '\0'", "raised", "null bytes"),
        "breaks-built-ins": ("import builtins\nbuiltins.len = builtins.print = None\nadd = None", "", ""),
        "kills-the-judge": (
            "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)" if ON_POSIX else "import os\nos._exit(0)",
            "failed" if SANDBOX else "judge ended" if ON_POSIX else "kernel died",
            "" if SANDBOX else "The answer ended",
        ),
    },
    "ordered": {
        "endless": ("while True:\n    pass", "timed out", OF_THE_ANSWER),
        "exits": ("import os\nos._exit(0)", "kernel died", "The answer ended its kernel."),
        "floods": (
            "while True:\n    print('x' * 100_000)",
            "timed out|raised|kernel died",
            f"{OF_THE_ANSWER}|MemoryError|The answer ended its kernel.",
        ),
        "no-python": ("ordered = = 1", "raised", "SyntaxError: invalid syntax"),
        "leaves": ("raise SystemExit", "raised", "SystemExit"),
        "asks": ("input()", "raised", "StdinNotImplementedError"),
        "ignores-interrupts": (
            "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(600)",
            "timed out",
            OF_THE_ANSWER,
        ),
    },
}
PAIRS = list(zip(SPOILED["add"], SPOILED["ordered"], strict=True))


@dataclass
class Class:
    """A class's submissions, and what grading them came to."""

    course: Course
    submissions: Path
    out: Path
    said: list[str] = field(default_factory=list)
    summary: Summary | None = None

    def hand_in(self, student: str, answers: dict[str, str], edit: Callable[[dict[str, Any]], object] = str) -> Path:
        notebook = load(student_path(self.course))
        for name, text in answers.items():
            cell(notebook, name)["source"] = text
        edit(notebook)
        return save(self.submissions / f"{student}.ipynb", notebook)

    def grade(self, timeout: float = TIMEOUT) -> Summary:
        self.said.clear()
        self.summary = grade(
            self.submissions, self.out, course=self.course, timeout=timeout, sandbox=SANDBOX, report=self.said.append
        )
        return self.summary

    def grade_of(self, student: str) -> Grade:
        assert self.summary is not None
        found = [one for one in self.summary.grades if one.student == student]
        assert len(found) == 1, student
        return found[0]


def question(one: Grade, name: str) -> QuestionGrade:
    return next(question for question in one.questions if question.exercise == name)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "grades.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def points(one: Grade) -> dict[str, int | None]:
    return {question.exercise: question.points for question in one.questions}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Course:
    course = tiny_course(tmp_path_factory.mktemp("template") / "course")
    keep_exercises(course, POINTS)
    quiet_sync(course)
    return course


@pytest.fixture(scope="module")
def one_question(tmp_path_factory: pytest.TempPathFactory) -> Course:
    course = tiny_course(tmp_path_factory.mktemp("one-question") / "course")
    keep_exercises(course, ["add"])
    quiet_sync(course)
    return course


def untrusted(notebook: dict[str, Any]) -> None:
    """Say all that could mislead a grader, around right answers."""
    notebook["metadata"]["kernelspec"] = {"name": "evil", "display_name": "Evil", "language": "perl"}
    for one in notebook["cells"]:
        one["metadata"]["tags"] = ["nbval-skip", "raises-exception", "nbval-ignore-output"]
        if one["id"].endswith("-check") or one["id"].startswith("setup"):
            one["source"] = "1/0"
        one["metadata"].get("nbgrader", {}).update(points=1000)
    notebook["cells"].insert(0, {"cell_type": "code", "id": "../../x", "metadata": {}, "source": "1/0", "outputs": []})


def without_metadata(notebook: dict[str, Any]) -> None:
    notebook["metadata"] = {}
    for one in notebook["cells"]:
        one["metadata"] = {}


def without_add_and_with_mend_twice(notebook: dict[str, Any]) -> None:
    notebook["cells"].remove(cell(notebook, "add"))
    notebook["cells"].append({**cell(notebook, "mend"), "id": "copy", "source": "count = None"})


@pytest.fixture(scope="module")
def graded(template: Course, tmp_path_factory: pytest.TempPathFactory) -> Class:
    """One class, graded in one go."""
    root = tmp_path_factory.mktemp("class")
    one = Class(template, root / "submissions", root / "grades")
    one.hand_in("right", RIGHT)
    one.hand_in("starters", {})
    wrong = {
        "add": "def add(a, b):\n    return abs(a) + abs(b)",
        "ordered": "async def ordered(jobs):\n    return list(reversed(await asyncio.gather(*jobs)))",
        "mend": "def count(word, seen=[]):\n    seen.append(word)\n    return len(seen) - 1",
    }
    one.hand_in("wrong", wrong)
    one.hand_in("not-one", RIGHT, without_add_and_with_mend_twice)
    one.hand_in("untrusted", RIGHT, untrusted)
    add_alone = BLANK | {"add": RIGHT["add"]}
    one.hand_in("no-metadata", add_alone, without_metadata)
    one.hand_in("=1+1", BLANK)
    os.utime(one.hand_in("twice/old", RIGHT), (1_000_000, 1_000_000))
    one.hand_in("twice/new", add_alone)
    (one.submissions / "text.ipynb").write_text("def add(a, b): return a + b", encoding="utf-8")
    (one.submissions / "old.ipynb").write_text('{"nbformat": 3, "worksheets": []}', encoding="utf-8")
    one.hand_in(
        "other", RIGHT, lambda notebook: (without_metadata(notebook), notebook["cells"].__delitem__(slice(1, None)))
    )
    one.grade()
    return one


@pytest.fixture(scope="module")
def spoiled(template: Course, tmp_path_factory: pytest.TempPathFactory) -> Class:
    """A class of bad answers, graded in one go."""
    root = tmp_path_factory.mktemp("spoiled")
    one = Class(template, root / "submissions", root / "grades")
    for add, ordered in PAIRS:
        answers = {"add": SPOILED["add"][add][0], "ordered": SPOILED["ordered"][ordered][0]}
        one.hand_in(add, RIGHT | answers)
    with pytest.MonkeyPatch.context() as patch:
        # Many of these would be set aside; here they run.
        patch.setattr(judge, "screen", lambda *_: ())
        patch.setattr(judge, "TOGETHER_S", TOGETHER_S)
        one.grade()
    return one


def test_right_answers_get_full_points(graded: Class) -> None:
    assert points(graded.grade_of("right")) == POINTS
    assert all(one.state == "passed" and not one.feedback for one in graded.grade_of("right").questions)


def test_starters_get_no_points(graded: Class) -> None:
    assert graded.grade_of("starters").total == 0


def test_wrong_answers_get_the_points_of_what_they_pass_and_are_named(graded: Class) -> None:
    wrong = graded.grade_of("wrong")
    assert points(wrong) == {"add": 1, "ordered": 0, "mend": 0}
    add, ordered, mend = wrong.questions
    assert (add.state, add.visible_points, add.hidden_points, add.feedback) == ("failed", 1, 0, "")
    assert (add.hidden_feedback, add.ideas) == (("The sign is lost.",), ("loses-the-sign",))
    assert ordered.ideas == ("backwards",)
    assert "✗ results come in the order of the jobs\n" in ordered.feedback
    assert "AssertionError: That is backwards." in ordered.feedback
    assert mend.ideas == ("from-zero", "stops-at-two")


@pytest.mark.parametrize(
    ("student", "name", "case"),
    [(pair[0], name, case) for pair in PAIRS for name, case in zip(("add", "ordered"), pair, strict=True)],
    ids=[case for pair in PAIRS for case in pair],
)
def test_a_bad_answer_costs_its_question_and_nothing_else(spoiled: Class, student: str, name: str, case: str) -> None:
    _, state, words = SPOILED[name][case]
    one = spoiled.grade_of(student)
    assert points(one) == {"add": 0, "ordered": 0, "mend": 2}
    asked = question(one, name)
    ends = dict(zip(state.split("|"), words.split("|"), strict=True))
    assert ends == {"": ""} or ends.get(asked.state, "another state") in asked.feedback, asked


def test_no_one_answer_costs_the_question(graded: Class) -> None:
    one = graded.grade_of("not-one")
    assert points(one) == {"add": 0, "ordered": 3, "mend": 0}
    assert (question(one, "add").state, question(one, "mend").state) == ("missing", "duplicated")
    assert "is not in the notebook" in question(one, "add").feedback
    assert "2 different cells" in question(one, "mend").feedback


def test_a_set_is_graded_though_its_metadata_are_lost(graded: Class) -> None:
    assert points(graded.grade_of("no-metadata")) == {"add": 3, "ordered": 0, "mend": 0}


def test_nothing_that_a_submission_says_of_itself_is_believed(graded: Class) -> None:
    assert points(graded.grade_of("untrusted")) == POINTS


@pytest.fixture(scope="module")
def odd(template: Course, tmp_path_factory: pytest.TempPathFactory) -> Class:
    """One submission that looks for the stored outputs, prints much, and leaves a process behind."""
    root = tmp_path_factory.mktemp("odd")
    one = Class(template, root / "submissions", root / "grades")
    answers = {
        "add": "import os\ndef add(a, b):\n    return a + b if 'question.ipynb' not in os.listdir() else 0",
        # More messages than a socket holds unread.
        "ordered": "for number in range(1200):\n    print(number, flush=True)\n" + RIGHT["ordered"],
        "mend": f"import subprocess, sys\nsubprocess.Popen({SLEEPER}, start_new_session=True)\n{RIGHT['mend']}",
    }
    one.hand_in("odd", answers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "screen", lambda *_: ())
        one.grade(AMPLE)
    return one


def test_what_an_answer_does_besides_does_not_matter(odd: Class) -> None:
    assert points(odd.grade_of("odd")) == POINTS


LOUD = """
import gc as collector, sys
collector.disable()
class Loud:
    def __init__(self):
        self.itself = self
    def __del__(self):
        print("cleared away", file=sys.stderr)
loud = Loud()
del loud
"""


def test_what_an_answer_leaves_for_python_to_clear_away_costs_no_other_question(
    template: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a coroutine that nobody awaited, of which Python warns whenever it comes to it."""
    monkeypatch.setattr(judge, "screen", lambda *_: ())
    one = Class(template, tmp_path / "submissions", tmp_path / "grades")
    clears = "import gc\ndef count(word, seen=[]):\n    gc.collect()\n    seen.append(word)\n    return len(seen)"
    one.hand_in("loud", RIGHT | {"add": RIGHT["add"] + LOUD, "mend": clears})
    one.grade(AMPLE)
    assert points(one.grade_of("loud")) == POINTS


def still_running() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if LEFT_BEHIND in (one.info["cmdline"] or [])]


@pytest.mark.usefixtures("spoiled", "odd")
def test_nothing_is_left_running() -> None:
    assert not still_running()


def test_without_a_sandbox_nothing_is_left_running_either(
    one_question: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "screen", lambda *_: ())
    leaves = f"import subprocess, sys\nsubprocess.Popen({SLEEPER}, start_new_session=True)\n{RIGHT['add']}"
    found = judge.judge(read_reference(reference_path(one_question)), {"add": leaves}, timeout=60.0)
    assert found["add"].state == "passed"
    assert not still_running()


def test_what_is_not_graded_is_named(graded: Class) -> None:
    assert graded.summary is not None
    refused = {one.file: one.reason for one in graded.summary.refused}
    assert refused.keys() == {"text.ipynb", "old.ipynb", "other.ipynb", "twice/old.ipynb"}
    assert "is older than twice/new.ipynb" in refused["twice/old.ipynb"]
    assert points(graded.grade_of("twice")) == {"add": 3, "ordered": 0, "mend": 0}
    assert [line for line in graded.said if line.startswith("Not graded: text.ipynb: is no notebook")]


def test_the_csv_has_a_row_per_student(graded: Class) -> None:
    assert graded.summary is not None
    assert graded.summary.csv == graded.out / "grades.csv"
    rows = rows_of(graded.out)
    assert list(rows[0]) == ["student", "exercises", "file", "total", "max", "add", "ordered", "mend"]
    assert len(rows) == len(graded.summary.grades)
    by_student = {row["student"]: row for row in rows}
    assert by_student["right"] == {
        "student": "right",
        "exercises": "01_tiny",
        "file": "right.ipynb",
        "total": "8",
        "max": "8",
        "add": "3",
        "ordered": "3",
        "mend": "2",
    }
    assert by_student["'=1+1"]["file"] == "'=1+1.ipynb"
    assert by_student["twice"]["file"] == "twice/new.ipynb"


def test_every_grade_is_kept_as_json(graded: Class) -> None:
    assert graded.summary is not None
    for one in graded.summary.grades:
        data = json.loads((graded.out / "01_tiny" / f"{one.student}.json").read_text(encoding="utf-8"))
        assert (data["student"], data["total"], data["max"]) == (one.student, one.total, FULL)
        assert [(asked["exercise"], asked["points"]) for asked in data["questions"]] == list(points(one).items())
    text = (graded.out / "01_tiny" / "wrong.json").read_text(encoding="utf-8")
    assert "-4 and 9" not in text, "what a hidden check does is not told"


def test_progress_and_table_are_shown(graded: Class) -> None:
    assert graded.summary is not None
    number = len(graded.summary.grades)
    assert graded.said[4].startswith("01_tiny: the 3 solutions pass here (")
    steps = [line for line in graded.said if line.startswith("[")]
    assert len(steps) == number
    assert steps[0].startswith(f"[1/{number}] ")
    assert f"{number - 1} left, about " in steps[0]
    assert any(" right · 01_tiny · 8/8 · " in line for line in steps)
    header = next(number for number, line in enumerate(graded.said) if line.startswith("student "))
    assert graded.said[header].split() == ["student", "add", "ordered", "mend", "total"]
    assert graded.said[header + 1].split() == ["of", "3", "3", "2", "8"]
    assert "wrong 1 0 0 1" in {" ".join(line.split()) for line in graded.said}
    assert graded.said[-1] == f"{number} submissions graded, 4 files not; grades in {graded.out / 'grades.csv'}"


def test_earlier_grades_are_never_lost(one_question: Course, tmp_path: Path) -> None:
    one = Class(one_question, tmp_path / "submissions", tmp_path / "grades")
    only_add = {"add": RIGHT["add"]}
    ann, bob = one.hand_in("ann", only_add), one.hand_in("bob", only_add)
    one.grade()
    before = {path: path.read_bytes() for path in one.out.rglob("*.*")}
    one.grade()
    assert {path: path.read_bytes() for path in one.out.rglob("*.*")} == before

    bob.unlink()
    ann.unlink()
    one.hand_in("ann", {"add": " "})
    one.grade()
    rows = rows_of(one.out)
    assert [(row["student"], row["total"]) for row in rows] == [("ann", "0"), ("bob", "3")]
    kept = {path.relative_to(one.out / "earlier" / "1").as_posix() for path in (one.out / "earlier").rglob("*.*")}
    assert kept == {"01_tiny/ann.json", "grades.csv"}
    assert (one.out / "earlier/1/01_tiny/ann.json").read_bytes() == before[one.out / "01_tiny" / "ann.json"]


def test_an_interrupted_run_keeps_what_it_has(one_question: Course, tmp_path: Path) -> None:
    one = Class(one_question, tmp_path / "submissions", tmp_path / "grades")
    for name in ("ann", "bob", "cid", "dan"):
        one.hand_in(name, {"add": RIGHT["add"]})

    def interrupt(line: str) -> None:
        if line.startswith("[2/4]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grade(one.submissions, one.out, course=one_question, jobs=1, timeout=TIMEOUT, sandbox=SANDBOX, report=interrupt)
    rows = rows_of(one.out)
    assert len(rows) == len(list((one.out / "01_tiny").iterdir())) == 2
    assert not [p for p in psutil.Process().children(recursive=True) if "pytest" in " ".join(p.cmdline())]


def test_a_machine_slow_at_setting_up_costs_no_points(template: Course) -> None:
    """The limit is on what the student wrote; what the course itself runs before has a limit of its own."""
    reference = read_reference(reference_path(template))
    slow = f"import time\ntime.sleep({TIMEOUT + 0.5})\n{text_of(reference.setup[0]['source'])}"
    late = replace(reference, setup=(reference.setup[0] | {"source": slow}, *reference.setup[1:]))
    with kernels([late], sandbox=SANDBOX) as own:
        notebooks = {VISIBLE: notebook(late, {"add": RIGHT["add"]}, VISIBLE)}
        records, _ = run(notebooks, timeout=TIMEOUT, kernels=own, stop=threading.Event())
    assert {seen.state for seen in records.values()} == {"passed"}
    assert records[VISIBLE, "add-check"].seconds < TIMEOUT < records[VISIBLE, PROLOGUE].seconds


def test_a_reference_that_fails_on_this_machine_grades_nobody(tmp_path: Path) -> None:
    course = tiny_course(tmp_path / "course")
    keep_exercises(course, ["add"])
    change(course, ("got = add(2, 3)", "import time; got = add(2, 3)\nprint(time.time_ns())"))
    quiet_sync(course)
    with pytest.raises(BadReference, match=r"does not pass its own checks on this machine: add \(failed\)"):
        grade(
            student_path(course),
            tmp_path / "out",
            course=course,
            timeout=TIMEOUT,
            sandbox=SANDBOX,
            report=lambda _: None,
        )
    assert not (tmp_path / "out" / "grades.csv").exists()


def test_bad_input_is_said(template: Course, tmp_path: Path) -> None:
    def attempt(submissions: Path, out: Path, **settings: Any) -> None:
        grade(submissions, out, course=template, sandbox=SANDBOX, report=lambda _: None, **settings)

    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    some = student_path(template)
    with pytest.raises(BadInput, match="does not exist"):
        attempt(tmp_path / "none", tmp_path / "out")
    with pytest.raises(BadInput, match="holds no file"):
        attempt(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(BadInput, match="is a file; expected a folder for the grades"):
        attempt(some, tmp_path / "file")
    with pytest.raises(BadInput, match="is a file; expected a folder for the grades"):
        attempt(some, tmp_path / "file" / "below")
    with pytest.raises(BadInput, match="at least one job"):
        attempt(some, tmp_path / "out", jobs=0)
    with pytest.raises(BadInput, match="seconds above 0"):
        attempt(some, tmp_path / "out", timeout=0)
    assert not (tmp_path / "out").exists()


def test_where_nothing_can_be_sandboxed_nothing_is_graded_unasked(
    one_question: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**settings: Any) -> Any:
        raise NoZygote("Warm kernels do not start here: PermissionError: [Errno 1] Operation not permitted.")

    monkeypatch.setattr(zygote, "warm_kernels", refused)
    one = Class(one_question, tmp_path / "submissions", tmp_path / "grades")
    one.hand_in("ann", {"add": RIGHT["add"]})
    words = r"(?s)cannot be sandboxed here\. Warm .* not permitted\.\nNothing was graded\. --no-sandbox .* your rights"
    with pytest.raises(NoSandbox, match=words):
        grade(one.submissions, one.out, course=one_question, report=one.said.append)
    assert not list(one.out.rglob("*.json"))
    assert not (one.out / "grades.csv").exists()


def test_references_must_be_there_and_in_step(tmp_path: Path) -> None:
    course = tiny_course(tmp_path / "course")
    keep_exercises(course, ["add"])
    some = tmp_path / "ann.ipynb"
    some.touch()
    with pytest.raises(BadReference, match="holds no reference; run `scalelab course sync`"):
        grade(some, tmp_path / "out", course=course, report=lambda _: None)
    quiet_sync(course)
    source(course).write_text(source(course).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(BadReference, match="was executed from another state"):
        grade(some, tmp_path / "out", course=course, report=lambda _: None)
    reference_path(course).write_text("{}", encoding="utf-8")
    with pytest.raises(BadReference, match="is no reference; run `scalelab course sync`"):
        grade(some, tmp_path / "out", course=course, report=lambda _: None)
