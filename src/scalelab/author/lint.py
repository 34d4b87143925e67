"""Check every chapter and every exercise set against the rules of the course; wrong answers are really run."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import nbformat
import yaml
from jsonschema import Draft7Validator

from scalelab.author.quiz import faults as checkpoint_faults
from scalelab.author.sync import relative_path, stored_outputs
from scalelab.checks._verdict import Expectation, Verdict, recognised
from scalelab.console import count, seconds
from scalelab.cores import usable_cores
from scalelab.course import REQUIRED, Course, FrontMatterError, front_matter
from scalelab.exercises.reference import digest_of
from scalelab.exercises.released import reference, student
from scalelab.exercises.source import Exercise, ExerciseSet, Problem, SourceError, Wrong, read_set, sources
from scalelab.notebooks.files import own_metadata, stored_notebook
from scalelab.notebooks.format import Notebook, text_of, written
from scalelab.running.isolated import CellResult, CellRunner, EndedEarly

__all__ = ["Problem", "check"]

CUT_OFF_S = 20.0
LEAST_EXERCISES = 4
LEAST_WRONGS = 4
LONGEST_LINE = 160
SYNC = "run `scalelab course sync`"

NBGRADER_3: dict[str, Any] = {
    "type": "object",
    "required": ["schema_version", "grade", "locked", "solution"],
    "additionalProperties": False,
    "properties": {
        "schema_version": {"const": 3},
        "grade": {"type": "boolean"},
        "locked": {"type": "boolean"},
        "solution": {"type": "boolean"},
        "task": {"type": "boolean"},
        "grade_id": {"type": "string", "pattern": r"^[a-zA-Z0-9_\-]+$"},
        "points": {"type": "number", "minimum": 0},
        "checksum": {"type": "string", "minLength": 32, "maxLength": 32},
        "cell_type": {"enum": ["raw", "code", "markdown"]},
    },
    "if": {"properties": {"grade": {"const": True}}},
    "then": {"required": ["grade_id", "points"]},
    "else": {"properties": {"points": False}},
}
"""nbgrader's cell metadata, version 3, as a JSON schema."""

UNSTABLE = {
    "an absolute path": re.compile(
        r"(?<![\w/.:])/(?:home|Users|root|tmp|var|usr|opt|etc|private|mnt|srv|proc)/[\w.-]+|\b[A-Za-z]:\\\w"
    ),
    "a memory address": re.compile(r"\b0x[0-9a-fA-F]{6,}\b"),
    "a date": re.compile(r"\b(?:19|20)\d\d-\d\d-\d\d\b"),
    "a time of day": re.compile(r"\b\d{1,2}:\d\d:\d\d\b"),
}
VERDICT = re.compile(r"""checks\.verdict\(\s*["']([^"']+)""")
NAMES_A_SET = re.compile(r"\bexercises/(\d\d_[a-z0-9_]+)")


@dataclass(frozen=True)
class _AnswerRun:
    """The result of one answer: errors of the set-up and of the answer, and its visible and its hidden check.

    `ended` says why the run did not finish, if it did not.
    """

    ended: str = ""
    setup: str = ""
    answer: str = ""
    checks: tuple[CellResult, ...] = ()


def check(course: Course, *, only: str = "", report: Callable[[str], None] = print) -> list[Problem]:
    """Return every broken rule of the course, and report each of them and the answers that were run; write nothing.

    only: the slug of the only chapter whose text and exercise set are checked; "" for all. What belongs together
    (contents, chapters, notebooks and their sources) is always checked.
    Each starter, solution and wrong answer runs in its own process, which is stopped after `CUT_OFF_S` seconds.
    """
    problems: list[Problem] = []

    def note(more: Iterable[Problem]) -> None:
        for problem in more:
            problems.append(problem)
            report(str(problem))

    note(_chapters(course, only))
    note(_toc(course))
    note(_strays(course))
    for path in sources(course):
        if only not in ("", path.stem):
            continue
        began = time.perf_counter()
        name = relative_path(course, path)
        try:
            exercises = read_set(path, name=name)
        except SourceError as error:
            note(error.problems)
            continue
        with _runs(exercises) as runs:
            note(_form(exercises, name))
            note(_notebooks(course, path, exercises))
            note(_behaviour(course, exercises, name, runs))
        report(f"{name}: {count(len(runs), 'answer')} run in {seconds(time.perf_counter() - began)}.")
    report(f"{count(len(problems), 'problem')} found." if problems else "Every rule is kept.")
    return problems


def _chapters(course: Course, only: str) -> Iterator[Problem]:
    for path in sorted(course.chapters.glob("*.md")):
        if only not in ("", path.stem):
            continue
        name = relative_path(course, path)
        try:
            header = front_matter(path)
        except FrontMatterError as error:
            rule, _, mend = str(error).removeprefix(f"{path}: ").rstrip(".").partition("; ")
            yield Problem(name, "front matter", rule, mend or "correct the lines between the two '---'")
            continue
        for key in REQUIRED:
            yield from _header_key(name, key, header.get(key))
        text = path.read_text(encoding="utf-8")
        for rule, mend in checkpoint_faults(text):
            yield Problem(name, "Checkpoint", rule, mend)
        for slug in dict.fromkeys(NAMES_A_SET.findall(text)):
            if not (course.solutions / f"{slug}.md").is_file():
                yield Problem(
                    name, "", f"names exercises/{slug}, which no set is the source of", f"write solutions/{slug}.md"
                )


def _header_key(name: str, key: str, value: Any) -> Iterator[Problem]:
    lists = {"prerequisites", "objectives"}
    if value is None:
        yield Problem(name, "front matter", f"lacks {key}", f"add the key {key}")
    elif key == "minutes":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield Problem(name, "front matter", f"minutes is {value!r}", "give a whole number from 1")
    elif key in lists:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            yield Problem(name, "front matter", f"{key} is not a list of texts", "write one '- text' per line below it")
        elif key == "objectives" and not value:
            yield Problem(name, "front matter", "objectives is empty", "say what a reader can do afterwards")
    elif not isinstance(value, str) or not value.strip():
        yield Problem(name, "front matter", f"{key} is not text", f"write the {key} in one line")


def _toc(course: Course) -> Iterator[Problem]:
    path = course.root / "_toc.yml"
    try:
        listed = list(_files_in(yaml.safe_load(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, yaml.YAMLError) as error:
        yield Problem("_toc.yml", "", f"cannot be read ({' '.join(str(error).split())})", "correct it")
        return
    slugs = [Path(file).stem for file in listed if file.startswith("chapters/")]
    existing = {chapter.stem for chapter in course.chapters.glob("[0-9][0-9]_*.md")}
    for slug in sorted(existing - set(slugs)):
        yield Problem("_toc.yml", "", f"does not list chapters/{slug}", f"add '- file: chapters/{slug}'")
    for slug in sorted(set(slugs) - existing):
        yield Problem(
            "_toc.yml", "", f"lists chapters/{slug}, which does not exist", "write the chapter or remove the line"
        )
    for slug in sorted({slug for slug in slugs if slugs.count(slug) > 1}):
        yield Problem("_toc.yml", "", f"lists chapters/{slug} twice", "keep one line")


def _files_in(node: Any) -> Iterator[str]:
    """Yield every page that a table of contents names, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"file", "root"} and isinstance(value, str):
                yield value.removesuffix(".md")
            else:
                yield from _files_in(value)
    elif isinstance(node, list):
        for item in node:
            yield from _files_in(item)


def _strays(course: Course) -> Iterator[Problem]:
    """Yield a problem for each notebook without a source and each source without a chapter."""
    known = {path.stem for path in sources(course)}
    for folder in (course.exercises, course.solutions):
        for path in sorted(folder.glob("*.ipynb")):
            if path.stem not in known:
                yield Problem(
                    relative_path(course, path),
                    "",
                    f"has no source solutions/{path.stem}.md",
                    "remove it, or write one",
                )
    for slug in sorted(known):
        if not (course.chapters / f"{slug}.md").is_file():
            yield Problem(
                f"solutions/{slug}.md", "", f"there is no chapter chapters/{slug}.md", "name the set after a chapter"
            )


def _form(exercises: ExerciseSet, name: str) -> Iterator[Problem]:
    number = len(exercises.exercises)
    if number < LEAST_EXERCISES:
        yield Problem(name, "", f"has {count(number, 'exercise')}, expected four or more", "write more")
    last = exercises.exercises[-1]
    if last.kind != "repair":
        yield Problem(
            name, _where(last), f"the last exercise is of kind {last.kind!r}", "end with one of kind 'repair'"
        )
    for exercise in exercises.exercises:
        named = set(VERDICT.findall(exercise.check))
        if named and exercise.id not in named:
            rule = f"the visible check's verdict is named {min(named)!r}, so that hints on it are not found"
            yield Problem(name, _where(exercise), rule, f"name it {exercise.id!r}")
        wrongs = exercise.wrongs
        if len(wrongs) < LEAST_WRONGS:
            rule = f"has {count(len(wrongs), 'wrong answer')}, expected four or more"
            yield Problem(name, _where(exercise), rule, "add answers that a student might give")
        for wrong, longer in permutations(wrongs, 2):
            if wrong.message in longer.message and (wrong.message != longer.message or wrong.name < longer.name):
                rule = f"the message of {wrong.name} is also in that of {longer.name}"
                yield Problem(name, _where(exercise), rule, "give each wrong idea words of its own")


def _where(exercise: Exercise) -> str:
    return f"exercise {exercise.id} (line {exercise.line})"


def _notebooks(course: Course, source: Path, exercises: ExerciseSet) -> Iterator[Problem]:
    for folder, kind in ((course.exercises, "student notebook"), (course.solutions, "reference")):
        path = folder / f"{exercises.slug}.ipynb"
        name = relative_path(course, path)
        notebook = stored_notebook(path)
        if notebook is None:
            state = "is not a notebook" if path.exists() else "does not exist"
            yield Problem(name, "", f"the {kind} {state}", SYNC)
            continue
        yield from _valid(notebook, name)
        if folder == course.exercises:
            if path.read_bytes() != written(student(exercises)).encode():
                mend = f"{SYNC}, with --force if it was edited by hand (the old one is kept as .bak)"
                yield Problem(name, "", "differs from what its source gives", mend)
        else:
            yield from _reference(notebook, name)
            digest = digest_of(source)
            if own_metadata(notebook).get("digest") != digest:
                yield Problem(name, "", "was executed from another state of its source or of scalelab.checks", SYNC)
            elif path.read_bytes() != written(reference(exercises, stored_outputs(notebook), digest)).encode():
                yield Problem(name, "", "differs from what its source gives", SYNC)


def _valid(notebook: Notebook, name: str) -> Iterator[Problem]:
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield Problem(name, "", f"is not a valid notebook ({str(error).splitlines()[0]})", SYNC)
    validator = Draft7Validator(NBGRADER_3)
    for cell in notebook["cells"]:
        for fault in validator.iter_errors(cell.get("metadata", {}).get("nbgrader")):
            rule = f"its nbgrader metadata is not valid to schema 3 ({fault.message})"
            yield Problem(name, f"cell {cell.get('id')}", rule, SYNC)


def _reference(notebook: Notebook, name: str) -> Iterator[Problem]:
    for cell in notebook["cells"]:
        if not cell.get("metadata", {}).get("nbgrader", {}).get("grade"):
            continue
        where = f"cell {cell.get('id')}"
        if not cell.get("outputs") or cell.get("execution_count") is None:
            yield Problem(name, where, "has no stored output, so nbval passes whatever an answer does", SYNC)
        for output in cell.get("outputs", []):
            if output.get("output_type") != "stream" or output.get("name") != "stdout":
                kind = output.get("name") or output.get("output_type")
                yield Problem(name, where, f"shows {kind}, not printed text alone", "print the verdict in the check")
            for unstable, pattern in UNSTABLE.items():
                if match := pattern.search(text_of(output.get("text"))):
                    rule = f"its output holds {unstable} ({match.group()}), which differs between machines"
                    yield Problem(name, where, rule, f"print something stable in the check, and {SYNC}")


@contextmanager
def _runs(exercises: ExerciseSet) -> Iterator[dict[tuple[str, str], Future[_AnswerRun]]]:
    """Start every answer of the set, and yield the runs by exercise and answer.

    The answers are called `/starter`, `/solution`, or by a wrong answer's name.
    """
    with ExitStack() as stack:
        free: SimpleQueue[CellRunner] = SimpleQueue()
        for _ in range(usable_cores()):
            free.put(stack.enter_context(CellRunner(_imports(exercises))))
        pool = stack.enter_context(ThreadPoolExecutor(usable_cores()))
        runs = {}
        for exercise in exercises.exercises:
            answers = {"/starter": exercise.starter, "/solution": exercise.solution}
            answers |= {wrong.name: wrong.source for wrong in exercise.wrongs}
            for answer, source in answers.items():
                cells = [*exercises.setup, source, exercise.check, exercise.hidden]
                runs[exercise.id, answer] = pool.submit(_run, cells, free)
        yield runs


def _imports(exercises: ExerciseSet) -> list[str]:
    """Return the import statements at the top level of the set's own cells."""
    cells = [
        *exercises.setup,
        *(cell for exercise in exercises.exercises for cell in (exercise.check, exercise.hidden)),
    ]
    nodes: list[ast.stmt] = []
    for cell in cells:
        with suppress(SyntaxError):  # It may be IPython's own syntax; real errors show when the cell runs.
            nodes += ast.parse(cell).body
    return list(dict.fromkeys(ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)))


def _run(cells: list[str], free: SimpleQueue[CellRunner]) -> _AnswerRun:
    runner = free.get()
    try:
        *setup, answer, visible, hidden = runner.run(cells, timeout=CUT_OFF_S)
    except EndedEarly as error:
        return _AnswerRun(ended=str(error))
    finally:
        free.put(runner)
    return _AnswerRun("", "".join(cell.failure for cell in setup), answer.failure, (visible, hidden))


def _expectations(check: CellResult) -> tuple[Expectation, ...]:
    return Verdict.from_data(check.verdict).expectations if check.verdict else ()


def _unmet(check: CellResult) -> str:
    """Return the last line of the messages of the unmet expectations, or else of the error."""
    unmet = [each.words or each.detail for each in _expectations(check) if not each.held]
    return _last_line("\n".join(unmet) or check.error or "it makes no verdict; use checks.verdict")


def _behaviour(
    course: Course, exercises: ExerciseSet, name: str, runs: dict[tuple[str, str], Future[_AnswerRun]]
) -> Iterator[Problem]:
    stored = stored_outputs(stored_notebook(course.solutions / f"{exercises.slug}.ipynb"))
    for exercise in exercises.exercises:
        where = _where(exercise)
        starter, solution = runs[exercise.id, "/starter"].result(), runs[exercise.id, "/solution"].result()
        if solution.setup:
            yield Problem(
                name, where, f"a set-up cell fails ({_last_line(solution.setup)})", "correct the set-up cells"
            )
            continue
        if starter.ended:
            yield Problem(name, where, f"the starter {starter.ended}", "make it fail at once")
        elif starter.checks[0].passed:
            yield Problem(name, where, "the starter passes its visible check", "take more out of it, or check more")
        yield from _solution(solution, exercise, name, stored)
        for wrong in exercise.wrongs:
            rule = _fault_of_wrong(runs[exercise.id, wrong.name].result(), exercise, wrong)
            if rule:
                yield Problem(name, where, f"the wrong answer {wrong.name} {rule[0]}", rule[1])


def _solution(run: _AnswerRun, exercise: Exercise, name: str, stored: dict[str, str]) -> Iterator[Problem]:
    where = _where(exercise)
    if run.ended or run.answer:
        failure = run.ended or f"raises ({_last_line(run.answer)})"
        yield Problem(name, where, f"the solution {failure}", "correct the solution")
        return
    for role, result in zip(("check", "hidden"), run.checks, strict=True):
        if not result.passed:
            rule = f"the solution fails its {role} cell ({_unmet(result)})"
            yield Problem(name, where, rule, "correct the solution or the check")
        elif (before := stored.get(f"{exercise.id}-{role}")) and before != result.printed:
            was, now = _last_line(before), _last_line(result.printed)
            rule = f"the {role} cell prints {now!r} this time, the reference {was!r}"
            yield Problem(name, where, rule, f"{SYNC}; if it stays, seed the check: its output must never change")


def _fault_of_wrong(run: _AnswerRun, exercise: Exercise, wrong: Wrong) -> tuple[str, str] | None:
    """Return the fault in a wrong answer's run, and how to mend it; None if a failing check recognises its idea."""
    if run.ended:
        return run.ended, "let its check detect this without waiting"
    if run.answer:
        return f"raises by itself ({_last_line(run.answer)})", "let it define what the check calls, and the check fail"
    failing = [result for result in run.checks if not result.passed]
    if not failing:
        return "passes both checks", "check what it does wrong"
    declared = [(idea.name, idea.message) for idea in exercise.wrongs]
    expectations = [expectation for result in failing for expectation in _expectations(result)]
    if wrong.name in recognised(expectations, declared):
        return None
    rule = f"fails without its message {wrong.message!r} (it shows {_unmet(failing[0])!r})"
    return rule, "name the idea in the check, or say it there"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines() or ["nothing"]
    return lines[-1] if len(lines[-1]) <= LONGEST_LINE else lines[-1][:LONGEST_LINE] + "…"
