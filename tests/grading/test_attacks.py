"""Attacks on the grader, which are data in `attacks`.

None gains points, costs another question, stalls the grader, or leaves anything behind. All are graded with the sandbox
on, in a batch for the tiny course of the tests and one for the sets of the course, beside honest answers: so each has
the others to go for.
"""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from scalelab.course import Course, find_course
from scalelab.exercises.reference import Reference, digest_of, read_reference
from scalelab.grading.batch import Summary, grade
from scalelab.grading.grades import Grade, QuestionGrade
from scalelab.grading.judging.fork_server import sandbox_missing
from tiny import (
    POINTS,
    RIGHT,
    SLUG,
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

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or bool(sandbox_missing()), reason="answers cannot be sandboxed here"),
    pytest.mark.timeout(1_500),
    pytest.mark.proven_by("solutions", "exercises", "tests/tiny_course"),
]

ATTACKS = Path(__file__).with_name("attacks")
CPU_S = 2.0
MEAN_CPU_S = 15.0
"""Processor time of a batch's processes per attack, at most: of its checks, and of the kernels that start again."""
FULL = sum(POINTS.values())
SECRET = "the-launch-code-is-0000"
MARK = "scalelab-attack-left-behind"
HEADING = re.compile(r"(?P<exercise>\w+): (?P<name>.*?)(?: \((?P<kind>right|visible|reported)\))?\n")
BLOCK = re.compile(r"^```python(?: (\w+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
CHEAP = {
    "01_measuring": ("pause", "fleet"),
    "02_laws": ("speed_up", "pool"),
    "06_gil": ("schedule", "tools"),
    "08_asyncio": ("turns", "assemble"),
    "09_caching": ("trace", "key"),
}
"""Exercises of the sets whose right answers stand beside the attacks, and take little time."""


@dataclass(frozen=True)
class Attack:
    """An answer that attacks: the `number`th on its set. `kind` is the word in parentheses behind its name, or ""."""

    slug: str
    number: int
    exercise: str
    name: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.slug}: {self.exercise}: {self.name}"

    @property
    def student(self) -> str:
        return f"attacker-{self.number:02}"


def attacks_of(path: Path) -> Iterator[Attack]:
    (preamble,) = BLOCK.findall((ATTACKS / "README.md").read_text(encoding="utf-8"))
    for number, part in enumerate(path.read_text(encoding="utf-8").split("\n## ")[1:]):
        heading = HEADING.match(part)
        assert heading is not None, part
        ((how, text),) = BLOCK.findall(part)
        text = {"protocol": preamble[1] + text, "generated": text}.get(how, text)
        text = eval(text) if how == "generated" else text
        yield Attack(path.stem, number, heading["exercise"], heading["name"], heading["kind"] or "", text)


ON_TINY = tuple(attacks_of(ATTACKS / f"{SLUG}.md"))
ON_SETS = tuple(one for slug in CHEAP for one in attacks_of(ATTACKS / f"{slug}.md"))


@dataclass
class Class:
    """A class's submissions, and what grading them came to."""

    course: Course
    root: Path
    said: list[str] = field(default_factory=list)
    summary: Summary | None = None
    cpu_s: float = 0.0

    @property
    def submissions(self) -> Path:
        return self.root / "submissions"

    @property
    def out(self) -> Path:
        return self.root / "grades"

    def hand_in(
        self,
        student: str,
        answers: Mapping[str, str],
        edit: Callable[[dict[str, Any]], object] = str,
        slug: str = SLUG,
    ) -> None:
        notebook = load(self.course.exercises / f"{slug}.ipynb")
        for name, text in answers.items():
            cell(notebook, name)["source"] = text
        edit(notebook)
        save(self.submissions / student / f"{slug}.ipynb", notebook)

    def grade(self) -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.summary = grade(self.submissions, self.out, course=self.course, timeout=CPU_S, report=self.said.append)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def grade_of(self, student: str, slug: str = SLUG) -> Grade:
        assert self.summary is not None
        (found,) = [one for one in self.summary.grades if (one.student, one.exercises) == (student, slug)]
        return found

    def written(self) -> str:
        """Return all that was written and said."""
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in self.out.rglob("*") if path.is_file()]
        return "\n".join([*texts, *self.said])


def points(one: Grade) -> dict[str, int | None]:
    return {question.exercise: question.points for question in one.questions}


def question(one: Grade, name: str) -> QuestionGrade:
    return next(question for question in one.questions if question.exercise == name)


@contextmanager
def nothing_is_left(root: Path) -> Iterator[None]:
    """See to it that, when all is over, no process, temporary file, shared memory or other file is left."""
    # A short name: the paths of sockets below it may have 107 bytes.
    temporary = Path(tempfile.mkdtemp(prefix="sl-"))
    mine = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        yield
    new = [process for process in psutil.Process().children(recursive=True) if process.pid not in mine]
    _, left = psutil.wait_procs(new, timeout=10)
    assert not [process.cmdline() for process in left]
    assert not [process for process in psutil.process_iter(["cmdline"]) if MARK in (process.info["cmdline"] or [])]
    assert not [path for path in Path("/dev/shm").glob("*") if MARK in path.name]
    assert not list(temporary.iterdir())
    temporary.rmdir()
    assert {path.name for path in root.iterdir()} <= {"submissions", "grades", "secret.txt"}
    assert {path.suffix for path in (root / "submissions").rglob("*") if path.is_file()} == {".ipynb"}


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """Listen on a port of this machine; yield the port, and a list of what is heard."""
    heard: list[bytes] = []
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)

        def listen() -> None:
            while not over.is_set():
                with suppress(TimeoutError), server.accept()[0] as connection:
                    heard.append(connection.recv(100))

        listener = threading.Thread(target=listen)
        listener.start()
        yield server.getsockname()[1], heard
        over.set()
        listener.join()


# Files and names of submissions.

HOSTILE = "<script>alert(1)</script>"
NAMES = ("=cmd()", "+1+1", "@SUM(A1)", "-2+3", "zoë", "\u202egnp.nb", "a\nb", "\x1b[2J", HOSTILE, "..", "...", "CON")


def hostile(notebook: dict[str, Any]) -> None:
    """Say all that could mislead a grader or a page, around right answers."""
    notebook["metadata"] |= {
        "kernelspec": {"name": "../../evil", "display_name": HOSTILE, "language": "sh", "argv": ["touch", "evil"]},
        "language_info": {"name": "../../x"},
        "scalelab": notebook["metadata"]["scalelab"] | {"exercises": SLUG, "points": 1000},
        "widgets": {"state": {"x": HOSTILE}},
    }
    for one in notebook["cells"]:
        one["metadata"] |= {"tags": ["nbval-skip", "raises-exception"], "editable": HOSTILE}
        one["metadata"].get("nbgrader", {}).update(points=1000, grade=True)
        if one["cell_type"] == "code":
            one["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": {"text/html": HOSTILE}}]
            if one["id"].endswith("-check"):
                one["source"] = "raise SystemExit"


def refused(course: Course, secret: Path) -> dict[str, Callable[[Path], object]]:
    """Return what makes files that no grader should read, by name."""
    whole = json.dumps(load(student_path(course)))
    cells = json.loads(whole)
    cells["cells"] = [{"cell_type": "raw", "metadata": {}, "source": ""}] * 1_000_000
    deep = whole[:-1] + ', "x": ' + "[" * 500 + "]" * 500 + "}" * 2
    return {
        "huge": lambda path: (path.write_text("{", encoding="utf-8"), os.truncate(path, 200_000_000)),
        "cells": lambda path: path.write_text(json.dumps(cells), encoding="utf-8"),
        "nested": lambda path: path.write_text("[" * 100_000, encoding="utf-8"),
        "outputs": lambda path: path.write_text(deep, encoding="utf-8"),
        "link": lambda path: path.symlink_to(secret),
        "link-to-a-solution": lambda path: path.symlink_to(reference_path(course)),
        "link-to-itself": lambda path: path.symlink_to(path),
        "device": lambda path: path.symlink_to("/dev/zero"),
        "pipe": os.mkfifo,
        "folder": lambda path: path.mkdir(),
        "empty": lambda path: path.touch(),
        "zip": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(1_000_000)),
    }


# The batches.


@dataclass
class Tiny:
    """The batch on the tiny course: attacks on `add` and `ordered`, hostile names, metadata and files."""

    batch: Class
    refused: frozenset[str]
    heard: list[bytes]


CHECK = """\
got = add(2, 3)
verdict("add", got == 5, "2 and 3 are 5", {None: "Return the sum.", -1: "You subtract.", 6: "You multiply."}.get(got, \
"Not the sum of both."))
"""
HIDDEN = """\
got = add(-4, 9)
verdict("add", got == 5, "-4 and 9 are 5", "The sign is lost.")
"""
IN_A_VERDICT = """\
with checks.verdict("add") as expect:
    got = add(2, 3)
    words = {None: "Return the sum.", -1: "You subtract.", 6: "You multiply."}
    expect(got == 5, "2 and 3 are 5", otherwise=words.get(got, "Not the sum of both."), saw=got)
"""
HIDDEN_IN_A_VERDICT = """\
with checks.verdict("add") as expect:
    got = add(-4, 9)
    expect(got == 5, "-4 and 9 are 5", otherwise=f"The sign is lost. {got}", saw=got)
"""
SAME_TEXT = f"def add(a, b):\n    while True:\n        pass\n\n{RIGHT['ordered']}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    course = tiny_course(tmp_path_factory.mktemp("attacked") / "course")
    keep_exercises(course, POINTS)
    change(course, (CHECK, IN_A_VERDICT), (HIDDEN, HIDDEN_IN_A_VERDICT))
    quiet_sync(course)
    root = tmp_path_factory.mktemp("tiny")
    one = Class(course, root)
    secret = root / "secret.txt"
    secret.write_text(SECRET, encoding="utf-8")
    with nothing_is_left(root), listening() as (port, heard), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALELAB_TEST_SECRET", SECRET)
        places = {
            "SOLUTIONS": str(source(course)),
            "SUBMISSIONS": str(one.submissions),
            "SECRET_FILE": str(secret),
            "OUT": str(one.out),
            "PORT": str(port),
            "MARK": MARK,
        }
        for attack in ON_TINY:
            text = re.sub("|".join(places), lambda found: places[found.group()], attack.text)
            one.hand_in(attack.student, RIGHT | {attack.exercise: text})
        one.hand_in("same-text", RIGHT | {"add": SAME_TEXT, "ordered": SAME_TEXT})
        for name in NAMES:
            one.hand_in(f"{name}/work" if name.strip(".") else f"x{name}x", RIGHT)
        one.hand_in("metadata", RIGHT, hostile)
        one.hand_in("page", RIGHT | {"add": f"raise ValueError('{HOSTILE}<img src=x onerror=alert(1)>=1+1')"})
        files = refused(course, secret)
        for name, make in files.items():
            make(one.submissions / f"{name}.ipynb")
        (one.submissions / "out").symlink_to(course.root)
        for honest in ("ann", "zoe"):
            one.hand_in(honest, RIGHT)
        one.grade()
    return Tiny(one, frozenset(files), heard)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Class:
    """The batch on the course's sets: each attack beside a right answer, and an honest submission for each set."""
    one = Class(find_course(Path(__file__).parent), tmp_path_factory.mktemp("sets"))
    with nothing_is_left(one.root):
        for slug in CHEAP:
            one.hand_in("honest", right_answers(slug), slug=slug)
        for attack in ON_SETS:
            answers = dict.fromkeys(right_answers(attack.slug), " ")
            beside = honest_beside(attack)
            one.hand_in(
                attack.student,
                answers | {beside: right_answers(attack.slug)[beside], attack.exercise: attack.text},
                slug=attack.slug,
            )
        one.grade()
    return one


@cache
def reference(slug: str) -> Reference:
    return read_reference(find_course(Path(__file__).parent).solutions / f"{slug}.ipynb")


def right_answers(slug: str) -> dict[str, str]:
    return {question.exercise: question.solution for question in reference(slug).questions}


def honest_beside(attack: Attack) -> str:
    return next(name for name in CHEAP[attack.slug] if name != attack.exercise)


def assert_held(attack: Attack, asked: QuestionGrade, tell: Callable[[str], None]) -> None:
    """Check what became of an attack, and tell what held it."""
    if attack.kind == "right":
        assert asked.points == asked.max, asked
    elif attack.kind == "visible":
        assert (asked.visible_points > 0, asked.hidden_points) == (True, 0), asked
    elif attack.kind == "reported":
        assert asked.points == asked.max, (asked, "it is held now: drop its mark")
    else:
        assert asked.points == 0, asked
    if asked.state == "passed":
        held = "is right" if attack.kind == "right" else "GAINS: only its own process knows"
    elif asked.reason:
        held = f"{asked.state}: {asked.reason.splitlines()[0]}"
    else:
        missed = [one for one in asked.expectations if not one.held]
        held = f"not held: {missed[0].right}" if missed else "the hidden check"
    tell(f"  {attack}: {held[:110]}, {asked.seconds:.1f} s")


@pytest.mark.parametrize("attack", ON_TINY, ids=str)
def test_an_attack_costs_its_own_question_alone(attack: Attack, tiny: Tiny, tell: Callable[[str], None]) -> None:
    graded = tiny.batch.grade_of(attack.student)
    asked = question(graded, attack.exercise)
    assert_held(attack, asked, tell)
    assert points(graded) == POINTS | {attack.exercise: asked.points}


@pytest.mark.parametrize("attack", ON_SETS, ids=str)
def test_an_attack_on_a_set_costs_its_own_question_alone(
    attack: Attack, sets: Class, tell: Callable[[str], None]
) -> None:
    graded = sets.grade_of(attack.student, attack.slug)
    asked = question(graded, attack.exercise)
    assert_held(attack, asked, tell)
    beside = question(graded, honest_beside(attack))
    assert beside.points == beside.max
    assert graded.total == (asked.points or 0) + beside.max


def test_the_honest_beside_them_get_their_points(tiny: Tiny, sets: Class) -> None:
    assert tiny.batch.grade_of("ann").total == tiny.batch.grade_of("zoe").total == FULL
    for slug in CHEAP:
        graded = sets.grade_of("honest", slug)
        assert graded.total == graded.max, [one for one in graded.questions if one.points != one.max]


def test_an_answer_that_runs_out_of_time_costs_no_other_question_with_its_text(tiny: Tiny) -> None:
    graded = tiny.batch.grade_of("same-text")
    assert points(graded) == POINTS | {"add": 0}


def test_no_attack_stalls_the_grader(tiny: Tiny, sets: Class, tell: Callable[[str], None]) -> None:
    for batch, attacks in ((tiny.batch, ON_TINY), (sets, ON_SETS)):
        tell(f"{len(attacks)} attacks: {batch.cpu_s:.0f} s of processor time")
        assert batch.cpu_s < MEAN_CPU_S * len(attacks)


def test_nothing_of_the_machine_is_seen_or_changed(tiny: Tiny) -> None:
    one = tiny.batch
    assert tiny.heard == []
    assert read_reference(reference_path(one.course)).digest == digest_of(source(one.course)), "its source is as it was"
    assert SECRET not in one.written()
    assert "mallory" not in (one.out / "grades.csv").read_text(encoding="utf-8")
    assert not list(one.root.rglob("evil*"))


def test_what_the_hidden_check_asks_is_not_told(tiny: Tiny) -> None:
    text = tiny.batch.written()
    assert "leaked 2 3" in text, "what the visible check asks is told"
    assert not re.findall(r"leaked.?(?:-|minus)4.*|.*7EAD.*|2125266949", text)


def test_what_a_hidden_check_of_a_set_asks_is_not_told(sets: Class) -> None:
    assert "LEAKED [" not in sets.written()


def test_files_cost_nobody_anything(tiny: Tiny, tell: Callable[[str], None]) -> None:
    one = tiny.batch
    assert one.summary is not None
    attackers = {attack.student for attack in ON_TINY} | {"same-text"}
    by_student = {graded.student: graded for graded in one.summary.grades if graded.student not in attackers}
    assert not by_student.keys() & tiny.refused
    assert {refusal.file for refusal in one.summary.refused} >= {
        f"{name}.ipynb" for name in tiny.refused if name != "folder"
    }
    assert len(by_student) == len(NAMES) + 4
    assert {graded.total for graded in by_student.values() if graded.student != "page"} == {FULL}
    assert by_student["page"].total == FULL - POINTS["add"]
    pages = [path.read_text(encoding="utf-8") for path in one.out.rglob("*.html")]
    assert pages
    assert not any(HOSTILE in page or "<img src=x" in page for page in pages)
    tables = [path.read_text(encoding="utf-8") for path in one.out.rglob("*.csv")]
    assert not [line for text in tables for line in text.splitlines() if re.search(r'(^|,)"?[=+@]', line)]
    assert not [line for line in one.said if re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", line)]
    tell(f"hostile files: {len(tiny.refused)} refused by name; {len(NAMES) + 1} with hostile names and metadata graded")
