"""Claims: sentences of the book that the build checks against measurements."""

from __future__ import annotations

import html
import math
import os
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from scalelab._publish import publish
from scalelab.errors import ScalelabError

if TYPE_CHECKING:
    from scalelab.recordings import Run


GO_ON = "SCALELAB_CLAIMS_GO_ON"
"""The environment variable under which a claim that does not hold is published as such, and raises nothing."""


class ClaimFailed(ScalelabError):
    """A claim does not hold on this machine, in this run."""


class ClaimError(ScalelabError):
    """A claim has no bound, so it cannot be checked."""


@dataclass(frozen=True)
class Claim:
    """A checked claim. `value` is the measured value, in `unit`; a bound that was not given is None.

    recorded: the machine and day of the measurement if it is a recorded run, else "".
    """

    id: str
    text: str
    value: float
    unit: str
    at_least: float | None
    at_most: float | None
    exactly: float | None
    recorded: str = ""

    @property
    def holds(self) -> bool:
        if math.isnan(self.value):
            return False
        return (
            (self.at_least is None or self.value >= self.at_least)
            and (self.at_most is None or self.value <= self.at_most)
            and (self.exactly is None or self.value == self.exactly)
        )

    @property
    def bound(self) -> str:
        """The bounds in words, e.g. `at least 5×`."""
        bounds = (("at least", self.at_least), ("at most", self.at_most), ("exactly", self.exactly))
        return " and ".join(f"{word} {number(bound)}{self.unit}" for word, bound in bounds if bound is not None)

    @property
    def measured(self) -> str:
        """The measured value with its unit, e.g. `37.2×`."""
        return f"{number(self.value)}{self.unit}"


def claim(
    text: str,
    value: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    exactly: float | None = None,
    unit: str = "",
    recorded: Run | None = None,
) -> None:
    """Print one line, the same in every run, that says the claim holds, or raise ClaimFailed.

    text: the claim as a sentence without measured numbers; it must read the same in every run. value: the measurement,
    a ratio or a count, never an absolute time. unit: follows the number: `"×"` or, with a leading space, `" requests"`.
    The measured value is shown beside the line and kept in the output's metadata, from which the book lists all claims.
    recorded: the run that the value comes from; if it is a recorded one, the claim is marked. Raises ClaimError if no
    bound is given.
    """
    if at_least is None and at_most is None and exactly is None:
        raise ClaimError(f"The claim {text!r} has no bound: give at_least, at_most or exactly.")
    checked = Claim(
        _slug(text), text, float(value), unit, at_least, at_most, exactly, recorded.origin if recorded else ""
    )
    if not checked.holds and not os.environ.get(GO_ON):
        raise ClaimFailed(
            f"This claim does not hold here: {text}. Measured {checked.measured}, expected {checked.bound}. "
            "Run the experiment's cells again; if it fails again, your machine has something to teach: "
            "read “Why yours may differ”."
        )
    mark = " (recorded run)" if checked.recorded else ""
    metadata = {"kind": "claim", **asdict(checked), "holds": checked.holds}
    publish(f"{_sign(checked)} {text}{mark}", _html(checked), metadata)


def number(value: float) -> str:
    """Return a readable number: without decimals if it is whole or at least 1000, else with 3 significant digits."""
    if math.isnan(value) or math.isinf(value):
        return str(value)
    if value == int(value) or abs(value) >= 1000:
        return f"{round(value):,}"
    return f"{value:.3g}"


def _slug(text: str) -> str:
    return "claim-" + "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:60].strip("-")


def _html(checked: Claim) -> str:
    return (
        f'<p class="sl-claim" id="{checked.id}"><span aria-hidden="true">{_sign(checked)}</span> '
        f'<span class="sl-claim-text">{html.escape(checked.text)}</span> '
        f'<span class="sl-claim-value">{_origin_html(checked)}measured {html.escape(checked.measured)} · '
        f"claimed {html.escape(checked.bound)}</span></p>"
    )


def _sign(checked: Claim) -> str:
    return "✓" if checked.holds else "✗"


def _origin_html(checked: Claim) -> str:
    return f"recorded run ({html.escape(checked.recorded)}): " if checked.recorded else ""


def claim_from_metadata(metadata: dict[str, Any]) -> Claim:
    """Return the claim that `claim` stored in the metadata of its output (`{"kind": "claim", …}`)."""
    return Claim(**{key: metadata[key] for key in Claim.__dataclass_fields__})
