"""`scalelab record` runs one chapter and keeps what its experiments measured."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from scalelab import recordings
from scalelab.author.execute import ChapterFailed
from scalelab.author.record import record
from scalelab.console import Progress
from scalelab.course import Course, NoSuchChapter

CHAPTER = """---
title: Two runs
principle: One can be made here.
minutes: 1
prerequisites: []
systems: none
objectives: []
file_format: mystnb
kernelspec: {{name: python3, display_name: Python 3, language: python}}
---

# Two runs

```{{code-cell}} ipython3
from pathlib import Path

from scalelab import recorded, recordings

# This process is another one than the test's.
recordings.FOLDER = Path({folder!r})
recorded("02-here", lambda: {{"seen": 42}})
```

```{{code-cell}} ipython3
recorded("02-there", lambda: 1 / 0, lacks="a second machine")
```
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    monkeypatch.setattr(recordings, "FOLDER", folder)
    return folder


@pytest.fixture
def course(tmp_path: Path, folder: Path) -> Course:
    course = Course(tmp_path / "course")
    course.chapters.mkdir(parents=True)
    (course.root / "_config.yml").write_text("title: Tiny\n", encoding="utf-8")
    (course.chapters / "02_two.md").write_text(CHAPTER.format(folder=str(folder)), encoding="utf-8")
    return course


@pytest.mark.parametrize("wanted", ["02", "02_two"])
def test_what_can_be_run_here_is_recorded_and_the_rest_is_kept_and_named(
    course: Course, folder: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    monkeypatch.setenv(recordings.FOLDER_VARIABLE, str(folder))
    recordings.recorded("02-there", lambda: [1, 2])
    monkeypatch.delenv(recordings.FOLDER_VARIABLE)
    before = (folder / "02-there.json").read_bytes()
    told = io.StringIO()
    done = record(course, wanted, Progress(told))
    assert done.renewed == ("02-here",)
    assert done.unchanged == {"02-there": "a second machine"}
    assert json.loads((folder / "02-here.json").read_text(encoding="utf-8"))["data"] == {"seen": 42}
    assert (folder / "02-there.json").read_bytes() == before
    assert "02-here: recorded" in told.getvalue()
    assert "02-there: kept as it was, because this machine lacks a second machine" in told.getvalue()


def test_a_chapter_that_fails_keeps_what_was_recorded_before(course: Course, folder: Path) -> None:
    told = io.StringIO()
    with pytest.raises(ChapterFailed, match="there is no recorded run"):
        record(course, "02", Progress(told))
    assert (folder / "02-here.json").exists()
    assert "02-here: recorded" in told.getvalue()


def test_an_unknown_chapter_is_named_with_those_there_are(course: Course, folder: Path) -> None:
    with pytest.raises(NoSuchChapter, match=r"got '03'. There are 02_two\."):
        record(course, "03", Progress(io.StringIO()))
