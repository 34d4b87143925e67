"""The course as one file to hand on: whole, with its checksum, and the same bytes for the same site."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from scalelab.author.build import NoAddress, build
from scalelab.author.release import NothingToRelease, release
from scalelab.course import Course

SITE = {
    "index.html": b"<p>start",
    "chapters/01_first.html": b"<p>first",
    "_sources/chapters/01_first.ipynb": b"{}",
    "_sources/exercises/01_first.ipynb": b"{ }",
}
LEFT_OUT = {".buildinfo": b"times", "reports/01_first.err.log": b"oh"}


def write_site(course: Course, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = course.html / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def built(tmp_path: Path) -> Course:
    course = Course(tmp_path / "course")
    write_site(course, SITE | LEFT_OUT)
    (course.root / "LICENSE").write_text("CC BY", encoding="utf-8")
    return course


def test_site_and_notebooks_are_in_it_and_the_checksum_is_its_own(built: Course, tmp_path: Path) -> None:
    path, checksum = release(built, tmp_path / "out")
    digest, _, name = checksum.read_text(encoding="utf-8").strip().partition("  ")
    assert name == path.name
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    with zipfile.ZipFile(path) as archive:
        held = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        assert {name.partition("/")[0] for name in archive.namelist()} == {path.stem}
    readme = held.pop("README.txt").decode()
    assert "python -m http.server --directory site" in readme
    assert held.pop("LICENSE") == b"CC BY"
    notebooks = {name.replace("_sources", "notebooks"): text for name, text in SITE.items() if name.endswith("ipynb")}
    assert held == {f"site/{name}": content for name, content in SITE.items()} | notebooks
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, checksum.name]


def test_the_same_site_is_the_same_file(built: Course, tmp_path: Path) -> None:
    first, _ = release(built, tmp_path / "first")
    other = Course(tmp_path / "other")
    write_site(other, dict(reversed(SITE.items())))
    (other.root / "LICENSE").write_text("CC BY", encoding="utf-8")
    for file in other.html.rglob("*"):
        os.utime(file, (1e9, 1e9))
    second, _ = release(other, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    write_site(other, {"index.html": b"<p>changed"})
    third, _ = release(other, tmp_path / "second")
    assert first.read_bytes() != third.read_bytes()


def test_without_a_book_there_is_nothing_to_release(tmp_path: Path) -> None:
    with pytest.raises(NothingToRelease, match="Run `scalelab book` first"):
        release(Course(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("url", ["example.org", "https://", "ftp://example.org", "https://example.org/?a=1", "/course"])
def test_an_address_is_whole_or_refused(small_course: Course, url: str) -> None:
    with pytest.raises(NoAddress, match="such as https://"):
        build(small_course, url=url)
    assert not small_course.build.exists()
