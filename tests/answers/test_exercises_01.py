"""The checks of 01 do not depend on their seeds: each wrong answer fails with others as well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from remote_answer import judged, local

from scalelab import checks
from scalelab.course.exercises import Exercise, Wrong, read_set

SET = read_set(Path(__file__).parents[2] / "solutions" / "01_measuring.md")
SEEDED = [exercise for exercise in SET.exercises if exercise.id in ("open_loop", "compared")]
SEEDS = re.compile(r"(?<=seed=)\d+|(?<=gaps\()\d+|(?<=for seed in \()[\d, ]+(?=\))")


def shifted(check: str, by: int) -> str:
    """Return a check with other seeds."""
    return SEEDS.sub(lambda found: re.sub(r"\d+", lambda seed: str(int(seed[0]) + by), found[0]), check)


@pytest.mark.parametrize("by", [100, 200])
@pytest.mark.parametrize(
    ("exercise", "wrong"),
    [
        pytest.param(exercise, wrong, id=f"{exercise.id}-{wrong.name}")
        for exercise in SEEDED
        for wrong in exercise.wrongs
    ],
)
def test_a_wrong_answer_fails_with_other_seeds(exercise: Exercise, wrong: Wrong, by: int) -> None:
    checks.verdicts.clear()
    assert not judged(local, SET.setup, wrong.source, [], shifted(exercise.check, by)).passed
    ideas = [one.idea for verdict in checks.verdicts for one in verdict.expectations]
    assert wrong.name in ideas
