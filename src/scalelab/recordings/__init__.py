"""Recorded runs: results of an experiment from another machine, for machines that cannot run it.

Each is a JSON file beside this module, under version control, with the data, the machine card and the day. Pages and
charts always label a recorded run. `scalelab record CHAPTER` renews the recorded runs of a chapter.
"""

from __future__ import annotations

import datetime
import html
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalelab._publish import publish
from scalelab.errors import ScalelabError
from scalelab.measure import MachineCard, machine_card

FOLDER = Path(__file__).parent
FOLDER_VARIABLE = "SCALELAB_RECORD"
"""The environment variable that turns recording on; its value is the folder for the files."""

NAME = re.compile(r"\d\d-[a-z0-9]+(-[a-z0-9]+)*")


class RecordingError(ScalelabError):
    """A recorded run cannot be made, is missing or is damaged."""


@dataclass(frozen=True)
class Run:
    """An experiment's data and their origin.

    data: the experiment's result after a round trip through JSON (tuples become lists, keys become strings). recorded:
    True if it was measured on another machine; then `day` (ISO) is set, and `machine` holds the rows of its card.
    """

    name: str
    data: Any
    recorded: bool = False
    day: str = ""
    machine: dict[str, str] | None = None

    @property
    def origin(self) -> str:
        """The machine and day of a recorded run, for a caption; "" for a run on this machine."""
        if self.machine is None:
            return ""
        return f"{self.machine['usable cores']} cores, Python {self.machine['Python'].split()[-1]}, {self.day}"

    def label(self, text: str) -> str:
        """Return `text` for a legend or a heading, with "(recorded run)" after it if the run is one."""
        return f"{text} (recorded run)" if self.recorded else text


def recorded(name: str, measure: Callable[[], Any], *, lacks: str = "", packages: tuple[str, ...] = ()) -> Run:
    """Run an experiment, or show and return its recorded run if this machine lacks something that it needs.

    name: chapter and experiment, e.g. "02-amdahl". measure: runs the experiment and returns a value that JSON can hold.
    lacks: the missing requirement, as the end of the sentence "This machine lacks …", or "" if nothing is missing.
    packages: names of packages whose versions are listed on the card of a recorded run. Pass the result to
    `plots.measured` and `claim` as `recorded=`, so that they mark it. Raises RecordingError.
    """
    if not NAME.fullmatch(name):
        raise RecordingError(f'Expected a name such as "02-amdahl" (chapter, experiment); got {name!r}.')
    folder = os.environ.get(FOLDER_VARIABLE)
    if lacks:
        run = _read(name, lacks)
        page = (
            f'<div class="sl-recorded"><p><strong>Recorded run.</strong> This machine lacks {html.escape(lacks)}. '
            f"What follows was measured elsewhere: {html.escape(run.origin)}.</p>{_card(run)}</div>"
        )
        text = f"Recorded run: this machine lacks {lacks}. Measured elsewhere: {run.origin}."
        publish(text, page, {"kind": "recording", "name": name, "state": "shown", "lacks": lacks})
        return run
    try:
        text = json.dumps(measure(), indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecordingError(f"{name}: expected data that JSON can hold (no NaN, no arrays): {error}.") from error
    if folder:
        machine = dict(machine_card("numpy", *packages).rows)
        content = {"name": name, "day": datetime.date.today().isoformat(), "machine": machine, "data": json.loads(text)}
        path = Path(folder, f"{name}.json")
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
        publish(
            f"Recorded: {name}", f"<p>Recorded: {name}</p>", {"kind": "recording", "name": name, "state": "renewed"}
        )
    return Run(name, json.loads(text))


def _read(name: str, lacks: str) -> Run:
    path = FOLDER / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Run(name, content["data"], recorded=True, day=content["day"], machine=content["machine"])
    except FileNotFoundError as error:
        raise RecordingError(
            f"This machine lacks {lacks}, and there is no recorded run {name!r}. On a machine that has it, "
            f"`scalelab record {name[:2]}` makes one."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RecordingError(
            f"The recorded run {name!r} is damaged ({type(error).__name__}: {error}). Take {path.name} from the "
            "course's repository again."
        ) from error


def _card(run: Run) -> str:
    page: str = MachineCard(run.machine or {})._repr_mimebundle_()[0]["text/html"]
    return page.replace("Measured on this machine", "Recorded on this machine")
