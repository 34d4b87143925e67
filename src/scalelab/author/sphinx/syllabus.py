"""The directive `syllabus`: the chapters of the course by part, with links to the chapters that exist."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from scalelab.course import Chapter, Course, chapters


class Syllabus(SphinxDirective):
    """`{syllabus} syllabus.yml`: one list per part, from the data file and the front matter of the chapters."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        relative, absolute = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        course = Course(Path(self.env.srcdir))
        written = {chapter.slug: chapter for chapter in chapters(course)}
        for chapter in written.values():
            self.env.note_dependency(str(chapter.path))
        parts = yaml.safe_load(Path(absolute).read_text("utf-8"))["parts"]
        planned = {entry["slug"] for part in parts for entry in part["chapters"]}
        if not written.keys() <= planned:
            raise self.error(f"{relative} lacks the chapters {sorted(written.keys() - planned)}: add them to a part.")
        return [_section(part, written) for part in parts]


def setup(app: Sphinx) -> None:
    app.add_directive("syllabus", Syllabus)


def _section(part: dict[str, Any], written: dict[str, Chapter]) -> nodes.section:
    section = nodes.section("", nodes.title("", part["part"]), ids=[nodes.make_id(part["part"])])
    section += nodes.paragraph("", part["about"])
    rows = "".join(_row(entry, written.get(entry["slug"])) for entry in part["chapters"])
    section += nodes.raw("", f'<ol class="sl-syllabus">{rows}</ol>', format="html")
    return section


def _row(entry: dict[str, Any], chapter: Chapter | None) -> str:
    number = entry["slug"].split("_")[0]
    principle = chapter.principle if chapter else entry["principle"]
    minutes = f"{chapter.minutes if chapter else entry['minutes']} minutes"
    if chapter:
        name = f'<a href="../chapters/{chapter.slug}.html">{escape(chapter.title)}</a>'
    else:
        name, minutes = f"{escape(entry['title'])} <span class='sl-planned'>planned</span>", f"about {minutes}"
    return (
        f'<li class="{"sl-written" if chapter else "sl-unwritten"}"><span class="sl-number">{number}</span>'
        f'<div><p class="sl-chapter-name">{name}</p>\n<p>{escape(principle)}</p>\n'
        f'<p class="sl-systems">{escape(entry["systems"])}</p></div>\n'
        f'\n<span class="sl-minutes">{minutes}</span></li>'
    )
