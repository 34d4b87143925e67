"""Keep grades in a folder: JSON per submission, and one CSV of them all."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scalelab.course.sync import write_atomically
from scalelab.grading.report import FORM, Grade
from scalelab.grading.submissions import BadInput

CSV = "grades.csv"
EARLIER = "earlier"
HEADER = ("student", "exercises", "file", "total", "max")
STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Keeper:
    """Writes into the folder of grades. What a file held before is moved below `earlier/`, never lost."""

    def __init__(self, out: Path) -> None:
        self.out = out
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(f"{out} is a file; expected a folder for the grades, which may not exist yet.") from error
        except OSError as error:
            raise BadInput(f"{out} cannot be made ({error.strerror}); name a folder for the grades.") from error
        if not os.access(out, os.W_OK):
            raise BadInput(f"{out} cannot be written to; name another folder for the grades.")
        runs = [int(path.name) for path in (out / EARLIER).glob("*") if path.name.isdecimal()]
        self._earlier = out / EARLIER / str(max(runs, default=0) + 1)

    def keep(self, grade: Grade) -> Path:
        """Write one grade to `OUT/SET/STUDENT.json`, as a whole."""
        path = self.out / grade.exercises / f"{grade.student}.json"
        data = {"form": FORM, "total": grade.total, "max": grade.max, **asdict(grade)}
        self._write(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        return path

    def write_csv(self) -> Path:
        """Write `OUT/grades.csv` from every grade in OUT, those of earlier runs included, and return its path."""
        rows = [row for path in sorted(self.out.glob("*/*.json")) if (row := _row(path)) is not None]
        questions = list(dict.fromkeys(name for _, points in rows for name in points))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*HEADER, *questions])
        for head, points in rows:
            writer.writerow(map(spreadsheet_safe, [*head, *(points.get(name) for name in questions)]))
        self._write(self.out / CSV, text.getvalue())
        return self.out / CSV

    def _write(self, path: Path, text: str) -> None:
        # File names and outputs may hold halves of letters, which UTF-8 has no bytes for.
        text = text.encode("utf-8", "replace").decode()
        if path.exists():
            if path.read_bytes() == text.encode():
                return
            earlier = self._earlier / path.relative_to(self.out)
            earlier.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(earlier, path.read_text(encoding="utf-8", errors="replace"))
        write_atomically(path, text)


def _row(path: Path) -> tuple[list[Any], dict[str, Any]] | None:
    """Return the values of `HEADER` and the points by question, or None where the file holds no grade of ours."""
    try:
        data = json.loads(path.read_bytes())
        return [data[name] for name in HEADER], {one["exercise"]: one["points"] for one in data["questions"]}
    except (ValueError, KeyError, TypeError, OSError):
        return None


def spreadsheet_safe(value: Any) -> str:
    """Return a CSV cell that no spreadsheet takes for a formula; None, which is not judged, is empty."""
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(STARTS_A_FORMULA) else text
