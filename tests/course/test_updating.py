"""An update of the course keeps what a student wrote: in its place, or beside it and named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab.exercises.released import student
from scalelab.exercises.source import read_set
from scalelab.notebooks.format import source_of
from scalelab.student.merge import Updated, update
from tiny import FOLDER, PROMPT, RIGHT, SLUG, cell

Notebook = dict[str, Any]
TEXT = (FOLDER / "solutions" / f"{SLUG}.md").read_text(encoding="utf-8")
SHOWN = {"outputs": [{"output_type": "stream", "name": "stdout", "text": "✓ as it was\n"}], "execution_count": 7}


def made(folder: Path, text: str = TEXT) -> Notebook:
    path = folder / f"{SLUG}.md"
    path.write_text(text, encoding="utf-8")
    return copy.deepcopy(student(read_set(path)))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    return made(tmp_path_factory.mktemp("release"))


@pytest.fixture
def mine(release: Notebook) -> Notebook:
    """A student's notebook with two answers, whose checks have run."""
    notebook = copy.deepcopy(release)
    for name in ("add", "mend"):
        cell(notebook, name).update(SHOWN, source=RIGHT[name])
        cell(notebook, f"{name}-check").update(SHOWN)
    return notebook


def after(folder: Path, *changes: tuple[str, str]) -> Notebook:
    text = TEXT
    for old, new in changes:
        assert text.count(old) == 1, (text.count(old), old)
        text = text.replace(old, new)
    return made(folder, text)


def without(folder: Path, name: str) -> Notebook:
    head, *parts = TEXT.split(PROMPT)
    return made(folder, PROMPT.join([head, *(part for part in parts if f'"exercise": "{name}"' not in part)]))


def code(source: str, name: str = "own") -> dict[str, Any]:
    return {"cell_type": "code", "id": name, "metadata": {}, "source": source, "outputs": [], "execution_count": None}


def place(notebook: Notebook, name: str) -> int:
    return next(number for number, one in enumerate(notebook["cells"]) if one["id"] == name)


def texts(updated: Updated) -> list[str]:
    kept = [one for kept in updated.leftovers for one in kept.cells]
    return [source_of(one) for one in (*updated.notebook["cells"], *kept)]


def test_a_reworded_exercise_keeps_answer_and_outputs(release: Notebook, mine: Notebook, tmp_path: Path) -> None:
    new = after(tmp_path, ("Complete `add`.", "Complete `add`, please."))
    updated = update(release, mine, new)
    assert "please" in source_of(cell(updated.notebook, "add-prompt"))
    for name in ("add", "mend"):
        assert source_of(cell(updated.notebook, name)) == RIGHT[name]
        assert cell(updated.notebook, f"{name}-check")["outputs"] == SHOWN["outputs"]
    assert updated.notes == ("add: reworded; read it again.",)
    assert updated.leftovers == ()


def test_a_check_that_is_added_has_to_be_run(release: Notebook, mine: Notebook, tmp_path: Path) -> None:
    new = after(tmp_path, ("got = add(2, 3)\n", "assert add(0, 0) == 0\ngot = add(2, 3)\n"))
    updated = update(release, mine, new)
    assert source_of(cell(updated.notebook, "add")) == RIGHT["add"]
    assert source_of(cell(updated.notebook, "add-check")).startswith("assert add(0, 0)")
    assert cell(updated.notebook, "add-check")["outputs"] == []
    assert cell(updated.notebook, "mend-check")["outputs"] == SHOWN["outputs"]
    assert updated.notes == ("add: its check has changed; run it again.",)


def test_the_answer_to_an_exercise_that_is_removed_is_kept(release: Notebook, mine: Notebook, tmp_path: Path) -> None:
    updated = update(release, mine, without(tmp_path, "add"))
    assert [one["id"] for one in updated.notebook["cells"] if one["id"].startswith("add")] == []
    assert source_of(cell(updated.notebook, "mend")) == RIGHT["mend"]
    (kept,) = updated.leftovers
    assert kept.description == "add: your work on a part that is no longer in the course"
    assert [one["id"] for one in kept.cells] == ["add-prompt", "add"]
    assert source_of(kept.cells[1]) == RIGHT["add"]
    assert updated.notes == ("add: no longer in the course.",)


def test_of_an_untouched_exercise_that_is_removed_nothing_is_kept(
    release: Notebook, mine: Notebook, tmp_path: Path
) -> None:
    assert update(release, mine, without(tmp_path, "last")).leftovers == ()


def test_an_exercise_with_a_new_name_keeps_its_answer(release: Notebook, mine: Notebook, tmp_path: Path) -> None:
    new = after(tmp_path, ('"exercise": "add"', '"exercise": "sum_up"'))
    updated = update(release, mine, new)
    assert source_of(cell(updated.notebook, "sum_up")) == RIGHT["add"]
    assert cell(updated.notebook, "sum_up")["metadata"] == cell(new, "sum_up")["metadata"]
    assert updated.notes == ("sum_up: was called add.",)
    assert updated.leftovers == ()


def test_a_new_exercise_does_not_get_the_answer_of_a_removed_one(
    release: Notebook, mine: Notebook, tmp_path: Path
) -> None:
    new = after(
        tmp_path,
        ('"exercise": "add"', '"exercise": "other"'),
        ("## Add two numbers\n\nComplete `add`.", "## Another\n\nWrite `add`."),
        (
            "role: starter\n---\ndef add(a, b):\n    ...",
            "role: starter\n---\ndef add(a, b):\n    raise NotImplementedError",
        ),
    )
    updated = update(release, mine, new)
    assert "NotImplementedError" in source_of(cell(updated.notebook, "other"))
    assert [kept.description for kept in updated.leftovers] == [
        "add: your work on a part that is no longer in the course"
    ]
    assert updated.notes == ("other: a new exercise.", "add: no longer in the course.")


def lose_id(notebook: Notebook) -> None:
    cell(notebook, "add").update(id="f3a1")


def lose_id_and_metadata(notebook: Notebook) -> None:
    cell(notebook, "add").update(id="f3a1", metadata={})


def lose_all(notebook: Notebook) -> None:
    for number, one in enumerate(notebook["cells"]):
        one.update(id=f"x{number}", metadata={})


@pytest.mark.parametrize("lose", [lose_id, lose_id_and_metadata, lose_all])
@pytest.mark.parametrize("reworded", [False, True], ids=["same prompt", "reworded"])
def test_a_cell_whose_id_an_editor_changed_is_found(
    release: Notebook, mine: Notebook, tmp_path: Path, lose: Callable[[Notebook], None], reworded: bool
) -> None:
    lose(mine)
    new = after(tmp_path, *([("Complete `add`.", "Complete `add`, please.")] if reworded else []))
    updated = update(release, mine, new)
    assert source_of(cell(updated.notebook, "add")) == RIGHT["add"]
    assert source_of(cell(updated.notebook, "mend")) == RIGHT["mend"]
    assert [one["id"] for one in updated.notebook["cells"]] == [one["id"] for one in new["cells"]]
    assert updated.leftovers == ()


def test_an_answer_cell_that_was_deleted_is_there_again(release: Notebook, mine: Notebook) -> None:
    mine["cells"].remove(cell(mine, "add"))
    updated = update(release, mine, release)
    assert source_of(cell(updated.notebook, "add")) == source_of(cell(release, "add"))
    assert updated.notes == ("add: your notebook had no answer cell; there is one again, with the starter.",)


def test_of_an_answer_cell_that_was_copied_every_text_is_kept(release: Notebook, mine: Notebook) -> None:
    at = place(mine, "add")
    other = copy.deepcopy(cell(mine, "add")) | {"source": "def add(a, b):\n    return b + a", "id": "c0de"}
    same = copy.deepcopy(cell(mine, "mend")) | {"id": "c0df"}
    starter = copy.deepcopy(cell(release, "mend")) | {"id": "c0e0"}
    mine["cells"][at + 1 : at + 1] = [other, same, starter]
    updated = update(release, mine, release)
    cells = updated.notebook["cells"]
    at = place(updated.notebook, "add")
    assert [source_of(one) for one in cells[at : at + 2]] == [RIGHT["add"], other["source"]]
    assert cells[at + 2]["id"] == "add-check"
    assert cells[place(updated.notebook, "mend") + 1]["id"] == "mend-check"
    assert updated.notes == ("add: 2 different cells hold its answer, all kept; delete all but one.",)


def test_own_cells_stay_where_they_were(release: Notebook, mine: Notebook, tmp_path: Path) -> None:
    mine["cells"].insert(place(mine, "add") + 1, code("helper = 1", "own-1"))
    mine["cells"].insert(place(mine, "last-prompt") + 1, code("notes = 2", "own-2"))
    mine["cells"].insert(0, code("first = 0", "own-0"))
    mine["cells"].append(code("end = 3", "own-3"))
    ids = [one["id"] for one in update(release, mine, release).notebook["cells"]]
    assert ids == [one["id"] for one in mine["cells"]]
    ids = [one["id"] for one in update(release, mine, without(tmp_path, "last")).notebook["cells"]]
    assert ids[0] == "own-0"
    assert ids[ids.index("add") + 1] == "own-1"
    assert ids[ids.index("add-reading") + 1] == "own-2"
    assert ids[-1] == "own-3"


def test_an_untouched_answer_gets_the_new_starter(release: Notebook, mine: Notebook, tmp_path: Path) -> None:
    new = after(tmp_path, ("    pass\nanswer = None", "    pass\nanswer = 0  # which?"))
    updated = update(release, mine, new)
    assert source_of(cell(updated.notebook, "last")) == source_of(cell(new, "last"))
    assert updated.notes == ()


def test_what_was_written_into_the_courses_own_cells_is_kept(release: Notebook, mine: Notebook) -> None:
    cell(mine, "add-prompt")["source"] = "## Add\n\nMy notes."
    cell(mine, "add-check")["source"] = "print('✓ all is well')"
    cell(mine, "mend").update(cell_type="markdown")
    updated = update(release, mine, release)
    assert source_of(cell(updated.notebook, "add-check")) == source_of(cell(release, "add-check"))
    assert cell(updated.notebook, "add-check")["outputs"] == []
    whats = {kept.description: source_of(kept.cells[0]) for kept in updated.leftovers}
    assert whats == {
        "add-prompt: your changes to a cell of the course's own": "## Add\n\nMy notes.",
        "add-check: your changes to a cell of the course's own": "print('✓ all is well')",
        "mend: a cell of its answer's name that is not a code cell": RIGHT["mend"],
    }


def test_without_knowing_what_it_was_made_from_nothing_is_lost(mine: Notebook, tmp_path: Path) -> None:
    new = without(tmp_path, "add")
    updated = update(None, mine, new)
    assert source_of(cell(updated.notebook, "mend")) == RIGHT["mend"]
    assert [source_of(one) for kept in updated.leftovers for one in kept.cells] == [
        source_of(cell(mine, "add-prompt")),
        RIGHT["add"],
    ]


@st.composite
def damaged(draw: st.DrawFn, release: Notebook) -> tuple[Notebook, list[str]]:
    """A notebook after a student and three editors, and every text that the student wrote into it."""
    notebook = copy.deepcopy(release)
    wrote = []
    for number in range(draw(st.integers(1, 8))):
        cells = notebook["cells"]
        at = draw(st.integers(0, len(cells) - 1))
        text = f"def {draw(st.sampled_from(['add', 'count', 'ordered', 'mine']))}():\n    return {number}"
        match draw(st.sampled_from(["edit", "copy", "own", "delete", "move", "lose metadata", "lose id", "retype"])):
            case "edit":
                wrote = [one for one in wrote if one != source_of(cells[at])]
                cells[at]["source"] = text
                wrote.append(text)
            case "copy":
                cells.insert(at, copy.deepcopy(cells[at]))
            case "own":
                cells.insert(at, code(text, f"own-{number}"))
                wrote.append(text)
            case "delete" if len(cells) > 1:
                gone = cells.pop(at)
                wrote = [one for one in wrote if one in {source_of(one) for one in cells} or one != source_of(gone)]
            case "move":
                cells.insert(0, cells.pop(at))
            case "lose metadata":
                cells[at]["metadata"] = {}
            case "lose id":
                cells[at].pop("id", None)
            case "retype":
                cells[at]["cell_type"] = draw(st.sampled_from(["code", "markdown", "raw"]))
    present = {source_of(one) for one in notebook["cells"]}
    return notebook, [one for one in wrote if one in present]


@settings(max_examples=50)
@given(st.data())
def test_nothing_that_a_student_wrote_is_lost_and_a_second_update_changes_nothing(
    release: Notebook, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    mine, wrote = data.draw(damaged(release))
    known = data.draw(st.booleans())
    name = data.draw(st.sampled_from(["", "add", "last", "ordered"]))
    new = without(tmp_path_factory.mktemp("new"), name) if name else copy.deepcopy(release)
    updated = update(release if known else None, mine, new)
    assert set(wrote) <= set(texts(updated))
    names = [one["id"] for one in updated.notebook["cells"]]
    assert len(set(names)) == len(names)
    assert [one for one in names if one in {cell["id"] for cell in new["cells"]}] == [
        cell["id"] for cell in new["cells"]
    ]
    again = update(new, updated.notebook, new)
    assert [source_of(one) for one in again.notebook["cells"]] == [source_of(one) for one in updated.notebook["cells"]]
    assert again.leftovers == ()
