"""Grades of made-up students, on real references: what pages, exports and reports are tested with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scalelab.checks import Expectation, Verdict
from scalelab.exercises.answers import AMBIGUOUS, DUPLICATED, MISSING, TOO_LONG, Answer
from scalelab.exercises.reference import Question, Reference, read_reference
from scalelab.grading.grades import Grade, QuestionGrade, grade_of
from scalelab.grading.judging.results import (
    ENDED,
    FAILED,
    NOT_JUDGED,
    PASSED,
    RAISED,
    TIMED_OUT,
    CheckResult,
    Result,
)
from scalelab.grading.submissions.layouts import Submission
from scalelab.notebooks.format import text_of
from scalelab.notebooks.untrusted import HandedIn

SOLUTIONS = Path(__file__).parents[2] / "solutions"
SLUGS = tuple(sorted(path.stem for path in SOLUTIONS.glob("[0-9]*.md")))
REASONS = {
    RAISED: "KeyError: '/item/3'\nIt was raised in line 6 of your cell: `print(pages[\"/item/3\"])`",
    TIMED_OUT: "It used more than 10 s of processor time, and was stopped.",
    ENDED: "Its process ended.",
    NOT_JUDGED: "No process could be started. OSError: [Errno 28] No space left on device: '/srv/grader/run'",
}
NO_ANSWER = {
    MISSING: "The answer cell is not in the notebook.",
    DUPLICATED: "2 different cells hold this answer; expected one: keep it, remove the others.",
}
STATES = REASONS | NO_ANSWER
WITHOUT_RESULT = {*NO_ANSWER, AMBIGUOUS, TOO_LONG}
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


def visible_verdict(question: Question, message: str = "") -> Verdict:
    """Return the verdict of the visible check; with a message, that of an answer that fails with it."""
    rights = [line.removeprefix("✓ ") for line in text_of(question.visible["outputs"][0]["text"]).splitlines()]
    expectations = [Expectation(right, held=True) for right in rights]
    if message:
        words = f"You are close: {message} And a sentence that is long enough to be wrapped, as the checks wrap theirs."
        place = min(1, len(rights) - 1)
        expectations[place] = Expectation(rights[place], held=False, words=words, seen="[1, 2, 3]")
    return Verdict(question.exercise, tuple(expectations))


def hidden_verdict(question: Question, message: str = "") -> Verdict:
    """Return the verdict of the hidden check; with a message, that of an answer that fails with it."""
    return Verdict(question.exercise, (Expectation("it works on other inputs", not message, message, "a secret"),))


def result_of(question: Question, state: str, visible: bool = False, hidden: bool = False, idea: int = 0) -> Result:
    """Return the result of judging an answer; a check that failed has recognised the wrong idea of this number."""
    _, message = question.wrong[idea]
    checks = [CheckResult(), CheckResult()]
    if state in {PASSED, FAILED}:
        checks = [
            CheckResult(visible, visible_verdict(question, "" if visible else message)),
            CheckResult(hidden, hidden_verdict(question, "" if hidden or not visible else message)),
        ]
    printed = "asked for 2 pages\n" if state == RAISED else ""
    return Result(state, REASONS.get(state, ""), *checks, printed, seconds=0.4)


def grade_of_states(one: Reference, states: Sequence[str], student: str = "ann") -> Grade:
    """Return a grade whose questions have these states in turn; `passed` and `failed` in the ways there are."""
    ways = {PASSED: (True, True), FAILED: (False, False), "hidden failed": (True, False)}
    answers, results = {}, {}
    for question, state in zip(one.questions, [*states, *[PASSED] * len(one.questions)], strict=False):
        if state in WITHOUT_RESULT:
            answers[question.exercise] = Answer(None, NO_ANSWER.get(state, "No answer."), state)
        else:
            answers[question.exercise] = Answer("pass")
            name = FAILED if state == "hidden failed" else state
            results[question.exercise] = result_of(question, name, *ways.get(state, (False, False)))
    file = f"{student}/{one.slug}.ipynb"
    submission = Submission(file, student, one.slug, 1_763_800_000.5, HandedIn("", "", ()))
    seconds = sum(result.seconds for result in results.values())
    grade = grade_of(one, submission, answers, results, seconds=seconds, made_with=MADE_WITH)
    return replace(grade, answers_digest="0" * 64)


def hostile(grade: Grade) -> Grade:
    """Return the grade with hostile text wherever a student can put text."""
    text = "\n".join(HOSTILE)
    questions = tuple(
        replace(
            question,
            feedback=f"{question.feedback}\n{text}",
            reason=text if question.reason else "",
            expectations=tuple(
                one if one.held else replace(one, seen=text, detail=text) for one in question.expectations
            ),
            never_awaited=HOSTILE,
            printed=text,
            hidden_feedback=(*question.hidden_feedback, *HOSTILE),
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
        questions = [_answered(one, question, place, skill, chance) for place, question in enumerate(one.questions)]
        grade = grade_of_states(one, [], f"student-{number:04}")
        seconds = round(sum(question.seconds for question in questions), 3)
        notes = ("1 answer was found by its text, because its cell had lost its id.",) if chance.random() < 0.1 else ()
        grades.append(replace(grade, questions=tuple(questions), seconds=seconds, notes=notes))
    return grades


def _answered(one: Reference, question: Question, place: int, skill: float, chance: random.Random) -> QuestionGrade:
    accident = chance.random()
    seconds = round(chance.lognormvariate(-1.2, 0.6), 3)
    alone = replace(one, questions=(question,))
    if accident < 0.04:
        state = chance.choice(list(STATES))
        return replace(grade_of_states(alone, [state]).questions[0], seconds=30.1 if state == TIMED_OUT else seconds)
    if chance.random() < skill * (1.15 - 0.09 * place):
        return replace(grade_of_states(alone, [PASSED]).questions[0], seconds=seconds)
    state = "hidden failed" if chance.random() < 0.25 else FAILED
    idea, _ = question.wrong[min(int(chance.expovariate(1.1)), len(question.wrong) - 1)]
    return replace(grade_of_states(alone, [state]).questions[0], ideas=(idea,), seconds=seconds)
