"""Grades of made-up students, on real references: what pages, exports and reports are tested with."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scalelab.course.notebooks import text_of
from scalelab.grading.judge import DIED, FAILED, NOT_JUDGED, PASSED, RAISED, SET_ASIDE, TIMED_OUT
from scalelab.grading.merge import Question, Reference, read_reference
from scalelab.grading.report import Grade, QuestionGrade

SOLUTIONS = Path(__file__).parents[2] / "solutions"
SLUGS = ("01_measuring", "02_laws", "06_gil", "08_asyncio", "09_caching")
TRACEBACK = """\
---------------------------------------------------------------------------
KeyError                                  Traceback (most recent call last)
Cell In[4], line 6
      4 session = aiohttp.ClientSession()
      5 pages = {}
----> 6 print(pages["/item/3"])

KeyError: '/item/3'"""
STATES = {
    RAISED: TRACEBACK,
    TIMED_OUT: "The answer ran longer than 30 s.",
    DIED: "The hidden check ended its kernel.",
    NOT_JUDGED: "No kernel could be started. OSError: [Errno 28] No space left on device: '/srv/grader/run'",
    SET_ASIDE: "line 3 reads the frames of its callers (`sys._getframe`)",
    "missing": "The answer cell is not in the notebook.",
    "duplicated": "2 different cells hold this answer; one is due: keep it, remove the others.",
}
MADE_WITH = {"scalelab": "0.1.0", "python": "3.12.8", "grader": "0123456789abcdef", "timeout": "30", "sandbox": "yes"}
# Text that must stay text: markup, formulas, controls, and letters that no file can hold.
HOSTILE = (
    "<script>fetch('//evil.example')</script><img src=x onerror=alert(1)>",
    "</pre></style><h1>100 points</h1>",
    "{{ 7 * 7 }}{% raw %}",
    '=HYPERLINK("http://evil.example","grade")',
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x00 \x08 \r over",
    "\N{RIGHT-TO-LEFT OVERRIDE}stniop 42\N{POP DIRECTIONAL FORMATTING}",
    "half a letter: \ud83d, no character: \uffff",
    "e" + "\N{COMBINING ACUTE ACCENT}" * 400,
    "x" * 10_000,
    "]]> & &amp; \" '",
)


def reference(slug: str) -> Reference:
    """Return one of the course's references."""
    return read_reference(SOLUTIONS / f"{slug}.ipynb")


def question_grade(question: Question, state: str, visible: bool = False, hidden: bool = False) -> QuestionGrade:
    """Return a grade of this state; where the visible check failed, with words for the first wrong idea."""
    undecided = state in {NOT_JUDGED, SET_ASIDE}
    visible_points, hidden_points = question.visible_points * visible, question.hidden_points * hidden
    idea, message = question.wrong[0]
    feedback = STATES.get(state, "")
    if state == FAILED and not visible:
        feedback = f"{check_output(question, message)}\n{question.exercise}: not yet. " + (
            "The lines above that begin with ✗ say what is missing."
        )
    return QuestionGrade(
        exercise=question.exercise,
        state=state,
        points=None if undecided else visible_points + hidden_points,
        max=question.points,
        visible_points=visible_points,
        hidden_points=hidden_points,
        feedback=feedback,
        hidden_feedback=(message,) if state == FAILED and visible else (),
        ideas=(idea,) if state == FAILED else (),
        seconds=0.4,
    )


def check_output(question: Question, message: str) -> str:
    """Return what the visible check prints for an answer whose second expectation does not hold."""
    lines = text_of(question.visible["outputs"][0]["text"]).splitlines()
    at = min(1, len(lines) - 1)
    words = f"You are close: {message} And a sentence that is long enough to be wrapped, as the checks wrap theirs."
    under = textwrap.fill(words, 92, initial_indent="  ", subsequent_indent="  ")
    lines[at] = lines[at].replace("✓", "✗") + f"\n{under}\n  Seen: [1, 2, 3]"
    return "\n".join(lines)


def grade_of_states(one: Reference, states: Sequence[str], student: str = "ann") -> Grade:
    """Return a grade whose questions have these states in turn; `passed` and `failed` in the ways there are."""
    ways = {PASSED: (True, True), FAILED: (False, False), "hidden failed": (True, False)}
    questions = tuple(
        question_grade(question, FAILED if state == "hidden failed" else state, *ways.get(state, (False, False)))
        for question, state in zip(one.questions, [*states, *[PASSED] * len(one.questions)], strict=False)
    )
    return Grade(
        student=student,
        exercises=one.slug,
        file=f"{student}/{one.slug}.ipynb",
        questions=questions,
        answers_digest="0" * 64,
        reference_digest=one.digest,
        submitted=1_763_800_000.5,
        seconds=round(sum(question.seconds for question in questions), 3),
        notes=(),
        made_with=MADE_WITH,
    )


def hostile(grade: Grade) -> Grade:
    """Return the grade with hostile text wherever a student can put text."""
    text = "\n".join(HOSTILE)
    questions = tuple(
        replace(
            question, feedback=f"{question.feedback}\n{text}", hidden_feedback=(*question.hidden_feedback, *HOSTILE)
        )
        for question in grade.questions
    )
    return replace(grade, student=HOSTILE[0], file=text, questions=questions, notes=HOSTILE)


def class_of(one: Reference, size: int, seed: int = 1) -> list[Grade]:
    """Return the grades of a class: some strong, some weak, with a favourite wrong idea per question, and accidents."""
    chance = random.Random(seed)
    grades = []
    for number in range(size):
        skill = chance.betavariate(2.5, 1.5)
        questions = [_answered(question, place, skill, chance) for place, question in enumerate(one.questions)]
        grade = grade_of_states(one, [], f"student-{number:04}")
        seconds = round(sum(question.seconds for question in questions), 3)
        notes = ("1 answer was found by its text, because its cell had lost its id.",) if chance.random() < 0.1 else ()
        grades.append(replace(grade, questions=tuple(questions), seconds=seconds, notes=notes))
    return grades


def _answered(question: Question, place: int, skill: float, chance: random.Random) -> QuestionGrade:
    accident = chance.random()
    seconds = round(chance.lognormvariate(-1.2, 0.6), 3)
    if accident < 0.04:
        state = chance.choice(list(STATES))
        return replace(question_grade(question, state), seconds=30.1 if state == TIMED_OUT else seconds)
    if chance.random() < skill * (1.15 - 0.09 * place):
        return replace(question_grade(question, PASSED, True, True), seconds=seconds)
    visible = chance.random() < 0.25
    idea, _ = question.wrong[min(int(chance.expovariate(1.1)), len(question.wrong) - 1)]
    return replace(question_grade(question, FAILED, visible, False), ideas=(idea,), seconds=seconds)
