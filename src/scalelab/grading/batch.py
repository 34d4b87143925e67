"""Grade a folder of submissions: find them, let them be judged side by side, keep and show what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from scalelab.course.exercises import sources
from scalelab.course.find import Course
from scalelab.course.progress import count, seconds
from scalelab.course.sync import digest_of
from scalelab.grading.answers import answers, marks
from scalelab.grading.judge import NOT_JUDGED, PASSED, judge
from scalelab.grading.keeper import Keeper
from scalelab.grading.merge import BadReference, Reference, read_reference
from scalelab.grading.report import Grade, grade_of, show_table
from scalelab.grading.submissions import BadInput, Refused, Submission, find, printable, read


@dataclass(frozen=True)
class Summary:
    """What a batch came to: the grades, the files that have none and why, and where the table is."""

    grades: tuple[Grade, ...]
    refused: tuple[Refused, ...]
    csv: Path


def grade(
    submissions: Path,
    out: Path,
    *,
    course: Course,
    jobs: int = 2,
    timeout: float = 30.0,
    report: Callable[[str], None] = print,
) -> Summary:
    """Grade the notebooks in `submissions` (or the one file), and write the results into the folder `out`.

    `jobs` submissions are judged side by side; `timeout` is in seconds per cell. Each grade is written as soon as it is
    there, to `out/SET/STUDENT.json`; `out/grades.csv` has every grade in `out`, those of earlier runs included.
    Raises BadInput where nothing can be graded, and BadReference where a reference is missing, out of step with its
    source, or does not pass its own checks on this machine. A bad submission is reported, and the others are graded.
    """
    if jobs < 1 or timeout <= 0:
        raise BadInput(f"jobs is {jobs} and timeout {timeout:g}; expected at least one job, and seconds above 0.")
    references = _references(course)
    sets = {slug: marks(reference) for slug, reference in references.items()}
    found, refused = find(submissions, sets, leave_out=out)
    keeper = Keeper(out)
    for refusal in refused:
        report(f"Not graded: {refusal}.")
    used = [references[slug] for slug in sorted({submission.exercises for submission in found})]
    for reference in used:
        _prove(reference, timeout, report)
    grades: list[Grade] = []
    try:
        for submission, result in _judged(found, references, jobs, timeout, report):
            if isinstance(result, Grade):
                keeper.keep(result)
                grades.append(result)
            else:
                refused.append(Refused(submission.file, f"could not be judged ({type(result).__name__}: {result})"))
                report(f"Not graded: {refused[-1]}.")
    finally:
        table = keeper.write_csv()
    show_table(grades, used, report)
    _close(grades, refused, table, report)
    return Summary(tuple(grades), tuple(refused), table)


def _references(course: Course) -> dict[str, Reference]:
    paths = sorted(course.solutions.glob("*.ipynb"))
    if not paths:
        raise BadReference(f"{course.solutions} holds no reference; run `scalelab course sync`.")
    references = {reference.slug: reference for reference in map(read_reference, paths)}
    for source in sources(course):
        reference = references.get(source.stem)
        if reference is not None and reference.digest != digest_of(source):
            raise BadReference(
                f"solutions/{source.stem}.ipynb was executed from another state of solutions/{source.name} or of "
                "scalelab.checks; run `scalelab course sync`."
            )
    return references


def _prove(reference: Reference, timeout: float, report: Callable[[str], None]) -> None:
    """Let the solutions be judged first: a reference that fails on this machine would fail every student."""
    began = time.perf_counter()
    verdicts = judge(reference, {q.exercise: q.solution for q in reference.questions}, timeout=timeout)
    failed = [f"{name} ({verdict.state})" for name, verdict in verdicts.items() if verdict.state != PASSED]
    if failed:
        raise BadReference(
            f"solutions/{reference.slug}.ipynb does not pass its own checks on this machine: {', '.join(failed)}. "
            "Nothing was graded. Run `scalelab course check`, which says why."
        )
    report(f"{reference.slug}: the {len(verdicts)} solutions pass here ({seconds(time.perf_counter() - began)}).")


def _judged(
    found: Sequence[Submission],
    references: Mapping[str, Reference],
    jobs: int,
    timeout: float,
    report: Callable[[str], None],
) -> Iterator[tuple[Submission, Grade | Exception]]:
    """Yield each submission's grade as soon as it is there, or the exception that kept it from being judged."""
    began = time.perf_counter()
    stop = Event()

    def work(submission: Submission) -> Grade:
        reference = references[submission.exercises]
        given = answers(reference, read(submission.path).cells)
        runnable = {name: answer.source for name, answer in given.items() if answer.source is not None}
        return grade_of(reference, submission, given, judge(reference, runnable, timeout=timeout, stop=stop))

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(work, submission): submission for submission in found}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                submission, error = futures[future], future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                result = future.result() if error is None else error
                left = len(found) - done
                spent = time.perf_counter() - began
                ahead = f"{left} left, about {seconds(spent / done * left)}" if left else seconds(spent)
                points = f"{result.total}/{result.max}" if isinstance(result, Grade) else "not judged"
                who = f"{printable(submission.student)} · {submission.exercises}"
                report(f"[{done}/{len(found)}] {who} · {points} · {ahead}")
                yield submission, result
        finally:
            # Nothing is left to stop unless this was interrupted.
            stop.set()
            pool.shutdown(cancel_futures=True)


def _close(grades: Sequence[Grade], refused: Sequence[Refused], table: Path, report: Callable[[str], None]) -> None:
    report("")
    for one in sorted(grades, key=lambda grade: (grade.exercises, grade.student)):
        for question in one.questions:
            if question.state == NOT_JUDGED:
                words = " ".join(question.feedback.split())[-200:]
                report(f"Not judged (?): {printable(one.student)}, {one.exercises}, {question.exercise}: {words}")
    for refusal in refused:
        report(f"Not graded: {refusal}.")
    report(f"{count(len(grades), 'submission')} graded, {count(len(refused), 'file')} not; grades in {table}")
