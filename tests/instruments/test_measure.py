"""Measuring: summaries, lag, fresh processes, the machine's card."""

import asyncio
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalelab import LoopLag, machine_card, median_interval, percentile, run_fresh
from scalelab.measure import FreshProcessError
from scalelab.measure.sample import EmptySample

SAMPLES = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=200)


@given(SAMPLES, st.floats(min_value=0.1, max_value=100))
def test_a_percentile_is_a_value_that_enough_of_the_sample_do_not_exceed(sample, p):
    value = percentile(sample, p)
    assert value in sample
    assert sum(x <= value for x in sample) >= p / 100 * len(sample) - 1e-6
    smaller = [x for x in sample if x < value]
    assert len(smaller) < p / 100 * len(sample) + 1e-6


def test_percentiles_of_one_to_a_hundred():
    sample = range(1, 101)
    assert [percentile(sample, p) for p in (1, 50, 99, 100)] == [1, 50, 99, 100]


@pytest.mark.parametrize("p", [0, -1, 101])
def test_a_percentile_outside_its_domain_is_refused(p):
    with pytest.raises(ValueError, match="Expected a percentile"):
        percentile([1], p)


@given(SAMPLES)
def test_an_interval_encloses_its_median(sample):
    interval = median_interval(sample)
    assert interval.low <= interval.median <= interval.high
    assert interval.low == min(sample)
    assert interval.high == max(sample)


def test_nothing_has_no_median():
    with pytest.raises(EmptySample, match="did the run before this cell finish"):
        median_interval([])


def test_lag_sees_a_blocked_loop_even_when_it_never_got_a_turn():
    async def blocked():
        async with LoopLag(0.005) as lag:
            time.sleep(0.1)
        return lag

    lag = asyncio.run(blocked())
    assert lag.worst >= 0.09


def test_lag_leaves_no_task():
    async def watched():
        async with LoopLag():
            await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert asyncio.run(watched()) == 1


def add(a, b):
    return a + b


async def process_id():
    import os

    return os.getpid()


def fails():
    raise ValueError("no such luck")


def endless():
    while True:
        pass


def test_a_fresh_process_returns_the_result():
    assert run_fresh(add, 2, 3) == 5


def test_a_fresh_process_runs_coroutines_and_is_another_process():
    assert run_fresh(process_id) != os.getpid()


def test_a_failure_in_the_fresh_process_is_told_with_its_own_words():
    with pytest.raises(FreshProcessError, match="no such luck"):
        run_fresh(fails)


def test_a_fresh_process_that_does_not_end_is_ended():
    with pytest.raises(FreshProcessError, match="pass smaller arguments"):
        run_fresh(endless, timeout=1)


def test_the_machine_card_names_versions_and_no_person():
    import getpass
    import platform

    card = machine_card("aiohttp")
    data, metadata = card._repr_mimebundle_()
    assert card.rows["Python"].endswith(platform.python_version())
    assert card.rows["aiohttp"]
    assert metadata["scalelab"] == {"kind": "machine", "card": dict(card.rows)}
    assert platform.node() not in data["text/plain"]
    assert getpass.getuser() not in card.rows.values()
