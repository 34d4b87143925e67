"""What a process that judges tells of each cell, and the one that started it reads: a line of JSON on stderr."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

RECORD = "scalelab: "
"""How such a line begins; what else is on stderr are the process's last words."""
SETUP_S = 60.0
"""The least time that a setup cell has: it is the course's own, so a slow machine must cost no answer its points."""

DIFFERS = "(The check prints something else for a right answer.)"
"""How the text ends of a check that raised nothing, and fails by what was printed in its cell."""


@dataclass(frozen=True)
class Seen:
    """What became of one cell: `state` as the plugin says it, what it showed and said, and the seconds it took."""

    state: str = ""
    text: str = ""
    said: str = ""
    seconds: float = 0.0


Records = dict[tuple[str, str], Seen]
"""What became of each cell, by the notebook's name and the cell's id."""


def as_line(notebook: str, cell: str, seen: Seen) -> str:
    """Return the line that tells what became of a cell of a notebook."""
    return RECORD + json.dumps({"notebook": notebook, "cell": cell, **asdict(seen)})


def read_line(text: str) -> tuple[tuple[str, str], Seen] | None:
    """Return what a line tells, with the notebook's name and the cell's id, or None where it is no such line."""
    if not text.startswith(RECORD):
        return None
    told = json.loads(text.removeprefix(RECORD))
    return (told.pop("notebook"), told.pop("cell")), Seen(**told)
