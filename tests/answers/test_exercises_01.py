"""The exercises of chapter 01: other right answers pass, other wrong ones fail, and no verdict hangs on a seed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from remote_answer import judged, local

from scalelab import checks
from scalelab.exercises.source import Exercise, Wrong, read_set
from scalelab.grading.judging.assemble import _given

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


def reference(name: str) -> str:
    """Return an exercise's own solution."""
    return next(exercise.solution for exercise in SET.exercises if exercise.id == name)


def changed(name: str, *changes: tuple[str, str]) -> str:
    """Return an exercise's own solution with some of its text replaced."""
    source = reference(name)
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    return source


STARTS = """    starts = [0.0]
    while len(starts) < requests:
        starts.append(len(starts) / rate if seed is None else starts[-1] + draw.expovariate(rate))
"""

RIGHT = {
    "percentiles": {
        "by the words of the task": """
def percentile(sample, p):
    return min(value for value in sample if 100 * sum(other <= value for other in sample) >= p * len(sample))


fooled = [10] * 9 + [110]
""",
        "as NumPy rounds": """
import numpy as np


def percentile(sample, p):
    return np.percentile(sample, p, method="inverted_cdf")


fooled = [10] * 9 + [110]
""",
        "latencies in an array": changed(
            "percentiles", ("fooled = [", "import numpy\nfooled = numpy.array(["), ("110]", "110])")
        ),
        "latencies in a tuple": changed("percentiles", ("fooled = [", "fooled = ("), ("110]", "110)")),
        "the ceiling by whole division": changed(
            "percentiles", ("math.ceil(p * len(sample) / 100)", "int(-(-p * len(sample) // 100))")
        ),
    },
    "load_test": {
        "starts added up": """
async def load_test(send, rate, requests, warm_up):
    begin, gap, due, tasks = time.perf_counter(), 1 / rate, 0.0, []

    async def one(i, due):
        try:
            await send(i)
        except Exception:
            return due, math.inf
        return due, time.perf_counter() - (begin + due)

    for i in range(requests):
        await asyncio.sleep(max(0, begin + due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(i, due)))
        due += gap
    latencies = [latency for due, latency in await asyncio.gather(*tasks) if due >= warm_up]
    return {
        "measured": len(latencies),
        "failed": latencies.count(math.inf),
        "p50": nearest_rank(latencies, 50),
        "p99": nearest_rank(latencies, 99),
    }
""",
    },
    "open_loop": {
        "all gaps first, taken from the end": changed(
            "open_loop",
            (
                STARTS,
                """    gaps = [1 / rate if seed is None else draw.expovariate(rate) for _ in range(requests - 1)]
    starts = [0.0]
    while gaps:
        starts.append(starts[-1] + gaps.pop())
""",
            ),
        ),
    },
}

WRONG = {
    "percentiles": {
        "leaves out equal values": """
def percentile(sample, p):
    ordered = sorted(set(sample))
    return ordered[math.ceil(p * len(ordered) / 100) - 1]


fooled = [10] * 9 + [110]
""",
        "a row of calls that ends early": """
def percentile(sample, p):
    if len(sample) == 1:
        return sample[0]
    if len(sample) == 10:
        return {50: 50, 91: 100, 100: 100, 1: 10, 0: 10}[math.ceil(p)]
    raise StopIteration
fooled = [10, 10, 10, 10, 10, 10, 10, 10, 10, 110]
""",
        "whole percents only": changed("percentiles", ("p * len", "int(p) * len")),
    },
    "fleet": {
        "whole percents only": changed("fleet", ("p * requests", "int(p) * requests")),
    },
    "open_loop": {
        "at most 300 in flight": changed(
            "open_loop",
            ("begin = time.perf_counter()", "begin, places = time.perf_counter(), asyncio.Semaphore(300)"),
            ("            await send(i)", "            async with places:\n                await send(i)"),
        ),
        "a gap before request 0": changed(
            "open_loop", ("starts = [0.0]", "starts = [0.0 if seed is None else draw.expovariate(rate)]")
        ),
    },
    "compared": {
        "the floor's high only": changed("compared", ("max(floor[2], 1 / floor[0])", "floor[2]")),
        "no intervals for other machines": changed(
            "compared",
            ("    return ratio, floor, word", "    return ((), (), word) if rounds == 16 else (ratio, floor, word)"),
        ),
        "faster below 1": changed("compared", ("ratio[2] < 1 / reach", "ratio[2] < 1")),
    },
    "load_test": {
        "at most 250 in flight": changed(
            "load_test",
            ("begin = time.perf_counter()", "begin, places = time.perf_counter(), asyncio.Semaphore(250)"),
            ("            await send(i)", "            async with places:\n                await send(i)"),
        ),
        "the largest for a p99": changed("load_test", ("nearest_rank(latencies, 99)", "max(latencies)")),
        "a p99 over all": changed("load_test", ("nearest_rank(latencies, 99)", "nearest_rank(found, 99)")),
        "sleeps for a gap": """
async def load_test(send, rate, requests, warm_up):
    begin, tasks = time.perf_counter(), []

    async def one(i):
        try:
            await send(i)
        except Exception:
            return math.inf
        return time.perf_counter() - begin - i / rate

    for i in range(requests):
        tasks.append(asyncio.create_task(one(i)))
        await asyncio.sleep(1 / rate)
    found = await asyncio.gather(*tasks)
    latencies = [latency for i, latency in enumerate(found) if i / rate >= warm_up]
    return {
        "measured": len(latencies),
        "failed": latencies.count(math.inf),
        "p50": nearest_rank(latencies, 50),
        "p99": nearest_rank(latencies, 99),
    }
""",
    },
}


def cases(answers: dict[str, dict[str, str]]) -> list[Any]:
    """Return an exercise's id and an answer to it, for each of the answers."""
    return [
        pytest.param(name, answer, id=f"{name}: {kind}")
        for name, kinds in answers.items()
        for kind, answer in kinds.items()
    ]


def failed(name: str, answer: str) -> list[str]:
    """Return which of an exercise's two checks the answer fails, and what they print."""
    exercise = next(exercise for exercise in SET.exercises if exercise.id == name)
    hidden = f"{_given(exercise.check)}\n{exercise.hidden}"
    judgements = [judged(local, SET.setup, answer, [], check) for check in (exercise.check, hidden)]
    return [judgement.printed + judgement.error for judgement in judgements if not judgement.passed]


@pytest.mark.parametrize(("name", "answer"), cases(RIGHT))
def test_other_right_answers_pass(name: str, answer: str) -> None:
    assert not failed(name, answer)


@pytest.mark.parametrize(("name", "answer"), cases(WRONG))
def test_other_wrong_answers_fail(name: str, answer: str) -> None:
    found = failed(name, answer)
    assert found
    assert all("✗" in printed for printed in found)


def test_a_request_that_is_late_by_little_is_shown_with_its_lateness() -> None:
    late = changed(
        "load_test", ("max(0, intended - time.perf_counter())", "max(0, intended - time.perf_counter()) + 4e-6 * i")
    )
    assert "request 54 after 2.160216 s, meant for 2.16 s" in " ".join(failed("load_test", late)[0].split())


def test_a_rate_that_is_too_high_is_not_called_a_burst() -> None:
    fast = changed("open_loop", ("len(starts) / rate if", "len(starts) / rate / 2 if"))
    assert "a burst" not in failed("open_loop", fast)[0]
    assert "a burst" in failed("open_loop", changed("open_loop", ("len(starts) / rate if", "0.0 if")))[0]


def test_a_serial_sender_is_not_told_of_a_bound() -> None:
    serial = changed(
        "open_loop", ("asyncio.create_task(one(i))", "await one(i)"), ("await task for task", "task for task")
    )
    visible, hidden = failed("open_loop", serial)
    assert "this is a closed loop" in " ".join(visible.split())
    assert "are held back" not in " ".join(hidden.split())


SAID = [
    pytest.param(
        "pause", ("open_loop = [40, 340, 240, 140, 40, 40]", "open_loop = 7"), "must be a list", id="a number"
    ),
    pytest.param(
        "pause", ("[0, 100, 440, 480, 520, 560]", "[0, 100, 440]"), "must have six entries", id="three entries"
    ),
    pytest.param(
        "pause", ("[0, 100, 440, 480, 520, 560]", "[0, 100, ..., ..., ..., ...]"), "holds `...`", id="starter"
    ),
    pytest.param("percentiles", ("    return ordered", "    ordered"), "is there a `return`?", id="percentiles"),
    pytest.param("compared", ("    return ratio, floor, word", ""), "is there a `return`?", id="compared"),
    pytest.param(
        "percentiles", ("fooled = [10,", "fooled = [0,"), "every request takes some time", id="a latency of 0"
    ),
    pytest.param("percentiles", ("fooled = [10,", "fooled = 7, [10,"), "must have ten entries", id="two entries"),
    pytest.param(
        "load_test",
        ("latencies.count(math.inf)", "found.count(math.inf)"),
        "also counts failures of the warm-up",
        id="failures of the warm-up",
    ),
    pytest.param(
        "compared", ("return ratio, floor, word", "return 1.0, 1.0, word"), "An interval is", id="no intervals"
    ),
]


@pytest.mark.parametrize(("name", "change", "words"), SAID)
def test_a_result_of_another_shape_is_named(name: str, change: tuple[str, str], words: str) -> None:
    assert words in failed(name, changed(name, change))[0]
