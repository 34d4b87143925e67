"""A warm kernel's input transformer gives what IPython's own gives, for Python and for what only IPython knows."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from scalelab.course.exercises import read_set, sources
from scalelab.course.find import find_course
from scalelab.grading.plain_python import PlainPython

OURS = PlainPython()  # type: ignore[no-untyped-call]
ITS = TransformerManager()  # type: ignore[no-untyped-call]
CELLS = {
    "nothing": "",
    "comment": "# only this",
    "empty lines": "\n\n  \nx = 1\n\n",
    "indented": "    x = 1\n    y = 2",
    "line magic": "%timeit sum(range(3))\nx = 1",
    "assigned magic": "y = %sql SELECT 1",
    "assigned command": "files = !ls -l\nprint(files)",
    "cell magic": "%%time\nx = 1",
    "command": "x = 1\n!echo {x}",
    "help": "len?\n",
    "source": "x = 1\nx.real??",
    "prompts": ">>> x = 1\n>>> x\n1",
    "IPython's prompts": "In [1]: x = 1\n   ...: y = 2",
    "quoted prompts": 'text = """\n>>> x = 1\n"""',
    "quoted magic": 'text = """\n%time\n!ls\nx?\n"""',
    "await at the top": "await asyncio.sleep(0)\nasync with a as b:\n    pass",
    "return at the top": "return 3",
    "no Python": "def (:",
    "no end": "f(1,",
    "called without parentheses": "/len x\n,f a b\n;f a b\n  /len x",
    "modulo": "x = (1\n% 2)\ny = 3 % x",
    "not": "a = 1 if x != 2 else 3",
    "slash": "a = (1\n/ 2)",
    "semicolons": "x = 1; y = 2;",
    "no character": "x = 1\0",
    "strange escape": "x = '\\d'",
    "indented back by too little": "\tdef f():\n    x = 1\n",
    "deep": "(" * 300 + ")" * 300,
}
PIECES = (
    "x = 1\n",
    "%time x\n",
    "!ls\n",
    "y?\n",
    "def f():\n    ",
    "if x:\n",
    "'''",
    '"',
    "(",
    ")",
    "\\\n",
    "# ",
    ">>> ",
    "\n",
)


def hold_the_same(source: str) -> None:
    """Let the cell come out as from IPython; where IPython cannot read it, Python cannot read what comes out."""
    try:
        its = ITS.transform_cell(source)
    except SyntaxError:
        with pytest.raises(SyntaxError):
            ast.parse(OURS.transform_cell(source))
    else:
        assert OURS.transform_cell(source) == its


@pytest.mark.parametrize("name", CELLS)
def test_every_kind_of_cell_comes_out_as_from_ipython(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hold_the_same(CELLS[name])


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_so_does_what_is_put_together_at_random(source: str) -> None:
    hold_the_same(source)


@pytest.mark.parametrize("path", sources(find_course(Path(__file__).parent)), ids=lambda path: path.stem)
def test_so_does_every_cell_of_the_course(path: Path) -> None:
    for exercise in read_set(path).exercises:
        answers = (exercise.starter, exercise.solution, *(wrong.source for wrong in exercise.wrongs))
        for source in (*answers, exercise.check, exercise.hidden):
            hold_the_same(source)


def test_python_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransformerManager, "do_one_token_transform", lambda *_: pytest.fail("searched"))
    assert OURS.transform_cell("x = [1,\n  2]\n") == "x = [1,\n  2]\n"
