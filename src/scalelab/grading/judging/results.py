"""The result of judging one answer, which can be sent to another machine as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scalelab.checks._verdict import Verdict, fields_of

PASSED = "passed"
FAILED = "failed"
RAISED = "raised"
TIMED_OUT = "timed out"
ENDED = "ended"
NOT_JUDGED = "not judged"
STATES = frozenset({PASSED, FAILED, RAISED, TIMED_OUT, ENDED, NOT_JUDGED})


@dataclass(frozen=True)
class CheckResult:
    """Whether a check passed in nbval, and its verdict; None if the check ended before its verdict."""

    passed: bool = False
    verdict: Verdict | None = None

    def as_data(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {"passed": self.passed, "verdict": self.verdict and self.verdict.as_data()}

    @classmethod
    def from_data(cls, data: Any) -> CheckResult:
        """Return the result from the data of `as_data`. Raises ValueError."""
        verdict = data.get("verdict") if isinstance(data, dict) else None
        passed = fields_of(data, {"passed": bool, "verdict": type(verdict)})["passed"]
        return cls(passed, None if verdict is None else Verdict.from_data(verdict))


@dataclass(frozen=True)
class Result:
    """The result of judging one answer.

    `state` is PASSED (both checks passed), FAILED (one did not, or both), RAISED (the answer's cell ended with an
    error), TIMED_OUT (the answer or a check used up its processor time, or the answer waited without end), ENDED (the
    answer's process ended, or broke the protocol), or NOT_JUDGED (the grader failed, through no fault of the answer).
    `reason` tells the student why the question ended early; of NOT_JUDGED it is the grader's error, which students do
    not see. `printed` is the answer's output in its visible check, outside of runs. `seconds` is the duration of
    judging, `note` the grader's remark.
    """

    state: str
    reason: str = ""
    visible: CheckResult = CheckResult()
    hidden: CheckResult = CheckResult()
    printed: str = ""
    seconds: float = 0.0
    note: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        checks = {"visible": self.visible.as_data(), "hidden": self.hidden.as_data()}
        return {**vars(self), **checks, "seconds": float(self.seconds)}

    @classmethod
    def from_data(cls, data: Any) -> Result:
        """Return the result from the data of `as_data`. Raises ValueError."""
        texts = dict.fromkeys(("state", "reason", "printed", "note"), str)
        fields = fields_of(data, {**texts, "visible": dict, "hidden": dict, "seconds": float})
        if fields["state"] not in STATES:
            raise ValueError(f"expected state to be one of {', '.join(sorted(STATES))}")
        checks = {name: CheckResult.from_data(fields[name]) for name in ("visible", "hidden")}
        return cls(**{**fields, **checks})
