"""Check an exercise notebook at each save, and show the first answer that does not pass: for work in an editor."""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from scalelab.checks._cells import bound_names, free_names, sentences
from scalelab.checks._help import take_hint, take_solution
from scalelab.console import count
from scalelab.errors import ScalelabError
from scalelab.notebooks.files import stored_notebook, unused_path, write_atomically
from scalelab.notebooks.format import Notebook, source_of
from scalelab.notebooks.untrusted import name_of
from scalelab.running.isolated import CellRunner, EndedEarly
from scalelab.student.python_file import (
    SUFFIX,
    BadText,
    Task,
    answers_in,
    as_text,
    setup,
    tasks,
    text_path,
    text_with,
    with_answers,
    with_outputs,
)

POLL_S = 0.25
SETTLE_S = 0.05
CUT_OFF_S = 20.0
IMPORTS = ("from scalelab import checks", "import aiohttp")
"""Imports that most sets need, done once for all answers."""
LAST_LINES = 12
READS_BEFORE_NOTICE = 6
KEYS = "[h] hint  [s] solution  [n] next  [l] list  [q] quit"
PASSED, FAILED = "✓", "✗"


class NotebookNotFound(ScalelabError):
    """There is no exercise notebook of that name, or more than one, or it cannot be read."""


@dataclass(frozen=True)
class Result:
    """Whether an answer passed, the message of its check, and the data of its verdict, if there was one.

    `ended` is False if the answer was stopped.
    """

    passed: bool
    message: str
    printed: str = ""
    error: str = ""
    ended: bool = True
    verdict: dict[str, Any] | None = None

    @property
    def outputs(self) -> list[dict[str, object]]:
        """The outputs of the check's cell in a notebook for this result."""
        outputs: list[dict[str, object]] = []
        if self.printed:
            outputs.append({"name": "stdout", "output_type": "stream", "text": self.printed.splitlines(keepends=True)})
        if not self.passed:
            message = self.error or self.message
            outputs.append({"ename": "CheckFailed", "evalue": message, "output_type": "error", "traceback": [message]})
        return outputs


def find_notebook(wanted: str, workspace: Path | None = None) -> Path:
    """Return the exercise notebook that `wanted` names: a file, or a set's number or name.

    Searches the working directory, the workspace, and `exercises` in the working directory and in each folder above it.
    A plain file stands for the notebook beside it. Raises NotebookNotFound.
    """
    path = Path(wanted)
    if path.suffix in (".ipynb", SUFFIX):
        notebook = path.with_suffix(".ipynb")
        if not notebook.is_file():
            raise NotebookNotFound(f"Expected an exercise notebook at {notebook}; there is none.")
        return notebook
    start = Path.cwd()
    own = [workspace / "exercises"] if workspace is not None else []
    for folder in (start, *own, *(place / "exercises" for place in (start, *start.parents))):
        sets = [path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if "." not in path.stem]  # no kept copies
        matches = [path for path in sets if wanted in (path.stem, path.stem[:2])]
        if len(matches) > 1:
            raise NotebookNotFound(f"{wanted!r} may be {' or '.join(path.name for path in matches)}: name one of them.")
        if matches:
            return matches[0]
    raise NotebookNotFound(
        f"No exercise notebook {wanted!r} in {start}, in a workspace, nor in a folder exercises here or further up. "
        "Change into the folder of your notebooks, or name the file."
    )


class Judge:
    """Runs answers with their checks, each in a process of its own, and remembers the results."""

    def __init__(self, runner: CellRunner) -> None:
        self._runner = runner
        self._known: dict[tuple[str, ...], Result] = {}

    def result(self, before: Sequence[str], task: Task) -> Result:
        """Return the result of a task's answer; `before` are the cells that run first."""
        if task.check is None:
            return Result(False, "The notebook has lost this check. A fresh copy of the notebook has it.")
        cells = (*before, task.answer, task.check)
        if cells in self._known:
            return self._known[cells]
        result = self._run(cells)
        if result.ended:  # a timeout may be the fault of a busy machine
            self._known[cells] = result
        return result

    def knows(self, before: Sequence[str], task: Task) -> bool:
        """Return whether the result is known without running the answer."""
        return task.check is None or (*before, task.answer, task.check) in self._known

    def _run(self, cells: Sequence[str]) -> Result:
        try:
            *setup_cells, answer, check = self._runner.run(cells, timeout=CUT_OFF_S)
        except EndedEarly as error:
            ended = error.status is not None
            reason = "" if ended else " A loop that never ends, or a wait for something that never comes?"
            return Result(False, f"Your answer {error}.{reason}", ended=ended)
        for cell, subject in [
            *((cell, "A cell that the notebook begins with") for cell in setup_cells),
            (answer, "Your answer"),
        ]:
            if cell.failure:
                lines = cell.failure.strip().splitlines()
                return Result(False, "\n".join([f"{subject} fails before it is checked:", *lines[-LAST_LINES:]]))
        message = "\n".join(filter(None, (check.printed.rstrip(), check.error.strip())))
        return Result(check.passed, message, check.printed, check.error, verdict=check.verdict)


class Files:
    """A notebook and the plain file beside it, if there is one: read again after each save, and kept in step."""

    def __init__(self, notebook: Path, say: Callable[[str], None]) -> None:
        self.path, self.text, self._say = notebook, text_path(notebook), say
        self._agreed: dict[str, str] = {}  # the answers on which both files last agreed
        self._unread = 0
        self._seen = self._stamps()  # before they are read, so that no later save is missed
        self.notebook = self._read()
        self._agree()

    def write_text(self) -> None:
        """Write the plain file from the notebook, unless it exists."""
        if not self.text.exists():
            self._put(self.text, as_text(self.notebook))
            self._agree()

    def saved(self) -> bool:
        """Return whether one of the files was saved since the last call; answers that are new in one go into the other.

        Also returns True, once, if the notebook stays unreadable, so that the notice about it is shown.
        """
        now = self._stamps()
        if now == self._seen:
            return False
        while (later := self._after(SETTLE_S)) != now:  # an editor may still be writing
            now = later
        try:
            self.notebook = self._read()
        except NotebookNotFound as error:  # it is still being written, or broken: try again
            self._unread += 1
            if self._unread != READS_BEFORE_NOTICE:
                return False
            self._say(f"{error} Mend it or undo, and save it again.")
            return True
        self._unread = 0
        self._seen = now
        self._agree()
        return True

    def show(self, results: Mapping[str, Result]) -> None:
        """Write the outputs of checks into the notebook, if there is a plain file."""
        outputs = {name: (result.outputs, result.verdict) for name, result in results.items()}
        notebook = with_outputs(self.notebook, outputs)
        if self.text.exists() and notebook != self.notebook:
            self._put_notebook(notebook)

    def _agree(self) -> None:
        """Copy an answer that changed in one file into the other; if both changed it, the file saved last counts.

        The other file is first copied, so that its answer is not lost.
        """
        in_notebook, in_text = {task.name: task.answer for task in tasks(self.notebook)}, self._in_text()
        if in_text is None:
            return
        differing = [name for name in in_notebook if not _same(in_notebook[name], in_text[name])]
        to_text = [name for name in differing if _same(in_text[name], self._agreed.get(name))]
        to_notebook = [name for name in differing if _same(in_notebook[name], self._agreed.get(name))]
        disputed = [name for name in differing if name not in (*to_text, *to_notebook)]
        if disputed:
            (to_notebook if self._text_is_newer() else to_text).extend(disputed)
        if to_text:
            text = text_with(self.text.read_text(encoding="utf-8"), {name: in_notebook[name] for name in to_text})
            if not self._put(self.text, text):
                return
        if to_notebook:
            whole = with_answers(self.notebook, {name: in_text[name] for name in to_notebook})
            if not self._put_notebook(whole):
                return
        self._agreed = in_notebook | {name: in_text[name] for name in to_notebook}

    def _text_is_newer(self) -> bool:
        """Return whether the plain file counts, because it was saved last; keep a copy of the other file."""
        newer = self.text.stat().st_mtime >= self.path.stat().st_mtime
        latest, older = (self.text, self.path) if newer else (self.path, self.text)
        backup = unused_path(older.parent, f"{older.name}.bak")
        shutil.copy2(older, backup)
        self._say(
            f"{older.name} and {latest.name} held different answers. Those of {latest.name} count, which was saved "
            f"last; {backup.name} keeps the others."
        )
        return newer

    def _put_notebook(self, notebook: Notebook) -> bool:
        done = self._put(self.path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        if done:
            self.notebook = notebook
        return done

    def _put(self, path: Path, text: str) -> bool:
        """Write a file, and return whether that succeeded: not if it was saved since it was read, or is not writable.

        The next check for saved files tries again.
        """
        if self._stamp(path) != self._seen.get(path):
            return False
        try:
            write_atomically(path, text)
        except OSError as error:
            self._say(f"{path.name} cannot be written ({error.strerror or error}). Mend that, and save once more.")
            return False
        self._seen = {**self._seen, path: self._stamp(path)}
        return True

    def _read(self) -> Notebook:
        notebook = stored_notebook(self.path)
        if notebook is None or not tasks(notebook):
            fault = "is not a notebook" if notebook is None else "holds no exercise of the course"
            raise NotebookNotFound(f"{self.path} {fault}.")
        return notebook

    def _in_text(self) -> dict[str, str] | None:
        if not self.text.exists():
            return None
        names = tuple(task.name for task in tasks(self.notebook))
        try:
            return answers_in(self.text.read_text(encoding="utf-8"), names)
        except (BadText, OSError, ValueError) as error:
            self._say(f"{self.text.name}: {error}")
            return None

    def _stamps(self) -> dict[Path, object]:
        return {path: self._stamp(path) for path in (self.path, self.text)}

    def _after(self, seconds: float) -> dict[Path, object]:
        time.sleep(seconds)
        return self._stamps()

    @staticmethod
    def _stamp(path: Path) -> object:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def watch(notebook: Path, *, as_python: bool = False, once: bool = False) -> bool:
    """Show the results of the answers, again at each save, until `q` or Ctrl-C; return whether all of them pass.

    as_python: write a plain file beside the notebook first. once: show the results once, and return. On a terminal,
    keys give hints and solutions; elsewhere, lines are printed one below the other. Raises NotebookNotFound.
    """
    with CellRunner(IMPORTS) as runner:
        screen = _Screen(sys.stdout, live=not once and sys.stdout.isatty() and sys.stdin.isatty())
        files = Files(notebook, screen.notice)
        if as_python:
            files.write_text()
        session = _Session(files, Judge(runner), screen)
        with _keys(live=screen.live) as pressed:  # from the first page on, because it names the keys
            session.check()
            while not once and (key := pressed(POLL_S)) != "q":
                if key:
                    session.press(key)
                if files.saved():
                    session.check()
        return session.done


class _Screen:
    """The display: a page that is redrawn on a terminal, and successive lines elsewhere."""

    def __init__(self, stream: TextIO, *, live: bool) -> None:
        self._stream, self.live = stream, live
        self._notices: list[str] = []

    def notice(self, text: str) -> None:
        self._notices.append(text)

    def draw(self, text: str) -> None:
        if self.live:
            self._stream.write("\x1b[2J\x1b[H")
        parts = [*self._notices, text]
        self._notices = []
        self._stream.write("\n\n".join(parts) + "\n" + ("" if self.live else "\n"))
        self._stream.flush()

    def working(self, text: str) -> None:
        if self.live:
            self._stream.write(f"\r\x1b[2K{text} ")
            self._stream.flush()


class _Session:
    """The results of the answers, and which answer is shown."""

    def __init__(self, files: Files, judge: Judge, screen: _Screen) -> None:
        self._files, self._judge, self._screen = files, judge, screen
        self._results: dict[str, Result] = {}
        self._answers: dict[str, str] = {}
        self._shown = ""
        self._asked = ""

    @property
    def done(self) -> bool:
        return all(result.passed for result in self._results.values())

    def check(self) -> None:
        """Check new answers, and show the answer that was worked on, or the first that does not pass."""
        before, todo = setup(self._files.notebook), tasks(self._files.notebook)
        results = {}
        for task in todo:
            if not self._judge.knows(before, task):
                self._screen.working(f"checking {task.name} …")
            results[task.name] = self._judge.result(before, task)
        worked_on = [task.name for task in todo if task.answer != self._answers.get(task.name, task.answer)]
        self._results, self._answers = results, {task.name: task.answer for task in todo}
        self._files.show({name: self._results[name] for name in worked_on})
        failing = [task.name for task in todo if not results[task.name].passed]
        still = [name for name in (*worked_on, self._shown) if name in failing]
        passed = [name for name in worked_on if name not in failing]
        self._shown = next(iter([*still, *failing]), "")
        self._draw("\n".join(f"{PASSED} {name} passes." for name in passed))

    def press(self, key: str) -> None:
        """Carry out the command of a key; a key without a command redraws the page."""
        if key != "s":
            self._asked = ""
        failing = [name for name, result in self._results.items() if not result.passed]
        if key == "n" and failing:
            place = failing.index(self._shown) + 1 if self._shown in failing else 0
            self._shown = failing[place % len(failing)]
            self._draw()
        elif key == "l":
            titles = {task.name: task.title for task in tasks(self._files.notebook)}
            self._draw("\n".join(f"{_mark(result)} {name}: {titles[name]}" for name, result in self._results.items()))
        elif key == "h" and self._shown:
            self._draw(take_hint(self._files.path, self._shown))
        elif key == "s":
            self._draw(self._solution())
        else:
            self._draw()

    def _solution(self) -> str:
        """Return a solution of the exercise that is shown, at the second request in a row."""
        if not self._shown:
            return "All answers pass. `checks.solution(…)` in a notebook shows the course's own."
        if self._asked != self._shown:
            self._asked = self._shown
            return f"`{self._shown}` has not passed yet. Press s again to see a solution all the same; it is noted."
        return take_solution(self._files.path, self._shown, show_me=True)

    def _draw(self, more: str = "") -> None:
        row = "".join(map(_mark, self._results.values()))
        passed = sum(result.passed for result in self._results.values())
        parts = [f"{self._files.path.name}: {passed} of {count(len(self._results), 'exercise')} passed  {row}"]
        task = next((task for task in tasks(self._files.notebook) if task.name == self._shown), None)
        if task is not None:
            message = self._results[task.name].message
            elsewhere = _from_other_cells(self._files.notebook, task)
            parts += [f"{task.name}: {task.title}", "\n".join([message, *elsewhere])]
        else:
            parts.append(f"All answers pass their checks. {self._files.path.name} can be handed in.")
        if more:
            parts.append(more)
        if self._screen.live:
            parts.append(KEYS)
        self._screen.draw("\n\n".join(parts))


def _from_other_cells(notebook: Notebook, task: Task) -> list[str]:
    """Return a sentence for each name that an answer uses, but only another cell of the notebook defines."""
    answers = {one.name for one in tasks(notebook)}
    own: set[str] = set()
    course: set[str] = set()
    for cell in notebook["cells"]:
        name = name_of(cell)
        if cell.get("cell_type") == "code" and name != task.name and not name.startswith("setup-"):
            (course if name in answers else own).update(bound_names(source_of(cell)))
    free = free_names(task.answer)
    return sentences(free & own, free & course, set().union(*map(bound_names, setup(notebook))))


def _mark(result: Result) -> str:
    return PASSED if result.passed else FAILED


def _same(answer: str, other: str | None) -> bool:
    """Return whether two answers differ only in white space at their ends."""
    return other is not None and answer.strip() == other.strip()


@contextmanager
def _keys(*, live: bool) -> Iterator[Callable[[float], str]]:
    """Yield a function that waits up to so many seconds for a key, and returns it, or an empty string if none came."""
    if not live:
        yield _sleep
    elif os.name == "nt":
        yield _key_on_windows
    else:
        import termios  # noqa: PLC0415 - Windows has none
        import tty  # noqa: PLC0415

        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        try:
            yield _key_on_posix
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _key_on_posix(seconds: float) -> str:
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    if not ready:
        return ""
    return os.read(sys.stdin.fileno(), 1).decode("ascii", "replace").lower() or "q"  # the terminal is gone


def _key_on_windows(seconds: float) -> str:
    import msvcrt  # noqa: PLC0415 - Windows alone has it

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if msvcrt.kbhit():  # type: ignore[attr-defined]
            return str(msvcrt.getwch()).lower()  # type: ignore[attr-defined]
        time.sleep(POLL_S / 10)
    return ""
