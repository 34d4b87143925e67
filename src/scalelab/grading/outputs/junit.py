"""A grade as JUnit XML, in the form of pytest's `xunit2`: a suite per submission, a case per check of a question.

pytest's own writer takes the reports of one session, and has no public API for others. A submission is judged in
several sessions, of which a later one may overrule an earlier one, and a hidden check's report contains text that
students must not see. So this module writes the file from the grade, by the schema that pytest's writer follows:
https://github.com/jenkinsci/xunit-plugin/blob/master/src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd
"""

from __future__ import annotations

from xml.etree import ElementTree

from scalelab.grading.grades import Grade, QuestionGrade
from scalelab.grading.judging.results import NOT_JUDGED, PASSED
from scalelab.grading.outputs.plain_text import legible, on_one_line

CHECKS = ("check", "hidden check")
LONGEST_MESSAGE = 500
"""pytest's own limit for a `message`, in characters; the element contains the whole text."""


def junit_xml(grade: Grade) -> str:
    """Return a grade as JUnit XML.

    A check that did not pass is a `failure` with the question's state as its type; one that the grader could not judge
    is an `error`. Only the suite has a `time`: a grade does not contain the time of a single check.
    """
    suite = ElementTree.Element("testsuite", name=on_one_line(grade.exercises))
    for question in grade.questions:
        for check, points in zip(CHECKS, (question.visible_points, question.hidden_points), strict=True):
            place = f"{grade.exercises}.{question.exercise}"
            case = ElementTree.SubElement(suite, "testcase", classname=on_one_line(place), name=check)
            _outcome(case, question, check, points)
    for name, kind in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        suite.set(name, str(len(list(suite.iter(kind)))))
    suite.set("time", f"{grade.seconds:.3f}")
    suites = ElementTree.Element("testsuites", name=on_one_line(f"{grade.student}: {grade.exercises}"))
    suites.append(suite)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _outcome(case: ElementTree.Element, question: QuestionGrade, check: str, points: int) -> None:
    """Add a failure or an error to a check's case, unless the check passed."""
    kind = "error" if question.state == NOT_JUDGED else "failure"
    if kind == "failure" and (points or question.state == PASSED):
        return
    if check == CHECKS[1] and kind == "failure":
        text, unmet = "\n".join(question.hidden_feedback), question.hidden_feedback
    else:
        text, unmet = (
            question.feedback,
            tuple(expectation.right for expectation in question.expectations if not expectation.held),
        )
    first = on_one_line(next(iter([*unmet, text])), LONGEST_MESSAGE)
    message = f"{question.state}: {first}" if first else f"{question.state}; the {check} is not passed"
    outcome = ElementTree.SubElement(case, kind, type=question.state, message=message[:LONGEST_MESSAGE])
    outcome.text = legible(text)
