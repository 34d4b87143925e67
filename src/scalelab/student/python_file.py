"""The answers of an exercise notebook as a plain Python file for an editor, kept in step with the notebook.

The file is in Jupytext's percent format: tasks are comments, and each answer is a cell `# %% answer="name"`. Answers
are copied in both directions, one by one; no other source in the notebook changes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from scalelab.errors import ScalelabError
from scalelab.notebooks.format import Notebook, heading_of, source_of
from scalelab.notebooks.untrusted import name_of
from scalelab.student.run_tracker import digest, mark

SUFFIX = ".py"
FORMAT = "py:percent"
ANSWER = "answer"


class BadText(ScalelabError):
    """The plain file does not hold every answer exactly once."""


@dataclass(frozen=True)
class Task:
    """One exercise in a student's notebook: its title, and the sources of its answer and its check.

    `check` is None if the notebook has lost it.
    """

    name: str
    title: str
    answer: str
    check: str | None


def tasks(notebook: Notebook) -> tuple[Task, ...]:
    """Return the exercises of a student's notebook, in order: every answer cell whose prompt is there too."""
    by_name = {name_of(cell): source_of(cell) for cell in notebook["cells"]}
    names = [name.removesuffix("-prompt") for name in by_name if name.endswith("-prompt")]
    return tuple(
        Task(name, heading_of(by_name[f"{name}-prompt"], name), by_name[name], by_name.get(f"{name}-check"))
        for name in names
        if name in by_name
    )


def setup(notebook: Notebook) -> list[str]:
    """Return the sources of the set-up cells, which all exercises share."""
    return [source_of(cell) for cell in notebook["cells"] if name_of(cell).startswith("setup-")]


def as_text(notebook: Notebook) -> str:
    """Return the text of the plain file for a student's notebook."""
    names = {task.name for task in tasks(notebook)}
    markdown_names = {"intro", *(f"{name}-prompt" for name in names)}
    file = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    for cell in notebook["cells"]:
        name, source = name_of(cell), source_of(cell)
        if name in names:
            file.cells.append(nbformat.v4.new_code_cell(source, metadata={ANSWER: name}))  # type: ignore[no-untyped-call]
        elif name.startswith("setup-"):
            file.cells.append(nbformat.v4.new_code_cell(source))  # type: ignore[no-untyped-call]
        elif name in markdown_names:
            file.cells.append(nbformat.v4.new_markdown_cell(source))  # type: ignore[no-untyped-call]
    file.metadata["jupytext"] = {"notebook_metadata_filter": "-all", "cell_metadata_filter": f"{ANSWER},-all"}
    return str(jupytext.writes(file, fmt=FORMAT))


def answers_in(text: str, names: tuple[str, ...]) -> dict[str, str]:
    """Return the answers in a plain file, by exercise.

    Raises BadText if the file cannot be read as cells, or if one of `names` is missing or there twice.
    """
    sources: dict[str, list[str]] = {}
    try:
        cells = jupytext.reads(text, fmt=FORMAT).cells
    except Exception as error:  # whatever Jupytext raises, the student gets a message
        raise BadText(f"The file cannot be read as cells: {error}") from error
    for cell in cells:
        if cell.cell_type == "code" and (name := cell.metadata.get(ANSWER)) is not None:
            sources.setdefault(str(name), []).append(cell.source)
    faults = [
        f"`{name}` is {'missing' if name not in sources else 'there twice'}"
        for name in names
        if len(sources.get(name, [])) != 1
    ]
    if faults:
        raise BadText(
            f'Expected each answer once, below its own line `# %% {ANSWER}="…"`: {", ".join(faults)}. Write the line '
            "as it was; until then, nothing of this file is taken over."
        )
    return {name: sources[name][0] for name in names}


def text_with(text: str, answers: Mapping[str, str]) -> str:
    """Return the text of a plain file with these answers in it and everything else unchanged."""
    file = jupytext.reads(text, fmt=FORMAT)
    for cell in file.cells:
        if cell.metadata.get(ANSWER) in answers:
            cell.source = answers[cell.metadata[ANSWER]]
    return str(jupytext.writes(file, fmt=FORMAT))


def with_answers(notebook: Notebook, answers: Mapping[str, str]) -> Notebook:
    """Return the notebook with these answers, without the old outputs of these answers and their checks."""
    changed = copy.deepcopy(notebook)
    for cell in changed["cells"]:
        name = name_of(cell)
        if name in answers:
            cell["source"] = answers[name].splitlines(keepends=True)
        if name.removesuffix("-check") in answers and cell.get("cell_type") == "code":
            cell |= {"outputs": [], "execution_count": None}
    return changed


def with_outputs(
    notebook: Notebook, results: Mapping[str, tuple[list[dict[str, Any]], dict[str, Any] | None]]
) -> Notebook:
    """Return the notebook with these outputs in its check cells, by exercise, each with its verdict, if it has one.

    Each verdict is saved with a digest of the answer that was checked.
    """
    changed = copy.deepcopy(notebook)
    answers = {name_of(cell): cell for cell in changed["cells"]}
    for cell in changed["cells"]:
        if name_of(cell).endswith("-check") and (exercise := name_of(cell).removesuffix("-check")) in results:
            answer = answers[exercise]
            ran = {str(answer.get("id")): digest(source_of(answer))}
            outputs, verdict = results[exercise]
            data = mark(ran, verdict)
            cell["outputs"] = [*outputs, {"output_type": "display_data", "metadata": {}, "data": data}]
    return changed


def text_path(notebook: Path) -> Path:
    """Return the path of a notebook's plain file."""
    return notebook.with_suffix(SUFFIX)
