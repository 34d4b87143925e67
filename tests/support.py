"""What tests start and write: the command as a process of its own, and a small course."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from scalelab.course import Course

COMMAND = (sys.executable, "-m", "scalelab.cli")
ON_WINDOWS = sys.platform == "win32"
CTRL_C = signal.CTRL_BREAK_EVENT if ON_WINDOWS else signal.SIGINT
OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if ON_WINDOWS else {}

CONFIG = """\
title: A small course
author: Tests
copyright: "2026"
only_build_toc_files: true
execute: {execute_notebooks: cache, timeout: 60}
sphinx:
  extra_extensions: [scalelab.author.sphinx.cached_runs, scalelab.author.sphinx.notebook_downloads]
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
systems: none
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


def write_small_course(root: Path) -> Course:
    """Write a course of two chapters with two cells each."""
    files = {
        "_config.yml": CONFIG,
        "_toc.yml": TOC,
        "book/index.md": "# A small course\n",
        "chapters/01_first.md": CHAPTER.replace("NAME", "first").replace("SLUG", "01_first"),
        "chapters/02_second.md": CHAPTER.replace("NAME", "second").replace("SLUG", "02_second"),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return Course(root)


@dataclass
class Served:
    """A running `scalelab course`, `start` or `lab`: its process, the address of its server, and the token."""

    process: subprocess.Popen[str]
    address: str
    token: str
    said: str

    def link(self, path: str) -> str:
        return f"{self.address}{path}?token={self.token}"

    def stop(self, number: int = CTRL_C) -> tuple[list[psutil.Process], str]:
        """Send the signal, wait for the end, and return which of its processes are left, and what it said last."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        try:
            said, _ = self.process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            for process in (*started, self.process):
                process.kill()
            raise
        return psutil.wait_procs(started, timeout=5)[1], said


def start(*arguments: str) -> Served:
    """Start `scalelab ARGUMENTS`, and return it when it has printed its links."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        **OWN_GROUP,
    )
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if "Ctrl-C" in line:
            break
    link = re.search(r"JupyterLab: +(http://127\.0\.0\.1:\d+/)lab\S*\?token=(\w+)", said)
    if link is None:
        process.terminate()
        pytest.fail(f"`scalelab {' '.join(arguments)}` ended ({process.wait(60)}) without a link: {said}")
    return Served(process, link.group(1), link.group(2), said)
