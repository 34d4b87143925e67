"""Notebooks as plain JSON objects: their types, their text, and hashes of their sources."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

Notebook = dict[str, Any]
Cell = dict[str, Any]

HEADING = re.compile(r"^#+\s*(.+?)\s*#*$", re.MULTILINE)
FOLDED = re.compile(r"\s*<details><summary>.*?</summary>\s*(.*?)\s*</details>\s*", re.DOTALL)


def written(notebook: Notebook) -> str:
    """Return the notebook's text as it is written to its file."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def text_of(lines: Any) -> str:
    """Return a source or an output as one string; a notebook file holds it as a string or as a list of lines.

    Anything else counts as empty: a stranger's file may hold it.
    """
    if isinstance(lines, list):
        return "".join(line for line in lines if isinstance(line, str))
    return lines if isinstance(lines, str) else ""


def source_of(cell: Mapping[str, Any]) -> str:
    """Return a cell's source as one string; it is empty if the cell has none."""
    return text_of(cell.get("source"))


def printed_by(cell: Mapping[str, Any]) -> str:
    """Return the text that a cell has printed, as its outputs hold it."""
    outputs = cell.get("outputs")
    streams = [output for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []
    return "".join(text_of(stream.get("text")) for stream in streams if stream.get("output_type") == "stream")


def heading_of(text: str, default: str) -> str:
    """Return the first heading of a Markdown text, or `default` if it has none."""
    heading = HEADING.search(text)
    return heading[1] if heading else default


def unfolded(text: str) -> str:
    """Return the text below the summary of a folded one (`<details>`); other text is returned as it is."""
    folded = FOLDED.fullmatch(text)
    return folded[1] if folded else text


def digest_of_sources(cells: list[Cell]) -> str:
    """Return a hash of the parts that a person can edit: the cells' types and sources, in order."""
    edited = [[cell.get("cell_type"), source_of(cell)] for cell in cells]
    return hashlib.sha256(json.dumps(edited).encode()).hexdigest()


def lines_of(text: str) -> list[str]:
    """Split after newlines only: `str.splitlines` would also split at form feeds and the like."""
    *whole, last = text.split("\n")
    return [line + "\n" for line in whole] + ([last] if last else [])
