"""Each answer is found, whatever an editor has done to its cell; and between two candidates nothing is guessed."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab.course import Course
from scalelab.exercises.answers import LARGEST_ANSWER, Answer
from scalelab.exercises.handed_in import answers, digest_of_answers, from_other_cells, marks, recognise
from scalelab.exercises.reference import Reference, read_reference
from scalelab.notebooks.untrusted import SubmittedCell, read
from tiny import FOLDER, cell, load

Notebook = dict[str, Any]
ADD = "def add(a, b):\n    return a + b"
COUNT = "def count(word):\n    return 1"
JUDGED = "The answer's cell is not in the notebook under its name; cell {} was judged for it."


@pytest.fixture(scope="module")
def tiny() -> Reference:
    return read_reference(FOLDER / "golden" / "reference.ipynb")


@pytest.fixture(scope="module")
def references(course: Course) -> dict[str, Reference]:
    found = map(read_reference, sorted(course.solutions.glob("*.ipynb")))
    return {reference.slug: reference for reference in found}


def code(source: str, name: str = "add", kind: str = "code") -> SubmittedCell:
    return SubmittedCell((name,) if name else (), kind, source)


def missing(reason: str) -> Answer:
    return Answer(None, reason, "missing")


NOT_THERE = missing("The answer cell is not in the notebook.")


@pytest.mark.parametrize(
    ("cells", "answer"),
    [
        ([code("x = 1")], Answer("x = 1")),
        ([code("x = 1"), code("x = 1")], Answer("x = 1")),
        ([code("x = 1"), code("words", kind="markdown"), code(" ")], Answer("x = 1")),
        ([SubmittedCell(("f3e1", "add"), "code", "x = 1")], Answer("x = 1")),
        ([code("x = 1", "add-check")], NOT_THERE),
        ([code("x = 1", "other")], NOT_THERE),
        ([code("x = 1", kind="raw")], missing("The answer cell is raw, not code.")),
        ([code(" \n", kind="raw")], missing("The answer cell is empty.")),
        ([code(" \n")], missing("The answer cell is empty.")),
        (
            [code("", "other"), code("x = 1"), code("x = 2"), code("x = 1")],
            Answer(
                None,
                "2 different cells (numbers 2, 3 of the notebook) hold this answer; expected one: keep the one that "
                "counts, delete the others, and hand in again.",
                "duplicated",
            ),
        ),
        (
            [code(ADD, kind="raw")],
            Answer(ADD, note="The answer's cell is of the type raw; its text was judged as code."),
        ),
        ([code("# Notes\nadd = a + b?", "", "markdown")], NOT_THERE),
        ([code(ADD, "other"), code("add(1, 2)", "")], Answer(ADD, note=JUDGED.format(1))),
        (
            [code(" "), code(ADD, "")],
            Answer(ADD, note="The answer's cell is empty; cell 2 was judged for it."),
        ),
        (
            [code("add = max"), code(ADD, "")],
            Answer("add = max", note="Cell 2 could answer it, too; the answer's own cell was judged."),
        ),
        ([code(ADD), code(ADD, "")], Answer(ADD)),
        ([code("x" * LARGEST_ANSWER)], Answer("x" * LARGEST_ANSWER)),
        (
            [code("x" * (LARGEST_ANSWER + 1))],
            Answer(None, "The answer has 100,001 characters; expected 100,000 at most.", "too long"),
        ),
    ],
    ids=[
        *(
            "one",
            "twice the same",
            "others beside it",
            "second name",
            "missing",
            "unknown name",
            "raw",
            "raw and empty",
        ),
        *("empty", "two different", "raw but code", "words", "by definition", "elsewhere", "own cell first"),
        *("copy without a name", "long", "too long"),
    ],
)
def test_one_answer_is_due(tiny: Reference, cells: list[SubmittedCell], answer: Answer) -> None:
    found = answers(tiny, cells)
    assert found["add"] == answer
    assert found["mend"] == NOT_THERE


def test_between_two_candidates_nothing_is_guessed(tiny: Reference) -> None:
    found = answers(tiny, [code(ADD, ""), code("add = sum", "")])["add"]
    assert (found.source, found.state) == (None, "ambiguous")
    assert found.reason.startswith("No code cell carries this answer's name, and 2 could be it (numbers 1, 2). Put ")
    both = answers(tiny, [code(ADD, kind="raw"), code("add = sum", kind="markdown")])["add"]
    assert (both.source, both.state) == (None, "ambiguous")


@pytest.mark.parametrize(
    ("line", "defines"),
    [
        ("def add(a, b): return a + b", True),
        ("async  def add(): ...", True),
        ("class add:", True),
        ("add = sum", True),
        ("add: object = sum", True),
        ("(first, *add) = 1, 2", True),
        ("first, add, = 1, 2", True),
        ("def adds(): ...", False),
        ("    def add(): ...", False),
        ("    add = 5", False),
        ("add == 5", False),
        ("print(add, end='')", False),
        ("use(x, add=5)", False),
        ("other.add = 5", False),
        ("add['x'] = 5", False),
        ("add += 5", False),
        ("# add = 5", False),
        ("import add", False),
    ],
)
def test_what_defines_a_name(tiny: Reference, line: str, defines: bool) -> None:
    source = f"this is no Python\n{line}"
    assert (answers(tiny, [code(source, "")])["add"].source is not None) == defines


def test_an_answer_without_a_name_is_found_by_its_place(tiny: Reference) -> None:
    notebook = load(FOLDER / "golden" / "student.ipynb")
    cell(notebook, "add")["source"] = "def ad(a, b): pass"
    number = 1 + notebook["cells"].index(cell(notebook, "add"))

    def found(edit: Callable[[list[Any]], object]) -> Answer:
        edited = copy.deepcopy(notebook)
        nameless(cell(edited, "add"))
        edit(edited["cells"])
        return answers(tiny, cells_of(edited))["add"]

    assert found(lambda cells: None) == Answer("def ad(a, b): pass", note=JUDGED.format(number))
    # Above the answer only its check's place is left, or below it only its prompt's.
    assert found(lambda cells: cells.__delitem__(slice(2, number - 1))).source == "def ad(a, b): pass"
    assert found(lambda cells: cells.__delitem__(slice(number, number + 2))).source == "def ad(a, b): pass"
    scratch = {"cell_type": "code", "metadata": {}, "source": "ad(1, 2)"}
    assert found(lambda cells: cells.insert(number, scratch)).state == "ambiguous"
    other = {"cell_type": "code", "metadata": {}, "source": COUNT}
    moved = found(lambda cells: cells.__setitem__(number - 1, other))
    assert moved.state == "missing", "what answers another question answers this one not"


def nameless(one: dict[str, Any]) -> None:
    one.pop("id", None)
    one["metadata"] = {}


def cells_of(notebook: Notebook) -> list[SubmittedCell]:
    return [code("".join(one["source"]), one.get("id", ""), one["cell_type"]) for one in notebook["cells"]]


def by_colab(notebook: Notebook) -> None:
    """Colab has ids in the cells' metadata."""
    for one in notebook["cells"]:
        one["metadata"] = {"id": one.pop("id")}
    notebook["metadata"] = {"colab": {"provenance": []}}


def ids_only(notebook: Notebook) -> None:
    for one in notebook["cells"]:
        one["metadata"] = {}


def by_vscode(notebook: Notebook) -> None:
    """VS Code keeps ids and metadata; it names its kernel, the language of a cell, and gives new cells other ids."""
    notebook["metadata"]["kernelspec"] = {"display_name": ".venv (3.12.3)", "language": "python", "name": "python3"}
    notebook["metadata"]["language_info"] = {"codemirror_mode": {"name": "ipython", "version": 3}, "name": "python"}
    for one in notebook["cells"]:
        one["metadata"] |= {"vscode": {"languageId": "python"}} if one["cell_type"] == "code" else {}
        one["source"] = "".join(one["source"]).splitlines(keepends=True)
    scratch = {
        "cell_type": "code",
        "id": "3f1c0a9e",
        "metadata": {},
        "outputs": [],
        "execution_count": 3,
        "source": ["1"],
    }
    notebook["cells"].insert(4, scratch)


def without_ids(notebook: Notebook) -> None:
    """Versions of VS Code before 2021-10 lose the ids, and keep the metadata."""
    for one in notebook["cells"]:
        del one["id"]


def all_lost(notebook: Notebook) -> None:
    notebook["metadata"] = {}
    for one in notebook["cells"]:
        nameless(one)


def own_metadata_only(notebook: Notebook) -> None:
    for number, one in enumerate(notebook["cells"]):
        one["id"] = f"random-{number}"
        one["metadata"].pop("nbgrader")


def reordered(notebook: Notebook) -> None:
    notebook["cells"].reverse()


def all_lost_and_reordered(notebook: Notebook) -> None:
    all_lost(notebook)
    reordered(notebook)


EDITORS = [by_colab, by_vscode, ids_only, without_ids, own_metadata_only, reordered, all_lost]


@pytest.mark.parametrize("edit", [*EDITORS, all_lost_and_reordered], ids=lambda edit: str(edit.__name__))
def test_every_set_survives_its_editors(
    references: dict[str, Reference], course: Course, tmp_path: Path, edit: Callable[[Notebook], None]
) -> None:
    """With the real sets: what editors do to names costs no answer; where no place is left, nothing wrong is taken."""
    sets = {slug: marks(reference) for slug, reference in references.items()}
    for slug, reference in references.items():
        notebook = load(course.exercises / f"{slug}.ipynb")
        for question in reference.questions:
            cell(notebook, question.exercise)["source"] = question.solution
        edit(notebook)
        path = tmp_path / "ann.ipynb"
        path.write_text(json.dumps(notebook), encoding="utf-8")
        handed_in = read(path)
        assert recognise(handed_in, sets) == slug
        found = answers(reference, handed_in.cells)
        sources = {question.exercise: question.solution for question in reference.questions}
        if edit is all_lost_and_reordered:
            sources = {
                name: sources[name] if found[name].state != "ambiguous" else None  # type: ignore[misc]
                for name in sources
            }
            assert sum(source is not None for source in sources.values()) >= len(sources) / 2
        assert {name: answer.source for name, answer in found.items()} == sources
        noted = [name for name, answer in found.items() if answer.note]
        lost = edit in {all_lost, all_lost_and_reordered}
        assert noted == ([name for name, source in sources.items() if source is not None] if lost else [])


def test_one_cell_is_no_answer_to_two_questions_that_ask_for_the_same(references: dict[str, Reference]) -> None:
    reference = references["08_asyncio"]
    found = answers(reference, [code("async def fetch_all(urls, limit):\n    ...", "")])
    for name in ("bounded", "settled"):
        assert found[name].state == "ambiguous", name
    assert "could answer settled as well" in found["bounded"].reason
    kept = answers(reference, [code("async def fetch_all(): ...", ""), code("x = 1", "settled")])
    assert kept["bounded"].source == "async def fetch_all(): ..."


def test_one_cell_may_answer_all_that_it_defines(tiny: Reference) -> None:
    both = f"{ADD}\n\n{COUNT}"
    found = answers(tiny, [code(both, "")])
    assert found["add"].source == found["mend"].source == both


def test_the_digest_tells_why_there_is_no_answer() -> None:
    states = [Answer("x"), Answer(None), Answer(None, "a", "missing"), Answer(None, "a", "ambiguous"), Answer("")]
    assert len({digest_of_answers({"add": answer}) for answer in states}) == len(states)
    assert digest_of_answers({"add": Answer("x", note="found")}) == digest_of_answers({"add": Answer("x")})


NAMES = st.sampled_from(["", "add", "mend", "add-check", "add-prompt", "add-hint-3", "intro", "odd"])
SOURCES = st.sampled_from([ADD, COUNT, "add = count = 1", "add = = 1", " ", "words", f"{ADD}\n{COUNT}"]) | st.text(
    max_size=20
)


@settings(deadline=None)
@given(st.lists(st.builds(code, SOURCES, NAMES, st.sampled_from(["code", "markdown", "raw", "x"])), max_size=8))
def test_any_cells_give_an_answer_or_say_why_not(cells: list[SubmittedCell]) -> None:
    reference = read_reference(FOLDER / "golden" / "reference.ipynb")
    for name, answer in answers(reference, cells).items():
        if answer.source is None:
            assert answer.state in {"missing", "duplicated", "ambiguous"}
            assert answer.reason.endswith(".")
            continue
        assert (answer.reason, answer.state) == ("", "")
        own = {one.source for one in cells if one.names[:1] == (name,) and one.type == "code" and one.source.strip()}
        assert own in (set(), {answer.source})
        assert bool(own) or answer.note


def test_the_search_is_linear_in_the_text(tiny: Reference) -> None:
    """Lines made to be slow to match; each would take minutes if it were matched in quadratic time."""
    for line in ("a" + " " * 2_000_000 + "b = 1", "a," * 1_000_000 + "+ = 1", "(" * 2_000_000 + "=", "add=" * 500_000):
        answers(tiny, [code(line, "")])


def test_many_cells_are_searched_in_no_time(tiny: Reference) -> None:
    cells = [code(f"{ADD} + {number}", "") for number in range(10_000)]
    assert "10000 could be it (numbers 1, 2, 3, 4, 5 …)" in answers(tiny, cells)["add"].reason


def test_sets_can_be_told_apart(references: dict[str, Reference]) -> None:
    own = [marks(reference) for reference in references.values()]
    shared = {mark for one in own for mark in one if sum(mark in other for other in own) > 1}
    assert all(len(one - shared) > len(one) / 2 for one in own)


def test_names_from_other_cells_are_named_with_their_place(tiny: Reference) -> None:
    answer = "def add(a, b):\n    return plus(a, limit(b)) + step + sum([asyncio, b])"
    cells = [
        code("import asyncio\nstep = 1", "setup-1"),
        code("def last(x):\n    return x\n\ndef limit(x):\n    return x", "last"),
        code("def plus(a, b):\n    return a + b", ""),
        code("unused = 1", ""),
        code(answer),
    ]
    assert from_other_cells(tiny, cells, Answer(answer)) == [
        "`limit` stands in another of the course's cells: define it in this answer, too. Each is graded alone.",
        "`plus` stands in a cell of your own: move it into the answer. Answers alone are graded.",
        "`step` stands in another of the course's cells: define it in this answer, too. Each is graded alone.",
    ]


@pytest.mark.parametrize(
    "line", ["import x{}y", "import a,{}b", "from a{}import b", "import{}", "x{}= 1", "{},= 1", "def{}f"]
)
def test_four_times_the_text_takes_four_times_the_work(tiny: Reference, line: str) -> None:
    """Not sixteen times: the grader itself searches cells, outside of every limit."""

    def seconds(spaces: int) -> float:
        cells = [code(line.format(" " * spaces), "mine"), code(ADD)]
        begin = time.process_time()
        for _ in range(10):
            from_other_cells(tiny, cells, Answer(ADD))
        return time.process_time() - begin

    assert min(seconds(16_000) for _ in range(5)) < 10 * max(min(seconds(4_000) for _ in range(5)), 1e-4)


def test_a_cell_that_is_too_long_is_not_searched_and_few_names_are_told(tiny: Reference) -> None:
    names = [f"name_{number:02}" for number in range(20)]
    answer = Answer("\n".join(names))
    own = "\n".join(f"{name} = 1" for name in names)
    assert len(from_other_cells(tiny, [code(own, "mine")], answer)) == 8
    assert from_other_cells(tiny, [code(own + " " * 20_000, "mine")], answer) == []
