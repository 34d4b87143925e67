"""A class's submissions, made from an exercise set: what tests and benchmarks of graders hand in.

Every submission is the student notebook of the set with answers in it, as JupyterLab saves it after a run. Of all
answers of a class exactly the stated shares are right, wrong, untouched and so on; who is good at one question is
likelier to be good at the next; and the same seed makes the same class.
"""

from __future__ import annotations

import copy
import platform
import random
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalelab.course import Course
from scalelab.exercises.released import student
from scalelab.exercises.source import Exercise, ExerciseSet, read_set, sources
from scalelab.grading.grades import Grade, QuestionGrade
from scalelab.grading.judging.results import FAILED, PASSED, RAISED, TIMED_OUT
from scalelab.notebooks.format import Notebook, written

RIGHT = "right"
WRONG = "wrong"
UNTOUCHED = "untouched"
BLANK = "blank"
RAISES = "raises"
MISSING = "missing"
ENDLESS = "endless"
HONEST: Mapping[str, float] = {RIGHT: 0.70, WRONG: 0.15, UNTOUCHED: 0.05, BLANK: 0.03, RAISES: 0.04, MISSING: 0.03}
"""Shares of a class's answers: mostly right, for students see the visible checks pass before they hand in."""

UNFINISHED = "raise NotImplementedError('to do')\n"
NEVER_ENDS = "while True:\n    pass\n"
STATES: Mapping[str, Container[str]] = {
    UNTOUCHED: {FAILED, RAISED},
    BLANK: {MISSING},
    RAISES: {RAISED},
    MISSING: {MISSING},
    ENDLESS: {TIMED_OUT},
}
"""The states of answers that earn nothing."""


@dataclass(frozen=True)
class Answer:
    """One answer: its kind, for a wrong one the wrong idea's name, and its source (None: the cell is not there)."""

    kind: str
    idea: str
    source: str | None


@dataclass(frozen=True)
class Paper:
    """One student's submission: whose, where it was written, and the answers by exercise."""

    student: str
    path: Path
    answers: Mapping[str, Answer]


def hand_in(
    exercises: ExerciseSet,
    folder: Path,
    students: int,
    *,
    seed: int,
    shares: Mapping[str, float] = HONEST,
    endless: float = 0.0,
) -> list[Paper]:
    """Write a class's submissions to `folder`/STUDENT/SET/SET.ipynb, where nbgrader looks for them too.

    `shares` are of all answers, and rounded to whole answers; they must sum to 1. `endless` is the share of students
    of whose answers one never ends.
    """
    chance = random.Random(seed)
    hands = _dealt(shares, students, len(exercises.exercises), chance)
    never = set(chance.sample(range(students), round(endless * students)))
    papers = []
    for number, hand in enumerate(hands):
        if number in never:
            hand[chance.randrange(len(hand))] = ENDLESS
        name = f"student-{number + 1:04}"
        answers = {
            one.id: _answer(one, kind, name, chance) for one, kind in zip(exercises.exercises, hand, strict=True)
        }
        path = folder / name / exercises.slug / f"{exercises.slug}.ipynb"
        path.parent.mkdir(parents=True)
        text = written(notebook(exercises, {name: answer.source for name, answer in answers.items()}))
        path.write_text(text, encoding="utf-8", newline="\n")
        papers.append(Paper(name, path, answers))
    return papers


def hand_in_course(
    course: Course,
    folder: Path,
    students: int,
    *,
    seed: int,
    shares: Mapping[str, float] = HONEST,
    endless: float = 0.0,
) -> dict[str, list[Paper]]:
    """Write a class's submissions to every set of a course as `hand_in` does; return them by set."""
    sets = map(read_set, sources(course))
    return {
        one.slug: hand_in(one, folder, students, seed=seed + number, shares=shares, endless=endless)
        for number, one in enumerate(sets)
    }


def not_as_made(papers: Iterable[Paper], grades: Iterable[Grade]) -> list[str]:
    """Return which answers of a class were not graded as they were made: by their state, points and wrong idea."""
    by_student = {grade.student: {one.exercise: one for one in grade.questions} for grade in grades}
    faults = []
    for paper in papers:
        for exercise, answer in paper.answers.items():
            one = by_student.get(paper.student, {}).get(exercise)
            if one is None or not _as_made(answer, one):
                faults.append(f"{paper.student} {exercise}: {answer.kind} {answer.idea}: {one}")
    return faults


def _as_made(answer: Answer, one: QuestionGrade) -> bool:
    if answer.kind == RIGHT:
        return (one.state, one.points) == (PASSED, one.max)
    if answer.kind == WRONG:  # it passes one of its checks at most, which say what is wrong
        return one.points is not None and one.points < one.max and answer.idea in one.ideas
    return one.points == 0 and one.state in STATES[answer.kind]


def notebook(exercises: ExerciseSet, answers: Mapping[str, str | None]) -> Notebook:
    """Return the student notebook with these answers (sources by exercise), as JupyterLab saves it after a run.

    An answer that is None has no cell; one that is not named is untouched.
    """
    filled = copy.deepcopy(student(exercises))
    filled["metadata"]["language_info"] = {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
        "version": platform.python_version(),
    }
    filled["cells"] = [cell for cell in filled["cells"] if answers.get(cell["id"], "") is not None]
    code = [cell for cell in filled["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        cell["source"] = _lines(answers.get(cell["id"]) or "") if cell["id"] in answers else cell["source"]
        cell["execution_count"] = number
        if cell["id"].endswith("-check"):
            cell["outputs"] = [_seen(cell["id"])]
    return filled


def _dealt(shares: Mapping[str, float], students: int, questions: int, chance: random.Random) -> list[list[str]]:
    """Return each student's kinds of answers. What rounding leaves goes to the largest remainders."""
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"the shares sum to {sum(shares.values()):g}; expected 1")
    answers = students * questions
    whole = {kind: int(share * answers) for kind, share in shares.items()}
    for kind in sorted(shares, key=lambda kind: whole[kind] - shares[kind] * answers)[: answers - sum(whole.values())]:
        whole[kind] += 1
    right = whole.pop(RIGHT, 0)
    others = [kind for kind, number in whole.items() for _ in range(number)]
    chance.shuffle(others)
    ability = [chance.random() for _ in range(students)]
    places = sorted(range(answers), key=lambda place: -ability[place // questions] - chance.random())
    hands = [[RIGHT] * questions for _ in range(students)]
    for place, kind in zip(places[right:], others, strict=True):
        hands[place // questions][place % questions] = kind
    return hands


def _answer(exercise: Exercise, kind: str, name: str, chance: random.Random) -> Answer:
    # No two students write the same text: what a grader has found out of one answer is of no use for the next.
    own = f"# {name}\n"
    if kind == WRONG:
        wrong = chance.choice(exercise.wrongs)
        return Answer(kind, wrong.name, own + wrong.source)
    sources = {
        RIGHT: own + exercise.solution,
        UNTOUCHED: exercise.starter,
        BLANK: "",
        RAISES: own + UNFINISHED + exercise.starter,
        MISSING: None,
        ENDLESS: own + NEVER_ENDS + exercise.solution,
    }
    return Answer(kind, "", sources[kind])


def _seen(check: str) -> dict[str, Any]:
    """Return an output that a student may have left under a check; no grader may believe it."""
    return {"name": "stdout", "output_type": "stream", "text": [f"✓ {check}: all is well\n"]}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)
