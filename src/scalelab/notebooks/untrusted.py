"""Read a notebook that was handed in or stored, without trusting a byte of it."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalelab.errors import ScalelabError
from scalelab.notebooks.format import text_of

LARGEST_MB = 50
LARGEST_CELLS = 10_000
LARGEST_VALUES = 1_000_000
"""The most values that a notebook's JSON may hold: 50 MB of brackets alone would fill gigabytes of memory."""
FORMAT = 4
CHECKSUM = "checksum"
RAN = "application/vnd.scalelab.ran+json"
"""In a check's outputs, its verdict (`verdict`), and a digest of each answer that had run before it (`ran`)."""
TEXT = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # the last string may be cut off
LONGEST_WORD = 40


class NoNotebook(ScalelabError):
    """A file does not hold a notebook; the message says why, without the file's name."""


@dataclass(frozen=True)
class SubmittedCell:
    """The used parts of a submission's cell; `names` are from its metadata and its id, the most reliable first."""

    names: tuple[str, ...]
    type: str
    source: str

    @property
    def marks(self) -> tuple[str, ...]:
        """The strings that can identify the cell: its names and its text."""
        return (*self.names, collapse_spaces(self.source))


@dataclass(frozen=True)
class HandedIn:
    """The contents of a submitted file.

    `exercises` is the set that the notebook says it answers, and `version` the digest of the student notebook that it
    was made from; each is "" if the notebook does not say. `notes` lists oddities that did not prevent reading.
    `checksum` is that of the answers as they were checked before they were handed in, "" if they were not checked.
    """

    exercises: str
    version: str
    cells: tuple[SubmittedCell, ...]
    notes: tuple[str, ...] = ()
    checksum: str = ""


def read(path: Path) -> HandedIn:
    """Return the contents of a submitted file. Raises NoNotebook, and nothing else, whatever the file is."""
    text, notes = _text(_bytes(path))
    if _values(text) > LARGEST_VALUES:
        raise NoNotebook(f"holds more than {LARGEST_VALUES:,} values; ask for it with its outputs cleared")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoNotebook("is not a notebook: the file is not valid JSON; perhaps it was cut off or renamed") from error
    if not isinstance(data, dict) or type(data.get("nbformat")) is not int:
        raise NoNotebook("is not a notebook: it is JSON, but not in Jupyter's format")
    raw = _raw_cells(data, notes)
    if len(raw) > LARGEST_CELLS:
        raise NoNotebook(f"has {len(raw):,} cells; expected {LARGEST_CELLS:,} at most")
    cells = tuple(_cells(raw))
    if not cells:
        raise NoNotebook("is a notebook without cells")
    metadata = _mapping(data.get("metadata"))
    own = _mapping(metadata.get("scalelab"))
    _note_language(metadata, notes)
    exercises, version, checksum = (_string(own.get(name)) for name in ("exercises", "sources", CHECKSUM))
    return HandedIn(exercises, version, cells, tuple(notes), checksum)


def collapse_spaces(text: str) -> str:
    """Return text with white space reduced to single spaces; cells are recognised by their text in this form."""
    return " ".join(text.split())


def printable(text: str) -> str:
    """Return `text` with each character that could control a terminal replaced."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def short(text: str) -> str:
    """Return untrusted text for a message: printable, and cut after `LONGEST_WORD` characters."""
    text = printable(text[: LONGEST_WORD + 1])
    return text if len(text) <= LONGEST_WORD else f"{text[:LONGEST_WORD]}…"


def _bytes(path: Path) -> bytes:
    """Return the bytes of a regular file of a usable size; follow no link, and wait for no pipe or device."""
    try:
        _ordinary(path.lstat())
        if path.suffix.lower() != ".ipynb":
            raise NoNotebook("is not a notebook; expected a file that ends in .ipynb")
        # The path may lead to another file by now.
        flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
        with open(os.open(path, flags), "rb") as file:
            _ordinary(os.fstat(file.fileno()))
            data = file.read(LARGEST_MB * 2**20 + 1)
    except OSError as error:
        raise NoNotebook(f"cannot be read ({error.strerror})") from error
    if not data:
        raise NoNotebook("is empty; ask for the file again")
    if len(data) > LARGEST_MB * 2**20:
        raise NoNotebook(f"is larger than {LARGEST_MB} MB; ask for it with its outputs cleared")
    return data


def _ordinary(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise NoNotebook("is a link, and links are not followed; ask for the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise NoNotebook("is not a file, but a pipe, a socket, a device or a folder")


def _text(data: bytes) -> tuple[str, list[str]]:
    """Return a file's text, and a list of notes, which holds one if the text is not UTF-8."""
    encoding = json.detect_encoding(data)
    try:
        text = data.decode(encoding, "surrogatepass")
    except UnicodeDecodeError as error:
        raise NoNotebook(
            f"is not a notebook: the file is not valid {encoding.upper()} (byte {error.start}); perhaps it was cut off"
        ) from error
    return text, [] if encoding.startswith("utf-8") else [f"The file's text is {encoding.upper()}, not UTF-8."]


def _values(text: str) -> int:
    """Return the number of commas and opening brackets in JSON text, a measure of how many values it holds.

    Those inside strings count too, unless there are more than `LARGEST_VALUES` in all.
    """
    signs = sum(map(text.count, ",[{"))
    if signs > LARGEST_VALUES:
        bare = TEXT.sub("", text)
        signs = sum(map(bare.count, ",[{"))
    return signs


def _raw_cells(data: Mapping[str, Any], notes: list[str]) -> list[Any]:
    """Return the cells as they are in the file. Format 3 has worksheets of cells, and another name for one key."""
    version = data["nbformat"]
    if version == FORMAT - 1:
        notes.append("The notebook is of format 3; its cells were read as format 4 has them.")
        sheets = data.get("worksheets")
        return [
            cell
            for sheet in (sheets if isinstance(sheets, list) else ())
            for cell in _list(_mapping(sheet).get("cells"))
        ]
    if version < FORMAT:
        old = short(str(version))
        raise NoNotebook(f"is a notebook of format {old}; expected 4: open it in JupyterLab, save it, hand it in")
    if version > FORMAT:
        notes.append(f"The notebook is of format {short(str(version))}; its cells were read as format 4 has them.")
    return _list(data.get("cells"))


def _cells(raw: list[Any]) -> Iterator[SubmittedCell]:
    for cell in map(_mapping, raw):
        kind = cell.get("cell_type")
        if isinstance(kind, str):
            # In format 3, the key for the source of a code cell is `input`.
            source = cell["source"] if "source" in cell else cell.get("input")
            yield SubmittedCell(names_of(cell), short(kind), escape_surrogates(text_of(source)))


def names_of(cell: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a cell's names from its metadata and its id, the most reliable first.

    Editors lose some of these: older versions of VS Code lose the cell's id, Colab moves it into the metadata, and
    copying a cell keeps the metadata but not the id.
    """
    metadata = _mapping(cell.get("metadata"))
    own = _mapping(metadata.get("scalelab"))
    names = (
        _mapping(metadata.get("nbgrader")).get("grade_id"),
        own.get("exercise") if own.get("role") == "answer" else None,
        cell.get("id"),
        metadata.get("id"),
    )
    return tuple(dict.fromkeys(escape_surrogates(name) for name in names if isinstance(name, str) and name))


def name_of(cell: Mapping[str, Any]) -> str:
    """Return the most reliable of a cell's names, or "" if it has none."""
    return next(iter(names_of(cell)), "")


def ran_in(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the workspace's kernel noted with a check's outputs (`RAN`); it is empty if it noted nothing."""
    noted = (_mapping(_mapping(_mapping(output).get("data")).get(RAN)) for output in _list(cell.get("outputs")))
    return next(filter(None, noted), {})


def _note_language(metadata: Mapping[str, Any], notes: list[str]) -> None:
    kernel = _string(_mapping(metadata.get("kernelspec")).get("language"))
    language = kernel or _string(_mapping(metadata.get("language_info")).get("name"))
    if language and not language.lower().startswith(("python", "ipython")):
        notes.append(f"The notebook names a kernel for {short(language)}; the answers ran in Python.")


def escape_surrogates(text: str) -> str:
    """Return `text` with lone surrogates escaped, which JSON and file names may hold and UTF-8 may not."""
    return text.encode("utf-8", "backslashreplace").decode()


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
