"""A class over all sets whose answers are known: each gets the state and the points that it was made for."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from classes import HONEST, Paper, hand_in_course, not_as_made

from scalelab.course import Course
from scalelab.grading.batch import Summary, grade
from scalelab.grading.judging.fork_server import sandbox_missing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="answers' processes are forked on Linux alone")

STUDENTS = 4
CPU_S = 10.0


@pytest.fixture(scope="module")
def papers(course: Course, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Paper]]:
    return hand_in_course(course, tmp_path_factory.mktemp("class"), STUDENTS, seed=8)


@pytest.fixture(scope="module")
def summary(course: Course, papers: dict[str, list[Paper]], tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = next(iter(papers.values()))[0].path.parents[2]
    out = tmp_path_factory.mktemp("grades")
    return grade(folder, out, course=course, timeout=CPU_S, sandbox=not sandbox_missing(), report=lambda _: None)


def test_every_answer_is_graded_as_it_was_made(papers: dict[str, list[Paper]], summary: Summary) -> None:
    assert len(summary.grades) == STUDENTS * len(papers)
    kinds = Counter(answer.kind for of_set in papers.values() for one in of_set for answer in one.answers.values())
    assert kinds.keys() == HONEST.keys()
    for slug, of_set in papers.items():
        grades = [one for one in summary.grades if one.exercises == slug]
        assert not not_as_made(of_set, grades), slug


def test_a_fault_would_be_seen(papers: dict[str, list[Paper]], summary: Summary) -> None:
    """Compared with the grades of another set, or with none, no answer is as it was made."""
    (first, of_set), *_ = papers.items()
    answers = sum(len(one.answers) for one in of_set)
    others = [one for one in summary.grades if one.exercises != first]
    assert len(not_as_made(of_set, others)) == len(not_as_made(of_set, [])) == answers
