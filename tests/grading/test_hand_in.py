"""What `submit-check` says holds: the file it writes is graded, with the points it said, whatever a notebook claims."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from scalelab.checks._help import Taken
from scalelab.checks._verdict import Expectation, Verdict
from scalelab.cli import main
from scalelab.course import Course
from scalelab.grading.batch import grade
from scalelab.grading.grades import Grade
from scalelab.notebooks.format import source_of
from scalelab.student import hand_in
from scalelab.student.hand_in import Checked, NotToHandIn, submit_check
from scalelab.student.install import prepare
from scalelab.student.merge import PROGRESS, released
from scalelab.student.status import statuses
from scalelab.student.watch import Result
from scalelab.student.workspace import Workspace
from tiny import RIGHT, SLUG, cell, check_outputs, edited, load, quiet_sync, tiny_course

FORGED = "def count(word):\n    return 'whatever you like'"
HELPED = "async def ordered(jobs):\n    return await helper(jobs)"
OWN = "`helper` stands in a cell of your own: move it into the answer. Answers alone are graded."
FLOOD = "x" * 3_000_000


@dataclass
class HandedIn:
    course: Course
    workspace: Workspace
    notebook: Path
    said: str
    checked: Checked
    grade: Grade


def quiet(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> HandedIn:
    """One right answer, one that needs a cell of the student's own, one with a forged pass, one untouched."""
    folder = tmp_path_factory.mktemp("hand-in")
    course = tiny_course(folder / "course")
    quiet_sync(course)
    workspace = prepare(course, folder / "mine", quiet)
    notebook = workspace.exercises / f"{SLUG}.ipynb"

    def work(data: dict[str, list[dict[str, object]]]) -> None:
        cell(data, "add").update(source=RIGHT["add"], outputs=[printed(FLOOD)])
        cell(data, "ordered").update(source=HELPED)
        cell(data, "mend").update(source=FORGED)
        for name, source in (("ordered", HELPED), ("mend", FORGED)):
            cell(data, f"{name}-check").update(outputs=check_outputs(name, source), execution_count=9)
        own = "async def helper(jobs):\n    return await asyncio.gather(*jobs)"
        data["cells"].append({"cell_type": "code", "id": "own", "metadata": {}, "source": own, "outputs": []})

    edited(notebook, work)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scalelab.notebooks.untrusted.LARGEST_MB", 1)  # the grader would not read this notebook
        checked = submit_check(course, notebook, said.append)
    (folder / "class").mkdir()
    (folder / "class" / "ann.ipynb").write_bytes(checked.file.read_bytes())
    summary = grade(folder / "class", folder / "grades", course=course, sandbox=False, report=quiet)
    return HandedIn(course, workspace, notebook, "\n".join(said), checked, summary.grades[0])


def printed(text: str) -> dict[str, str]:
    return {"output_type": "stream", "name": "stdout", "text": text}


def test_the_grader_gives_the_points_that_were_said(handed_in: HandedIn) -> None:
    assert handed_in.checked.points == {"add": 1, "last": 0, "ordered": 0, "mend": 0}
    questions = {one.exercise: one for one in handed_in.grade.questions}
    assert {name: one.visible_points for name, one in questions.items()} == handed_in.checked.points
    assert handed_in.grade.answers_digest == handed_in.checked.checksum
    assert handed_in.grade.notes == ()
    assert OWN in questions["ordered"].reason


def test_it_is_said_in_words_what_passes_and_why_the_rest_does_not(handed_in: HandedIn) -> None:
    said = handed_in.said
    assert "  ✓ add: 1 of 1." in said
    assert "  ○ last: 0 of 1. Not answered yet." in said
    assert "  ✗ ordered: 0 of 2." in said
    assert OWN in said
    assert "name 'helper' is not defined" in said
    assert "In your notebook its check passed. Something that ran there is missing here" in said
    assert "\n1 of 5 points by the checks that you see." in said
    assert f"Hand in {handed_in.checked.file}" in said
    assert f"checksum of its answers {handed_in.checked.checksum[:12]}" in said


def test_every_expectation_that_fails_is_told_and_a_cut_is_marked() -> None:
    pairs = [
        (Expectation(f"right {number}", True), Expectation(f"fault {number}", False, "because")) for number in range(14)
    ]
    verdict = Verdict("add", tuple(itertools.chain(*pairs)))
    result = Result(False, f"{verdict}\n✓ printed by the answer", verdict=verdict.as_data())
    wanted = "\n".join([*(str(fault) for _, fault in pairs), "✓ printed by the answer"]).splitlines()
    assert hand_in.faults(result) == wanted
    cut = hand_in.faults(Result(False, "\n".join(wanted * 2)))
    assert len(cut) == hand_in.SHOWN_LINES + 1
    assert (
        cut[-1] == f"… and {2 * len(wanted) - hand_in.SHOWN_LINES} more lines; run the check in JupyterLab to see all."
    )


def test_what_a_notebook_says_of_itself_gives_no_points(handed_in: HandedIn) -> None:
    out = released(load(handed_in.workspace.handed_out / "exercises" / f"{SLUG}.ipynb"))
    claims = {one.exercise: one.state for one in statuses(load(handed_in.notebook), out)}
    assert claims["mend"] == "passed"
    points = {one.exercise: one.points for one in handed_in.grade.questions}
    assert points["mend"] == handed_in.checked.points["mend"] == 0


def test_the_file_is_small_and_holds_every_text(handed_in: HandedIn) -> None:
    file = handed_in.checked.file
    assert file == handed_in.workspace.root / "to_hand_in" / f"{SLUG}.ipynb"
    assert file.stat().st_size < 100_000 < handed_in.notebook.stat().st_size
    before, after = load(handed_in.notebook)["cells"], load(file)["cells"]
    assert [source_of(one) for one in after] == [source_of(one) for one in before if one["id"] != PROGRESS]
    assert cell({"cells": after}, "mend-check")["outputs"] == [printed("✓ all is well\n")]


def test_the_file_tells_which_help_was_taken() -> None:
    notebook = {"cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "text"}], "metadata": {}}
    taken = {"turns": Taken(2, "before a pass"), "add": Taken(1), "last": Taken()}
    once = hand_in._to_hand_in(notebook, "0", taken)
    again = hand_in._to_hand_in(once, "0", taken)
    for made in (once, again):
        assert [one["id"] for one in made["cells"]] == ["a", hand_in.HELP]
        assert made["cells"][-1]["source"].splitlines()[2:] == [
            "- add: 1 hint",
            "- turns: 2 hints and the solution before a pass",
        ]
    assert [one["id"] for one in hand_in._to_hand_in(once, "0", {})["cells"]] == ["a"]


def test_a_file_that_was_changed_after_it_was_checked_is_noted(handed_in: HandedIn, tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    changed = load(handed_in.checked.file)
    cell(changed, "add")["source"] = "def add(a, b):\n    return 5"
    (tmp_path / "class" / "bob.ipynb").write_text(json.dumps(changed), encoding="utf-8")
    summary = grade(tmp_path / "class", tmp_path / "grades", course=handed_in.course, sandbox=False, report=quiet)
    assert summary.grades[0].notes == (
        "The answers are not those that `submit-check` wrote; those in the file counted.",
    )


def test_what_cannot_be_handed_in_is_named(
    handed_in: HandedIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.ipynb"
    other.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}))
    cut_off = tmp_path / "cut_off.ipynb"
    cut_off.write_text('{"cells": [', encoding="utf-8")
    for path, words in (
        (other, "other.ipynb holds no exercise of this course; expected one of"),
        (cut_off, "cut_off.ipynb is not a notebook: the file is not valid JSON"),
        (tmp_path / "none.ipynb", "does not exist; name a notebook of your workspace"),
    ):
        with pytest.raises(NotToHandIn, match=words):
            submit_check(handed_in.course, path, quiet)
    assert main(["submit-check", str(cut_off), "--course", str(handed_in.course.root)]) == 2
    assert "cut_off.ipynb is not a notebook" in capsys.readouterr().err
    assert not (tmp_path / "to_hand_in").exists()
