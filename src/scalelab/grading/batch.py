"""Grade a folder of submissions: find them, see what is graded already, judge the rest side by side, keep and tell."""

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

from scalelab.cores import usable_cores
from scalelab.course.answers import Answer
from scalelab.course.exercises import sources
from scalelab.course.find import Course
from scalelab.course.handed_in import HandedIn, NoNotebook, printable, read
from scalelab.course.notebooks import written
from scalelab.course.progress import count, seconds
from scalelab.course.stored import digest_of, own_metadata, stored_notebook
from scalelab.errors import ScalelabError
from scalelab.grading.answers import answers, digest_of_answers, marks
from scalelab.grading.judging.judge import judging
from scalelab.grading.judging.notebook import assembled, checks_of
from scalelab.grading.judging.results import NOT_JUDGED, PASSED, Result
from scalelab.grading.judging.session import Stopped
from scalelab.grading.keeper import Keeper, NotKept, file_name, keeping, write
from scalelab.grading.made_with import made_with
from scalelab.grading.merge import BadReference, Reference, read_reference
from scalelab.grading.outputs import write_outputs
from scalelab.grading.report import Grade, grade_of, show_table
from scalelab.grading.roster import read_roster
from scalelab.grading.submissions import BadInput, Refused, Submission, find

NOTEBOOKS = "notebooks"
"""The folder in OUT for the notebooks that nbval judged."""
MOST_TOGETHER = 20
"""How many submissions one session of nbval judges: its kernel's start is shared, and a lost session costs little."""
MOST_LINES = 40
"""How many lines of one kind the end of a batch shows; the files in OUT have all."""

Judge = Callable[[Reference, Sequence[Mapping[str, str]], Event], Iterator[tuple[int, dict[str, Result]]]]
"""Judges submissions, each the sources of its answers by exercise: yields each one's number and results.

Ends soon after the event is set, by raising.
"""


_Judgeable = Submission | Reference
"""A submission, or a reference's own solutions."""
_Chunk = Sequence[_Judgeable]
"""What is judged in one session, all of one set."""
_Outcome = tuple[Submission, Grade | BaseException]


@dataclass(frozen=True)
class Summary:
    """What a batch came to: the grades, the files that have none and why, and where the table is.

    `before` of the grades were kept by an earlier run, and not judged again.
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

    `jobs` submissions are judged side by side (None: one per core); `timeout` is the processor
    time in seconds that an answer has for each of its checks;
    `dask` is the address of a Dask scheduler whose workers judge in place of this machine. Each grade is written as
    soon as it is there, to `out/SET/STUDENT.json`; `out/grades.csv` has every grade in `out`, those of earlier runs
    included, and so have the pages, exports and reports (`outputs.write_outputs`, for which are `roster`, a CSV, and
    Canvas's `canvas_ids` by set). What an earlier run judged, in the same way, is judged anew only where `again` says
    so: however a run ends, the same call goes on from there.
    Raises BadInput where nothing can be graded, NoSandbox where answers cannot be sandboxed, NotKept where a grade
    cannot be written, and BadReference where a reference is missing, out of step with its source, or does not pass its
    own checks on this machine. A bad submission is reported, and the others are graded.
    """
    if (jobs is not None and jobs < 1) or timeout <= 0:
        raise BadInput(f"jobs is {jobs} and timeout {timeout:g}; expected at least one job, and seconds above 0.")
    kept_in = out / NOTEBOOKS if keep_notebooks else None
    desk = _Desk(references_of(course), _versions(course), made_with(timeout=timeout, sandbox=sandbox), kept_in)
    sets = {slug: marks(reference) for slug, reference in desk.references.items()}
    if unknown := sorted(set(canvas_ids or ()) - set(sets)):
        raise BadInput(f"This course has no set {', '.join(unknown)}; expected one of {', '.join(sorted(sets))}.")
    persons = None if roster is None else read_roster(roster)
    found, refused = find(submissions, sets, leave_out=out)
    for refusal in refused:
        report(f"Not graded: {refusal}.")
    with keeping(out) as keeper:
        kept = {} if again else desk.graded_before(found, keeper)
        left = [submission for submission in found if submission not in kept]
        if kept:
            report(f"{len(kept)} of {count(len(found), 'submission')} graded before, {len(left)} to go.")
        start_judges = partial(_judges, jobs=jobs, timeout=timeout, sandbox=sandbox, dask=dask)
        grades = list(kept.values())
        try:
            for one in grades:
                keeper.keep(one)
            # A cluster's workers may be set up otherwise: they are given nothing before the proof.
            with closing(_results(desk, left, len(kept), start_judges, report, together=dask is None)) as results:
                for submission, result, line in results:
                    if isinstance(result, Grade):
                        keeper.keep(result)
                        grades.append(result)
                    else:
                        refused.append(Refused(submission.file, _why(result)))
                    report(line)
            table = keeper.write_csv()
        except BaseException:
            if grades:
                with suppress(NotKept):
                    keeper.write_csv()
                report(f"{len(grades)} of {count(len(found), 'submission')} graded; the same command goes on.")
            raise
        write_outputs(out, desk.references, roster=persons, canvas_ids=canvas_ids, report=report)
    show_table(grades, desk.used_by(found), report)
    _close(grades, refused, table, report)
    return Summary(tuple(grades), tuple(refused), table, len(kept))


class _InHand(NamedTuple):
    """A submission, what its file holds, and its answers."""

    submission: Submission
    handed_in: HandedIn
    answers: Mapping[str, Answer]

    @property
    def sources(self) -> dict[str, str]:
        return {name: answer.source for name, answer in self.answers.items() if answer.source is not None}


@dataclass(frozen=True)
class _Desk:
    """What submissions are graded with: the references, the student notebooks' versions by set, and by what judges."""

    references: Mapping[str, Reference]
    versions: Mapping[str, str]
    made_with: Mapping[str, str]
    kept_in: Path | None = None

    def reference(self, given: _Judgeable) -> Reference:
        """Return the reference by which something is judged: a reference's own solutions, by itself."""
        return given if isinstance(given, Reference) else self.references[given.exercises]

    def used_by(self, found: Collection[Submission]) -> list[Reference]:
        """Return the references of these submissions, by set."""
        return [self.references[slug] for slug in sorted({submission.exercises for submission in found})]

    def graded_before(self, found: Sequence[Submission], keeper: Keeper) -> dict[Submission, Grade]:
        """Return the grades that are kept for the very answers that lie here now, and were made in the same way.

        A question that could not be judged, through no fault of the answer, has the submission judged again.
        """
        grades = {}
        for submission in found:
            reference = self.references[submission.exercises]
            kept = keeper.kept(submission.exercises, submission.student)
            if kept is None or (kept.reference_digest, kept.made_with) != (reference.digest, self.made_with):
                continue
            if any(question.state == NOT_JUDGED for question in kept.questions):
                continue
            with suppress(NoNotebook):
                one = self.read(submission)
                if digest_of_answers(one.answers) == kept.answers_digest:
                    self.keep_notebook(one)
                    notes = self._notes(submission, one.handed_in, one.answers)
                    grades[submission] = replace(kept, file=submission.file, submitted=submission.modified, notes=notes)
        return grades

    def read(self, submission: Submission) -> _InHand:
        """Read a submission and find its answers. Raises NoNotebook if the file has changed meanwhile."""
        handed_in = read(submission.path)
        return _InHand(submission, handed_in, answers(self.references[submission.exercises], handed_in.cells))

    def grade(self, one: _InHand, results: Mapping[str, Result], seconds: float) -> Grade:
        """Return the grade of a submission, and keep what nbval judged if that is asked for."""
        self.keep_notebook(one)
        return grade_of(
            self.references[one.submission.exercises],
            one.submission,
            one.answers,
            results,
            seconds=seconds,
            cells=one.handed_in.cells,
            notes=self._notes(one.submission, one.handed_in, one.answers),
            made_with=self.made_with,
        )

    def keep_notebook(self, one: _InHand) -> None:
        """Write what nbval judges of a submission, if that is asked for. Raises NotKept."""
        if self.kept_in is not None:
            path = self.kept_in / one.submission.exercises / f"{file_name(one.submission.student)}.ipynb"
            reference = self.references[one.submission.exercises]
            write(path, written(assembled(reference, checks_of(reference, one.sources), for_people=True)))

    def _notes(self, submission: Submission, handed_in: HandedIn, given: Mapping[str, Answer]) -> tuple[str, ...]:
        notes = list(handed_in.notes)
        if handed_in.version and handed_in.version != self.versions.get(submission.exercises, handed_in.version):
            notes.append("The notebook was made from another version of the exercises; the course's own one counted.")
        elif handed_in.checksum and handed_in.checksum != digest_of_answers(given):
            notes.append("The answers are not those that `submit-check` wrote; those in the file counted.")
        notes += [f"{name}: {answer.note}" for name, answer in given.items() if answer.note]
        notes += [f"An older file of the same student was not graded: {file}." for file in submission.older]
        return tuple(notes)


@contextmanager
def _judges(
    used: Collection[Reference], *, jobs: int | None, timeout: float, sandbox: bool, dask: str | None
) -> Iterator[tuple[Judge, int]]:
    """Yield who judges, and how many submissions to give them side by side."""
    if dask is not None:
        from scalelab.grading.cluster import cluster  # noqa: PLC0415 (takes a second, and most have no cluster)

        with cluster(dask, timeout=timeout, sandbox=sandbox) as judges_and_number:
            yield judges_and_number
        return
    with judging(used, sandbox=sandbox, cpu_s=timeout) as judge:
        yield judge.judge, jobs or usable_cores()


def _results(
    desk: _Desk,
    left: Sequence[Submission],
    before: int,
    start_judges: Callable[[Collection[Reference]], AbstractContextManager[tuple[Judge, int]]],
    report: Callable[[str], None],
    *,
    together: bool,
) -> Generator[tuple[Submission, Grade | BaseException, str], None, None]:
    """Yield what becomes of each submission, and a line about it, once the references' own solutions have passed.

    `together`: if possible, each set's first session judges them before its submissions; nothing is told of these until
    then. Else they have sessions of their own, before all others.
    """
    if not left:
        return
    used = desk.used_by(left)
    with start_judges(used) as (judges, side_by_side):
        chunks = _chunks(left, side_by_side)
        unproved, held = len(used), deque[_Outcome]()
        together &= len(used) <= side_by_side  # or much would wait for the last proof
        rounds: list[Sequence[_Chunk]] = [_with_proofs(used, chunks)] if together else [[[one] for one in used], chunks]
        for one_round in rounds:
            progress = _Progress(before + len(left), len(left), side_by_side)
            with closing(_judged(one_round, desk, judges, side_by_side)) as outcomes:
                for outcome in outcomes:
                    if isinstance(outcome, str):
                        report(outcome)
                        unproved -= 1
                    else:
                        held.append(outcome)
                    while held and not unproved:
                        submission, result = held.popleft()
                        yield submission, result, progress.line(submission, result)


def _with_proofs(used: Sequence[Reference], chunks: Sequence[Sequence[Submission]]) -> list[_Chunk]:
    """Put each reference before the first chunk of its set, and these chunks before the others."""
    first = {chunk[0].exercises: chunk for chunk in reversed(chunks)}
    proving: list[_Chunk] = [[reference, *first[reference.slug]] for reference in used]
    return proving + [chunk for chunk in chunks if chunk is not first[chunk[0].exercises]]


def references_of(course: Course) -> dict[str, Reference]:
    """Return the reference of every set, by its name. Raises BadReference where one is missing or out of step."""
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


def _versions(course: Course) -> dict[str, str]:
    """Return the digest of each set's student notebook, as it is handed out; of one that is not there, none."""
    notebooks = {path.stem: stored_notebook(path) for path in course.exercises.glob("*.ipynb")}
    own = {slug: own_metadata(notebook).get("sources") for slug, notebook in notebooks.items()}
    return {slug: digest for slug, digest in own.items() if isinstance(digest, str)}


def _proved(reference: Reference, results: Mapping[str, Result], took: float) -> str:
    """Say that the solutions pass. Raises BadReference: one that fails on this machine would fail every student."""
    failed = [f"{name} ({result.state})" for name, result in results.items() if result.state != PASSED]
    if failed:
        raise BadReference(
            f"solutions/{reference.slug}.ipynb does not pass its own checks on this machine: {', '.join(failed)}. "
            "Nothing was graded. Run `scalelab course check`, which says why."
        )
    return f"{reference.slug}: the {len(results)} solutions pass here ({seconds(took)})."


def _judged(
    chunks: Sequence[_Chunk], desk: _Desk, judges: Judge, side_by_side: int
) -> Generator[_Outcome | str, None, None]:
    """Yield each submission's grade as soon as it is there, or the exception that kept it from being judged.

    Of a reference, yields the line that its solutions pass; raises BadReference where they do not. A failure of the
    judges themselves (any of our own errors but NoNotebook) is raised: it would fail all the others.
    """
    stop = Event()
    done: SimpleQueue[_Outcome | str | BaseException | None] = SimpleQueue()

    def work(chunk: _Chunk) -> None:
        try:
            for one in _judged_together(chunk, desk, judges, stop):
                done.put(one)
            done.put(None)
        except BaseException as error:
            done.put(error)

    with ThreadPoolExecutor(side_by_side) as pool:
        try:
            for chunk in chunks:
                pool.submit(work, chunk)
            running = len(chunks)
            while running:
                one = done.get()
                if one is None:
                    running -= 1
                elif isinstance(one, BaseException):
                    raise one
                else:
                    yield one
        finally:
            # Nothing is left to stop unless this was interrupted.
            stop.set()
            pool.shutdown(cancel_futures=True)


def _chunks(left: Sequence[Submission], side_by_side: int) -> list[Sequence[Submission]]:
    """Divide submissions into those that are judged in one session, each of one set."""
    chunks: list[Sequence[Submission]] = []
    for slug in dict.fromkeys(submission.exercises for submission in left):
        of_set = [submission for submission in left if submission.exercises == slug]
        number = max(ceil(len(of_set) / MOST_TOGETHER), min(side_by_side, len(of_set)))
        size = ceil(len(of_set) / number)
        chunks += [of_set[begin : begin + size] for begin in range(0, len(of_set), size)]
    return chunks


def _judged_together(chunk: _Chunk, desk: _Desk, judges: Judge, stop: Event) -> Iterator[_Outcome | str]:
    in_hand: list[_InHand | Reference] = []
    for given in chunk:
        if isinstance(given, Reference):
            in_hand.append(given)
            continue
        try:
            in_hand.append(desk.read(given))
        except NoNotebook as error:
            yield given, error
    left = dict(enumerate(in_hand))
    before = time.perf_counter()
    try:
        for number, results in judges(desk.reference(chunk[0]), [one.sources for one in in_hand], stop):
            now = time.perf_counter()
            one = in_hand[number]
            if isinstance(one, Reference):
                yield _proved(one, results, now - before)
            else:
                yield one.submission, desk.grade(one, results, now - before)
            del left[number]
            before = now
    except (ScalelabError, Stopped):
        raise
    except Exception as error:  # each by itself: a submission that makes judges fail costs no other its grade
        if len(chunk) > 1:
            for one in left.values():
                yield from _judged_together([one if isinstance(one, Reference) else one.submission], desk, judges, stop)
        elif isinstance(chunk[0], Reference):
            raise
        else:
            yield chunk[0], error


def _why(error: BaseException) -> str:
    said = printable(" ".join(str(error).split()))
    return said if isinstance(error, NoNotebook) else f"could not be judged ({type(error).__name__}: {said})"


class _Progress:
    """Counts the submissions of a batch, and estimates how long those that are left will take."""

    def __init__(self, number: int, left: int, side_by_side: int) -> None:
        self.number, self.left, self.side_by_side = number, left, side_by_side
        self.done = 0
        self.began = time.perf_counter()

    def line(self, submission: Submission, result: Grade | BaseException) -> str:
        """Return the line for one more submission.

        The estimate takes those in work for half done; what an earlier run graded does not enter it.
        """
        self.done += 1
        self.left -= 1
        spent = time.perf_counter() - self.began
        in_work = min(self.side_by_side, self.left) / 2
        ahead = seconds(spent / (self.done + in_work) * (self.left - in_work))
        ending = f"{self.left} left, about {ahead}" if self.left else seconds(spent)
        points = "not judged"
        if isinstance(result, Grade):
            points = f"{result.total}{'' if result.final else '+?'}/{result.max}"
        who = f"{printable(submission.student)} · {submission.exercises}"
        return f"[{self.number - self.left}/{self.number}] {who} · {points} · {ending}"


def _close(grades: Sequence[Grade], refused: Sequence[Refused], table: Path, report: Callable[[str], None]) -> None:
    """Say what a person must look at, and what came of the batch."""
    report("")
    lines = [
        f"Not judged (?): {printable(one.student)}, {one.exercises}, {question.exercise}: "
        + printable(" ".join(question.feedback.split())[-200:])
        for one in sorted(grades, key=lambda grade: (grade.exercises, grade.student))
        for question in one.questions
        if question.state == NOT_JUDGED
    ]
    _say(lines, f"The questions' states stand in {table.parent}.", report)
    _say([f"Not graded: {refusal}." for refusal in refused], "All are named above.", report)
    noted = sum(bool(one.notes) for one in grades)
    if noted:
        report(f"Notes on {count(noted, 'submission')} stand in their grades.")
    report(f"{count(len(grades), 'submission')} graded, {count(len(refused), 'file')} not; grades in {table}")


def _say(lines: Sequence[str], where: str, report: Callable[[str], None]) -> None:
    for line in lines[:MOST_LINES]:
        report(line)
    if len(lines) > MOST_LINES:
        report(f"… and {len(lines) - MOST_LINES} more. {where}")
