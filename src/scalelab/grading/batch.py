"""Grade a folder of submissions: find them, reuse earlier grades, judge the others side by side, and write results."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import NamedTuple

from scalelab.console import count, seconds
from scalelab.cores import usable_cores
from scalelab.course import Course
from scalelab.errors import ScalelabError
from scalelab.exercises.answers import Answer
from scalelab.exercises.handed_in import answers, digest_of_answers, marks
from scalelab.exercises.reference import BadReference, Reference, references_of
from scalelab.grading.grade_store import GradeStore, NotKept, file_name, open_store, write
from scalelab.grading.grader_version import made_with
from scalelab.grading.grades import Grade, grade_of, show_table
from scalelab.grading.judging.assemble import assembled, checks_of
from scalelab.grading.judging.judge import judging
from scalelab.grading.judging.nbval_run import Stopped
from scalelab.grading.judging.results import NOT_JUDGED, PASSED, Result
from scalelab.grading.outputs.write import write_outputs
from scalelab.grading.submissions.layouts import BadInput, Refused, Submission, find
from scalelab.grading.submissions.roster import read_roster
from scalelab.notebooks.files import own_metadata, stored_notebook
from scalelab.notebooks.format import written
from scalelab.notebooks.untrusted import printable

NOTEBOOKS = "notebooks"
"""The folder in OUT for the notebooks that nbval judged."""
MAX_CHUNK = 20
"""Submissions that one session of nbval judges: they share its kernel's start, and a lost session costs little."""
MAX_LINES = 40
"""Lines of one kind that the end of a batch shows; the files in OUT have all of them."""

Judge = Callable[[Reference, Sequence[Mapping[str, str]], Event], Iterator[tuple[int, dict[str, Result]]]]
"""Judges submissions, given as the sources of their answers by exercise; yields each submission's number and results.

Raises an error soon after the event is set.
"""
_Judgeable = Submission | Reference
"""A submission, or a reference's own solutions."""
_Chunk = Sequence[_Judgeable]
"""Submissions, or references, of one set that one session judges."""
_Outcome = tuple[Submission, Grade | BaseException]


@dataclass(frozen=True)
class Summary:
    """The outcome of a batch: the grades, the refused files with their reasons, and the path of the table.

    `before` is the number of these grades that an earlier run made.
    """

    grades: tuple[Grade, ...]
    refused: tuple[Refused, ...]
    csv: Path
    before: int = 0


def grade(
    submissions: Path,
    out: Path,
    *,
    course: Course,
    jobs: int | None = None,
    timeout: float = 10.0,
    sandbox: bool = True,
    again: bool = False,
    keep_notebooks: bool = False,
    dask: str | None = None,
    roster: Path | None = None,
    canvas_ids: Mapping[str, int] | None = None,
    report: Callable[[str], None] = print,
) -> Summary:
    """Grade the notebooks in `submissions` (or the one file), and write the results into the folder `out`.

    `jobs` submissions are judged side by side (None: one per core); `timeout` is an answer's processor time per check,
    in seconds; `dask` is the address of a Dask scheduler whose workers judge instead of this machine. Each grade is
    written at once, to `out/SET/STUDENT.json`. `out/grades.csv`, the pages, exports and reports contain all grades in
    `out`, also those of earlier runs (`outputs.write_outputs`, which uses `roster`, a CSV, and Canvas's `canvas_ids` by
    set). If a run is interrupted, the same call continues it; with `again`, all submissions are judged again.
    Raises BadInput if nothing can be graded, NoSandbox if answers cannot be sandboxed, NotKept if a grade cannot be
    written, and BadReference if a reference is missing, differs from its source, or does not pass its own checks on
    this machine. A bad submission is reported, and the others are graded.
    """
    if jobs is not None and jobs < 1:
        raise BadInput(f"The number of jobs is {jobs}; expected at least 1.")
    if timeout <= 0:
        raise BadInput(f"The timeout is {timeout:g} s; expected more than 0 s.")
    notebooks_folder = out / NOTEBOOKS if keep_notebooks else None
    context = _GradingContext(
        references_of(course), _versions(course), made_with(timeout=timeout, sandbox=sandbox), notebooks_folder
    )
    sets = {slug: marks(reference) for slug, reference in context.references.items()}
    if unknown := sorted(set(canvas_ids or ()) - set(sets)):
        raise BadInput(f"This course has no set {', '.join(unknown)}; expected one of {', '.join(sorted(sets))}.")
    persons = None if roster is None else read_roster(roster)
    accepted, refused = find(submissions, sets, leave_out=out)
    for refusal in refused:
        report(f"Not graded: {refusal}.")
    with open_store(out) as store:
        earlier = {} if again else context.graded_before(accepted, store)
        remaining = [submission for submission in accepted if submission not in earlier]
        if earlier:
            report(f"{len(earlier)} of {count(len(accepted), 'submission')} graded before, {len(remaining)} to go.")
        start_judges = partial(_judges, jobs=jobs, timeout=timeout, sandbox=sandbox, dask=dask)
        grades = list(earlier.values())
        try:
            for earlier_grade in grades:
                store.keep(earlier_grade)
            # A cluster's workers may be set up differently: they get no submission before the solutions have passed.
            with closing(
                _results(context, remaining, len(earlier), start_judges, report, together=dask is None)
            ) as results:
                for submission, result, line in results:
                    if isinstance(result, Grade):
                        store.keep(result)
                        grades.append(result)
                    else:
                        refused.append(Refused(submission.file, _reason(result)))
                    report(line)
            table = store.write_csv()
        except BaseException:
            if grades:
                with suppress(NotKept):
                    store.write_csv()
                report(f"{len(grades)} of {count(len(accepted), 'submission')} graded; the same command goes on.")
            raise
        write_outputs(out, context.references, roster=persons, canvas_ids=canvas_ids, report=report)
    show_table(grades, context.used_by(accepted), report)
    _report_summary(grades, refused, table, report)
    return Summary(tuple(grades), tuple(refused), table, len(earlier))


class _Answered(NamedTuple):
    """A submission and its answers."""

    submission: Submission
    answers: Mapping[str, Answer]

    @property
    def sources(self) -> dict[str, str]:
        return {name: answer.source for name, answer in self.answers.items() if answer.source is not None}


@dataclass(frozen=True)
class _GradingContext:
    """The data for grading: the references and the student notebooks' versions by set, and the grader's version."""

    references: Mapping[str, Reference]
    versions: Mapping[str, str]
    made_with: Mapping[str, str]
    notebooks_folder: Path | None = None

    def reference(self, judgeable: _Judgeable) -> Reference:
        """Return the reference for a submission; a reference's own solutions are judged by that reference."""
        return judgeable if isinstance(judgeable, Reference) else self.references[judgeable.exercises]

    def used_by(self, submissions: Collection[Submission]) -> list[Reference]:
        """Return the references of these submissions, by set."""
        return [self.references[slug] for slug in sorted({submission.exercises for submission in submissions})]

    def graded_before(self, submissions: Sequence[Submission], store: GradeStore) -> dict[Submission, Grade]:
        """Return the kept grades of submissions that have not changed, if the same grader made them.

        A submission with a question that could not be judged is judged again.
        """
        grades = {}
        for submission in submissions:
            reference = self.references[submission.exercises]
            earlier = store.stored(submission.exercises, submission.student)
            if earlier is None or (earlier.reference_digest, earlier.made_with) != (reference.digest, self.made_with):
                continue
            if any(question.state == NOT_JUDGED for question in earlier.questions):
                continue
            answered = self.answered(submission)
            if digest_of_answers(answered.answers) == earlier.answers_digest:
                self.keep_notebook(answered)
                notes = self._notes(answered)
                grades[submission] = replace(earlier, file=submission.file, submitted=submission.modified, notes=notes)
        return grades

    def answered(self, submission: Submission) -> _Answered:
        """Return a submission and its answers."""
        return _Answered(submission, answers(self.references[submission.exercises], submission.contents.cells))

    def grade(self, answered: _Answered, results: Mapping[str, Result], seconds: float) -> Grade:
        """Return the grade of a submission, and keep its notebook."""
        self.keep_notebook(answered)
        submission = answered.submission
        return grade_of(
            self.references[submission.exercises],
            submission,
            answered.answers,
            results,
            seconds=seconds,
            cells=submission.contents.cells,
            notes=self._notes(answered),
            made_with=self.made_with,
        )

    def keep_notebook(self, answered: _Answered) -> None:
        """Write the notebook that nbval judges, if notebooks are kept. Raises NotKept."""
        if self.notebooks_folder is not None:
            submission = answered.submission
            path = self.notebooks_folder / submission.exercises / f"{file_name(submission.student)}.ipynb"
            reference = self.references[submission.exercises]
            write(path, written(assembled(reference, checks_of(reference, answered.sources), for_people=True)))

    def _notes(self, answered: _Answered) -> tuple[str, ...]:
        submission, submitted_answers = answered
        handed_in = submission.contents
        notes = list(handed_in.notes)
        if handed_in.version and handed_in.version != self.versions.get(submission.exercises, handed_in.version):
            notes.append("The notebook was made from another version of the exercises; the course's own one counted.")
        elif handed_in.checksum and handed_in.checksum != digest_of_answers(submitted_answers):
            notes.append("The answers are not those that `submit-check` wrote; those in the file counted.")
        notes += [f"{name}: {answer.note}" for name, answer in submitted_answers.items() if answer.note]
        notes += [f"An older file of the same student was not graded: {file}." for file in submission.older]
        return tuple(notes)


@contextmanager
def _judges(
    used: Collection[Reference], *, jobs: int | None, timeout: float, sandbox: bool, dask: str | None
) -> Iterator[tuple[Judge, int]]:
    """Yield the judge, and the number of sessions that it runs side by side."""
    if dask is not None:
        from scalelab.grading.dask_cluster import cluster  # noqa: PLC0415 (takes a second, and most have no cluster)

        with cluster(dask, timeout=timeout, sandbox=sandbox) as judges_and_number:
            yield judges_and_number
        return
    with judging(used, sandbox=sandbox, cpu_s=timeout) as judge:
        yield judge.judge, jobs or usable_cores()


def _results(
    context: _GradingContext,
    submissions: Sequence[Submission],
    before: int,
    start_judges: Callable[[Collection[Reference]], AbstractContextManager[tuple[Judge, int]]],
    report: Callable[[str], None],
    *,
    together: bool,
) -> Generator[tuple[Submission, Grade | BaseException, str], None, None]:
    """Yield each submission's outcome and a line about it, once the references' own solutions have passed.

    `together`: if possible, each set's first session judges the solutions before its submissions, whose outcomes are
    held back until then. Otherwise the solutions have sessions of their own, before all others.
    """
    if not submissions:
        return
    used = context.used_by(submissions)
    with start_judges(used) as (judges, side_by_side):
        chunks = _chunks(submissions, side_by_side)
        unproven, held = len(used), deque[_Outcome]()
        together &= len(used) <= side_by_side  # else many outcomes would wait for the last set's solutions
        alone = [[reference] for reference in used]
        rounds: list[Sequence[_Chunk]] = [_with_proofs(used, chunks)] if together else [alone, chunks]
        for round_chunks in rounds:
            progress = _Progress(before + len(submissions), len(submissions), side_by_side)
            with closing(_judged(round_chunks, context, judges, side_by_side)) as outcomes:
                for outcome in outcomes:
                    if isinstance(outcome, str):
                        report(outcome)
                        unproven -= 1
                    else:
                        held.append(outcome)
                    while held and not unproven:
                        submission, result = held.popleft()
                        yield submission, result, progress.line(submission, result)


def _with_proofs(used: Sequence[Reference], chunks: Sequence[Sequence[Submission]]) -> list[_Chunk]:
    """Put each reference before the first chunk of its set, and these chunks before the others."""
    first = {chunk[0].exercises: chunk for chunk in reversed(chunks)}
    proving: list[_Chunk] = [[reference, *first[reference.slug]] for reference in used]
    return proving + [chunk for chunk in chunks if chunk is not first[chunk[0].exercises]]


def _versions(course: Course) -> dict[str, str]:
    """Return the digests of the student notebooks that exist, by set."""
    notebooks = {path.stem: stored_notebook(path) for path in course.exercises.glob("*.ipynb")}
    own = {slug: own_metadata(notebook).get("sources") for slug, notebook in notebooks.items()}
    return {slug: digest for slug, digest in own.items() if isinstance(digest, str)}


def _proof_line(reference: Reference, results: Mapping[str, Result], took: float) -> str:
    """Return a line that says that a set's solutions pass. Raises BadReference if one fails, as every answer would."""
    failed = [f"{name} ({result.state})" for name, result in results.items() if result.state != PASSED]
    if failed:
        raise BadReference(
            f"solutions/{reference.slug}.ipynb does not pass its own checks on this machine: {', '.join(failed)}. "
            "Nothing was graded. Run `scalelab course check`, which says why."
        )
    return f"{reference.slug}: the {len(results)} solutions pass here ({seconds(took)})."


def _judged(
    chunks: Sequence[_Chunk], context: _GradingContext, judges: Judge, side_by_side: int
) -> Generator[_Outcome | str, None, None]:
    """Yield each submission with its grade, or with the error that prevented judging, as soon as it is known.

    For a reference, yield a line that says that its solutions pass, or raise BadReference. Errors of the judges
    themselves (ScalelabErrors) are raised, because they would occur for all other submissions.
    """
    stop = Event()
    done: SimpleQueue[_Outcome | str | BaseException | None] = SimpleQueue()

    def work(chunk: _Chunk) -> None:
        try:
            for outcome in _judged_together(chunk, context, judges, stop):
                done.put(outcome)
            done.put(None)
        except BaseException as error:
            done.put(error)

    with ThreadPoolExecutor(side_by_side) as pool:
        try:
            for chunk in chunks:
                pool.submit(work, chunk)
            running = len(chunks)
            while running:
                outcome = done.get()
                if outcome is None:
                    running -= 1
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    yield outcome
        finally:
            stop.set()  # after an interruption, chunks are still being judged
            pool.shutdown(cancel_futures=True)


def _chunks(submissions: Sequence[Submission], side_by_side: int) -> list[Sequence[Submission]]:
    """Divide submissions into chunks for one session each; a chunk belongs to one set."""
    chunks: list[Sequence[Submission]] = []
    for slug in dict.fromkeys(submission.exercises for submission in submissions):
        of_set = [submission for submission in submissions if submission.exercises == slug]
        number = max(ceil(len(of_set) / MAX_CHUNK), min(side_by_side, len(of_set)))
        size = ceil(len(of_set) / number)
        chunks += [of_set[begin : begin + size] for begin in range(0, len(of_set), size)]
    return chunks


def _judged_together(chunk: _Chunk, context: _GradingContext, judges: Judge, stop: Event) -> Iterator[_Outcome | str]:
    items = [judgeable if isinstance(judgeable, Reference) else context.answered(judgeable) for judgeable in chunk]
    unfinished = dict(enumerate(items))
    began = time.perf_counter()
    try:
        for number, results in judges(context.reference(chunk[0]), [item.sources for item in items], stop):
            now = time.perf_counter()
            item = items[number]
            if isinstance(item, Reference):
                yield _proof_line(item, results, now - began)
            else:
                yield item.submission, context.grade(item, results, now - began)
            del unfinished[number]
            began = now
    except (ScalelabError, Stopped):
        raise
    except Exception as error:  # a submission that makes the judge fail must not cost the others their grades
        if len(chunk) > 1:
            for item in unfinished.values():
                single = item if isinstance(item, Reference) else item.submission
                yield from _judged_together([single], context, judges, stop)
        elif isinstance(chunk[0], Reference):
            raise
        else:
            yield chunk[0], error


def _reason(error: BaseException) -> str:
    return f"could not be judged ({type(error).__name__}: {printable(' '.join(str(error).split()))})"


class _Progress:
    """Counts the submissions of a batch, and estimates the time that is left."""

    def __init__(self, number: int, remaining: int, side_by_side: int) -> None:
        self.number, self.remaining, self.side_by_side = number, remaining, side_by_side
        self.done = 0
        self.began = time.perf_counter()

    def line(self, submission: Submission, result: Grade | BaseException) -> str:
        """Return the line for one more submission.

        The estimate counts submissions in work as half done, and leaves out grades of an earlier run.
        """
        self.done += 1
        self.remaining -= 1
        spent = time.perf_counter() - self.began
        in_work = min(self.side_by_side, self.remaining) / 2
        estimate = seconds(spent / (self.done + in_work) * (self.remaining - in_work))
        ending = f"{self.remaining} left, about {estimate}" if self.remaining else seconds(spent)
        points = "not judged"
        if isinstance(result, Grade):
            points = f"{result.total}{'' if result.final else '+?'}/{result.max}"
        label = f"{printable(submission.student)} · {submission.exercises}"
        return f"[{self.number - self.remaining}/{self.number}] {label} · {points} · {ending}"


def _report_summary(
    grades: Sequence[Grade], refused: Sequence[Refused], table: Path, report: Callable[[str], None]
) -> None:
    """Report the submissions that a person must look at, and the outcome of the batch."""
    report("")
    lines = [
        f"Not judged (?): {printable(grade.student)}, {grade.exercises}, {question.exercise}: "
        + printable(" ".join(question.feedback.split())[-200:])
        for grade in sorted(grades, key=lambda grade: (grade.exercises, grade.student))
        for question in grade.questions
        if question.state == NOT_JUDGED
    ]
    _report_lines(lines, f"The questions' states are in {table.parent}.", report)
    _report_lines([f"Not graded: {refusal}." for refusal in refused], "All are named above.", report)
    if noted := sum(bool(grade.notes) for grade in grades):
        report(f"Notes on {count(noted, 'submission')} are in their grades.")
    report(f"{count(len(grades), 'submission')} graded, {count(len(refused), 'file')} not; grades in {table}")


def _report_lines(lines: Sequence[str], location: str, report: Callable[[str], None]) -> None:
    for line in lines[:MAX_LINES]:
        report(line)
    if len(lines) > MAX_LINES:
        report(f"… and {len(lines) - MAX_LINES} more. {location}")
