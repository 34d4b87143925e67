"""The command: what it says, what it returns, and that nothing outlives it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scalelab import doctor
from scalelab.cli import main
from scalelab.course import Course
from support import COMMAND, CTRL_C, ON_WINDOWS, OWN_GROUP


def test_help_lists_each_command_for_its_audience(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    _, *sections = re.split(r"^For (\w+):$", capsys.readouterr().out, flags=re.MULTILINE)
    listed = {
        audience: re.findall(r"^  (\S+)", commands, re.MULTILINE)
        for audience, commands in zip(sections[::2], sections[1::2], strict=True)
    }
    assert listed == {
        "students": ["start", "course", "progress", "watch", "reset", "submit-check", "doctor"],
        "instructors": ["grade"],
        "authors": ["lab", "book", "release", "test", "record", "clean"],
    }
    assert main(["course", "-h"]) == 0
    assert re.findall(r"^  (\w+)", capsys.readouterr().out.partition("For authors:")[2], re.MULTILINE) == [
        "sync",
        "check",
        "nbgrader",
    ]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from scalelab.cli import main; main(['--help'])\n"
        "print(sorted({'IPython', 'aiohttp', 'jupyter_server', 'nbformat', 'numpy', 'rich'} & set(sys.modules)))"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert fresh.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(ON_WINDOWS, reason="click completes in bash, zsh and fish")
def test_a_shell_completes_commands_and_options() -> None:
    def completed(words: str) -> list[str]:
        asked = {"_SCALELAB_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        run = subprocess.run(COMMAND, env=os.environ | asked, capture_output=True, text=True, check=False)
        return run.stdout.split()

    assert completed("scalelab st") == ["plain,start"]
    assert completed("scalelab grade --no") == ["plain,--no-sandbox"]


def test_an_error_is_words_on_stderr_and_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--course", str(tmp_path), "book"]) == 2
    assert main(["course", "check", "--course", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        err.splitlines()
        == [
            f"scalelab: No course at {tmp_path} or above it: expected a folder with _config.yml, _toc.yml, chapters. "
            "Change into a checkout of the course, or name one with --course DIR."
        ]
        * 2
    )


@pytest.mark.parametrize("arguments", [["book", "--nonsense"], ["nonsense"], []])
def test_a_mistyped_command_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage: scalelab" in capsys.readouterr().err


def test_a_stream_that_cannot_write_a_mark_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("one", "tests", "here")])
    monkeypatch.setattr(doctor, "sandbox_finding", lambda: doctor.Finding("sandbox", "grading", "here"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["doctor"]) == 0
    sys.stdout.flush()
    assert b"?  one" in written.getvalue().replace("✓".encode(), b"?")  # Windows is told to write UTF-8


def test_test_hands_its_arguments_to_pytest(small_course: Course, capfd: pytest.CaptureFixture[str]) -> None:
    tests = small_course.root / "tests"
    tests.mkdir()
    text = "def test_good(): pass\ndef test_bad(): assert 0\ndef test_other(): assert 0\n"
    (tests / "test_three.py").write_text(text)
    assert main(["--course", str(small_course.root), "test", "-q", "-k", "good or bad"]) == 1
    assert "1 failed, 1 passed, 1 deselected" in capfd.readouterr().out


def test_grade_hands_on_what_it_is_given(small_course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr("scalelab.grading.batch.grade", lambda *folders, **options: given.append((folders, options)))
    command = ["--course", str(small_course.root), "grade", "handed-in", "--out", "grades"]
    assert main(command) == 0
    ids = ["--canvas-id", "01_first=7", "--canvas-id", "02_second=8"]
    limits = ["--jobs", "3", "--timeout", "2.5", "--no-sandbox", "--again", "--keep-notebooks"]
    assert main([*command, *limits, "--dask", "tcp://127.0.0.1:9", "--roster", "class.csv", *ids]) == 0
    usual = {"course": small_course, "jobs": None, "timeout": 10.0, "sandbox": True, "again": False}
    named = {"course": small_course, "jobs": 3, "timeout": 2.5, "sandbox": False, "again": True}
    folders = (Path("handed-in"), Path("grades"))
    assert given == [
        (folders, {**usual, "keep_notebooks": False, "dask": None, "roster": None, "canvas_ids": {}}),
        (
            folders,
            {
                **named,
                "keep_notebooks": True,
                "dask": "tcp://127.0.0.1:9",
                "roster": Path("class.csv"),
                "canvas_ids": {"01_first": 7, "02_second": 8},
            },
        ),
    ]
    assert main([*command, "--canvas-id", "01_first"]) == 2


def test_sets_are_written_for_nbgrader(course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--course", str(course.root), "course", "nbgrader", str(tmp_path)]) == 0
    written = capsys.readouterr().out.splitlines()
    assert written == [
        str(tmp_path / "source" / path.stem / path.name) for path in sorted(course.exercises.glob("*.ipynb"))
    ]
    assert all(Path(path).is_file() for path in written)


def test_grade_says_what_it_cannot_find(course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere"
    assert main(["--course", str(course.root), "grade", str(nowhere), "--out", str(tmp_path / "grades")]) == 2
    assert f"scalelab: {nowhere}" in capsys.readouterr().err


def test_sync_and_check_hand_on_what_they_are_given(small_course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr("scalelab.author.sync.sync", lambda course, **options: given.append((course, options)))
    monkeypatch.setattr("scalelab.author.lint.check", lambda course: given.append(course) or ["a fault"])
    assert main(["--course", str(small_course.root), "course", "sync"]) == 0
    assert main(["--course", str(small_course.root), "course", "sync", "--force"]) == 0
    assert main(["--course", str(small_course.root), "course", "check"]) == 1
    assert given == [(small_course, {"force": False}), (small_course, {"force": True}), small_course]


def test_clean_removes_what_was_built(small_course: Course, capsys: pytest.CaptureFixture[str]) -> None:
    small_course.html.mkdir(parents=True)
    assert main(["--course", str(small_course.root), "clean"]) == 0
    assert not small_course.build.exists()
    assert small_course.chapters.exists()


@pytest.fixture
def in_a_script() -> Iterator[None]:
    """Start processes as a script starts its background jobs: they are born deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (CTRL_C, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.skipif(ON_WINDOWS, reason="Windows has no SIGTERM")),
    ],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_an_interrupted_build_leaves_no_process(
    small_course: Course, number: signal.Signals, status: int, in_a_script: None
) -> None:
    chapter = small_course.chapters / "01_first.md"
    text = chapter.read_text(encoding="utf-8")
    # In a session of its own, where neither Ctrl-C nor the end of the kernel reaches it by itself.
    sleeper = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], start_new_session=True)"
    start = f"import subprocess; {sleeper}\n"
    text = text.replace('print("python"', f'{start}print("python"')
    chapter.write_text(text.replace('print("first', 'time.sleep(99)\nprint("first'), encoding="utf-8")
    with subprocess.Popen(
        [*COMMAND, "book", "--course", str(small_course.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **OWN_GROUP,
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("cell 1 of 2" in line for line in lines)
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 2
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert said.endswith("scalelab: interrupted.\n")
    assert "Traceback" not in said
    assert psutil.wait_procs(started, timeout=5)[1] == []
