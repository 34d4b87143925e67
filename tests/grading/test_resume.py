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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from scalelab.course import Course
from scalelab.exercises.reference import BadReference, Reference, references_of
from scalelab.grading import batch, grade_store
from scalelab.grading.batch import Summary, grade
from scalelab.grading.grade_store import NotKept, file_name, open_store
from scalelab.grading.judging.nbval_run import Stopped
from scalelab.grading.judging.results import FAILED, NOT_JUDGED, PASSED, RAISED, CheckResult, Result
from scalelab.grading.submissions.layouts import BadInput
from scalelab.notebooks.lock import locked
from scalelab.notebooks.untrusted import HandedIn
from support import COMMAND
from tiny import cell, keep_exercises, load, quiet_sync, save, student_path, tiny_course

RIGHT = "def add(a, b):\n    return a + b"
MENDED = "def count(word, seen=[]):\n    seen.append(word)\n    return len(seen)"
STUDENTS = tuple(f"s{number:02}" for number in range(12))
FULL = Result(PASSED, visible=CheckResult(passed=True), hidden=CheckResult(passed=True))
NONE = Result(FAILED)


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
    result: Callable[[str], Result] = lambda answer: FULL
    proof: Callable[[], Result] = lambda: FULL

    def hand_in(self, student: str, answer: str = RIGHT, edit: Callable[[dict[str, Any]], object] = str) -> Path:
        notebook = load(student_path(self.course))
        cell(notebook, "add")["source"] = f"# {student}\n{answer}"
        cell(notebook, "mend")["source"] = MENDED
        edit(notebook)
        path = save(self.submissions / f"{student}.ipynb", notebook)
        os.utime(path, (1_000_000, 1_000_000))
        return path

    def judge(
        self, reference: Reference, submissions: Sequence[Mapping[str, str]], stop: threading.Event
    ) -> Iterator[tuple[int, dict[str, Result]]]:
        for number, answers in enumerate(submissions):
            if answers == reference.sources:
                yield number, dict.fromkeys(answers, self.proof())
                continue
            self.judged.append(answers["add"].partition("\n")[0].removeprefix("# "))
            yield (
                number,
                {name: replace(self.result(text), seconds=time.perf_counter() % 1) for name, text in answers.items()},
            )

    @contextmanager
    def judging(self, references: object, **settings: Any) -> Iterator[Class]:
        yield self

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
    monkeypatch.setattr(batch, "judging", made.judging)
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
            found[name] = grade_store._without_times(json.loads(text)) if path.suffix == ".json" else text
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
        monkeypatch.setattr("scalelab.grading.grader_version.grader_digest", lambda: "another")
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


def test_what_could_not_be_judged_is_judged_again(one: Class) -> None:
    one.result = lambda answer: Result(NOT_JUDGED, "No\x1b kernel.") if "s01" in answer else NONE
    grades = {grade.student: grade for grade in one.grade().grades}
    assert [grades[name].questions[0].points for name in ("s01", "s02")] == [None, 0]
    assert "Not judged (?): s01, 01_tiny, add: No� kernel." in one.said
    assert any(" s01 · 01_tiny · 0+?/5 · " in line for line in one.said)
    rows = dict(line.split(",", 1) for line in (one.out / "grades.csv").read_text(encoding="utf-8").splitlines())
    assert rows["s01"] == "01_tiny,s01.ipynb,0,5,,0"
    one.result = lambda answer: FULL
    one.grade()
    assert one.judged == ["s01"]
    assert not [line for line in one.said if line.startswith("Not judged")]


def test_what_a_person_decided_stays(one: Class) -> None:
    """An instructor who has looked at an answer writes the points into its file."""
    one.result = lambda answer: Result(NOT_JUDGED, "No kernel.") if "s02" in answer else FULL
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

    class Judge(Class):
        def judge(self, reference: Reference, submissions: Any, stop: threading.Event) -> Any:
            for number, results in one.judge(reference, submissions, stop):
                if "# s07" in submissions[number].get("add", ""):
                    in_work.set()
                    assert stop.wait(60)
                    stopped.set()
                    raise Stopped
                yield number, results

    def report(line: str) -> None:
        if line.startswith("[3/12]"):
            assert in_work.wait(60)
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "judging", Judge(one.course, one.submissions, one.out).judging)
        (one.submissions / "s07.ipynb").rename(one.submissions / "a.ipynb")
        with pytest.raises(KeyboardInterrupt):
            one.grade(jobs=2, report=report)
    assert stopped.is_set()


def test_a_submission_that_cannot_be_judged_is_named_and_tried_again(one: Class) -> None:
    def result(answer: str) -> Result:
        if "s03" in answer:
            raise RuntimeError("a\x1b[2J fault")
        return FULL

    one.result = result
    summary = one.grade()
    assert [str(refused) for refused in summary.refused] == [
        "s03.ipynb: could not be judged (RuntimeError: a�[2J fault)"
    ]
    assert len(summary.grades) == 11
    assert any(" s03 · 01_tiny · not judged · " in line for line in one.said)
    one.result = lambda answer: FULL
    one.grade()
    assert one.judged == ["s03"]


def test_the_first_session_proves_the_reference(one: Class) -> None:
    sessions: list[list[bool]] = []
    judge = one.judge

    def noted(reference: Reference, submissions: Any, stop: threading.Event) -> Any:
        sessions.append([answers == reference.sources for answers in submissions])
        return judge(reference, submissions, stop)

    one.judge = noted  # type: ignore[method-assign]
    one.grade(jobs=2)
    assert sorted(sessions) == [[False] * 6, [True] + [False] * 6]


@pytest.mark.parametrize("error", [None, RuntimeError("a fault")])
def test_nothing_is_told_or_kept_where_the_proof_fails(one: Class, error: Exception | None) -> None:
    """However late that is known: here, once another session has judged all its submissions."""
    late = threading.Event()

    def result(answer: str) -> Result:
        if "s11" in answer:
            late.set()
        return FULL

    def proof() -> Result:
        assert late.wait(60)
        if error is not None:
            raise error
        return NONE

    one.result, one.proof = result, proof
    words = "a fault" if error else r"does not pass its own checks on this machine: add \(failed\), mend \(failed\)"
    with pytest.raises(RuntimeError if error else BadReference, match=words):
        one.grade(jobs=2)
    assert {"s06", "s11"} <= set(one.judged)
    assert not [line for line in one.said if line.startswith("[")]
    assert not files(one.out)


def test_a_submission_that_fails_its_session_at_once_does_not_fail_the_proof(one: Class) -> None:
    judge = one.judge

    def judged(reference: Reference, submissions: Any, stop: threading.Event) -> Any:
        if any("# s03" in answers["add"] for answers in submissions):
            raise RuntimeError("a fault")
        return judge(reference, submissions, stop)

    one.judge = judged  # type: ignore[method-assign]
    summary = one.grade()
    assert [refused.file for refused in summary.refused] == ["s03.ipynb"]
    assert len(summary.grades) == 11
    assert one.said[0].startswith("01_tiny: the 2 solutions pass here (")


def test_sessions_that_prove_a_reference_come_first(course: Course) -> None:
    (reference,) = references_of(course).values()
    used = [reference, replace(reference, slug="02_more")]
    of_set = {
        slug: [[batch.Submission(f"{slug}-{at}", "", slug, 0.0, HandedIn("", "", ()))] for at in range(2)]
        for slug in ("01_tiny", "02_more")
    }
    assert batch._with_proofs(used, [*of_set["02_more"], *of_set["01_tiny"]]) == [
        [used[0], *of_set["01_tiny"][0]],
        [used[1], *of_set["02_more"][0]],
        of_set["02_more"][1],
        of_set["01_tiny"][1],
    ]


def test_a_file_that_changes_meanwhile_counts_as_it_was_found(one: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def judging(*_: object, **__: object) -> Iterator[Class]:
        (one.submissions / "s11.ipynb").write_text("{", encoding="utf-8")
        yield one

    monkeypatch.setattr(batch, "judging", judging)
    summary = one.grade()
    assert (len(summary.grades), summary.refused) == (12, ())
    assert sorted(one.judged) == sorted(STUDENTS)


def test_notebooks_are_written_for_what_was_graded_before_as_well(one: Class) -> None:
    one.grade()
    one.hand_in("new")
    one.grade(keep_notebooks=True)
    assert one.judged == ["new"]
    kept = one.out / "notebooks" / "01_tiny"
    assert sorted(path.stem for path in kept.iterdir()) == ["new", *STUDENTS]
    assert "# s03\\n" in (kept / "s03.ipynb").read_text(encoding="utf-8")


def test_a_notebook_that_cannot_be_written_ends_the_run_in_words(one: Class) -> None:
    one.out.mkdir()
    (one.out / "notebooks").touch()
    with pytest.raises(NotKept, match=r"notebooks/01_tiny/s\d\d\.ipynb cannot be written \("):
        one.grade(keep_notebooks=True)


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
@pytest.mark.parametrize(("little", "enough"), [("size=64k", "size=1m"), ("nr_inodes=10", "nr_inodes=100")])
def test_a_really_full_disk_loses_nothing(one: Class, little: str, enough: str) -> None:
    one.out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", little, "tmpfs", one.out], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        one.result = lambda answer: Result(RAISED, "x" * 5000)
        with pytest.raises(NotKept, match=r"\(No space left on device\); make room\."):
            one.grade()
        kept = {path.stem for path in (one.out / "01_tiny").glob("*.json")}
        assert 0 < len(kept) < len(STUDENTS)
        assert f"{len(kept)} of 12 submissions graded; the same command goes on." in one.said
        assert not list(one.out.rglob("*.new"))
        subprocess.run(["mount", "-o", f"remount,{enough}", one.out], check=True)
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
    monkeypatch.setattr(grade_store, "CSV_EVERY_S", -1)
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


@pytest.mark.parametrize(
    ("number", "side_by_side", "sizes"),
    [(1, 4, [1]), (3, 4, [1, 1, 1]), (40, 2, [20, 20]), (41, 2, [14, 14, 13]), (100, 3, [20] * 5)],
)
def test_submissions_are_judged_in_sessions_that_keep_every_job_at_work(
    number: int, side_by_side: int, sizes: list[int]
) -> None:
    submissions = [
        batch.Submission(f"{slug}-{at}", "", slug, 0.0, HandedIn("", "", ()))
        for at in range(number)
        for slug in ("01_tiny", "02_more")
    ]
    chunks = batch._chunks(submissions, side_by_side)
    assert list(map(len, chunks)) == sizes * 2
    assert sorted(one.file for chunk in chunks for one in chunk) == sorted(one.file for one in submissions)
    assert all(len({one.exercises for one in chunk}) == 1 for chunk in chunks)


def test_the_estimate_counts_only_what_this_run_judges() -> None:
    progress = batch._Progress(number=120, remaining=83, side_by_side=2)
    submission = batch.Submission("a.ipynb", "a\nb", "01_tiny", 0.0, HandedIn("", "", ()))
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
    folded = [grade_store.unicodedata.normalize("NFKC", name).casefold() for name in found.values()]
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
    with pytest.raises(BadInput, match=r"\.lock cannot be locked"), open_store(tmp_path):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere answers are not sandboxed")
def test_a_grader_that_is_ended_goes_on(one: Class, course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real command and real answers: ended by each signal after some more grades are there, then run again."""
    monkeypatch.undo()
    one.hand_in("s04", "def add(a, b):\n    return a - b")
    for student in ("s05", "s11"):  # the last of each half, so that no signal comes too late
        one.hand_in(student, f"import time\ntime.sleep(2)\n{RIGHT}")
    command = [*COMMAND, "grade", str(one.submissions), "--out", str(one.out), "--course", str(course.root)]
    before: dict[Path, int] = {}
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9), (None, 0)):
        with subprocess.Popen(
            [*command, "--jobs=2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
        ) as process:
            processes = []
            if number is not None:
                while len(grades_in(one.out)) < len(before) + 2 and process.poll() is None:
                    time.sleep(0.01)
                processes = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(number)
            said, _ = process.communicate()
        assert process.returncode == status, said
        assert not psutil.wait_procs(processes, timeout=60)[1], "nothing is left running"
        if before:
            assert f"{len(before)} of 12 submissions graded before, {12 - len(before)} to go." in said
        after = grades_in(one.out)
        assert {path: after.get(path) for path in before} == before, "nothing is judged twice"
        before = after
    totals = {path.stem: load(path)["total"] for path in before}
    assert totals == dict.fromkeys(STUDENTS, 5) | {"s04": 2}
    assert len((one.out / "grades.csv").read_text(encoding="utf-8").splitlines()) == 13


def grades_in(out: Path) -> dict[Path, int]:
    """Return the grades' files, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("01_tiny/*.json")}
