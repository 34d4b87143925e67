"""Release the course: the built site and its notebooks in one zip, and the zip's checksum beside it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from scalelab.course import Course
from scalelab.errors import ScalelabError

NAME = "scalable-python-measured"
NOTEBOOKS = "_sources"
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every entry, the earliest that a zip can store: the same site gives the same zip."""

READ_ME = """\
Scalable Python, Measured

site/       the book. It needs no network, only a server of files, for browsers load no scripts from a plain folder:
                python -m http.server --directory site --bind 127.0.0.1 8000
            Then open http://127.0.0.1:8000/
notebooks/  the chapters as notebooks, with the outputs of the run that made this book, and the exercises. To run them
            you need the course itself: the package `scalelab`, and what it depends on.

Text and figures are under CC BY 4.0, code under the MIT licence: see LICENSE.
"""


class NothingToRelease(ScalelabError):
    """The book has not been built."""


def release(course: Course, out: Path) -> tuple[Path, Path]:
    """Write the zip and its SHA-256 into the folder `out`, over earlier ones of this version; return their paths.

    The same built site gives the same bytes, at any time and on any machine. Raises NothingToRelease.
    """
    if not (course.html / "index.html").is_file():
        raise NothingToRelease(f"{course.html}: expected the built book, found none. Run `scalelab book` first.")
    name = f"{NAME}-{version('scalelab')}"
    out.mkdir(parents=True, exist_ok=True)
    path, checksum = out / f"{name}.zip", out / f"{name}.zip.sha256"
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for entry, content in sorted(_entries(course)):
            about = zipfile.ZipInfo(f"{name}/{entry}", EARLIEST)
            about.compress_type = zipfile.ZIP_DEFLATED
            about.create_system, about.external_attr = 3, 0o100644 << 16  # as on Unix, on every platform
            archive.writestr(about, content)
    partial.replace(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    checksum.write_text(f"{digest}  {path.name}\n", encoding="utf-8", newline="\n")
    return path, checksum


def _entries(course: Course) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of everything that goes into the zip."""
    yield "README.txt", READ_ME.encode()
    yield "LICENSE", (course.root / "LICENSE").read_bytes()
    for file in course.html.rglob("*"):
        below = file.relative_to(course.html)
        if not file.is_file() or below.name == ".buildinfo" or below.parts[0] == "reports":
            continue
        yield f"site/{below.as_posix()}", file.read_bytes()
        if below.parts[0] == NOTEBOOKS and below.suffix == ".ipynb":
            yield f"notebooks/{Path(*below.parts[1:]).as_posix()}", file.read_bytes()
