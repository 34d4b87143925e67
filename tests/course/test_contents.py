"""What JupyterLab saves: the cells that it shows, below the front matter that it does not."""

from __future__ import annotations

from pathlib import Path

import jupytext
import pytest
from jupytext.config import load_jupytext_config

from scalelab.course import find_course
from scalelab.lab.author_contents import keep_front_matter

COURSE = find_course(Path(__file__).parent)
PAGES = [path for pattern in ("*.md", "book/*.md", "chapters/*.md") for path in sorted(COURSE.root.glob(pattern))]
HEADER = "---\ntitle: Of its author\nfile_format: mystnb\n---\n"
JUPYTEXT = "---\njupytext:\n  text_representation: {format_name: myst}\nkernelspec: {name: python3}\n---\n"
MARKDOWN = "---\njupyter:\n  jupytext:\n    text_representation: {format_name: markdown}\n---\n"


@pytest.mark.parametrize(
    ("before", "saved", "kept"),
    [
        (f"{HEADER}\n# Old\n", f"{JUPYTEXT}\n# New\n", f"{HEADER}\n# New\n"),
        (f"{HEADER}# Old\n", f"{JUPYTEXT}\n# New\n", f"{HEADER}# New\n"),
        ("# Old\n", f"{MARKDOWN}\n# New\n", "# New\n"),
        ("# Old\n", "# New\n", "# New\n"),
        (f"{HEADER}\n# Old\n", "---\ntitle: Edited as text\n---\n# New\n", "---\ntitle: Edited as text\n---\n# New\n"),
        (f"{JUPYTEXT}\n# Old\n", f"{JUPYTEXT}\n# New\n", f"{JUPYTEXT}\n# New\n"),
    ],
    ids=["a chapter", "no empty line", "a page", "a page as text", "a chapter as text", "a notebook of jupytext's own"],
)
def test_the_front_matter_stays_as_its_author_wrote_it(before: str, saved: str, kept: str) -> None:
    assert keep_front_matter(before, saved) == kept


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(COURSE.root).as_posix())
def test_a_text_that_is_opened_and_saved_is_the_same_text(path: Path) -> None:
    before = path.read_text(encoding="utf-8")
    config = load_jupytext_config(str(path))
    assert config is not None
    notebook = jupytext.reads(before, fmt=config.preferred_jupytext_formats_read, config=config)
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    assert keep_front_matter(before, jupytext.writes(notebook, fmt=".md", config=config)) == before
