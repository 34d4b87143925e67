"""The watch way: what is saved is checked, in words; the plain file and the notebook keep each other's answers."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from scalelab.checks import Expectation, Verdict
from scalelab.checks._help import Taken, help_taken, take_hint
from scalelab.cli import main
from scalelab.course import Course
from scalelab.exercises.released import student
from scalelab.exercises.source import read_set, sources
from scalelab.notebooks.format import text_of, written
from scalelab.student import watch
from scalelab.student.merge import released
from scalelab.student.python_file import BadText, answers_in, as_text, tasks, text_with
from scalelab.student.status import PASSED, TRIED, statuses
from scalelab.student.status_pages import rows
from scalelab.student.watch import Files, NotebookNotFound, Result, find_notebook
from scalelab.student.workspace import Workspace
from support import COMMAND, CTRL_C, ON_WINDOWS, OWN_GROUP
from tiny import FOLDER, RIGHT, SLUG, cell, edited, load, source

NAMES = ("add", "last", "ordered", "mend")
ANSWERS = RIGHT | {"last": "answer = 9"}


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student's copy of the tiny set, in a workspace of their own, where we are."""
    path = tmp_path / "work" / "exercises" / f"{SLUG}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(written(student(read_set(source(Course(FOLDER))))), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "work")
    return path


def save_answer(path: Path, name: str, answer: str) -> None:
    """Save an answer in the notebook or in the plain file, as an editor would."""
    if path.suffix == ".ipynb":
        edited(path, lambda made: cell(made, name).update(source=answer))
    else:
        path.write_text(text_with(path.read_text(encoding="utf-8"), {name: answer}), encoding="utf-8")


def answers_of(path: Path) -> dict[str, str]:
    if path.suffix == ".ipynb":
        return {task.name: task.answer for task in tasks(load(path))}
    return answers_in(path.read_text(encoding="utf-8"), NAMES)


class TestPlainFile:
    @pytest.mark.parametrize(
        "path", [*sources(Course(FOLDER.parent.parent)), source(Course(FOLDER))], ids=lambda p: p.stem
    )
    def test_every_answer_of_the_course_goes_there_and_back(self, path: Path) -> None:
        exercises = read_set(path)
        made = student(exercises)
        text = as_text(made)
        names = tuple(exercise.id for exercise in exercises.exercises)
        assert names == tuple(task.name for task in tasks(made))
        starters = {exercise.id: exercise.starter for exercise in exercises.exercises}
        assert {name: answer.strip() for name, answer in answers_in(text, names).items()} == {
            name: starter.strip() for name, starter in starters.items()
        }
        solutions = {exercise.id: exercise.solution for exercise in exercises.exercises}
        filled = text_with(text, solutions)
        assert answers_in(filled, names) == solutions
        assert text_with(filled, starters) == text
        compile(text, "plain.py", "exec", flags=0x2000)  # top-level await allowed: it is Python, whatever the tasks say

    def test_what_else_stands_in_it_stays(self, notebook: Path) -> None:
        text = as_text(load(notebook)) + "\n# %%\n# my own notes\nprint('tried')\n"
        changed = text_with(text, {"add": RIGHT["add"]})
        assert "# my own notes\nprint('tried')\n" in changed
        assert RIGHT["add"] in changed

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda text: text.replace('# %% answer="add"', "# %%"), "`add` is missing"),
            (lambda text: text + '\n# %% answer="add"\n3\n', "`add` is there twice"),
        ],
        ids=["missing", "twice"],
    )
    def test_a_lost_or_doubled_answer_is_named(self, notebook: Path, change: Callable[[str], str], words: str) -> None:
        with pytest.raises(BadText, match=re.escape(words)):
            answers_in(change(as_text(load(notebook))), NAMES)


class TestInStep:
    """The notebook and its plain file, without any check run."""

    @pytest.fixture
    def said(self) -> list[str]:
        return []

    @pytest.fixture
    def files(self, notebook: Path, said: list[str]) -> Files:
        files = Files(notebook, said.append)
        files.write_text()
        return files

    def test_a_new_answer_goes_from_each_to_the_other(self, files: Files, said: list[str]) -> None:
        assert not files.saved()
        save_answer(files.text, "add", RIGHT["add"])
        assert files.saved()
        save_answer(files.path, "last", "answer = 9")
        assert files.saved()
        wanted = {"add": RIGHT["add"], "last": "answer = 9"}
        for path in (files.text, files.path):
            assert {name: answers_of(path)[name] for name in wanted} == wanted
        assert not files.saved()
        assert said == []
        assert not list(files.path.parent.glob("*.bak*"))

    def test_both_saved_at_once_with_different_exercises_lose_nothing(self, files: Files) -> None:
        save_answer(files.text, "add", RIGHT["add"])
        save_answer(files.path, "last", "answer = 9")
        assert files.saved()
        assert answers_of(files.text) == answers_of(files.path) | {"mend": answers_of(files.text)["mend"]}
        assert answers_of(files.path)["add"] == RIGHT["add"]
        assert answers_of(files.text)["last"] == "answer = 9"

    @pytest.mark.parametrize("later", ["text", "path"])
    def test_of_two_new_answers_the_later_counts_and_the_other_is_kept(
        self, files: Files, said: list[str], later: str
    ) -> None:
        save_answer(files.text, "add", "in_text = 1")
        save_answer(files.path, "add", "in_path = 1")
        os.utime(getattr(files, later), (2e9, 2e9))
        assert files.saved()
        assert answers_of(files.text)["add"] == answers_of(files.path)["add"] == f"in_{later} = 1"
        (kept,) = files.path.parent.glob("*.bak")
        assert f"in_{'path' if later == 'text' else 'text'} = 1" in kept.read_text(encoding="utf-8")
        assert kept.name in said[0]

    def test_a_file_from_an_earlier_day_is_taken_up_again(self, files: Files, said: list[str]) -> None:
        save_answer(files.text, "add", RIGHT["add"])
        os.utime(files.text, (2e9, 2e9))
        again = Files(files.path, said.append)
        assert answers_of(again.path)["add"] == RIGHT["add"]
        assert len(said) == 1

    def test_a_plain_file_that_lost_an_answer_changes_nothing_until_it_is_mended(
        self, files: Files, said: list[str]
    ) -> None:
        whole = files.text.read_text(encoding="utf-8")
        files.text.write_text(whole.replace('# %% answer="mend"', "# %%"), encoding="utf-8")
        save_answer(files.path, "add", RIGHT["add"])
        assert files.saved()
        assert "`mend` is missing" in said[0]
        assert answers_of(files.path)["add"] == RIGHT["add"]
        files.text.write_text(whole, encoding="utf-8")
        assert files.saved()
        assert answers_of(files.text)["add"] == answers_of(files.path)["add"] == RIGHT["add"]

    def test_a_notebook_that_cannot_be_read_is_left_alone_and_said(self, files: Files, said: list[str]) -> None:
        whole = files.path.read_text(encoding="utf-8")
        files.path.write_text(whole[:500], encoding="utf-8")
        looks = [files.saved() for _ in range(10)]
        assert looks.count(True) == 1
        assert "is not a notebook. Mend it or undo, and save it again." in said[0]
        files.path.write_text(whole, encoding="utf-8")
        assert files.saved()

    def test_a_save_in_the_middle_of_a_look_is_not_lost(self, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        read = Files._read

        def meanwhile(self: Files) -> Any:
            made = read(self)
            monkeypatch.setattr(Files, "_read", read)
            save_answer(self.path, "last", "answer = 9")
            return made

        monkeypatch.setattr(Files, "_read", meanwhile)
        save_answer(files.text, "add", RIGHT["add"])
        assert [files.saved(), files.saved(), files.saved()] == [True, True, False]
        for path in (files.text, files.path):
            assert (answers_of(path)["add"], answers_of(path)["last"]) == (RIGHT["add"], "answer = 9")

    def test_a_file_that_cannot_be_written_is_said_and_tried_again(
        self, files: Files, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: Path, text: str) -> None:
            raise OSError(28, "No space left on device")

        save_answer(files.text, "add", RIGHT["add"])
        with monkeypatch.context() as patched:
            patched.setattr(watch, "write_atomically", full)
            assert files.saved()
        assert said == [
            f"{files.path.name} cannot be written (No space left on device). Mend that, and save once more."
        ]
        save_answer(files.text, "last", "answer = 9")
        assert files.saved()
        assert (answers_of(files.path)["add"], answers_of(files.path)["last"]) == (RIGHT["add"], "answer = 9")

    def test_what_a_check_showed_never_overwrites_a_save(self, files: Files) -> None:
        save_answer(files.path, "last", "answer = 9")
        files.show({"add": Result(True, "old", "old")})
        assert answers_of(files.path)["last"] == "answer = 9"
        assert files.saved()

    def test_a_pass_counts_as_progress_until_the_answer_changes(self, files: Files) -> None:
        release = released(load(files.path))
        save_answer(files.text, "add", RIGHT["add"])
        files.saved()
        verdict = Verdict("add", (Expectation("2 and 3 are 5", held=True),))
        files.show({"add": Result(True, "✓ 2 and 3 are 5", "✓ 2 and 3 are 5\n", verdict=verdict.as_data())})
        assert statuses(load(files.path), release)[0].state == PASSED
        save_answer(files.text, "add", "def add(a, b):\n    return b + a")
        files.saved()
        assert statuses(load(files.path), release)[0].state == TRIED

    def test_only_answers_and_what_they_showed_are_touched(self, files: Files) -> None:
        before = load(files.path)
        save_answer(files.text, "add", RIGHT["add"])
        files.saved()
        after = load(files.path)
        assert text_of(cell(after, "add")["source"]) == RIGHT["add"]
        cell(after, "add")["source"] = cell(before, "add")["source"]
        assert after == before


class TestFound:
    def test_by_number_by_name_and_by_file(self, notebook: Path) -> None:
        for wanted in ("01", SLUG, str(notebook), str(notebook.with_suffix(".py"))):
            assert find_notebook(wanted) == notebook

    def test_the_workspace_comes_before_the_course(self, notebook: Path, tmp_path: Path) -> None:
        own = tmp_path / "own"
        (own / "exercises").mkdir(parents=True)
        mine = own / "exercises" / notebook.name
        mine.write_bytes(notebook.read_bytes())
        mine.with_name(f"{notebook.stem}.kept.ipynb").write_bytes(notebook.read_bytes())
        assert find_notebook("01", own) == mine
        assert find_notebook("01", tmp_path / "nowhere") == notebook

    def test_what_is_not_there_or_not_clear_is_said(self, notebook: Path) -> None:
        with pytest.raises(NotebookNotFound, match="No exercise notebook '08'"):
            find_notebook("08")
        with pytest.raises(NotebookNotFound, match="there is none"):
            find_notebook("mine.ipynb")
        notebook.with_name("01_other.ipynb").write_bytes(notebook.read_bytes())
        with pytest.raises(NotebookNotFound, match=r"01_other\.ipynb or 01_tiny\.ipynb"):
            find_notebook("01")

    def test_another_notebook_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "mine.ipynb"
        path.write_text('{"cells": []}', encoding="utf-8")
        assert main(["watch", str(path), "--once"]) == 2
        assert "holds no exercise of the course" in capsys.readouterr().err


def test_once_says_how_the_answers_stand(notebook: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_answer(notebook, "add", "def add(a, b):\n    return a - b")
    assert main(["watch", "01", "--once"]) == 1
    text = capsys.readouterr().out
    assert text.startswith("01_tiny.ipynb: 0 of 4 exercises passed  ✗✗✗✗\n\nadd: Add two numbers\n\n")
    assert "✗ 2 and 3 are 5\n  You subtract." in text
    for name, answer in ANSWERS.items():
        save_answer(notebook, name, answer)
    assert main(["watch", "01", "--once"]) == 0
    assert "4 of 4 exercises passed  ✓✓✓✓" in capsys.readouterr().out


def test_a_name_from_another_cell_is_named(notebook: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_answer(notebook, "add", "def add(a, b):\n    return plus(a, b)")
    own = nbformat.v4.new_code_cell("def plus(a, b):\n    return a + b")
    edited(notebook, lambda made: made["cells"].append(own))
    assert main(["watch", "01", "--once"]) == 1
    assert "`plus` stands in a cell of your own: move it into the answer." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("def add(a, b:", "Your answer fails before it is checked:"),
        ("while True: pass", "Your answer did not end within 1 s, and was stopped."),
        ("import os\nos._exit(3)", "Your answer ended its process with status 3."),
    ],
    ids=["no-python", "endless", "exit"],
)
def test_whatever_an_answer_does_is_told(
    notebook: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, words: str
) -> None:
    if answer.startswith("while"):
        monkeypatch.setattr(watch, "CUT_OFF_S", 1.0)
    save_answer(notebook, "add", answer)
    assert main(["watch", "01", "--once"]) == 1
    assert words in capsys.readouterr().out


class Terminal:
    """A `scalelab watch` on a terminal of its own, and what it has drawn since it was last asked."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        self.process, self._end = process, end

    def press(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def until(self, words: str) -> str:
        """Return what is drawn until these words have come."""
        drawn = b""
        deadline = time.monotonic() + 60
        while words.encode() not in drawn:
            ready, _, _ = select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, drawn.decode()
            try:
                drawn += os.read(self._end, 65536)
            except OSError:
                pytest.fail(f"it ended: {drawn.decode()}")
        return drawn.decode()


@contextmanager
def on_a_terminal(*arguments: str) -> Iterator[Terminal]:
    import pty

    end, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "watch", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        yield Terminal(process, end)
    finally:
        process.kill()
        process.wait()
        os.close(end)


@pytest.mark.skipif(ON_WINDOWS, reason="Windows has no pseudo-terminals that Python opens")
def test_on_a_terminal_keys_help_and_a_save_leads_on(notebook: Path) -> None:
    with on_a_terminal("01", "--python") as terminal:
        assert "add: Add two numbers" in terminal.until("[q] quit")
        started = psutil.Process(terminal.process.pid).children(recursive=True)
        terminal.press("h")
        assert "What joins two numbers?" in terminal.until("[q] quit")
        terminal.press("h")
        assert "A plus." in terminal.until("[q] quit")
        terminal.press("s")
        assert "Press s again" in terminal.until("[q] quit")
        terminal.press("n")
        assert "last: The last one" in terminal.until("[q] quit")
        text = notebook.with_suffix(".py")
        save_answer(text, "add", "def add(a, b):\n    print('tried')\n    return a * b")
        shown = terminal.until("[q] quit")
        assert "add: Add two numbers" in shown
        assert "You multiply." in shown
        save_answer(text, "add", RIGHT["add"])
        shown = terminal.until("[q] quit")
        assert "✓ add passes." in shown
        assert "last: The last one" in shown
        terminal.press("l")
        assert "✓ add: Add two numbers" in terminal.until("[q] quit")
        terminal.press("q")
        assert terminal.process.wait(60) == 0
        assert psutil.wait_procs(started, timeout=5)[1] == []
    assert help_taken(notebook) == {"add": Taken(2)}
    checked: dict[str, Any] = cell(load(notebook), "add-check")
    assert text_of(checked["outputs"][0]["text"]) == "✓ 2 and 3 are 5\n"


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (CTRL_C, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.skipif(ON_WINDOWS, reason="Windows has no SIGTERM")),
    ],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_without_a_terminal_it_prints_below_and_ends_with_all_it_started(
    notebook: Path, number: signal.Signals, status: int
) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    command = [*COMMAND, "watch", "01"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        **OWN_GROUP,
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("add: Add two numbers" in line for line in lines)
        save_answer(notebook, "add", RIGHT["add"])
        assert any("✓ add passes." in line for line in lines)
        started = psutil.Process(process.pid).children(recursive=True)
        assert started or sys.platform != "linux"
        process.send_signal(number)
        said, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in err + said
    assert "\x1b" not in said
    assert psutil.wait_procs(started, timeout=5)[1] == []


def test_progress_says_which_help_was_taken(notebook: Path) -> None:
    workspace = Workspace(notebook.parent.parent)
    out = workspace.handed_out / "exercises" / notebook.name
    out.parent.mkdir(parents=True)
    out.write_bytes(notebook.read_bytes())
    take_hint(notebook, "add")
    (row,) = rows(Course(FOLDER), workspace)
    assert [one.note for one in row.statuses] == ["1 hint", "", "", ""]
