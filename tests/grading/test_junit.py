"""JUnit XML of a grade: to the published rules, as pytest writes it, and whatever a student's text holds."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from made_up import STATES, class_of, grade_of_states, hostile, reference

from scalelab.exercises.reference import Reference
from scalelab.grading.grades import Grade
from scalelab.grading.judging.results import ENDED, FAILED, NOT_JUDGED, PASSED, TIMED_OUT
from scalelab.grading.outputs.junit import junit_xml

# What junit-10.xsd allows: per element its attributes (required ones in capitals), and the elements in it. Source:
# jenkinsci/xunit-plugin, src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd
RULES = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"NAME", "TESTS", "FAILURES", "ERRORS", "group", "time", "skipped", "timestamp", "hostname", "id", "package"}
        | {"file", "log", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": (
        {"NAME", "time", "classname", "group"},
        {"skipped", "error", "failure", "rerunFailure", "rerunError", "flakyFailure", "flakyError"}
        | {"system-out", "system-err"},
    ),
    "failure": ({"type", "message"}, set[str]()),
    "error": ({"type", "message"}, set[str]()),
}
SUREFIRE_TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")


def broken_rules(element: Element) -> Iterator[str]:
    """Yield what breaks the rules in an element and all below it."""
    attributes, children = RULES[element.tag]
    required = {name.lower() for name in attributes if name.isupper()}
    if not required <= set(element.attrib) <= {name.lower() for name in attributes}:
        yield f"{element.tag} has {sorted(element.attrib)}"
    if element.tag in {"testsuites", "testsuite"} and not SUREFIRE_TIME.fullmatch(element.get("time", "")):
        yield f"{element.tag} has the time {element.get('time')!r}"
    if children and (element.text or "").strip():
        yield f"{element.tag} holds text"
    for child in element:
        if child.tag in children:
            yield from broken_rules(child)
        else:
            yield f"{element.tag} holds {child.tag}"


def parsed(grade: Grade) -> Element:
    return ElementTree.fromstring(junit_xml(grade).encode())


@pytest.fixture(scope="module")
def asyncio_set() -> Reference:
    return reference("08_asyncio")


def test_every_grade_of_a_class_keeps_the_published_rules(asyncio_set: Reference) -> None:
    for grade in [*class_of(asyncio_set, 80), grade_of_states(asyncio_set, list(STATES))]:
        assert not list(broken_rules(parsed(grade))), grade


def test_the_rules_can_be_broken() -> None:
    broken = '<testsuites x="1"><testsuite name="s" tests="1"><testcase>text<p/></testcase></testsuite></testsuites>'
    assert len(list(broken_rules(ElementTree.fromstring(broken)))) == 5


def test_there_is_a_case_per_check_and_the_numbers_are_right(asyncio_set: Reference) -> None:
    states = [PASSED, FAILED, "hidden failed", TIMED_OUT, NOT_JUDGED, ENDED, "missing"]
    root = parsed(grade_of_states(asyncio_set, states))
    suite = root[0]
    found = {(case.get("classname"), case.get("name")): [one.tag for one in case] for case in suite}
    names = [f"08_asyncio.{question.exercise}" for question in asyncio_set.questions]
    expected = [
        *([[], []], [["failure"], ["failure"]], [[], ["failure"]], [["failure"], ["failure"]]),
        *([["error"], ["error"]], [["failure"], ["failure"]], [["failure"], ["failure"]], [[], []]),
    ]
    checks = ("check", "hidden check")
    assert found == {
        (n, c): e for n, both in zip(names, expected, strict=True) for c, e in zip(checks, both, strict=True)
    }
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "16",
        "failures": "9",
        "errors": "2",
    }


def test_a_failure_says_what_does_not_hold_and_a_hidden_one_only_its_authors_words(asyncio_set: Reference) -> None:
    grade = grade_of_states(asyncio_set, [FAILED, "hidden failed"])
    suite = parsed(grade)[0]
    visible, _, _, hidden = (case.find("failure") for case in suite[:4])
    assert visible is not None
    assert hidden is not None
    missed = next(one.right for one in grade.questions[0].expectations if not one.held)
    assert visible.get("message") == f"failed: {missed}"
    assert visible.text == grade.questions[0].feedback
    assert hidden.text == grade.questions[1].hidden_feedback[0]


def test_hostile_text_stays_text(asyncio_set: Reference) -> None:
    root = parsed(hostile(grade_of_states(asyncio_set, [FAILED, "hidden failed", NOT_JUDGED])))
    assert not list(broken_rules(root))
    assert {element.tag for element in root.iter()} == {"testsuites", "testsuite", "testcase", "failure", "error"}
    text = "".join(root.itertext())
    assert "<script>" in text
    assert "]]>" in text
    assert not re.search("[^\n\t -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)


def test_pytest_writes_no_element_or_attribute_that_means_something_else(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert 0, 'words'\n"
        "def test_is_left_out(): pytest.skip('words')\n"
        "@pytest.fixture\ndef broken(): raise OSError('words')\n"
        "def test_errs(broken): pass\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=own.xml", "."]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    theirs = ElementTree.parse(tmp_path / "own.xml").getroot()
    ours = parsed(grade_of_states(reference("08_asyncio"), [PASSED, FAILED, NOT_JUDGED]))
    for tag in ("testsuites", "testsuite", "testcase", "failure", "error"):
        attributes = {name for element in theirs.iter(tag) for name in element.attrib}
        mine = {name for element in ours.iter(tag) for name in element.attrib}
        assert mine, tag
        # pytest gives a failure and an error no type; the rules know one, and readers group by it.
        assert mine - {"type"} <= attributes, tag
