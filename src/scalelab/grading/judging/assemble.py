"""Assemble the notebook that nbval runs: the set-up, then a cell per check, which first runs the check's answer."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from scalelab.exercises.answers import wanted
from scalelab.exercises.reference import HIDDEN, VISIBLE, Question, Reference
from scalelab.exercises.released import NBVAL_COMPARES
from scalelab.exercises.source import KERNEL
from scalelab.notebooks.format import Cell, Notebook, source_of

SET_UP = "set-up"
IMPORT = "from scalelab.grading.judging import trusted"


@dataclass(frozen=True)
class Check:
    """One check of one answer: `key` is its name in the notebook, `role` "check" or "hidden"."""

    key: str
    question: Question
    role: str
    source: str


def checks_of(reference: Reference, answers: Mapping[str, str], prefix: str = "") -> list[Check]:
    """Return both checks of each answer (sources by exercise), in the order of the questions."""
    return [
        Check(f"{prefix}{question.exercise}-{role}", question, role, answers[question.exercise])
        for question in reference.questions
        if question.exercise in answers
        for role in (VISIBLE, HIDDEN)
    ]


def assembled(reference: Reference, checks: Sequence[Check], *, for_people: bool = False) -> Notebook:
    """Return the notebook that checks these answers.

    Each answer's source is a string literal in it, never a cell. `for_people` also shows each answer above its checks.
    """
    cells: list[Cell] = [_code(SET_UP, _set_up_source(reference), [])]
    for check in checks:
        if for_people and check.role != HIDDEN:
            cells.append(_text(f"{check.key}-answer", check.question.exercise, check.source))
        cells.append(_code(check.key, _source(check), check.question.check(check.role)["outputs"]))
    metadata = {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _set_up_source(reference: Reference) -> str:
    cells = [source_of(cell) for cell in reference.setup]
    literals = "".join(f",\n    {cell!a}" for cell in cells)
    return f"{IMPORT}\n\ntrusted.set_up({reference.slug!a}{literals})"


def _source(check: Check) -> str:
    """Return the check's cell: a line that runs the answer, the visible check's code for a hidden check, the check."""
    question = check.question
    visible, own = (source_of(question.check(role)) for role in ("check", check.role))
    names = sorted(wanted(question.solution, visible, source_of(question.hidden)))
    # On one line, because nbval and IPython give some lines a special meaning. An answer may define `trusted`, so each
    # cell imports it again.
    turns = "" if "interleave" in visible + own else ", takes_turns=False"
    first_line = f"{IMPORT}; trusted.answer({question.exercise!a}, {names!a}, {check.source!a}, {check.key!a}{turns})"
    return "\n".join([first_line, *([_given(visible)] if check.role == HIDDEN else []), own])


@lru_cache(maxsize=256)  # it parses the checks, which are the same for every submission
def _given(check: str) -> str:
    """Return the code of a visible check that its hidden check may use: everything before its verdict.

    If it has no verdict, these are its imports and definitions.
    """
    body = ast.parse(check).body
    verdict = next((place for place, node in enumerate(body) if isinstance(node, ast.With)), None)
    defines = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    taken = body[:verdict] if verdict is not None else [node for node in body if isinstance(node, defines)]
    return "\n".join(ast.get_source_segment(check, node) or "" for node in taken)


def _code(name: str, source: str, outputs: Any) -> Cell:
    return {
        "cell_type": "code",
        "id": name,
        "metadata": {"tags": [NBVAL_COMPARES]} if outputs else {},
        "source": source,
        "execution_count": 1,
        "outputs": outputs,
    }


def _text(name: str, exercise: str, source: str) -> Cell:
    fence = "`" * 3
    while fence in source:
        fence += "`"
    return {
        "cell_type": "markdown",
        "id": name,
        "metadata": {},
        "source": f"## {exercise}\n\n{fence}python\n{source}\n{fence}",
    }
