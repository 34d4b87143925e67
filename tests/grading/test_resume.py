"""However a batch ends, what it judged is there, and the same command goes on from it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from scalelab.course.find import Course
from scalelab.course.lock import locked
from scalelab.grading import BadInput, Summary, batch, grade, keeper
from scalelab.grading.judge import FAILED, NOT_JUDGED, PASSED, SET_ASIDE, Verdict
from scalelab.grading.keeper import NotKept, file_name, keeping
from scalelab.grading.merge import Reference
from support import COMMAND
from tiny import cell, keep_exercises, load, quiet_sync, save, student_path, tiny_course

RIGHT = "def add(a, b):\n    return a + b"
MENDED = "def count(word, seen=[]):\n    seen.append(word)\n    return len(seen)"
STUDENTS = tuple(f"s{number:02}" for number in range(12))


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    course = tiny_course(tmp_path_factory.mktemp("resume") / "course")
    keep_exercises(course, ["add", "mend"])
    quiet_sync(course)
    return course


@dataclass
class Class:
    """A class whose answers are judged by a function of this file: what it was given, and what was said."""

    course: Course
    submissions: Path
    out: Path
    judged: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    verdict: Callable[[str], Verdict] = lambda answer: Verdict(PASSED, visible=True, hidden=True)

    def hand_in(self, student: str, answer: str = RIGHT, edit: Callable[[dict[str, Any]], object] = str) -> Path:
        notebook = load(student_path(self.course))
        cell(notebook, "add")["source"] = f"# {student}\n{answer}"
        cell(notebook, "mend")["source"] = MENDED
        edit(notebook)
        path = save(self.submissions / f"{student}.ipynb", notebook)
        os.utime(path, (1_000_000, 1_000_000))
        return path

    def judge(self, reference: Reference, answers: Mapping[str, str], **settings: Any) -> dict[str, Verdict]:
        solution = {one.exercise: one.solution for one in reference.questions}
        if answers == solution:
            return dict.fromkeys(answers, Verdict(PASSED, visible=True, hidden=True))
        self.judged.append(answers["add"].partition("\n")[0].removeprefix("# "))
        return {
            name: replace(self.verdict(source), seconds=time.perf_counter() % 1) for name, source in answers.items()
        }

    def grade(self, **settings: Any) -> Summary:
        self.judged.clear()
        self.said.clear()
        settings = {"jobs": 1, "sandbox": False, "report": self.said.append} | settings
        return grade(self.submissions, self.out, course=self.course, **settings)

    def grade_in_vain(self) -> str:
        """Grade, and return how writing fails."""
        try:
            self.grade()
        except NotKept as error:
            return str(error)
        return ""


@pytest.fixture
def one(course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Class:
    made = Class(course, tmp_path / "submissions", tmp_path / "grades")
    monkeypatch.setattr(batch, "judge", made.judge)
    monkeypatch.setattr(batch, "write_outputs", lambda *arguments, **options: None)
    for student in STUDENTS:
        made.hand_in(student)
    return made


def files(out: Path, *, earlier: bool = False) -> dict[str, Any]:
    """Return the grades and the table that the folder holds, without how long anything took."""
    found = {}
    for path in sorted([*out.rglob("01_tiny/*.json"), *out.rglob("grades.csv")]):
        name = path.relative_to(out).as_posix()
        if earlier or not name.startswith("earlier/"):
            text = path.read_text(encoding="utf-8")
            found[name] = keeper._timeless(json.loads(text)) if path.suffix == ".json" else text
    return found


def test_nothing_is_judged_twice(one: Class) -> None:
    first = one.grade()
    assert sorted(one.judged) == sorted(STUDENTS)
    before = {path: path.read_bytes() for path in one.out.rglob("*.*")}
    second = one.grade()
    assert (one.judged, second.before) == ([], len(STUDENTS))
    assert one.said[0] == "12 of 12 submissions graded before, 0 to go."
    assert {path: path.read_bytes() for path in one.out.rglob("*.*")} == before, "byte for byte"
    assert sorted(second.grades, key=lambda grade: grade.student) == sorted(
        first.grades, key=lambda grade: grade.student
    )


def test_what_has_changed_is_judged_and_nothing_else(one: Class) -> None:
    one.grade()
    one.hand_in("s03", "add = sum")
    one.hand_in("new")
    (one.submissions / "s04.ipynb").unlink()
    summary = one.grade()
    assert sorted(one.judged) == ["new", "s03"]
    assert one.said[0] == "10 of 12 submissions graded before, 2 to go."
    steps = [line.partition(" · ")[0] for line in one.said if line.startswith("[")]
    assert steps == ["[11/12] new", "[12/12] s03"]
    assert len(summary.grades) == 12
    assert (one.out / "01_tiny" / "s04.json").exists(), "a grade is kept though its submission is gone"
    assert [path.name for path in (one.out / "earlier" / "1" / "01_tiny").iterdir()] == ["s03.json"]


def test_the_same_answers_in_another_file_are_not_judged_again(one: Class) -> None:
    one.grade()
    os.utime(one.submissions / "s01.ipynb", (2_000_000, 2_000_000))
    (one.submissions / "s02").mkdir()
    (one.submissions / "s02.ipynb").rename(one.submissions / "s02" / "again.ipynb")
    notebook = load(one.submissions / "s03.ipynb")
    notebook["metadata"]["scalelab"]["sources"] = "another version"
    save(one.submissions / "s03.ipynb", notebook)
    grades = {grade.student: grade for grade in one.grade().grades}
    assert not one.judged
    assert (grades["s01"].submitted, grades["s02"].file) == (2_000_000, "s02/again.ipynb")
    assert grades["s03"].notes == (
        "The notebook was made from another version of the exercises; the course's own one counted.",
    )
    data = json.loads((one.out / "01_tiny" / "s03.json").read_bytes())
    assert data["notes"] == list(grades["s03"].notes)


@pytest.mark.parametrize("change", ["timeout", "reference", "code", "again", "broken", "form", "other student"])
def test_what_was_graded_otherwise_is_judged_again(
    one: Class, change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one.grade()
    settings: dict[str, Any] = {}
    kept = one.out / "01_tiny" / "s05.json"
    data = load(kept)
    if change == "timeout":
        settings = {"timeout": 7.0}
    elif change == "again":
        settings = {"again": True}
    elif change == "code":
        monkeypatch.setattr("scalelab.grading.made_with.grader_digest", lambda: "another")
    elif change == "reference":
        one.course = Course(shutil.copytree(one.course.root, tmp_path / "course"))
        text = (one.course.solutions / "01_tiny.md").read_text(encoding="utf-8")
        (one.course.solutions / "01_tiny.md").write_text(text.replace("The sign is lost", "No sign"), encoding="utf-8")
        quiet_sync(one.course)
    elif change == "broken":
        kept.write_text(kept.read_text(encoding="utf-8")[:100], encoding="utf-8")
    elif change == "form":
        save(kept, data | {"form": 1})
    else:
        save(kept, data | {"student": "somebody"})
    one.grade(**settings)
    alone = change in {"broken", "form", "other student"}
    assert sorted(one.judged) == (["s05"] if alone else sorted(STUDENTS))
    moved = [path.name for path in (one.out / "earlier" / "1").rglob("*.json")]
    assert len(moved) == {"again": 0, "reference": 12, "timeout": 12, "code": 12}.get(change, 1)


def test_judged_again_with_the_same_outcome_nothing_changes(one: Class) -> None:
    """Times differ from run to run; a grade that differs in nothing else stays, byte for byte."""
    one.grade()
    before = {path: path.read_bytes() for path in one.out.rglob("*.*")}
    one.grade(again=True, jobs=3)
    assert len(one.judged) == 12
    assert {path: path.read_bytes() for path in one.out.rglob("*.*")} == before


def test_what_could_not_be_judged_is_judged_again_and_what_was_set_aside_is_not(one: Class) -> None:
    one.verdict = lambda answer: (
        Verdict(NOT_JUDGED, "No kernel.")
        if "s01" in answer
        else Verdict(SET_ASIDE, "line 1 reads\x1b frames")
        if "s02" in answer
        else Verdict(FAILED)
    )
    grades = {grade.student: grade for grade in one.grade().grades}
    assert [grades[name].questions[0].points for name in ("s01", "s02", "s03")] == [None, None, 0]
    assert "Not judged (?): s01, 01_tiny, add: No kernel." in one.said
    assert "Set aside, to be looked at: s02, 01_tiny, add: line 1 reads� frames" in one.said
    assert any(" s02 · 01_tiny · 0+?/5 · " in line for line in one.said)
    rows = dict(line.split(",", 1) for line in (one.out / "grades.csv").read_text(encoding="utf-8").splitlines())
    assert rows["s02"] == "01_tiny,s02.ipynb,0,5,,0"
    one.verdict = lambda answer: Verdict(PASSED, visible=True, hidden=True)
    one.grade()
    assert one.judged == ["s01"]
    assert "Set aside, to be looked at: s02, 01_tiny, add: line 1 reads� frames" in one.said


def test_what_a_person_decided_stays(one: Class) -> None:
    """An instructor who has looked at an answer writes the points into its file."""
    one.verdict = lambda answer: Verdict(SET_ASIDE, "line 1 …")
    one.grade()
    path = one.out / "01_tiny" / "s02.json"
    data = load(path)
    data["questions"][0] |= {"points": 3, "visible_points": 1, "hidden_points": 2, "state": "passed"}
    save(path, data)
    grades = {grade.student: grade for grade in one.grade().grades}
    assert not one.judged
    assert grades["s02"].questions[0].points == 3


def interrupted_by(line_start: str) -> Callable[[str], None]:
    def report(line: str) -> None:
        if line.startswith(line_start):
            raise KeyboardInterrupt

    return report


def test_an_interrupted_batch_goes_on(one: Class) -> None:
    with pytest.raises(KeyboardInterrupt):
        one.grade(report=interrupted_by("[5/12]"))
    kept = sorted(path.stem for path in (one.out / "01_tiny").iterdir())
    assert len(kept) == 5, "a result is kept before it is told"
    assert len((one.out / "grades.csv").read_text(encoding="utf-8").splitlines()) == 6
    one.grade()
    assert sorted([*one.judged, *kept]) == sorted(STUDENTS)
    interrupted = files(one.out)
    shutil.rmtree(one.out)
    one.grade()
    assert files(one.out) == interrupted


def test_an_interrupt_stops_what_is_in_work(one: Class) -> None:
    stopped = threading.Event()
    in_work = threading.Event()

    def judge(reference: Reference, answers: Mapping[str, str], *, stop: threading.Event, **rest: Any) -> Any:
        if "# s07" in answers["add"]:
            in_work.set()
            assert stop.wait(60)
            stopped.set()
            raise RuntimeError("stopped")
        return one.judge(reference, answers)

    def report(line: str) -> None:
        if line.startswith("[3/12]"):
            assert in_work.wait(60)
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "judge", judge)
        (one.submissions / "s07.ipynb").rename(one.submissions / "a.ipynb")
        with pytest.raises(KeyboardInterrupt):
            one.grade(jobs=2, report=report)
    assert stopped.is_set()


def test_a_submission_that_cannot_be_judged_is_named_and_tried_again(one: Class) -> None:
    def verdict(answer: str) -> Verdict:
        if "s03" in answer:
            raise RuntimeError("a\x1b[2J fault")
        return Verdict(PASSED, visible=True, hidden=True)

    one.verdict = verdict
    summary = one.grade()
    assert [str(refused) for refused in summary.refused] == [
        "s03.ipynb: could not be judged (RuntimeError: a�[2J fault)"
    ]
    assert len(summary.grades) == 11
    assert any(" s03 · 01_tiny · not judged · " in line for line in one.said)
    one.verdict = lambda answer: Verdict(PASSED, visible=True, hidden=True)
    one.grade()
    assert one.judged == ["s03"]


def test_a_file_that_changes_meanwhile_is_named(one: Class) -> None:
    def verdict(answer: str) -> Verdict:
        (one.submissions / "s11.ipynb").write_text("{", encoding="utf-8")
        return Verdict(PASSED, visible=True, hidden=True)

    one.verdict = verdict
    assert [str(refused) for refused in one.grade().refused] == [
        "s11.ipynb: is no notebook: its text is no JSON; perhaps it was cut off or renamed"
    ]


class Full:
    """A disk that is full from the n-th write on: each step of writing a file counts."""

    def __init__(self, allowed: int, patch: pytest.MonkeyPatch) -> None:
        self.left = allowed
        for name in ("fsync", "replace", "link", "mkdir"):
            patch.setattr(os, name, self.limited(getattr(os, name)))

    def limited(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*arguments: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*arguments, **more)

        return limited


def test_a_disk_that_fills_up_at_any_step_loses_nothing(one: Class) -> None:
    for student in STUDENTS[4:]:
        (one.submissions / f"{student}.ipynb").unlink()
    one.grade()
    first = files(one.out)
    one.hand_in("s01", "add = sum")
    one.hand_in("new")
    template = shutil.copytree(one.out, one.out.parent / "template")
    one.grade()
    whole = files(one.out)
    assert first != whole
    steps = 0
    for allowed in range(100):
        shutil.rmtree(one.out)
        shutil.copytree(template, one.out)
        with pytest.MonkeyPatch.context() as patch:
            disk = Full(allowed, patch)
            said = one.grade_in_vain()
            if said:
                assert str(one.out) in said
                assert said.endswith(" cannot be written (No space left on device); make room.")
                assert any(line.endswith(" of 5 submissions graded; the same command goes on.") for line in one.said)
            if disk.left >= 0:
                break
            steps += 1
        left = files(one.out, earlier=True)
        for name, content in first.items():
            assert content in left.values(), (allowed, name)
        done = {name for name in left if left[name] == whole.get(name)}
        one.grade()
        assert files(one.out) == whole, allowed
        assert not {f"01_tiny/{student}.json" for student in one.judged} & done, "what was kept is not judged again"
        assert {name for name in files(one.out, earlier=True) if name.endswith("s01.json")} >= {"01_tiny/s01.json"}
    assert steps >= 6
    assert (one.out / "earlier" / "1" / "01_tiny" / "s01.json").exists()


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None,
    reason="a small file system of its own takes Linux and the superuser",
)
def test_a_really_full_disk_loses_nothing(one: Class) -> None:
    one.out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", one.out], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        one.verdict = lambda answer: Verdict(FAILED, visible_text="x" * 5000)
        with pytest.raises(NotKept, match=r"\(No space left on device\); make room\."):
            one.grade()
        kept = {path.stem for path in (one.out / "01_tiny").glob("*.json")}
        assert 0 < len(kept) < len(STUDENTS)
        assert f"{len(kept)} of 12 submissions graded; the same command goes on." in one.said
        assert not list(one.out.rglob("*.new"))
        subprocess.run(["mount", "-o", "remount,size=1m", one.out], check=True)
        one.grade()
        assert {*one.judged} | kept == {*STUDENTS}
        assert not {*one.judged} & kept
        assert len(files(one.out)) == 13
    finally:
        subprocess.run(["umount", one.out], check=True)


def test_two_graders_do_not_share_a_folder(one: Class) -> None:
    one.out.mkdir()
    with locked(one.out / ".lock", lambda: None), pytest.raises(BadInput, match="Another `scalelab grade` writes into"):
        one.grade()
    one.grade()
    assert len(one.judged) == 12


def test_a_file_that_is_not_whole_is_removed(one: Class) -> None:
    one.grade()
    left_over = one.out / "01_tiny" / ".s03.json.4711.new"
    left_over.write_text("{", encoding="utf-8")
    (one.out / "mine.new").touch()
    one.grade()
    assert not left_over.exists()
    assert (one.out / "mine.new").exists()


def test_the_table_is_written_meanwhile(one: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "CSV_EVERY_S", -1)
    rows: list[int] = []
    one.grade(
        report=lambda line: (
            rows.append(len((one.out / "grades.csv").read_text(encoding="utf-8").splitlines()))
            if line.startswith("[")
            else None
        )
    )
    assert rows == [*range(2, 14)]
    assert not (one.out / "earlier").exists() or [p.name for p in (one.out / "earlier").rglob("*.csv")] == [
        "grades.csv"
    ]


def test_the_estimate_counts_only_what_this_run_judges() -> None:
    progress = batch._Progress(number=120, left=83, side_by_side=2)
    submission = batch.Submission(Path("a.ipynb"), "a.ipynb", "a\nb", "01_tiny", 0.0)
    progress.began = time.perf_counter() - 20
    line = progress.line(submission, RuntimeError())
    assert line.startswith("[38/120] a�b · 01_tiny · not judged · 82 left, about ")
    minutes = int(line.partition("about ")[2].partition(" min")[0])
    assert 12 <= minutes <= 14, "81 submissions in pairs, at 20 s for two"
    for _ in range(81):
        line = progress.line(submission, RuntimeError())
    assert "[119/120]" in line
    assert "1 left, about 0." in line
    assert progress.line(submission, RuntimeError()).endswith("not judged · 20 s")


NAMES = [
    *("ann", "Ann", "ANN", "müller", "mu\u0308ller", "MÜLLER", "a/b", "a:b", "a*b", "a?b", "a|b", "a'b", 'a"b', "a\nb"),
    *("con", "con.x", "CON", "aux.txt", "nul", "com1", "x.", "x", " x", "x ", "..", ".", "", "a\x00b", "=1+1", "-"),
    *("x" * 300, "x" * 301, "é" * 300, "日本", "日本語", "\ud800", "\\ud800", "_", "__", "student", "\u202eevil"),
    *("ss", "ß", "\u017fs", "k", "K", "\u212a", "i", "İ", "\u0131", "ann-0123456789ab", "ANN-0123456789AB"),
]


def test_file_names_are_safe_and_one_student_has_one() -> None:
    names = [*NAMES, *(file_name(name) for name in NAMES)]
    found = {name: file_name(name) for name in dict.fromkeys(names)}
    folded = [keeper.unicodedata.normalize("NFKC", name).casefold() for name in found.values()]
    assert len(set(folded)) == len(folded)
    for name in found.values():
        assert 0 < len(name.encode()) <= 200
        assert not set(name) & set('<>:"/\\|?*%\n\0')
        assert name.isprintable()
        assert name.strip(" .") == name
        assert name.split(".")[0] not in {"con", "aux", "nul", "com1"}
    assert [found[name] for name in ("ann", "=1+1", "a'b")] == ["ann", "=1+1", "a'b"]
    assert found["Ann"].startswith("Ann-")


def test_any_name_gets_its_files(one: Class) -> None:
    for path in one.submissions.iterdir():
        path.unlink()
    strange = [name for name in NAMES if name and "/" not in name and "\0" not in name and not name.startswith(".")]
    made = []
    for name in strange:
        try:
            one.hand_in(name)
        except (OSError, UnicodeError):
            continue
        made.append(name)
    summary = one.grade()
    assert len(summary.grades) + len(summary.refused) == len(list(one.submissions.iterdir()))
    assert len(list((one.out / "01_tiny").glob("*.json"))) == len(summary.grades) >= 20
    one.grade()
    assert not one.judged
    assert len((one.out / "grades.csv").read_text(encoding="utf-8").splitlines()) == len(summary.grades) + 1


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(BadInput, match=r"\.lock cannot be locked"), keeping(tmp_path):
        pass


def started(course: Course, submissions: Path, out: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, "grade", str(submissions), "--out", str(out), "--course", str(course.root), "--jobs", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is killed with SIGKILL, or nothing sandboxed")
def test_a_killed_grader_goes_on(one: Class, course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real command and real kernels: killed with SIGKILL after some grades are there, then run again."""
    monkeypatch.undo()
    for student in STUDENTS[5:]:
        (one.submissions / f"{student}.ipynb").unlink()
    one.hand_in("s04", "def add(a, b):\n    return a - b")
    process = started(course, one.submissions, one.out)
    kept = one.out / "01_tiny"
    deadline = time.monotonic() + 120
    while len(list(kept.glob("*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    ended = process.poll()
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[0]
    assert ended is None, said
    before = {path.name: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    assert len(before) >= 2
    again = started(course, one.submissions, one.out)
    said = again.communicate(timeout=240)[0]
    assert again.returncode == 0, said
    assert f"{len(before)} of 5 submissions graded before, {5 - len(before)} to go." in said
    assert {name: (kept / name).stat().st_mtime_ns for name in before} == before
    resumed = files(one.out)
    shutil.rmtree(one.out)
    whole = started(course, one.submissions, one.out)
    said = whole.communicate(timeout=240)[0]
    assert whole.returncode == 0, said
    assert files(one.out) == resumed
    assert sorted(json.loads(path.read_bytes())["total"] for path in kept.glob("*.json")) == [2, 5, 5, 5, 5]
