"""Turn a chapter into the notebook that a student gets: the same cells, with MyST's own syntax as plain Markdown.

JupyterLab's Markdown shows neither roles nor directives. Its MyST extension shows them, but does not resolve citations
of a .bib file and no longer folds the hints of exercises; every other editor shows plain Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from jupytext.myst import myst_to_notebook
from pybtex.database import BibliographyData, Entry, parse_file

from scalelab.course import Chapter, Course
from scalelab.exercises.source import KERNEL
from scalelab.notebooks.format import Cell, Notebook

CITE = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
ROLE = re.compile(r"\{[a-zA-Z][\w:+.-]*\}`([^`]+)`")
TARGET = re.compile(r"(?P<text>[^<]+?)\s*<[^>]+>")
DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}[ \t]*(?P<title>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S
)
OPTION = re.compile(r"(?:^:[\w-]+:[^\n]*\n)+|^---\n.*?^---\n", re.M | re.S)
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<path>[^)\s:#]+\.md)(?P<place>#[^)\s]*)?\)")
CODE = re.compile(r"(^(?P<fence>`{3,}|~{3,})(?!\{)[^\n]*\n.*?^(?P=fence)[ \t]*$)", re.M | re.S)
HEADING = re.compile(r"\A\s*# [^\n]+\n?")
BRACES = re.compile(r"[{}]")
SHOWN_AUTHORS = 2


def chapter_notebook(course: Course, chapter: Chapter) -> Notebook:
    """Return the chapter as a notebook without outputs.

    Its text depends only on the chapter, the references and the names of the chapter files.
    """
    written = myst_to_notebook(chapter.path.read_text(encoding="utf-8"))
    names = {path.name for path in course.chapters.glob("*.md")}
    entries = _references(course)
    cells: list[Cell] = []
    for number, cell in enumerate(written.cells, start=1):
        source = str(cell.source)
        kind: Cell = {"cell_type": str(cell.cell_type), "id": f"{chapter.number}-{number}"}
        kind["metadata"] = dict(cell.metadata)
        if cell.cell_type == "code":
            kind |= {"execution_count": None, "outputs": []}
        else:
            source = plain(source, entries, names)
        cells.append({**kind, "source": source})
    head = next((cell for cell in cells if cell["cell_type"] == "markdown"), None)
    if head is not None:
        head["source"] = HEADING.sub(
            lambda match: f"{match[0].rstrip()}\n\n{_facts(chapter)}\n", head["source"], count=1
        )
    return {
        "cells": cells,
        "metadata": {"kernelspec": dict(KERNEL), "language_info": {"name": "python"}, "title": chapter.title},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def plain(text: str, entries: Mapping[str, Entry], chapters: set[str]) -> str:
    """Return MyST Markdown as plain Markdown, with code blocks unchanged.

    Citations become names and years, directives become block quotes, and other roles become their text. A link to one
    of `chapters` (file names) becomes a link to its notebook; a link to any other page, which is not here, becomes its
    text.
    """
    text = DIRECTIVE.sub(_quoted, text)
    pieces = CODE.split(text)
    # CODE has two groups, so `split` returns prose, code block and fence in turn.
    return "".join(
        _prose(piece, entries, chapters) if place % 3 == 0 else piece if place % 3 == 1 else ""
        for place, piece in enumerate(pieces)
    )


def _prose(text: str, entries: Mapping[str, Entry], chapters: set[str]) -> str:
    text = CITE.sub(lambda match: f"({'; '.join(_cited(key.strip(), entries) for key in match[1].split(','))})", text)
    text = ROLE.sub(lambda match: named["text"] if (named := TARGET.fullmatch(match[1])) else match[1], text)
    return LINK.sub(lambda match: _link(match, chapters), text)


def _link(match: re.Match[str], chapters: set[str]) -> str:
    path = Path(match["path"])
    if path.name not in chapters:
        return match["text"]
    return f"[{match['text']}]({path.with_suffix('.ipynb').as_posix()}{match['place'] or ''})"


def _quoted(match: re.Match[str]) -> str:
    title = match["title"].strip() or match["name"].rpartition(":")[2].capitalize()
    body = OPTION.sub("", match["body"], count=1).strip("\n")
    return "\n".join(["> " + line if line else ">" for line in (f"**{title}**", "", *body.splitlines())])


def _cited(key: str, entries: Mapping[str, Entry]) -> str:
    """Return `Crouch et al. 2004`, as a link if the reference has an address."""
    entry = entries.get(key)
    if entry is None:
        return key
    persons = [" ".join(person.last_names) for person in entry.persons.get("author", ())]
    if not persons:
        names = str(entry.fields.get("key") or entry.fields.get("title") or key)
    elif len(persons) > SHOWN_AUTHORS:
        names = f"{persons[0]} et al."
    else:
        names = " and ".join(persons)
    citation = BRACES.sub("", f"{names} {entry.fields.get('year', '')}").strip()
    url = entry.fields.get("url")
    return f"[{citation}]({url})" if url else citation


def _references(course: Course) -> Mapping[str, Entry]:
    path = course.root / "book" / "references.bib"
    data: BibliographyData = parse_file(str(path)) if path.is_file() else BibliographyData()
    return dict(data.entries)


def _facts(chapter: Chapter) -> str:
    aims = "\n".join(f"- {aim}" for aim in chapter.objectives)
    return f"*{chapter.principle}*\n\n**{chapter.minutes} minutes.** After this you can:\n\n{aims}"
