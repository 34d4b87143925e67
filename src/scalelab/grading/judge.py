"""Let nbval judge the answers of one submission, so that each costs its own question only."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scalelab.course.notebooks import Cell, Notebook
from scalelab.grading.merge import Question, Reference, notebook
from scalelab.grading.nbval_run import Kernels, Records, Seen, run
from scalelab.grading.screen import Rules, rules, screen

TOGETHER_S = 5.0
"""The most that a cell may take where all questions share kernels; one that needs longer is judged alone."""
TRIES = 2
VISIBLE, HIDDEN = ROLES = ("check", "hidden")

PASSED = "passed"
FAILED = "failed"
RAISED = "raised"
TIMED_OUT = "timed out"
DIED = "kernel died"
JUDGE_ENDED = "judge ended"
SET_ASIDE = "set aside"
NOT_JUDGED = "not judged"
MOST_FINDINGS = 5
_rules: dict[str, dict[str, Rules]] = {}


@dataclass(frozen=True)
class Verdict:
    """What nbval said of one answer.

    `state` is `passed`, `failed` (one check or both), `raised`, `timed out`, `kernel died`, `judge ended` (twice, the
    answer took the judging process with it), `set aside` (not run, because it reaches for what judges it; a person
    must look) or `not judged` (which is no fault of the answer). `text` says what ended
    the question early; `visible` and `hidden` whether the checks passed; `visible_text` what the failing visible check
    showed; `said` what each failing check printed, and its error's own words; `seconds` how long its cells ran.
    """

    state: str
    text: str = ""
    visible: bool = False
    hidden: bool = False
    visible_text: str = ""
    said: tuple[str, str] = ("", "")
    seconds: float = 0.0


def judge(
    reference: Reference,
    answers: Mapping[str, str],
    *,
    timeout: float,
    kernels: Kernels | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Verdict]:
    """Return nbval's verdict on each of the answers (sources by exercise); `timeout` is in seconds per cell.

    Visible and hidden checks run in kernels apart. First all questions share the two kernels, as in the student's own
    notebook; a question that does not pass there is judged again, alone, and that verdict holds.
    Raises Stopped soon after `stop` is set.
    """
    verdicts = _set_aside(reference, answers)
    left = {name: source for name, source in answers.items() if name not in verdicts}
    bench = _Bench(reference, left, kernels or Kernels(), stop or threading.Event())
    passed = bench.together(min(timeout, TOGETHER_S)) if len(left) > 1 else set()
    verdicts |= bench.alone([name for name in left if name not in passed], timeout)
    verdicts |= {name: Verdict(PASSED, visible=True, hidden=True) for name in passed}
    return {name: replace(verdicts[name], seconds=bench.seconds.get(name, 0.0)) for name in answers}


def _set_aside(reference: Reference, answers: Mapping[str, str]) -> dict[str, Verdict]:
    """Return a verdict on each answer that reaches for what judges it, before anything runs."""
    if reference.digest not in _rules:
        _rules[reference.digest] = rules(reference)
    verdicts = {}
    for name, source in answers.items():
        if found := screen(source, _rules[reference.digest][name]):
            words = "; ".join(map(str, found[:MOST_FINDINGS]))
            verdicts[name] = Verdict(SET_ASIDE, f"A person must look at this answer before it is judged: {words}.")
    return verdicts


class _Bench:
    """Where the answers of one submission are judged; `seconds` sums what each question's cells took."""

    def __init__(
        self, reference: Reference, answers: Mapping[str, str], kernels: Kernels, stop: threading.Event
    ) -> None:
        self.reference, self.answers, self.kernels, self.stop = reference, answers, kernels, stop
        self.questions = {one.exercise: one for one in reference.questions if one.exercise in answers}
        self.seconds = dict.fromkeys(self.questions, 0.0)

    def together(self, timeout: float) -> set[str]:
        """Return the exercises that pass both checks where all share a kernel per role.

        What a kernel's early end has kept from running goes on without the question in which it ended.
        """
        passed: set[str] = set()
        left = list(self.questions)
        while left:
            records, _ = self._run({role: self._notebook(left, role) for role in ROLES}, left, timeout)
            won, unreached = set(), []
            for name in left:
                seen = [self._seen(records, role, self.questions[name], role) for role in ROLES]
                if all(cell.state == PASSED for pair in seen for cell in pair):
                    won.add(name)
                elif not any(cell.state not in {"", PASSED} for pair in seen for cell in pair):
                    unreached.append(name)
            passed |= won
            if len(unreached) == len(left):
                break
            left = unreached
        return passed

    def alone(self, left: Sequence[str], timeout: float) -> dict[str, Verdict]:
        """Return the verdict on each of these exercises, judged in kernels of its own.

        Where the judge ends early, the next one goes on: with the question in hand, because a process that an earlier
        answer left behind may have ended it, and after a second time without it.
        """
        verdicts: dict[str, Verdict] = {}
        tries = dict.fromkeys(left, 0)
        while names := [name for name in left if name not in verdicts]:
            notebooks = {f"{name}.{role}": self._notebook([name], role) for name in names for role in ROLES}
            records, last_words = self._run(notebooks, names, timeout)
            begun = [name for name in names if any(one.partition(".")[0] == name for one, _ in records)]
            # A pytest that began nothing has failed at its first question.
            for name in begun or names[:1]:
                tries[name] += 1
                verdict = self._verdict(self.questions[name], records, timeout, last_words)
                if verdict.state not in {JUDGE_ENDED, NOT_JUDGED} or tries[name] >= TRIES:
                    verdicts[name] = verdict
        return verdicts

    def _notebook(self, names: Sequence[str], role: str) -> Notebook:
        return notebook(self.reference, {name: self.answers[name] for name in names}, role)

    def _run(self, notebooks: Mapping[str, Notebook], names: Sequence[str], timeout: float) -> tuple[Records, str]:
        records, last_words = run(notebooks, timeout=timeout, kernels=self.kernels, stop=self.stop)
        for name in names:
            cells = {cell["id"] for role in ROLES for cell in self._cells(self.questions[name], role)}
            self.seconds[name] += sum(seen.seconds for (_, cell), seen in records.items() if cell in cells)
        return records, last_words

    def _cells(self, question: Question, role: str) -> list[Cell]:
        return [question.answer, question.check(role)]

    def _seen(self, records: Records, name: str, question: Question, role: str) -> list[Seen]:
        return [records.get((name, cell["id"]), Seen()) for cell in self._cells(question, role)]

    def _verdict(self, question: Question, records: Records, timeout: float, last_words: str) -> Verdict:
        cells: dict[str, list[Seen]] = {}
        for role in ROLES:
            name = f"{question.exercise}.{role}"
            for setup in (records.get((name, cell["id"]), Seen()) for cell in self.reference.setup):
                if setup.state not in {"", PASSED} or (role == VISIBLE and not setup.state):
                    return Verdict(NOT_JUDGED, setup.text or last_words or "The judge ended before this question.")
            cells[role] = self._seen(records, name, question, role)
        return _verdict(*cells[VISIBLE], *cells[HIDDEN], timeout=timeout, last_words=last_words)


def _verdict(answer: Seen, visible: Seen, again: Seen, hidden: Seen, *, timeout: float, last_words: str) -> Verdict:
    """Return the verdict on an answer that ran before its visible check, and again before its hidden check."""
    so_far = Verdict(
        FAILED,
        visible=visible.state == PASSED,
        hidden=hidden.state == PASSED,
        visible_text=visible.text if visible.state == FAILED else "",
        said=(visible.said, hidden.said),
    )
    early = {
        "timed out": (TIMED_OUT, f"{{}} ran longer than {timeout:g} s."),
        "died": (DIED, "{} ended its kernel."),
        "begins": (JUDGE_ENDED, "{} ended the process that judges it."),
        "no kernel": (NOT_JUDGED, "No kernel could be started for it."),
        "": (NOT_JUDGED, last_words or "The judge ended before this check."),
    }
    # What an answer shows in the kernel of its hidden check stays there.
    for first, check, which, raised in (
        (answer, visible, "visible", answer.text),
        (again, hidden, "hidden", "The answer failed when it ran again, for its hidden check."),
    ):
        if first.state == "failed":
            return replace(so_far, state=RAISED, text=raised)
        for cell, what in ((first, "The answer"), (check, f"The {which} check")):
            if cell.state in early:
                state, text = early[cell.state]
                return replace(so_far, state=state, text=text.format(what))
    return replace(so_far, state=PASSED if so_far.visible and so_far.hidden else FAILED)
