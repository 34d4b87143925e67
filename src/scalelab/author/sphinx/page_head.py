"""The head of a chapter or exercise page, made from its front matter."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from scalelab.course import Chapter, front_matter, read_chapter

CODE = re.compile(r"`([^`]+)`")
CHAPTERS = "chapters/"
EXERCISES = "exercises/"
NOTEBOOKS = "../_sources/"
"""The folder of the downloads that notebook_downloads writes, relative to a page."""


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", _insert_head)


def _insert_head(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    root = Path(app.srcdir)
    if docname.startswith(CHAPTERS):
        chapter = read_chapter(Path(app.env.doc2path(docname)))
        page = _chapter_head(chapter, exercises=(root / EXERCISES / f"{chapter.slug}.ipynb").exists())
    elif docname.startswith(EXERCISES):
        source = root / "solutions" / f"{Path(docname).name}.md"
        app.env.note_dependency(str(source))
        page = _exercise_head(Path(docname).name, front_matter(source))
    else:
        return
    title = doctree.next_node(nodes.title)
    if title is not None and title.parent is not None:
        title.parent.insert(title.parent.index(title) + 1, nodes.raw("", page, format="html"))


def _chapter_head(chapter: Chapter, *, exercises: bool) -> str:
    objectives = "\n".join(f"<li>{_inline(text)}</li>" for text in chapter.objectives)
    prerequisites = "\n".join(f"<li>{_inline(text)}</li>" for text in chapter.prerequisites)
    exercises_link = (
        f'<a class="sl-button" href="../{EXERCISES}{chapter.slug}.html">Go to the exercises</a>' if exercises else ""
    )
    return (
        '<div class="sl-head">'
        f'<p class="sl-principle">{_inline(chapter.principle)}</p>'
        f'<p class="sl-facts"><span>Chapter {chapter.number}</span><span>{chapter.minutes} minutes</span></p>'
        '<div class="sl-head-columns">'
        f'<div><p class="sl-label">After this you can</p><ul>{objectives}</ul></div>'
        f'<div><p class="sl-label">Before you start</p><ul>{prerequisites}</ul></div>'
        "</div>"
        f"{_actions(f'{CHAPTERS}{chapter.slug}.md', 'Download the executed notebook', exercises_link)}"
        "</div>"
    )


def _exercise_head(slug: str, matter: dict[str, object]) -> str:
    number, minutes = escape(slug.partition("_")[0]), escape(str(matter["minutes"]))
    chapter_link = f'<a class="sl-button" href="../{CHAPTERS}{slug}.html">Back to the chapter</a>'
    return (
        '<div class="sl-head">'
        '<p class="sl-principle">Work on these in JupyterLab. Here you can read them first.</p>'
        f'<p class="sl-facts"><span>Exercises to chapter {number}</span><span>{minutes} minutes</span></p>'
        f"<ol class='sl-steps'><li>Open <code>exercises/{escape(slug)}.ipynb</code> in the JupyterLab that "
        "<code>make lab</code> starts.</li>"
        "<li>Write your answer in the cell below each prompt and run it.</li>"
        "<li>Run the check cell after it. It says in words what passes and what does not.</li>"
        "<li>Stuck? Each exercise has three hints, from a nudge to nearly the answer.</li></ol>"
        f"{_actions(f'{EXERCISES}{slug}.ipynb', 'Download the notebook', chapter_link)}"
        "</div>"
    )


def _inline(text: str) -> str:
    """Return a line of front matter as HTML, with text between backticks as code and no other markup."""
    return CODE.sub(r"<code>\1</code>", escape(text))


def _actions(source: str, label: str, other_link: str) -> str:
    """Return the buttons; if a server serves the book beside JupyterLab, it shows the first one and sets its link."""
    notebook = f"{NOTEBOOKS}{Path(source).with_suffix('.ipynb').as_posix()}"
    return (
        '<p class="sl-actions">'
        f'<a class="sl-open-in-lab" data-path="{escape(source)}" hidden>Open in JupyterLab</a>'
        f'<a class="sl-button" href="{escape(notebook)}" download>{label}</a>{other_link}</p>'
    )
