"""Make untrusted text safe to show: nothing in it controls a terminal, a page, an XML reader or a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours and cursor moves
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # window titles and links
    r"|\x1b."
)
LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
UNUSUAL = re.compile(r"[^\n\t -~]+")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
MAX_MARKS = 4
"""The most combining marks that a letter keeps: a taller stack of them would cover the lines above."""
FORMULA = re.compile(rf"[\s\"'{REPLACEMENT}]*[=+\-@＝＋－＠]")  # noqa: RUF001 (a spreadsheet accepts the wide signs, too)


def legible(text: str) -> str:
    """Return text with its lines, but without ANSI sequences; characters that cannot be shown are replaced.

    These include control characters and controls of the writing direction, which could make words look like others.
    """
    text = LINE_ENDS.sub("\n", ANSI.sub("", text))
    return UNUSUAL.sub(lambda match: _replace_unusual(match.group()), text)


def on_one_line(text: str, longest: int = 500) -> str:
    """Return text as `legible` does, on one line of at most `longest` characters."""
    line = " ".join(legible(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _replace_unusual(text: str) -> str:
    letters, marks = [], 0
    for letter in text:
        kind = unicodedata.category(letter)
        marks = marks + 1 if kind.startswith("M") else 0
        if marks <= MAX_MARKS:
            letters.append(REPLACEMENT if _is_control(letter, kind) else letter)
    return "".join(letters)


def _is_control(letter: str, kind: str) -> bool:
    code = ord(letter)
    no_character = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return no_character or kind in {"Cc", "Cs"} or (kind == "Cf" and letter not in JOINERS)


def spreadsheet_safe(value: Any) -> str:
    """Return a CSV cell on one line that no spreadsheet takes for a formula; numbers stay numbers, None is empty."""
    if value is None or isinstance(value, int | float):
        return "" if value is None else str(value)
    text = legible(str(value)).replace("\n", " ").replace("\t", " ")
    return f"'{text}" if FORMULA.match(text) else text


def csv_text(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table as CSV, each cell `spreadsheet_safe`; lines end in a line feed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([spreadsheet_safe(value) for value in row] for row in rows)
    return text.getvalue()
