"""Read notebooks from files, hash the sources of a reference, and write files atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from scalelab.notebooks.format import Notebook

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)


def stored_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None if the file cannot be read or does not hold an object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def stored_notebook(path: Path) -> Notebook | None:
    """Return the notebook in a file, or None if the file cannot be read or does not hold a notebook."""
    data = stored_object(path)
    cells = None if data is None else data.get("cells")
    return data if isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells) else None


def own_metadata(notebook: Notebook | None) -> dict[str, Any]:
    """Return the notebook's `scalelab` metadata, or an empty mapping if it has none."""
    metadata = (notebook or {}).get("metadata")
    own = metadata.get("scalelab") if isinstance(metadata, dict) else None
    return own if isinstance(own, dict) else {}


def unused_path(folder: Path, stem: str, suffix: str = "", separator: str = "") -> Path:
    """Return the path of `folder/STEM+SUFFIX` or, if it is taken, of the first free one with 2, 3, … after the stem.

    separator: the text between the stem and the number.
    """
    path, number = folder / f"{stem}{suffix}", 2
    while os.path.lexists(path):
        path, number = folder / f"{stem}{separator}{number}{suffix}", number + 1
    return path


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """Write `text` to the file in one step: a reader sees the old file or the new one, also after a power cut.

    mode: the permissions of the file, before the process's umask is applied.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(os.open(new, FLAGS, mode), "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
