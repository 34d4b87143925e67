"""Grading as a whole: real kernels, real bad answers; each costs its own question and nothing else."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import psutil
import pytest

from scalelab.course import Course
from scalelab.exercises.reference import BadReference, read_reference
from scalelab.grading.batch import Summary, grade
from scalelab.grading.grades import Grade, QuestionGrade
from scalelab.grading.judging import judge
from scalelab.grading.judging.boxes import NotStarted
from scalelab.grading.judging.fork_server import sandbox_missing
from scalelab.grading.judging.judge import NoSandbox, judging
from scalelab.grading.submissions.layouts import BadInput
from scalelab.running.isolated import PYTEST_OWN
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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="answers' processes are forked on Linux alone")

CPU_S = 2.0
LEFT_BEHIND = f"scalelab-test-left-behind-{os.getpid()}"
SLEEPER = f"[sys.executable, '-c', 'import time; time.sleep(600)', '{LEFT_BEHIND}']"
LEAVES_A_PROCESS = f"import subprocess, sys\nsubprocess.Popen({SLEEPER}, start_new_session=True)\n"
FULL = sum(POINTS.values())
BLANK = {"add": " ", "ordered": " ", "mend": " "}
COMPUTES = "Your answer computed for 2 s of processor time and did not finish."
WAITS = "Your answer waits for something that never comes."
EXITED = "The process of your answer ended"
# Two spoiled answers per submission, the third is right. Per case: the answer, its state, words of its feedback.
SPOILED = {
    "add": {
        "raises": ("1/0", "raised", "ZeroDivisionError: division by zero"),
        "endless-in-the-check": ("def add(a, b):\n    while True:\n        pass", "timed out", COMPUTES),
        "exits-in-the-check": ("import os\ndef add(a, b):\n    os._exit(0)", "ended", EXITED),
        "says-nbval": ("# NBVAL_SKIP\n# NBVAL_RAISES_EXCEPTION\n1/0", "raised", "ZeroDivisionError"),
        "null-byte": ("x = '\0'", "raised", "null bytes"),
        "breaks-built-ins": ("import builtins\nbuiltins.len = builtins.print = None\nadd = None", "failed|ended", ""),
        "kills-its-parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", "failed|ended", ""),
    },
    "ordered": {
        "endless": ("while True:\n    pass", "timed out", COMPUTES),
        "exits": ("import os\nos._exit(0)", "ended", EXITED),
        "floods": ("while True:\n    print('x' * 100_000)", "timed out", COMPUTES),
        "no-python": ("ordered = = 1", "raised", "SyntaxError: invalid syntax"),
        "leaves": ("raise SystemExit", "raised", "SystemExit"),
        "asks": ("input()", "raised", "EOFError"),
        "ignores-interrupts": (
            "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(600)",
            "timed out",
            WAITS,
        ),
    },
}
PAIRS = list(zip(SPOILED["add"], SPOILED["ordered"], strict=True))
CHECK = """\
got = add(2, 3)
verdict("add", got == 5, "2 and 3 are 5", {None: "Return the sum.", -1: "You subtract.", 6: "You multiply."}.get(got, \
"Not the sum of both."))
"""
IN_A_VERDICT = """\
with checks.verdict("add") as expect:
    got = add(2, 3)
    words = {None: "Return the sum.", -1: "You subtract.", 6: "You multiply."}
    expect(got == 5, "2 and 3 are 5", otherwise=words.get(got, "Not the sum of both."))
"""


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

    def grade(self) -> None:
        self.summary = grade(
            self.submissions,
            self.out,
            course=self.course,
            timeout=CPU_S,
            sandbox=not sandbox_missing(),
            keep_notebooks=True,
            report=self.said.append,
        )

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
    change(course, (CHECK, IN_A_VERDICT))
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


ODD = {
    "add": "import os\ndef add(a, b):\n    return a + b if not os.listdir() else 0",
    # More than a socket holds unread.
    "ordered": "for number in range(100_000):\n    print(number, flush=True)\n" + RIGHT["ordered"],
    "mend": LEAVES_A_PROCESS + RIGHT["mend"],
}
"""Answers that look around, print much, and leave a process behind."""


@pytest.fixture(scope="module")
def graded(template: Course, tmp_path_factory: pytest.TempPathFactory) -> Class:
    """One class of good and bad answers, graded in one go."""
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
    for add, ordered in PAIRS:
        one.hand_in(add, RIGHT | {"add": SPOILED["add"][add][0], "ordered": SPOILED["ordered"][ordered][0]})
    one.hand_in("odd", ODD)
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
    assert "\n  That is backwards." in ordered.feedback
    assert mend.ideas == ("from-zero", "stops-at-two")


@pytest.mark.parametrize(
    ("student", "name", "case"),
    [(pair[0], name, case) for pair in PAIRS for name, case in zip(("add", "ordered"), pair, strict=True)],
    ids=[case for pair in PAIRS for case in pair],
)
def test_a_bad_answer_costs_its_question_and_nothing_else(graded: Class, student: str, name: str, case: str) -> None:
    _, state, words = SPOILED[name][case]
    one = graded.grade_of(student)
    assert points(one) == {"add": 0, "ordered": 0, "mend": 2}
    asked = question(one, name)
    assert asked.state in state.split("|"), asked
    assert words in asked.feedback


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


def test_what_an_answer_does_besides_does_not_matter(graded: Class) -> None:
    grade = graded.grade_of("odd")
    assert points(grade) == POINTS, [(one.state, one.feedback, one.reason) for one in grade.questions]


def still_running() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if LEFT_BEHIND in (one.info["cmdline"] or [])]


@pytest.mark.usefixtures("graded")
def test_nothing_is_left_running() -> None:
    assert not still_running()


def test_without_a_sandbox_nothing_is_left_running_either(template: Course) -> None:
    reference = read_reference(reference_path(template))
    with judging([reference], sandbox=False, cpu_s=CPU_S) as judges:
        ((_, found),) = judges.judge(reference, [{"add": LEAVES_A_PROCESS + RIGHT["add"]}], threading.Event())
    assert found["add"].state == "passed"
    assert not still_running()


BY_HAND = ("right", "wrong", "says-nbval")


def test_the_released_nbval_says_the_same_of_the_notebooks_that_are_kept(graded: Class, tmp_path: Path) -> None:
    """`pytest --nbval-lax FILE`: without an option or a plugin of ours."""
    kept = graded.out / "notebooks" / "01_tiny"
    files = [kept / f"{student}.ipynb" for student in BY_HAND]
    command = [sys.executable, "-m", "pytest", "--nbval-lax", *map(str, files), f"--junit-xml={tmp_path / 'xml'}"]
    environment = {name: value for name, value in os.environ.items() if name not in PYTEST_OWN}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    said: dict[str, dict[str, bool]] = {student: {} for student in BY_HAND}
    for case in ElementTree.parse(tmp_path / "xml").iter("testcase"):
        student = case.attrib["classname"].removesuffix(".ipynb").rpartition(".")[2].rpartition("/")[2]
        code = [one for one in load(kept / f"{student}.ipynb")["cells"] if one["cell_type"] == "code"]
        name = code[int(case.attrib["name"].removeprefix("Cell "))]["id"]
        said[student][name] = len(case) == 0
    for student in BY_HAND:
        expected = {"set-up": True}
        for one in graded.grade_of(student).questions:
            expected |= {
                f"{one.exercise}-check": one.visible_points > 0,
                f"{one.exercise}-hidden": one.hidden_points > 0,
            }
        assert said[student] == expected, done.stdout


def test_a_kept_notebook_shows_each_answer_and_its_checks(graded: Class) -> None:
    cells = load(graded.out / "notebooks" / "01_tiny" / "wrong.ipynb")["cells"]
    names = [f"{exercise}-{role}" for exercise in POINTS for role in ("check-answer", "check", "hidden")]
    assert [one["id"] for one in cells] == ["set-up", *names]
    assert "return abs(a) + abs(b)" in "".join(cells[1]["source"])
    assert cells[1]["cell_type"] == "markdown"


def test_what_is_not_graded_is_named(graded: Class) -> None:
    assert graded.summary is not None
    refused = {one.file: one.reason for one in graded.summary.refused}
    assert refused.keys() == {"text.ipynb", "old.ipynb", "other.ipynb", "twice/old.ipynb"}
    assert "is older than twice/new.ipynb" in refused["twice/old.ipynb"]
    assert points(graded.grade_of("twice")) == {"add": 3, "ordered": 0, "mend": 0}
    assert [line for line in graded.said if line.startswith("Not graded: text.ipynb: is not a notebook")]


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


def test_the_command_starts_without_what_only_other_processes_need() -> None:
    code = (
        "import sys, scalelab.cli, scalelab.grading.batch\n"
        "print(sorted({'IPython', 'aiohttp', 'distributed', 'numpy', 'pytest', 'zmq'} & set(sys.modules)))"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (fresh.stdout.strip(), fresh.stderr) == ("[]", "")


NOTES = """
import os, sys

def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith("/ann.ipynb"):
        write("opens", "opened")
    elif event == "open" and arguments[0] == os.environ.get("SCALELAB_VERDICTS"):  # by the kernel that judges
        write("imports", " ".join(name for name in sys.modules if name.partition(".")[0] == "scalelab"))

def write(name, line):
    file = os.open(os.path.join(os.path.dirname(__file__), name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode() + b"\\n")
    os.close(file)

sys.addaudithook(note)
"""
GRADE = """
import sys
from pathlib import Path
from scalelab.course import Course
from scalelab.grading.batch import grade

course, submissions, out = map(Path, sys.argv[1:])
grade(submissions, out, course=Course(course), sandbox=False, report=lambda line: None)
"""


def test_one_submission_is_opened_once_and_judged_with_few_imports(template: Course, tmp_path: Path) -> None:
    one = Class(template, tmp_path / "submissions", tmp_path / "grades")
    one.hand_in("ann", RIGHT | {"add": "def add(a, b):\n    return 0"})
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "sitecustomize.py").write_text(NOTES, encoding="utf-8")  # for every process but those of answers
    subprocess.run(
        [sys.executable, "-c", GRADE, template.root, one.submissions, one.out],
        env=os.environ | {"PYTHONPATH": str(notes)},
        check=True,
        timeout=120,
    )
    assert [row["total"] for row in rows_of(one.out)] == [str(FULL - POINTS["add"])]
    assert (notes / "opens").read_text(encoding="utf-8").splitlines() == ["opened"]
    imported = (notes / "imports").read_text(encoding="utf-8").splitlines()[-1].split()
    assert "scalelab.grading.judging.trusted" in imported
    assert len(imported) <= 25, imported


def test_a_reference_that_fails_on_this_machine_grades_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = tiny_course(tmp_path / "course")
    keep_exercises(course, ["add"])
    change(course, ("got = add(2, 3)", "import os; got = add(2, 3) + len(os.environ.get('ON_THIS_MACHINE', ''))"))
    quiet_sync(course)
    monkeypatch.setenv("ON_THIS_MACHINE", "1")
    with pytest.raises(BadReference, match=r"does not pass its own checks on this machine: add \(failed\)"):
        grade(
            student_path(course),
            tmp_path / "out",
            course=course,
            timeout=CPU_S,
            sandbox=not sandbox_missing(),
            report=lambda _: None,
        )
    assert not (tmp_path / "out" / "grades.csv").exists()


def test_bad_input_is_said(template: Course, tmp_path: Path) -> None:
    def attempt(submissions: Path, out: Path, **settings: Any) -> None:
        grade(submissions, out, course=template, sandbox=not sandbox_missing(), report=lambda _: None, **settings)

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
    with pytest.raises(BadInput, match="The number of jobs is 0; expected at least 1"):
        attempt(some, tmp_path / "out", jobs=0)
    with pytest.raises(BadInput, match="expected more than 0 s"):
        attempt(some, tmp_path / "out", timeout=0)
    assert not (tmp_path / "out").exists()


def test_where_nothing_can_be_sandboxed_nothing_is_graded_unasked(
    template: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        raise NotStarted("Answers' processes do not start here: PermissionError: [Errno 1] Operation not permitted.")

    monkeypatch.setattr(judge, "fork_server", refused)
    one = Class(template, tmp_path / "submissions", tmp_path / "grades")
    one.hand_in("ann", RIGHT)
    words = (
        r"(?s)cannot be sandboxed here\. Answers' .* not permitted\.\nNothing was graded\. --no-sandbox .* your rights"
    )
    with pytest.raises(NoSandbox, match=words):
        grade(one.submissions, one.out, course=template, report=one.said.append)
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
    with pytest.raises(BadReference, match="is not a reference; run `scalelab course sync`"):
        grade(some, tmp_path / "out", course=course, report=lambda _: None)
