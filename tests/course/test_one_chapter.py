"""`scalelab test NN` tests one chapter, and with `--under-load` counts what fails on a busy machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import psutil
import pytest

from scalelab.author.execute import execute, executed_at
from scalelab.author.under_load import Trials, busy_loops, report
from scalelab.claims import Claim
from scalelab.cli import main
from scalelab.console import Progress
from scalelab.course import Course, find_chapter
from support import COMMAND, CTRL_C, ON_WINDOWS, OWN_GROUP
from tiny import change, quiet_sync, tiny_course

CELL = """
```{{code-cell}} ipython3
{}
```
"""
CLAIMS = """\
from pathlib import Path
from scalelab import claim

with Path(FILE).open("a") as runs:
    runs.write("run\\n")
number = len(Path(FILE).read_text().split())
claim("The number of runs is small", number, at_most=2, unit=" runs")
claim("Runs are counted", number, at_least=1)
assert number != 2, f"this is run {number}"
"""


def add_cell(course: Course, source: str) -> None:
    with (course.chapters / "01_first.md").open("a", encoding="utf-8") as chapter:
        chapter.write(CELL.format(source))


def test_the_parts_of_a_chapter_that_can_be_tested_are(
    small_course: Course, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--course", str(small_course.root), "test"]
    assert main([*command, "2"]) == 0
    table = capsys.readouterr().out.rpartition("\n\n")[2]
    assert re.findall(r"^(.+?)  +(passed|failed|not tested)", table, re.MULTILINE) == [
        ("cells and claims", "passed"),
        ("exercise set", "not tested"),
        ("anatomy", "not tested"),
        ("page", "not tested"),
    ]
    assert "1 chapter not executed yet (01_first)" in table
    second = find_chapter(small_course, "02")
    first_time = executed_at(small_course, second)
    assert main([*command, "02_second"]) == 0
    assert executed_at(small_course, second) == first_time
    assert "Kept from an earlier run" in capsys.readouterr().out
    assert main([*command, "02", "--all"]) == 0
    assert (executed_at(small_course, second) or 0) > (first_time or 0)


def test_the_page_is_built_once_every_other_chapter_was_executed(
    small_course: Course, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(small_course, Progress(), only="02_second")
    with (small_course.chapters / "01_first.md").open("a", encoding="utf-8") as chapter:
        chapter.write("\n[a link](nowhere.md)\n")
    assert main(["--course", str(small_course.root), "test", "01"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"^page +failed", said, re.MULTILINE)
    assert "nowhere.md" in said


def test_a_claim_that_does_not_hold_fails_the_chapter(small_course: Course, capsys: pytest.CaptureFixture[str]) -> None:
    add_cell(small_course, 'from scalelab import claim\nclaim("It grows", 1, at_least=2)')
    assert main(["--course", str(small_course.root), "test", "01"]) == 1
    said = capsys.readouterr().out
    assert "This claim does not hold here: It grows. Measured 1, expected at least 2." in said
    assert said.splitlines()[-2].startswith("cells and claims  failed")


def test_only_the_chapters_own_set_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    course = tiny_course(tmp_path / "course")
    quiet_sync(course)
    chapter = course.chapters / "01_tiny.md"
    text = chapter.read_text(encoding="utf-8").replace("title:", "file_format: mystnb\ntitle:")
    chapter.write_text(text, encoding="utf-8")
    (course.chapters / "02_other.md").write_text(text + CELL.format("1 / 0"), encoding="utf-8")
    (course.solutions / "02_other.md").write_text("no set\n", encoding="utf-8")
    with (course.root / "_toc.yml").open("a", encoding="utf-8") as toc:
        toc.write("chapters: [{file: chapters/02_other}]\n")
    command = ["--course", str(course.root), "test", "01"]
    assert main(command) == 0
    assert re.search(r"^exercise set +passed", capsys.readouterr().out, re.MULTILINE)
    change(course, ("message: You subtract.", "message: Not what it says."))
    (course.solutions / "02_other.md").unlink()
    quiet_sync(course)
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "the wrong answer subtracts fails without its message 'Not what it says.'" in said
    assert re.search(r"^exercise set +failed", said, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["03"], "Expected a chapter or its number; got '03'. There are 01_first, 02_second."),
        (["01_second"], "Expected a chapter or its number; got '01_second'."),
        (["01", "-k", "links"], "Expected chapter 01 alone, or with --all or --under-load."),
        (["--quick", "01"], "Expected chapter 01 alone"),
        (["--under-load", "3"], "--under-load runs one chapter: give its number"),
        (["01", "--under-load", "0"], "x>=1"),
    ],
)
def test_what_cannot_be_tested_is_refused(
    small_course: Course, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["--course", str(small_course.root), "test", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not small_course.build.exists()


def test_claims_and_cells_that_fail_under_load_are_counted(
    small_course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_cell(small_course, CLAIMS.replace("FILE", repr(str(tmp_path / "runs"))))
    assert main(["--course", str(small_course.root), "test", "1", "--under-load", "4"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"[\d.]+ s,", "T,", line) for line in lines[:4]] == [
        "Run 1 of 4: T, 0 claims failed",
        "Run 2 of 4: T, 0 claims failed, ended in chapters/01_first.md, line 32, code cell 3 of 3",
        "Run 3 of 4: T, 1 claim failed",
        "Run 4 of 4: T, 1 claim failed",
    ]
    assert lines[4] == "1 of 4 runs ended in chapters/01_first.md, line 32, code cell 3 of 3:"
    assert "AssertionError: this is run 2" in lines
    assert [re.split("  +", line) for line in lines[-4:-1]] == [
        ["failed", "claim", "bound", "measured"],
        ["2 of 4", "The number of runs is small", "at most 2 runs", "1 2 3 4 runs"],
        ["0 of 4", "Runs are counted", "at least 1", "1 to 4"],
    ]
    assert lines[-1] == "2 claims, 1 of them failed; 1 cell failed."


def test_a_chapter_that_holds_under_load_passes(small_course: Course, capsys: pytest.CaptureFixture[str]) -> None:
    add_cell(small_course, 'from scalelab import claim\nclaim("It is small", 3, at_most=5)')
    add_cell(small_course, "import psutil\nassert psutil.Process().parent().children()")
    assert main(["--course", str(small_course.root), "test", "1", "--under-load", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 claim, 0 of them failed; 0 cells failed."
    assert executed_at(small_course, find_chapter(small_course, "01")) is None


def test_a_claim_that_some_runs_did_not_reach_says_so() -> None:
    claims = {"claim-it": [Claim("claim-it", "It is so", value, "×", 1, None, None) for value in (0.5, 2.0)]}
    assert report(Trials(3, claims, {}))[1].startswith("1 of 2 ")
    assert not Trials(3, claims, {}).passed
    assert not Trials(3, {}, {"a cell": ["Error: no"]}).passed
    assert Trials(3, {"claim-it": claims["claim-it"][1:]}, {}).passed


def test_busy_loops_are_busy_and_end_with_their_block() -> None:
    with busy_loops(2) as ids:
        loops = [psutil.Process(number) for number in ids]
        for loop in loops:
            while loop.cpu_times().user < 0.2:
                assert loop.is_running()
    assert len(loops) == 2
    assert not any(loop.is_running() for loop in loops)


@pytest.mark.parametrize(
    "end",
    [
        lambda process: process.send_signal(CTRL_C),
        pytest.param(
            lambda process: process.kill(),
            marks=pytest.mark.skipif(ON_WINDOWS, reason="a kernel there outlives its parent by seconds"),
        ),
    ],
    ids=["Ctrl-C", "killed"],
)
def test_nothing_outlives_an_interrupted_run(small_course: Course, tmp_path: Path, end: object) -> None:
    assert callable(end)
    here = tmp_path / "here"
    add_cell(small_course, f"from pathlib import Path\nPath({str(here)!r}).touch()\ntime.sleep(250)")
    command = [*COMMAND, "test", "1", "--under-load", "3", "--course", str(small_course.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **OWN_GROUP) as process:
        while not here.exists():
            assert process.poll() is None, process.communicate()[0]
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 3
        end(process)
        process.communicate(timeout=60)
    assert psutil.wait_procs(started, timeout=20)[1] == []
