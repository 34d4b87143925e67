"""Hints one at a time, and a solution for those who have passed or ask plainly: read from the notebooks that are here.

Hints stand folded in the student's notebook, solutions in the course's `solutions/`. What was taken is noted beside the
notebook, for the student and the instructor; no grade depends on it. Where answers are graded there is neither, and
every call says so and ends well.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from scalelab.course import RECORD
from scalelab.notebooks.files import stored_notebook, stored_object, write_atomically
from scalelab.notebooks.format import source_of, unfolded
from scalelab.notebooks.untrusted import name_of, ran_in

COURSE = "SCALELAB_COURSE"
"""The environment variable that names the course's folder, for notebooks that do not lie in it."""
SUFFIX = ".help.json"
BEFORE, AFTER = "before a pass", "after a pass"

_noted: dict[str, Taken] = {}


@dataclass(frozen=True)
class Taken:
    """The help taken with one exercise: how many `hints`, and when its `solution` was shown, "" for never."""

    hints: int = 0
    solution: str = ""


def show_hint(exercise: str) -> None:
    """Show one more hint on an exercise; "" means that none was named, and no check has failed."""
    if not exercise:
        _show(
            'No check has failed here yet. Name the exercise: `checks.hint("…")`, with the name that its check prints.'
        )
    elif (found := _student_notebook(exercise)) is None:
        _show(
            f"There are no hints on {exercise!r} here: expected them in a notebook in this folder, or in exercises/ "
            "here or further up. The name is the one that the exercise's check prints."
        )
    else:
        _show(take_hint(found, exercise))


def show_solution(exercise: str, *, show_me: bool, passed: bool) -> None:
    """Show the course's solution of an exercise that has passed its check, here or as saved, or with `show_me`."""
    _show(take_solution(_student_notebook(exercise), exercise, show_me=show_me, passed=passed))


def take_hint(notebook: Path, exercise: str) -> str:
    """Return the next of the hints in a student's notebook, as Markdown, and note that it was taken."""
    hints = _hints(_sources(notebook), exercise)
    if not hints:
        return f"There are no hints on `{exercise}` in {notebook.name}."
    taken = _taken(notebook, exercise)
    number = min(taken.hints + 1, len(hints))
    _note(notebook, exercise, Taken(number, taken.solution))
    words = f"**Hint {number} of {len(hints)} on `{exercise}`**\n\n{hints[number - 1]}"
    if number < len(hints):
        return words
    return f'{words}\n\nThere is no further hint. `checks.solution("{exercise}", show_me=True)` shows a solution.'


def take_solution(notebook: Path | None, exercise: str, *, show_me: bool, passed: bool = False) -> str:
    """Return the solution as Markdown, and note that beside the student's notebook; or say why there is none.

    `passed`: its check has passed in this process.
    """
    source = _solution(exercise, notebook)
    if source is None:
        return (
            f"There is no solution of {exercise!r} here. Solutions are in the folder solutions/ of the course: open "
            f"the notebook below it, or name its folder in {COURSE}."
        )
    passed = passed or (notebook is not None and _passed(notebook, exercise))
    if not (passed or show_me):
        note = f", and notes that in `{_beside(notebook).name}`" if notebook else ""
        return (
            f'`{exercise}` has not passed its check yet. `checks.hint("{exercise}")` gives a hint. '
            f'`checks.solution("{exercise}", show_me=True)` shows a solution all the same{note}.'
        )
    taken = _taken(notebook, exercise)
    _note(notebook, exercise, Taken(taken.hints, taken.solution or (AFTER if passed else BEFORE)))
    return f"**A solution of `{exercise}`**, shown {AFTER if passed else BEFORE}\n\n```python\n{source.strip()}\n```"


def help_taken(notebook: Path) -> dict[str, Taken]:
    """Return what is noted beside a student's notebook, by exercise; what cannot be read counts as nothing.

    It is a note by the student's own machine: good for a conversation, and never for a grade.
    """
    noted = stored_object(_beside(notebook)) or {}
    return {name: _as_taken(one) for name, one in noted.items() if isinstance(one, dict)}


def in_words(taken: Taken) -> str:
    """Return what was taken as a part of a sentence, "" for nothing."""
    hints = [f"{taken.hints} hint{'s' if taken.hints > 1 else ''}"] if taken.hints else []
    return " and ".join([*hints, *([f"the solution {taken.solution}"] if taken.solution else [])])


def next_hint(exercise: str) -> str:
    """Return a line with the call that shows a hint; "" if there is none."""
    return f'For a hint: checks.hint("{exercise}")' if _student_notebook(exercise) else ""


def _student_notebook(exercise: str) -> Path | None:
    """Return the notebook that holds hints on the exercise: the one that runs this, one beside it, the course's own."""
    main = getattr(sys.modules.get("__main__"), "__dict__", {})
    named = (os.environ.get("JPY_SESSION_NAME"), main.get("__vsc_ipynb_file__"))
    paths = [Path(path) for path in named if isinstance(path, str) and path.endswith(".ipynb")]
    paths += [*_sorted(Path()), *_further_up("exercises", _here())]
    return next((path for path in paths if _mentions(path, f"{exercise}-hint-1")), None)


def _hints(sources: Mapping[str, str], exercise: str) -> list[str]:
    texts: list[str] = []
    while (text := sources.get(f"{exercise}-hint-{len(texts) + 1}")) is not None:
        texts.append(unfolded(text))
    return texts


def _solution(exercise: str, notebook: Path | None) -> str | None:
    """Return the reference's answer, if it is in this folder or in one above it or above the student's notebook."""
    starts = [_here(), *([notebook.absolute().parent] if notebook else [])]
    paths = (path for start in starts for path in _further_up("solutions", start))
    found = next((path for path in paths if _mentions(path, f"{exercise}-hidden")), None)
    return _sources(found).get(exercise) if found else None


def _passed(notebook: Path, exercise: str) -> bool:
    """Return whether the notebook, as it was saved, holds a verdict on the exercise that it passed."""
    cells = (stored_notebook(notebook) or {"cells": []})["cells"]
    noted = (ran_in(cell) for cell in cells if name_of(cell) == f"{exercise}-check")
    verdict = next(filter(None, noted), {}).get("verdict")
    return isinstance(verdict, dict) and verdict.get("passed") is True


def _further_up(folder: str, start: Path) -> Iterator[Path]:
    """Yield the notebooks in folders of this name: at the start, above it, and in the course that is known from there.

    That is the course that a workspace was made from, or the one that the environment names.
    """
    for place in (start, *start.parents):
        yield from _sorted(place / folder)
        record = stored_object(place / RECORD) or {}
        if isinstance(record.get("course"), str):
            yield from _sorted(Path(record["course"], folder))
    if named := os.environ.get(COURSE):
        yield from _sorted(Path(named, folder))


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.ipynb"))
    except OSError:
        return []


def _mentions(path: Path, cell: str) -> bool:
    try:
        return f'"{cell}"'.encode() in path.read_bytes()
    except OSError:
        return False


def _sources(notebook: Path) -> dict[str, str]:
    cells = (stored_notebook(notebook) or {"cells": []})["cells"]
    return {name_of(cell): source_of(cell) for cell in cells}


def _beside(notebook: Path) -> Path:
    return notebook.with_suffix(SUFFIX)


def _as_taken(stored: dict[str, Any]) -> Taken:
    hints, shown = stored.get("hints"), stored.get("solution")
    return Taken(hints if type(hints) is int and hints > 0 else 0, shown if isinstance(shown, str) else "")


def _taken(notebook: Path | None, exercise: str) -> Taken:
    stored = help_taken(notebook).get(exercise, Taken()) if notebook else Taken()
    here = _noted.get(exercise, Taken())
    return Taken(max(stored.hints, here.hints), stored.solution or here.solution)


def _note(notebook: Path | None, exercise: str, taken: Taken) -> None:
    """Note it in this process, and beside the notebook if that folder can be written."""
    _noted[exercise] = taken
    if notebook is None:
        return
    noted = {**help_taken(notebook), exercise: taken}
    with suppress(OSError):
        text = json.dumps({name: asdict(one) for name, one in sorted(noted.items())}, indent=1)
        write_atomically(_beside(notebook), text + "\n")


def _here() -> Path:
    try:
        return Path().absolute()
    except OSError:  # the folder is gone
        return Path()


def _show(text: str) -> None:
    """Show Markdown: rendered in a notebook, as it is elsewhere."""
    shell = sys.modules.get("IPython")
    if shell is not None and shell.get_ipython() is not None:
        import_module("IPython.display").display({"text/markdown": text, "text/plain": text}, raw=True)
    else:
        sys.stdout.write(text + "\n")
