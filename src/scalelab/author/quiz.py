"""The checkpoint of a chapter: questions with answers to choose from, as its author writes them.

A question is a paragraph in bold that begins with its number. Its answers follow, each in a box that opens in any
Markdown viewer, JupyterLab included, and shows a comment; this begins with `Right.` for one answer and `No.` for the
others:

    **1. Which is larger?**

    <details><summary>2</summary>No. 3 is.</details>
    <details><summary>3</summary>Right. It is 2 + 1.</details>
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from scalelab.console import count

LEAST_QUESTIONS = 3
LEAST_ANSWERS = 2
SECTION = re.compile(r"^## Checkpoint$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
QUESTION = re.compile(r"^\*\*(\d+)\. (.+?)\*\*$(.*?)(?=^\*\*\d+\. |\Z)", re.MULTILINE | re.DOTALL)
ANSWER = re.compile(r"<details>\s*<summary>(.+?)</summary>\s*(.+?)\s*</details>", re.DOTALL)
VERDICT = re.compile(r"(Right|No)\.\s+(.+)", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """An answer to choose and the comment on it, both as HTML."""

    text: str
    comment: str
    right: bool


@dataclass(frozen=True)
class CheckpointQuestion:
    number: int
    text: str
    answers: tuple[Choice, ...]


def answers(html: str) -> tuple[Choice, ...] | None:
    """Return the answers in a block of HTML, or None if the block holds anything else."""
    choices = []
    for text, comment in ANSWER.findall(html):
        verdict = VERDICT.fullmatch(comment)
        if verdict is None:
            return None
        choices.append(Choice(" ".join(text.split()), " ".join(verdict[2].split()), verdict[1] == "Right"))
    return tuple(choices) if choices and not ANSWER.sub("", html).strip() else None


def questions(chapter: str) -> Iterator[CheckpointQuestion]:
    """Yield the questions in a chapter's text; a question has no answers if they cannot be read."""
    section = SECTION.search(chapter)
    for number, text, below in QUESTION.findall(section[1] if section else ""):
        block = below.strip().partition("</details>\n\n")
        yield CheckpointQuestion(int(number), " ".join(text.split()), answers("".join(block[:2])) or ())


def faults(chapter: str) -> Iterator[tuple[str, str]]:
    """Yield each broken rule of a chapter's checkpoint, if it has one, and how to mend it."""
    if SECTION.search(chapter) is None:
        return
    in_chapter = list(questions(chapter))
    if len(in_chapter) < LEAST_QUESTIONS:
        rule = f"has {count(len(in_chapter), 'question')}, expected {LEAST_QUESTIONS} or more"
        yield rule, "begin each with a line of its own in bold: `**1. What is larger?**`"
    for place, question in enumerate(in_chapter, 1):
        name = f"question {question.number}"
        if question.number != place:
            yield f"{name} is the {place}. question", "number the questions from 1"
        if len(question.answers) < LEAST_ANSWERS:
            readable = count(len(question.answers), "readable answer")
            yield (
                f"{name} has {readable}, expected {LEAST_ANSWERS} or more",
                "write each as `<details><summary>answer</summary>Right. Why</details>`, or with `No.`, "
                "without an empty line between them",
            )
        elif sum(answer.right for answer in question.answers) != 1:
            yield f"{name} has no single right answer", "begin the comment on one answer with `Right.`"
