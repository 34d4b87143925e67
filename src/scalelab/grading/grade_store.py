"""Keep grades in a folder: a JSON file per submission, each written atomically and at once, and a CSV of all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from scalelab.errors import ScalelabError
from scalelab.grading.grades import FORM, Grade, as_json, from_json
from scalelab.grading.outputs.plain_text import csv_text
from scalelab.grading.submissions.layouts import BadInput
from scalelab.notebooks.files import write_atomically
from scalelab.notebooks.lock import locked

CSV = "grades.csv"
EARLIER = "earlier"
LOCK = ".lock"
HEADER = ("student", "exercises", "file", "total", "max")
CSV_EVERY_S = 30
LEFT_OVER = re.compile(r"\..+\.\d+\.new")
"""The names that `write_atomically` gives to unfinished files."""
TIMES = "seconds"
PLAIN = re.compile(r"(?![ .])[a-z0-9 !#$&'()+,;=@\[\]^_`{}~.-]{1,80}(?<![ .])")
HASHED = re.compile(r".*-[0-9a-f]{12}")
RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")
LONGEST_NAME = 120


class NotKept(ScalelabError):
    """A file in the folder of grades cannot be written; earlier files are unharmed."""


def write(path: Path, text: str) -> None:
    """Write a file atomically. Raises NotKept if it cannot be written."""
    with _translate_os_errors(path):
        write_atomically(path, text)


@contextmanager
def _translate_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        room = "make room" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "mend that"
        raise NotKept(f"{path} cannot be written ({error.strerror}); {room}.") from error


def file_name(student: str) -> str:
    """Return the name of a student's files, without an ending: valid on every system, and unique to the student.

    Systems differ in the characters that they allow, and in the names that they treat as equal: most file systems on
    Windows and macOS ignore case, or different encodings of the same letter. So only names of plain lower-case letters,
    digits and signs stay as they are; any other gets a hash of its exact characters, as does one that looks hashed.
    """
    if PLAIN.fullmatch(student) and not RESERVED.fullmatch(student) and not HASHED.fullmatch(student):
        return student
    normalized = unicodedata.normalize("NFC", student)
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in normalized)
    short = safe.encode("utf-8", "replace")[:LONGEST_NAME].decode("utf-8", "ignore").lstrip("_") or "student"
    return f"{short}-{hashlib.sha256(student.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


@contextmanager
def open_store(out: Path) -> Iterator[GradeStore]:
    """Yield the store of grades in the folder `out`, made if it is missing, and locked by this process meanwhile.

    Raises BadInput if the folder cannot be made, written to or locked, or if another process grades into it.
    """

    def refuse() -> None:
        raise BadInput(f"Another `scalelab grade` writes into {out}; wait for its end, or name another folder.")

    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BadInput(f"{out} is a file; expected a folder for the grades, which may not exist yet.") from error
    except OSError as error:
        raise BadInput(f"{out} cannot be made ({error.strerror}); name a folder for the grades.") from error
    if not os.access(out, os.W_OK):
        raise BadInput(f"{out} cannot be written to; name another folder for the grades.")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(out / LOCK, refuse))
        except OSError as error:
            raise BadInput(f"{out / LOCK} cannot be locked ({error.strerror}); name another folder.") from error
        for path in out.rglob("*.new"):
            if LEFT_OVER.fullmatch(path.name):
                path.unlink(missing_ok=True)
        yield GradeStore(out)


class GradeStore:
    """Writes into the folder of grades. Files of earlier runs are kept below `earlier/` before they are replaced."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._runs = sorted(int(path.name) for path in (out / EARLIER).glob("*") if path.name.isdecimal())
        self._run = max(self._runs, default=0) + 1
        self._table_is_due = time.monotonic() + CSV_EVERY_S

    def path(self, exercises: str, student: str) -> Path:
        """Return the path of a submission's grade."""
        return self.out / exercises / f"{file_name(student)}.json"

    def stored(self, exercises: str, student: str) -> Grade | None:
        """Return the stored grade of a student, or None if there is none in the current form."""
        data = _json(self.path(exercises, student))
        if not isinstance(data, dict) or data.get("form") != FORM or data.get("student") != student:
            return None
        with suppress(KeyError, TypeError, ValueError):
            return from_json(data)
        return None

    def keep(self, grade: Grade) -> Path:
        """Write one grade to `OUT/SET/STUDENT.json`. A file whose `seconds` alone differ is left unchanged.

        Returns the path. Raises NotKept.
        """
        path = self.path(grade.exercises, grade.student)
        # Outputs may contain lone surrogates, which UTF-8 cannot encode.
        text = json.dumps(as_json(grade), indent=1, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n"
        if _without_times(_json(path)) != _without_times(json.loads(text)):
            self._write(path, text)
        if time.monotonic() > self._table_is_due:
            self.write_csv()
        return path

    def write_csv(self) -> Path:
        """Write `OUT/grades.csv` from every grade in OUT, including those of earlier runs, and return its path.

        Raises NotKept.
        """
        self._table_is_due = time.monotonic() + CSV_EVERY_S
        rows = [row for path in sorted(self.out.glob("*/*.json")) if (row := _row(_json(path))) is not None]
        questions = list(dict.fromkeys(name for _, points in rows for name in points))
        table = ([*head, *(points.get(name) for name in questions)] for head, points in rows)
        self._write(self.out / CSV, csv_text([*HEADER, *questions], table))
        return self.out / CSV

    def _write(self, path: Path, text: str) -> None:
        with _translate_os_errors(path):
            if path.exists():
                if path.read_bytes() == text.encode():
                    return
                self._keep_earlier(path)
            write_atomically(path, text)

    def _keep_earlier(self, path: Path) -> None:
        """Keep a file below `earlier/RUN/`, unless this run has done so, or the last earlier copy is the same."""
        place = path.relative_to(self.out)
        earlier = self.out / EARLIER / str(self._run) / place
        if earlier.exists():
            return
        before = [self.out / EARLIER / str(run) / place for run in self._runs]
        last = next((copy for copy in reversed(before) if copy.exists()), None)
        if last is not None and last.read_bytes() == path.read_bytes():
            return
        earlier.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A hard link needs no space, and the file stays in place until the new one replaces it.
            os.link(path, earlier)
        except OSError:
            write_atomically(earlier, path.read_text(encoding="utf-8", errors="replace"))


def _json(path: Path) -> Any:
    """Return the data of a JSON file, or None if there is no such file, or it is not valid JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _without_times(data: Any) -> Any:
    """Return a grade's data without its `seconds`."""
    if isinstance(data, dict):
        return {name: _without_times(value) for name, value in data.items() if name != TIMES}
    return [_without_times(value) for value in data] if isinstance(data, list) else data


def _row(data: Any) -> tuple[list[Any], dict[str, Any]] | None:
    """Return the values of `HEADER` and the points by question, or None if the data are not a grade."""
    try:
        return [data[name] for name in HEADER], {
            question["exercise"]: question["points"] for question in data["questions"]
        }
    except (KeyError, TypeError):
        return None
