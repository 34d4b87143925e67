"""Judge several submissions in one session of nbval, and return a result for each question."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from scalelab.answers.monitor import WAITS
from scalelab.checks import Verdict
from scalelab.errors import ScalelabError
from scalelab.exercises.reference import HIDDEN, VISIBLE, Reference
from scalelab.grading.judging.assemble import Check, assembled, checks_of
from scalelab.grading.judging.boxes import NotStarted
from scalelab.grading.judging.fork_server import fork_server
from scalelab.grading.judging.nbval_run import Record, Stopped, run
from scalelab.grading.judging.results import ENDED, FAILED, NOT_JUDGED, PASSED, RAISED, TIMED_OUT, CheckResult, Result
from scalelab.notebooks.format import source_of

__all__ = ["Judge", "NoSandbox", "Stopped", "judging"]

NO_SANDBOX = "--no-sandbox"
RAISED_AGAIN = (
    "Your answer's cell ran for its visible check, and ended with an error when it ran again for its hidden check. "
    "Does it depend on a file, on chance, or on the time?"
)
HIDDEN_ENDED = {
    ENDED: "The process of your answer ended in the middle of its hidden check.",
    TIMED_OUT: "Your answer did not come to an end in its hidden check.",
    RAISED: RAISED_AGAIN,
}
"""For each state of a hidden check that ended early, its reason: the real one could reveal the check's inputs."""
NO_VERDICT = (
    "The check of your answer ended without a verdict, twice. Does your answer make it use too much time or memory?"
)
OTHER_OUTPUT = (
    "nbval found another output than the reference's, although the check's verdict is that the answer passed. "
    "Did the check print something else, or raise, after its verdict? If the reference is older than the check, "
    "`scalelab course sync` runs it again."
)
NO_ERROR = (
    "The check's verdict is that the answer failed, although nbval found the output of the reference and no error. "
    "Does the check's code catch CheckFailed around its verdict?"
)
UNREADABLE = "unreadable"
JUDGED_AGAIN = "Judged twice, the second time alone: at first the grader failed, or the answer waited without end."


class NoSandbox(ScalelabError):
    """This system cannot sandbox answers, and `--no-sandbox` was not given."""


@dataclass(frozen=True)
class Judge:
    """Judges answers: `environment` names their fork server, `cpu_s` limits an answer's processor time per check."""

    environment: Mapping[str, str]
    cpu_s: float

    def judge(
        self, reference: Reference, submissions: Sequence[Mapping[str, str]], stop: threading.Event
    ) -> Iterator[tuple[int, dict[str, Result]]]:
        """Yield each submission's number and its results by exercise, as soon as they are complete.

        A submission maps exercises to the sources of their answers. Raises Stopped soon after `stop` is set.
        """
        due = [
            check
            for number, answers in enumerate(submissions)
            for check in checks_of(reference, answers, prefix=f"{number}-")
        ]
        records: dict[str, Record | str] = {}
        left = list(range(len(submissions)))
        for check, record in self._records(reference, due, stop):
            records[check.key] = record
            for number in list(left):
                keys = {other.key for other in due if other.key.startswith(f"{number}-")}
                if not keys <= records.keys():
                    break  # checks run in order
                yield number, {name: _result(number, name, records) for name in submissions[number]}
                left.remove(number)
        for number in left:  # without any answer
            yield number, {}

    def _records(
        self, reference: Reference, due: Sequence[Check], stop: threading.Event
    ) -> Iterator[tuple[Check, Record | str]]:
        """Yield each check in order, with its record, or with the reason why it could not be judged.

        If a session ends early, its last check runs again, alone, and the next session continues behind it. An answer
        that waits without end has such a second chance, too, since a fault of the system can be the reason. If it runs
        out of time again, its hidden check is not run.
        """
        waiting = deque(due)
        suspect = ""  # the check that runs again, alone
        waited: set[str] = set()  # the answers that have had their second chance
        while waiting:
            alone = waiting[0].key == suspect
            last_lines: list[str] = []
            notebook = assembled(reference, [waiting[0]] if alone else waiting)
            records = run(notebook, self.environment, cpu_s=self.cpu_s, stop=stop, last_lines=last_lines)
            for record in map(_readable, records):
                question = record.key.removesuffix(VISIBLE).removesuffix(HIDDEN)
                early = _early(record)
                if not alone and early == (TIMED_OUT, WAITS) and question not in waited:
                    waited.add(question)
                    break
                if not alone and "loaded" in record.details and _failure(record):
                    break
                yield waiting.popleft(), replace(record, alone=alone)
                if alone and early and early[0] == TIMED_OUT and waiting and waiting[0].key == question + HIDDEN:
                    hidden = waiting.popleft()
                    yield hidden, Record(hidden.key, False, 0.0, {"ended": TIMED_OUT, "reason": early[1]})
            if alone and waiting and waiting[0].key == suspect:
                yield waiting.popleft(), "\n".join(last_lines) or "The session of nbval ended without a word."
            suspect = waiting[0].key if waiting and not alone else ""


@contextmanager
def judging(references: Iterable[Reference], *, sandbox: bool, cpu_s: float) -> Iterator[Judge]:
    """Yield a judge of answers to these references. Raises NoSandbox if `sandbox` is set and does not work here."""
    setups = {reference.slug: [source_of(cell) for cell in reference.setup] for reference in references}
    try:
        server = fork_server(setups, boxed=sandbox)
        environment = server.__enter__()
    except NotStarted as error:
        if not sandbox:
            raise
        raise NoSandbox(
            f"Answers cannot be sandboxed here. {error}\n"
            f"Nothing was graded. {NO_SANDBOX} grades without a sandbox: answers then run with your rights, can read "
            "and change your files, use your network, and leave processes behind. Use it in a container or virtual "
            "machine that holds nothing else, or for work that you trust."
        ) from error
    try:
        yield Judge(environment, cpu_s)
    finally:
        server.__exit__(None, None, None)


def _result(number: int, exercise: str, records: Mapping[str, Record | str]) -> Result:
    pair = [records[f"{number}-{exercise}-{role}"] for role in (VISIBLE, HIDDEN)]
    for record in pair:
        if isinstance(record, str):
            return Result(NOT_JUDGED, record)
        if failure := _failure(record):
            return Result(NOT_JUDGED, failure)
    visible, hidden = (record for record in pair if isinstance(record, Record))
    state, reason = _early(visible) or _early(hidden) or (PASSED if visible.passed and hidden.passed else FAILED, "")
    if state == FAILED and "verdict" not in visible.details:
        reason = NO_VERDICT
    if _early(visible) is None and _early(hidden) is not None:
        reason = HIDDEN_ENDED[state]
    if state in {TIMED_OUT, ENDED} and "ended" not in visible.details and _early(visible) is not None:
        reason = ""  # the verdict says it
    return Result(
        state,
        reason,
        _check_result(visible),
        _check_result(hidden),
        str(visible.details.get("printed", "")),
        visible.seconds + hidden.seconds,
        JUDGED_AGAIN if visible.alone or hidden.alone else "",
    )


def _failure(record: Record) -> str:
    """Return the reason if judging failed through no fault of the answer (such as nbval's timeout), else ""."""
    details = record.details
    if UNREADABLE in details:
        return str(details[UNREADABLE])
    if details.keys() & {"raised", "ended"}:
        return ""
    if "verdict" not in details:
        if "loaded" not in details:
            return "No process for the answer started."
        return "" if record.alone else "The check ended without a verdict."
    if record.passed == details["verdict"]["passed"]:
        return ""
    return NO_ERROR if record.passed else OTHER_OUTPUT


def _readable(record: Record) -> Record:
    """Return the record, or one that is a failure if its verdict cannot be read."""
    try:
        _verdict(record.details)
    except ValueError as error:
        reason = f"The verdict's record cannot be read: {error}."
        return replace(record, passed=False, details={"loaded": True, UNREADABLE: reason})
    return record


def _early(record: Record) -> tuple[str, str] | None:
    """Return the state and the reason if an answer ended before its check was over."""
    details = record.details
    if "raised" in details:
        return RAISED, str(details["raised"])
    verdict = _verdict(details)
    if "ended" in details:
        return _ended(details["ended"]), str(details["reason"])
    if verdict is not None and verdict.ended:
        unmet = [expectation.words for expectation in verdict.expectations if not expectation.held]
        return _ended(verdict.ended), unmet[-1] if unmet else ""
    return None


def _ended(state: Any) -> str:
    return TIMED_OUT if state == TIMED_OUT else ENDED


def _check_result(record: Record) -> CheckResult:
    return CheckResult(record.passed, _verdict(record.details))


def _verdict(details: Mapping[str, Any]) -> Verdict | None:
    data = details.get("verdict")
    return None if data is None else Verdict.from_data(data)
