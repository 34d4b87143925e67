"""What tests of all parts share: this course, its built site, and a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from scalelab.course.find import Course, find_course

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


@pytest.fixture(scope="session")
def course() -> Course:
    return find_course(Path(__file__).parent)


@pytest.fixture(scope="session")
def built_site(course: Course) -> Path:
    """Build the book from whatever the cache holds, and return the folder of the site."""
    # In a process of its own: a test that waits for a browser has an event loop running in this one.
    command = [sys.executable, "-m", "scalelab.cli", "book", "--course", str(course.root)]
    built = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert built.returncode == 0, f"The book was not built:\n{built.stdout}{built.stderr}"
    return course.html


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium. Without one, skip; where CI is set, fail: there nothing may be left out."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = f"no browser on this machine: none of {', '.join(BROWSERS)} is on PATH"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and CI is set; `.ci/run` installs Debian's chromium", pytrace=False)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    # Per module: Playwright's own event loop keeps every other one in this process from running.
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield opened
        opened.close()


CONFIG = """\
title: A small course
author: Tests
copyright: "2026"
only_build_toc_files: true
execute: {execute_notebooks: cache, timeout: 60}
sphinx:
  local_extensions: {scalelab_cache: EXTENSIONS, notebook_downloads: EXTENSIONS}
"""
TOC = """\
format: jb-book
root: book/index
chapters: [{file: chapters/01_first}, {file: chapters/02_second}]
"""
CHAPTER = """\
---
file_format: mystnb
title: The NAME chapter
principle: Small things can be tested whole.
minutes: 1
prerequisites: []
objectives: [test the machinery]
kernelspec: {name: python3, display_name: Python 3, language: python}
---

# The NAME chapter

<a class="sl-open-in-lab" data-path="chapters/SLUG.md" hidden>Open in Lab</a>

## One

```{code-cell} ipython3
import os, sys, time
print("cwd", os.getcwd())
print("python", sys.executable)
```

## Two

```{code-cell} ipython3
:tags: [ran-at]
print("NAME chapter, ran at", time.time_ns())
```
"""


@pytest.fixture
def small_course(tmp_path: Path, course: Course) -> Course:
    """A course of two chapters with two cells each, which the course's own machinery builds in seconds."""
    root = tmp_path / "small course"
    files = {
        "_config.yml": CONFIG.replace("EXTENSIONS", (course.root / "book" / "_ext").as_posix()),
        "_toc.yml": TOC,
        "book/index.md": "# A small course\n",
        "chapters/01_first.md": CHAPTER.replace("NAME", "first").replace("SLUG", "01_first"),
        "chapters/02_second.md": CHAPTER.replace("NAME", "second").replace("SLUG", "02_second"),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return Course(root)
