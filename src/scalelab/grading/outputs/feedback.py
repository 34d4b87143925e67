"""Feedback page for one student: each question's points, the messages of failing checks, a hint, and further reading.

The page tells no more than the grade: of a hidden check, only whether it passed, and its author's messages.
"""

from __future__ import annotations

from scalelab.checks import Verdict
from scalelab.exercises.answers import AMBIGUOUS, DUPLICATED, MISSING, TOO_LONG
from scalelab.grading.grades import Grade, QuestionGrade
from scalelab.grading.judging.results import ENDED, FAILED, NOT_JUDGED, PASSED, RAISED, TIMED_OUT
from scalelab.grading.outputs.html import page
from scalelab.grading.outputs.texts import QuestionTexts, SetTexts

JUDGED = frozenset({PASSED, FAILED, TIMED_OUT, ENDED})
"""The states in which the checks ran, or began to."""

HEADLINES = {
    PASSED: "Solved",
    FAILED: "Not yet",
    RAISED: "Ended with an error",
    TIMED_OUT: "Did not come to an end",
    ENDED: "Ended its own process",
    NOT_JUDGED: "Could not be judged",
    MISSING: "No answer found",
    DUPLICATED: "More than one answer",
    AMBIGUOUS: "No answer found for certain",
    TOO_LONG: "Too long to be judged",
}
MEANING = {
    FAILED: "Your answer runs. What it does is not yet all that the task asks for.",
    RAISED: "Your answer's cell ended with an error, so its checks had nothing to check.",
    TIMED_OUT: "Something ran on until the time of an answer was used up, and was stopped. Look for a loop that cannot "
    "end, or a wait for something that never comes.",
    ENDED: "The process that ran your answer ended before its checks were over: a call that exits, or more memory than "
    "there is, does that.",
    NOT_JUDGED: "Something went wrong on the grader's side. That is not your fault and costs you nothing: your "
    "instructor has been told, and the points are still open.",
    MISSING: "The grader looks for the cell that came with the exercise, and found no code of yours in it.",
    DUPLICATED: "The grader does not choose between answers: keep the cell that you mean, and remove the others.",
    AMBIGUOUS: "More than one cell could be this answer, and the grader does not guess which one you mean.",
    TOO_LONG: "An answer of this size is not run. Perhaps an output or a data file was pasted into its cell.",
}


def feedback_page(grade: Grade, texts: SetTexts) -> str:
    """Return the page of one student for one exercise set, as HTML that makes no request and runs no script."""
    questions = [_template_values(question, texts) for question in grade.questions]
    return page("feedback.html.j2", grade=grade, title=texts.title, questions=questions)


def _template_values(question: QuestionGrade, texts: SetTexts) -> dict[str, object]:
    """Return the template's values for a question, without the grader's own errors, which students do not see."""
    question_texts: QuestionTexts | None = texts.questions.get(question.exercise)
    partly = question.points is not None and 0 < question.points < question.max
    raised_later = question.state == RAISED and bool(
        question.expectations
    )  # the error came in the run for the hidden check
    return {
        "grade": question,
        "title": question_texts.title if question_texts else question.exercise,
        "texts": question_texts,
        "kind": "open" if question.points is None else "solved" if question.state == PASSED else "missed",
        "word": "In part" if partly and question.state == FAILED else HEADLINES.get(question.state, question.state),
        "meaning": "" if raised_later else MEANING.get(question.state, ""),
        "reason": []
        if question.state == NOT_JUDGED
        else [line for line in question.reason.splitlines() if line.strip()],
        "judged": question.state in JUDGED or raised_later,
        "remarks": Verdict(question.exercise, question.expectations, (), question.never_awaited).remarks,
    }
