"""A page of feedback for one student: what each question got, what a failing check says, a hint, and where to read.

The page tells no more than the grade does: of a hidden check whether it passed, and its author's words.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from scalelab.course.answers import AMBIGUOUS, DUPLICATED, MISSING, TOO_LONG
from scalelab.grading.judge import (
    DIED,
    FAILED,
    FAILED_AGAIN,
    JUDGE_ENDED,
    NOT_JUDGED,
    PASSED,
    RAISED,
    SET_ASIDE,
    TAMPERED,
    TIMED_OUT,
)
from scalelab.grading.legible import legible
from scalelab.grading.pages import page
from scalelab.grading.report import Grade, QuestionGrade
from scalelab.grading.texts import QuestionTexts, SetTexts

WRAPPED_AT = 92
"""Where `scalelab.checks` wraps what it says about a line that does not hold."""
HELD, MISSED, PRINTED = "held", "missed", "printed"
ALL_SAID = re.compile(r"\w+: not yet\. The lines above that begin with ✗ say what is missing\.|-{60,}")
"""Lines that say nothing more: the end of a check's verdict, and the rule above a traceback."""
EARLY = frozenset({TIMED_OUT, DIED, JUDGE_ENDED, TAMPERED})
"""The states whose feedback opens with the grader's own sentence."""
NOTHING_RAN = frozenset({SET_ASIDE, MISSING, DUPLICATED, AMBIGUOUS, TOO_LONG})
"""The states whose feedback is the grader's own sentence."""

WORDS = {
    PASSED: "Solved",
    FAILED: "Not yet",
    RAISED: "Ended with an error",
    TIMED_OUT: "Did not come to an end",
    DIED: "Ended Python itself",
    JUDGE_ENDED: "Ended Python itself",
    TAMPERED: "Changed what judges it",
    NOT_JUDGED: "Could not be judged",
    SET_ASIDE: "Waits for a person",
    MISSING: "No answer found",
    DUPLICATED: "More than one answer",
    AMBIGUOUS: "No answer found for certain",
    TOO_LONG: "Too long to be judged",
}
MEANING = {
    FAILED: "Your answer runs. What it does is not yet all that the task asks for.",
    RAISED: "Your answer's cell ended with an error, so its checks had nothing to check. The last line says which.",
    TIMED_OUT: "Something ran on after the time that a cell has, and was stopped. Look for a loop that cannot end, or "
    "a wait for something that never comes.",
    DIED: "The Python that ran your answer ended: a call that exits, or more memory than there is, does that. Checks "
    "that were still to come could not run.",
    JUDGE_ENDED: "Your answer ended the processes around it, so its checks could not run to their end.",
    TAMPERED: "When your answer had run, something that its checks rely on was no longer what it was, so nothing that "
    "they said could be believed. If you changed it by accident, use a name of your own.",
    NOT_JUDGED: "Something went wrong on the grader's side. That is not your fault and costs you nothing: your "
    "instructor has been told, and the points are still open.",
    SET_ASIDE: "Your answer uses something that the grader does not run before a person has read it. That is a "
    "precaution and no accusation: the points are open until your instructor has looked.",
    MISSING: "The grader looks for the cell that came with the exercise, and found no code of yours in it.",
    DUPLICATED: "The grader does not choose between answers: keep the cell that you mean, and remove the others.",
    AMBIGUOUS: "More than one cell could be this answer, and the grader does not guess which one you mean.",
    TOO_LONG: "An answer of this size is not run. Perhaps an output or a data file was pasted into its cell.",
}
RAISED_AGAIN = (
    "Your answer's cell ran well once, and ended with an error when it ran again in a fresh Python. Does it depend on "
    "a file, on chance, or on the time?"
)


@dataclass(frozen=True)
class Line:
    """A part of what a check showed: a line that held, one that was missed with the words on it, or plain output."""

    kind: str
    text: str
    details: tuple[str, ...] = ()


def feedback_page(grade: Grade, texts: SetTexts) -> str:
    """Return the page of one student for one exercise set, as HTML that makes no request and runs no script."""
    questions = [_shown(question, texts) for question in grade.questions]
    return page("feedback.html.j2", grade=grade, title=texts.title, questions=questions)


def lines_of(text: str) -> list[Line]:
    """Return what a failing check showed, in parts."""
    return list(_joined(_parts(legible(text).rstrip("\n").split("\n")))) if text.strip() else []


def _shown(question: QuestionGrade, texts: SetTexts) -> dict[str, object]:
    """Return what the template shows of a question. Nothing of the judge's own trouble is told to a student."""
    words: QuestionTexts | None = texts.questions.get(question.exercise)
    first, _, rest = question.feedback.partition("\n")
    again = question.state == RAISED and first == FAILED_AGAIN
    early = question.state in EARLY or again
    reason = question.feedback if question.state in NOTHING_RAN else first if early else ""
    output = rest if early else question.feedback if question.state in {FAILED, RAISED} else ""
    partly = question.points is not None and 0 < question.points < question.max
    return {
        "grade": question,
        "title": words.title if words else question.exercise,
        "texts": words,
        "kind": "open" if question.points is None else "solved" if question.state == PASSED else "missed",
        "word": "In part" if partly and question.state == FAILED else WORDS.get(question.state, question.state),
        "meaning": RAISED_AGAIN if again else MEANING.get(question.state, ""),
        "reason": reason,
        "lines": lines_of(output),
        "judged": early or question.state in {PASSED, FAILED},
    }


def _parts(lines: list[str]) -> Iterator[Line]:
    """Yield a part per line, and the words under a line that was missed with it."""
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith("✓ "):
            yield Line(HELD, line[2:])
        elif line.startswith("✗ "):
            start = at
            while at < len(lines) and lines[at].startswith("  "):
                at += 1
            yield Line(MISSED, line[2:], tuple(_unwrapped([under[2:] for under in lines[start:at]])))
        elif not ALL_SAID.fullmatch(line):
            yield Line(PRINTED, line)


def _joined(parts: Iterator[Line]) -> Iterator[Line]:
    """Join lines of plain output that follow each other."""
    plain: list[str] = []
    for part in parts:
        if part.kind == PRINTED:
            plain.append(part.text)
            continue
        yield from _plain(plain)
        plain = []
        yield part
    yield from _plain(plain)


def _plain(lines: list[str]) -> Iterator[Line]:
    text = "\n".join(lines).strip("\n")
    if text.strip():
        yield Line(PRINTED, text)


def _unwrapped(lines: list[str]) -> list[str]:
    """Undo the wrapping: a break is taken out where wrapping both lines as one would put it there again."""
    texts: list[str] = []
    before = ""
    for line in lines:
        joined = before + ("" if re.search(r"\w-$", before) else " ") + line
        if texts and textwrap.wrap(joined, WRAPPED_AT - len("  "), break_long_words=False)[:1] == [before]:
            texts[-1] += joined.removeprefix(before)
        else:
            texts.append(line)
        before = line
    return texts
