"""The checkpoint of a chapter, as its author writes it, and what is said of one that no page could show."""

from __future__ import annotations

import pytest

from scalelab.author.lint import check
from scalelab.author.quiz import CheckpointQuestion, Choice, answers, faults, questions
from scalelab.course import Course

ASKED = """\
**{number}. Which is `larger`,
2 or 3?**

<details><summary>2</summary>No. 3 is.</details>
<details>
<summary>3, by
 <code>max</code></summary>
Right. It is
2 + 1.
</details>

"""
FIRST = "<details><summary>2</summary>No. 3 is.</details>\n"
CHECKPOINT = f"""\
## Before

**7. No question.**

## Checkpoint

Choose.

{"".join(ASKED.format(number=number) for number in (1, 2, 3))}
Now work the exercises.

## Sources

**8. None either.**
"""


def test_questions_are_read_as_they_are_written() -> None:
    choice = (Choice("2", "3 is.", False), Choice("3, by <code>max</code>", "It is 2 + 1.", True))
    assert list(questions(CHECKPOINT)) == [
        CheckpointQuestion(n, "Which is `larger`, 2 or 3?", choice) for n in (1, 2, 3)
    ]
    assert list(faults(CHECKPOINT)) == []
    assert list(faults("## No checkpoint\n")) == []


@pytest.mark.parametrize(
    "block", ["", "<p>3</p>", "<details><summary>3</summary>It is.</details>", "<details>3</details>"]
)
def test_a_block_that_holds_no_answers_is_none(block: str) -> None:
    assert answers(block) is None


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("**3. Which", "3. Which", "has 2 questions, expected 3 or more"),
        ("**3. Which", "**4. Which", "question 4 is the 3. question"),
        ("Right.", "No.", "question 1 has no single right answer"),
        (FIRST, "", "question 1 has 1 readable answer, expected 2 or more"),
        ("No. 3 is.", "3 is.", "question 1 has 0 readable answers, expected 2 or more"),
        (FIRST, f"{FIRST}\n", "question 1 has 1 readable answer, expected 2 or more"),
    ],
)
def test_a_question_that_no_page_could_show_is_named(old: str, new: str, rule: str) -> None:
    assert old in CHECKPOINT
    assert rule in [rule for rule, _ in faults(CHECKPOINT.replace(old, new, 1))]


def test_the_check_of_the_course_names_chapter_rule_and_mend(small_course: Course) -> None:
    chapter = small_course.chapters / "01_first.md"
    broken = CHECKPOINT.replace("Right.", "No.", 1)
    chapter.write_text(chapter.read_text(encoding="utf-8") + "\n" + broken, encoding="utf-8")
    assert [str(problem) for problem in check(small_course, report=lambda _: None)] == [
        "chapters/01_first.md, Checkpoint: question 1 has no single right answer; "
        "begin the comment on one answer with `Right.`."
    ]
