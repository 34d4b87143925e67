"""Let nbval judge the answers of one submission, so that each costs its own question only."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scalelab.course.notebooks import Notebook
from scalelab.grading import guard
from scalelab.grading.bindings import independent
from scalelab.grading.merge import EPILOGUE, HIDDEN, PROLOGUE, VISIBLE, Reference, notebook
from scalelab.grading.nbval_run import Kernels, run
from scalelab.grading.records import DIFFERS, Records, Seen
from scalelab.grading.screen import Rules, rules, screen

_parsing = threading.Lock()
"""Python 3.11 cannot parse in several threads: it counts the depth of all their trees in one place, and raises."""
TOGETHER_S = 3.0
"""The most that a cell may take where all questions share kernels; one that needs longer is judged alone."""
TRIES = 2
ROLES = (VISIBLE, HIDDEN)
MOST_FINDINGS = 5
FAILED_AGAIN = "The answer failed when it ran again, for its hidden check."

PASSED = "passed"
FAILED = "failed"
RAISED = "raised"
TIMED_OUT = "timed out"
DIED = "kernel died"
JUDGE_ENDED = "judge ended"
TAMPERED = "tampered"
SET_ASIDE = "set aside"
NOT_JUDGED = "not judged"

_rules: dict[str, dict[str, Rules]] = {}


@dataclass(frozen=True)
class Verdict:
    """What nbval said of one answer.

    `state` is `passed`, `failed` (one check or both), `raised`, `timed out`, `kernel died`, `judge ended` (twice, the
    answer took the judging process with it), `tampered` (it changed what judges it), `set aside` (not run, because it
    reaches for what judges it; a person must look) or `not judged` (which is no fault of the answer). `text` says what
    ended the question early; `visible` and `hidden` whether the checks passed; `visible_text` what the failing visible
    check showed; `said` what each failing check printed, and its error's own words; `seconds` how long its cells ran.
    """

    state: str
    text: str = ""
    visible: bool = False
    hidden: bool = False
    visible_text: str = ""
    said: tuple[str, str] = ("", "")
    seconds: float = 0.0


@dataclass(frozen=True)
class _Hearing:
    """What became of a question's cells in one notebook: its answer, and its check with the guard around it."""

    answer: Seen
    check: Seen

    @property
    def passed(self) -> bool:
        return self.answer.state == self.check.state == PASSED

    @property
    def unreached(self) -> bool:
        """Whether the kernel's end kept something from running before anything of this went wrong."""
        return not self.passed and {self.answer.state, self.check.state} <= {PASSED, ""}

    @property
    def clean(self) -> bool:
        """Whether the answer or the check ran to its end, and the machinery that judges it is untouched."""
        return self.answer.state == FAILED or (self.check.state in {PASSED, FAILED} and not self.touched)

    @property
    def disturbed(self) -> bool:
        """Whether the check fails by what was printed in its cell: what an answer before left there may have spoken,
        such as a coroutine that nobody awaited, whenever Python comes to clear it away.
        """
        return self.check.text.endswith(DIFFERS)

    @property
    def touched(self) -> str:
        """What the answer has changed of what judges it, in words, or ""."""
        lines = self.check.said.splitlines()
        if self.check.state == FAILED and guard.EXPECTED.strip() not in lines:
            lines.append(f"what a cell runs or prints{guard.TOUCHED}".strip())
        return next((line for line in lines if f"{line}\n".endswith(guard.TOUCHED)), "")


def judge(
    reference: Reference,
    answers: Mapping[str, str],
    *,
    timeout: float,
    kernels: Kernels | None = None,
    stop: threading.Event | None = None,
    roles: Sequence[str] = ROLES,
) -> dict[str, Verdict]:
    """Return nbval's verdict on each of the answers (sources by exercise); `timeout` is in seconds per cell.

    `roles` are the checks that judge: visible and hidden ones, or the visible ones alone.
    Visible and hidden checks run in kernels apart. First all questions share the two kernels, as in the student's own
    notebook; what does not pass there, where another answer may be the cause, is judged again, alone, and that holds.
    Raises Stopped soon after `stop` is set.
    """
    verdicts = _set_aside(reference, answers)
    left = {name: source for name, source in answers.items() if name not in verdicts}
    bench = _Bench(reference, left, kernels or Kernels(), stop or threading.Event(), roles)
    bench.together(min(timeout, TOGETHER_S))
    verdicts |= bench.alone(timeout)
    return {name: replace(verdicts[name], seconds=bench.seconds.get(name, 0.0)) for name in answers}


def _set_aside(reference: Reference, answers: Mapping[str, str]) -> dict[str, Verdict]:
    """Return a verdict on each answer that reaches for what judges it, before anything runs."""
    verdicts = {}
    with _parsing:
        if reference.digest not in _rules:
            _rules[reference.digest] = rules(reference)
        for name, source in answers.items():
            if found := screen(source, _rules[reference.digest][name]):
                words = "; ".join(map(str, found[:MOST_FINDINGS]))
                verdicts[name] = Verdict(SET_ASIDE, f"A person must look at this answer before it is judged: {words}.")
    return verdicts


class _Bench:
    """Where the answers of one submission are judged.

    `held` keeps, by exercise and role, what holds; `seconds` sums what a question's cells took.
    """

    def __init__(
        self,
        reference: Reference,
        answers: Mapping[str, str],
        kernels: Kernels,
        stop: threading.Event,
        roles: Sequence[str],
    ) -> None:
        self.reference, self.answers, self.kernels, self.stop, self.roles = reference, answers, kernels, stop, roles
        self.names = [one.exercise for one in reference.questions if one.exercise in answers]
        self.held: dict[tuple[str, str], _Hearing] = {}
        self.seconds = dict.fromkeys(self.names, 0.0)

    def together(self, timeout: float) -> None:
        """Judge all questions in one kernel per role, and hold what passes there.

        A failure holds too where the answer uses no name that an answer before it has bound. Of a kernel that ended
        early nothing holds, for nobody has looked at all that judges: the others share a kernel again, without the
        question in which it ended.
        """
        left = self.names
        while len(left) > 1:
            records, _ = self._run({role: self._notebook(left, role) for role in self.roles}, left, timeout)
            with _parsing:
                free = independent({name: self.answers[name] for name in left})
            ended = set()
            for role in self.roles:
                untouched = records.get((role, EPILOGUE), Seen()).state == PASSED
                for name in left:
                    hearing = _hearing(records, role, name, role)
                    fails_by_itself = hearing.clean and name in free and not hearing.disturbed
                    if untouched and (hearing.passed or fails_by_itself):
                        self.held[name, role] = hearing
                    elif not untouched and not (hearing.passed or hearing.clean or hearing.unreached):
                        ended.add(name)
            left = [name for name in left if name not in ended and self._due(name)] if ended else []

    def alone(self, timeout: float) -> dict[str, Verdict]:
        """Return the verdict on each question; what does not hold yet of it is judged in a kernel of its own.

        Where the judge ends early, the next one goes on: with the question in hand, because a process that an earlier
        answer left behind may have ended it, and after a second time without it.
        """
        verdicts = {name: self._verdict(name, {}, timeout) for name in self.names if not self._due(name)}
        tries = dict.fromkeys(self.names, 0)
        while left := [name for name in self.names if name not in verdicts]:
            due = [(name, role) for name in left for role in self._due(name)]
            notebooks = {_label(name, role): self._notebook([name], role) for name, role in due}
            records, last_words = self._run(notebooks, left, timeout)
            begun = {name for name, role in due if any(label == _label(name, role) for label, _ in records)}
            # A judge that began nothing has failed at its first question.
            for name in begun or left[:1]:
                tries[name] += 1
                verdict = self._verdict(name, records, timeout, last_words)
                if verdict.state not in {JUDGE_ENDED, NOT_JUDGED} or tries[name] >= TRIES:
                    verdicts[name] = verdict
        return verdicts

    def _due(self, name: str) -> list[str]:
        """Return the roles in which a question has still to be judged: none where its answer cannot run."""
        visible = self.held.get((name, VISIBLE))
        if visible is not None and visible.answer.state == FAILED:
            return []
        return [role for role in self.roles if (name, role) not in self.held]

    def _notebook(self, names: Sequence[str], role: str) -> Notebook:
        with _parsing:
            return notebook(self.reference, {name: self.answers[name] for name in names}, role)

    def _run(self, notebooks: Mapping[str, Notebook], names: Sequence[str], timeout: float) -> tuple[Records, str]:
        records, last_words = run(notebooks, timeout=timeout, kernels=self.kernels, stop=self.stop)
        for name in names:
            cells = {cell for role in self.roles for cell in _cells(name, role)}
            self.seconds[name] += sum(seen.seconds for (_, cell), seen in records.items() if cell in cells)
        return records, last_words

    def _verdict(self, name: str, records: Records, timeout: float, last_words: str = "") -> Verdict:
        for seen in (records.get((_label(name, role), PROLOGUE), Seen()) for role in self.roles):
            if seen.state not in {PASSED, ""}:
                return Verdict(NOT_JUDGED, seen.text or last_words or "The judge ended before this question.")
        hearings = {
            role: self.held.get((name, role)) or _hearing(records, _label(name, role), name, role)
            for role in self.roles
        }
        return _verdict(hearings[VISIBLE], hearings.get(HIDDEN), timeout, last_words)


def _label(name: str, role: str) -> str:
    return f"{name}.{role}"


def _cells(name: str, role: str) -> tuple[str, str]:
    """Return the ids of a question's cells in a notebook of the role."""
    return name, f"{name}-{role}"


def _hearing(records: Records, label: str, name: str, role: str) -> _Hearing:
    return _Hearing(*(records.get((label, cell), Seen()) for cell in _cells(name, role)))


def _verdict(visible: _Hearing, hidden: _Hearing | None, timeout: float, last_words: str) -> Verdict:
    """Return the verdict on an answer that ran before its visible check, and, where asked, before its hidden check."""
    so_far = Verdict(
        FAILED,
        visible=visible.passed,
        hidden=hidden is not None and hidden.passed,
        visible_text=visible.check.text if visible.check.state == FAILED else "",
        said=(visible.check.said, hidden.check.said if hidden is not None else ""),
    )
    early = {
        "timed out": (TIMED_OUT, f"{{}} ran longer than {timeout:g} s."),
        "died": (DIED, "{} ended its kernel."),
        "begins": (JUDGE_ENDED, "{} ended the process that judges it."),
        "no kernel": (NOT_JUDGED, "No kernel could be started for it."),
        "": (NOT_JUDGED, last_words or "The judge ended before this check."),
    }
    # What an answer shows in the kernel of its hidden check stays there.
    for hearing, which, raised in ((visible, "visible", visible.answer.text), (hidden, "hidden", FAILED_AGAIN)):
        if hearing is None:
            continue
        if hearing.answer.state == FAILED:
            return replace(so_far, state=RAISED, text=raised)
        if hearing.touched:
            return Verdict(TAMPERED, f"The answer changed what judges it: {hearing.touched}.", said=so_far.said)
        for cell, what in ((hearing.answer, "The answer"), (hearing.check, f"The {which} check")):
            if cell.state in early:
                state, text = early[cell.state]
                return replace(so_far, state=state, text=text.format(what))
    return replace(so_far, state=PASSED if so_far.visible and (hidden is None or so_far.hidden) else FAILED)
