"""The directive `syllabus`: the chapters of the course by part, with links to the chapters that exist."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from scalelab.course import Chapter, Course, chapters


class Syllabus(SphinxDirective):
    """`{syllabus} syllabus.yml`: a list per part, from `_toc.yml`, front matter and planned chapters."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        relative, absolute = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        course = Course(Path(self.env.srcdir))
        written = {chapter.slug: chapter for chapter in chapters(course)}
        for path in (course.root / "_toc.yml", *(chapter.path for chapter in written.values())):
            self.env.note_dependency(str(path))
        parts = yaml.safe_load(Path(absolute).read_text("utf-8"))["parts"]
        in_part = _slugs_by_part(course)
        known = {part["part"] for part in parts}
        if unknown := sorted(slug for part, slugs in in_part.items() if part not in known for slug in slugs):
            raise self.error(f"The part of {', '.join(unknown)} in _toc.yml is not in {relative}: add it there.")
        return [_section(part, [written[slug] for slug in in_part.get(part["part"], [])]) for part in parts]


def setup(app: Sphinx) -> None:
    app.add_directive("syllabus", Syllabus)


def _slugs_by_part(course: Course) -> dict[str, list[str]]:
    """Return the written chapters of each part, by the part's caption in `_toc.yml`."""
    parts = yaml.safe_load((course.root / "_toc.yml").read_text("utf-8")).get("parts", [])
    slugs = {
        part.get("caption", ""): [
            file.name for file in (Path(entry["file"]) for entry in part["chapters"]) if file.parent.name == "chapters"
        ]
        for part in parts
    }
    return {part: names for part, names in slugs.items() if names}


def _section(part: dict[str, Any], written: list[Chapter]) -> nodes.section:
    section = nodes.section("", nodes.title("", part["part"]), ids=[nodes.make_id(part["part"])])
    section += nodes.paragraph("", part["about"])
    rows = {chapter.slug: _written(chapter) for chapter in written}
    rows |= {entry["slug"]: _planned(entry) for entry in part["chapters"] if entry["slug"] not in rows}
    items = "".join(rows[slug] for slug in sorted(rows))
    section += nodes.raw("", f'<ol class="sl-syllabus">{items}</ol>', format="html")
    return section


def _written(chapter: Chapter) -> str:
    link = f'<a href="../chapters/{chapter.slug}.html">{escape(chapter.title)}</a>'
    return _row("sl-written", link, vars(chapter) | {"slug": chapter.slug}, f"{chapter.minutes} minutes")


def _planned(entry: dict[str, Any]) -> str:
    name = f"{escape(entry['title'])} <span class='sl-planned'>planned</span>"
    return _row("sl-unwritten", name, entry, f"about {entry['minutes']} minutes")


def _row(css: str, name: str, chapter: Mapping[str, Any], minutes: str) -> str:
    """Return a list item of HTML; `name` is HTML, the values of `chapter` are plain text."""
    return (
        f'<li class="{css}"><span class="sl-number">{chapter["slug"].split("_")[0]}</span>'
        f'<div><p class="sl-chapter-name">{name}</p>\n<p>{escape(chapter["principle"])}</p>\n'
        f'<p class="sl-systems">{escape(chapter["systems"])}</p></div>\n'
        f'\n<span class="sl-minutes">{minutes}</span></li>'
    )
