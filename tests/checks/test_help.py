"""Help: one more hint each time, a solution after a pass or a plain wish, a note of both, and never a failing call."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from scalelab import checks
from scalelab.checks import Expectation, Verdict, _help
from scalelab.checks._help import Taken, help_taken
from scalelab.course import RECORD
from scalelab.student.run_tracker import mark
from tiny import load, save

HINTS = ["What is asked?", "Which operator?", "`a + b`"]
SOLUTION = "def add(a, b):\n    return a + b"


def notebook(*, checked: list[dict[str, object]] | None = None) -> dict[str, object]:
    """A student's notebook of one exercise, as the course writes it; `checked` are its check's outputs."""
    hints = [f"<details><summary>Hint {n} of 3</summary>\n\n{hint}\n\n</details>" for n, hint in enumerate(HINTS, 1)]
    cells: list[dict[str, object]] = [
        {"cell_type": "markdown", "id": f"add-hint-{n}", "metadata": {}, "source": text.splitlines(keepends=True)}
        for n, text in enumerate(hints, 1)
    ]
    for name, source, outputs in (("add", "...", []), ("add-check", "check", checked or [])):
        code = {"cell_type": "code", "execution_count": None, "source": source, "outputs": outputs}
        cells.append({**code, "id": f"lost-{name}", "metadata": {"nbgrader": {"grade_id": name}}})
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def reference() -> dict[str, object]:
    cells = [
        {"cell_type": "code", "id": name, "metadata": {}, "source": source, "outputs": [], "execution_count": 1}
        for name, source in (("add", SOLUTION), ("add-hidden", "hidden"))
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture(autouse=True)
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course of one exercise; we are in the folder of its exercises, as a kernel is, and have called nothing yet."""
    save(tmp_path / "exercises" / "01_tiny.ipynb", notebook())
    save(tmp_path / "solutions" / "01_tiny.ipynb", reference())
    monkeypatch.chdir(tmp_path / "exercises")
    monkeypatch.delenv("SCALELAB_COURSE", raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    checks.verdicts.clear()
    monkeypatch.setattr(_help, "_noted", {})
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(function: Callable[..., None], *arguments: object, **options: object) -> str:
        capsys.readouterr()
        function(*arguments, **options)
        return capsys.readouterr().out

    return call


def note(course: Path) -> dict[str, Taken]:
    return help_taken(course / "exercises" / "01_tiny.ipynb")


def check(good: bool) -> None:
    with checks.verdict("add") as expect:
        expect(good, "it adds", otherwise="It does not.")


def test_each_call_gives_one_more_hint(said: Callable[..., str], course: Path) -> None:
    texts = [said(checks.hint, "add") for _ in range(4)]
    for number, text in enumerate(texts[:3], 1):
        assert text.startswith(f"**Hint {number} of 3 on `add`**\n\n{HINTS[number - 1]}")
        assert sum(hint in text for hint in HINTS) == 1
    assert "There is no further hint." in texts[2]
    assert texts[3] == texts[2]
    assert note(course) == {"add": Taken(3)}


def test_a_new_kernel_goes_on_from_the_note(said: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    said(checks.hint, "add")
    monkeypatch.setattr(_help, "_noted", {})
    assert "Hint 2 of 3" in said(checks.hint, "add")


def test_without_a_name_it_is_the_check_that_failed_last(
    said: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "No check has failed here yet" in said(checks.hint)
    with pytest.raises(checks.CheckFailed):
        check(False)
    assert capsys.readouterr().out.endswith('  It does not.\nFor a hint: checks.hint("add")\n')
    assert "Hint 1 of 3 on `add`" in said(checks.hint)
    check(True)
    assert capsys.readouterr().out == "✓ it adds\n"
    assert "No check has failed here yet" in said(checks.hint)


def test_a_solution_waits_for_a_pass_or_a_plain_wish(said: Callable[..., str], course: Path) -> None:
    text = said(checks.solution, "add")
    assert SOLUTION not in text
    assert (
        'checks.solution("add", show_me=True)` shows a solution all the same, and notes that in `01_tiny.help' in text
    )
    assert note(course) == {}
    assert SOLUTION in said(checks.solution, "add", show_me=True)
    assert note(course) == {"add": Taken(0, "before a pass")}
    check(True)
    assert SOLUTION in said(checks.solution, "add")
    assert note(course)["add"].solution == "before a pass"  # what came first stays


@pytest.mark.parametrize("passed", [True, False])
def test_a_pass_that_the_notebook_was_saved_with_counts(said: Callable[..., str], course: Path, passed: bool) -> None:
    data = mark({}, Verdict("add", (Expectation("it adds", held=passed),)).as_data())
    printed = {"output_type": "stream", "name": "stdout", "text": ["✓ it adds\n"]}
    outputs: list[dict[str, object]] = [printed, {"output_type": "display_data", "data": data, "metadata": {}}]
    save(course / "exercises" / "01_tiny.ipynb", notebook(checked=outputs))
    assert (SOLUTION in said(checks.solution, "add")) == passed
    assert note(course) == ({"add": Taken(0, "after a pass")} if passed else {})


def test_a_workspace_elsewhere_finds_the_solutions_of_the_course_that_is_named(
    said: Callable[..., str], course: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = tmp_path_factory.mktemp("workspace")
    save(own / "mine.ipynb", notebook())
    monkeypatch.chdir(own)
    assert "Hint 1 of 3" in said(checks.hint, "add")
    assert "There is no solution of 'add' here" in said(checks.solution, "add", show_me=True)
    monkeypatch.setenv("SCALELAB_COURSE", str(course))
    assert SOLUTION in said(checks.solution, "add", show_me=True)
    assert help_taken(own / "mine.ipynb") == {"add": Taken(1, "before a pass")}
    assert note(course) == {}


def test_a_workspace_knows_its_course(
    said: Callable[..., str], course: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = tmp_path_factory.mktemp("workspace")
    save(own / "exercises" / "01_tiny.ipynb", notebook())
    save(own / RECORD, {"form": 1, "course": str(course)})
    monkeypatch.chdir(own / "exercises")
    assert SOLUTION in said(checks.solution, "add", show_me=True)
    assert help_taken(own / "exercises" / "01_tiny.ipynb") == {"add": Taken(0, "before a pass")}


def test_what_was_taken_in_words() -> None:
    assert [
        _help.in_words(one) for one in (Taken(), Taken(1), Taken(2, "after a pass"), Taken(0, "before a pass"))
    ] == [
        "",
        "1 hint",
        "2 hints and the solution after a pass",
        "the solution before a pass",
    ]


def test_the_notebook_that_runs_it_comes_first(
    said: Callable[..., str], course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = save(course / "exercises" / "zz_mine.ipynb", notebook())
    monkeypatch.setenv("JPY_SESSION_NAME", str(mine))
    said(checks.hint, "add")
    assert help_taken(mine) == {"add": Taken(1)}
    assert note(course) == {}


def test_where_there_is_no_help_every_call_says_so_and_ends_well(
    said: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty = tmp_path_factory.mktemp("sandbox")
    (empty / "broken.ipynb").write_text('{"cells": [{"id": "add-hint-1"', encoding="utf-8")
    (empty / "odd.ipynb").write_text('[["add-hint-1", "add-hidden"]]', encoding="utf-8")
    (empty / "folder.ipynb").mkdir()
    monkeypatch.chdir(empty)
    assert "There are no hints on `add` in broken.ipynb." in said(checks.hint, "add")
    assert "There are no hints on 'other' here" in said(checks.hint, "other")
    assert "There is no solution of 'add' here" in said(checks.solution, "add", show_me=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder in which somebody is")
def test_a_folder_that_is_gone_fails_nothing(
    said: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "There are no hints" in said(checks.hint, "add")
    assert "There is no solution" in said(checks.solution, "add")


@pytest.mark.parametrize("stored", ["", "[]", '{"add": 3}', '{"add": {"hints": "many", "solution": 5}}', "\udcff"])
def test_a_note_that_cannot_be_read_counts_as_nothing(said: Callable[..., str], course: Path, stored: str) -> None:
    path = course / "exercises" / "01_tiny.help.json"
    path.write_bytes(stored.encode("utf-8", "surrogateescape"))
    assert note(course).get("add", Taken()) == Taken()
    assert "Hint 1 of 3" in said(checks.hint, "add")
    assert json.loads(path.read_text(encoding="utf-8")) == {"add": {"hints": 1, "solution": ""}}


def test_a_note_that_cannot_be_written_is_kept_in_the_process(said: Callable[..., str], course: Path) -> None:
    (course / "exercises" / "01_tiny.help.json").mkdir()
    assert ["Hint 1" in said(checks.hint, "add"), "Hint 2" in said(checks.hint, "add")] == [True, True]
    assert sorted(path.name for path in (course / "exercises").iterdir()) == ["01_tiny.help.json", "01_tiny.ipynb"]


def test_in_a_notebook_help_is_rendered(course: Path) -> None:
    cells = ["from scalelab import checks\nchecks.hint('add')", "checks.solution('add', show_me=True)"]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(made, timeout=120, resources={"metadata": {"path": str(course / "exercises")}}).execute()
    shown = [cell.outputs[0].data["text/markdown"] for cell in made.cells]
    assert "Hint 1 of 3" in shown[0]
    assert f"```python\n{SOLUTION}\n```" in shown[1]
    assert load(course / "exercises" / "01_tiny.help.json") == {"add": {"hints": 1, "solution": "before a pass"}}
