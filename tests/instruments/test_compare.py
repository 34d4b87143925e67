"""Interleaved comparison: what it calls a difference, and what it refuses to."""

import gc
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalelab.measure import ComparisonError, compare, paired_ratio, timer_step
from scalelab.measure.compare import duration


class Machine:
    """A clock in virtual time: calls of `work` take what they are told, times noise, plus a drift per call."""

    def __init__(self, *, seed=1, noise=0.05, drift=0.0):
        self.now, self.calls, self.drift = 0.0, [], drift
        self.random, self.noise = np.random.default_rng(seed), noise

    def clock(self):
        return self.now

    def work(self, name, seconds):
        def call():
            self.calls.append(name)
            slow = 1 + self.drift * len(self.calls)
            self.now += seconds * slow * math.exp(self.random.normal(0, self.noise))

        return call


def test_turns_alternate_and_the_warm_up_is_apart():
    machine = Machine(noise=0)
    compared = compare(
        {"a": machine.work("a", 1), "b": machine.work("b", 2)}, rounds=6, order="ABAB", clock=machine.clock
    )
    assert machine.calls[:2] == ["a", "b"]
    assert machine.calls[2:] == ["a", "b", "a", "a", "b", "a"] * 3
    assert compared.warm_up == {"a": 1, "b": 2}
    assert compared.times["a"].tolist() == [1] * 6
    assert compared.control.tolist() == [1] * 6
    assert compared.ratio("b", "a").median == 2


def test_in_a_row_each_has_its_rounds_together():
    machine = Machine()
    compare({"a": machine.work("a", 1), "b": machine.work("b", 1)}, rounds=6, order="AABB", clock=machine.clock)
    assert machine.calls[2:] == ["a"] * 6 + ["b"] * 6 + ["a"] * 6


def test_a_difference_is_found_and_told():
    machine = Machine()
    compared = compare({"a": machine.work("a", 1.0), "b": machine.work("b", 1.5)}, clock=machine.clock)
    ratio = compared.ratio("b", "a")
    assert ratio.low < 1.5 < ratio.high
    assert compared.differs("b", "a")
    assert compared.differs("a", "b")
    assert compared.verdict("b", "a").endswith("a difference.")


def test_what_lies_in_the_noise_is_called_noise():
    machine = Machine(noise=0.3)
    compared = compare({"a": machine.work("a", 1.0), "b": machine.work("b", 1.01)}, clock=machine.clock)
    assert not compared.differs("b", "a")
    assert "below the noise floor" in compared.verdict("b", "a")


def test_a_function_hardly_ever_differs_from_itself():
    found = Counter()
    for seed in range(200):
        machine = Machine(seed=seed, noise=0.2)
        compared = compare({"a": machine.work("a", 1.0), "b": machine.work("b", 1.0)}, clock=machine.clock)
        found[compared.differs("b", "a")] += 1
    assert found[True] <= 10


def test_a_drift_deceives_the_order_and_not_the_interleaving():
    def compared(order):
        machine = Machine(noise=0.01, drift=0.01)
        functions = {"a": machine.work("a", 1.0), "b": machine.work("b", 1.0)}
        return compare(functions, rounds=40, order=order, clock=machine.clock)

    assert compared("AABB").ratio("b", "a").low > 1.1
    assert compared("ABAB").ratio("b", "a").high < 1.03


def test_the_interval_covers_the_median_as_often_as_it_says():
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(1000):
        a, b = random.exponential(1, (2, 40))
        interval = paired_ratio(a, b)
        covered += interval.low <= 1 <= interval.high  # two alike: the median of the ratio is 1
    assert 0.94 <= covered / 1000 <= 0.99


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=6, max_size=60))
def test_the_other_way_round_the_ratio_is_the_inverse(pairs):
    a, b = zip(*pairs, strict=True)
    one, other = paired_ratio(a, b), paired_ratio(b, a)
    assert one.low <= one.median <= one.high
    assert one.low == pytest.approx(1 / other.high)
    assert one.high == pytest.approx(1 / other.low)


def test_the_table_names_everybody():
    machine = Machine()
    compared = compare({"old": machine.work("a", 1e-3), "new": machine.work("b", 2e-3)}, clock=machine.clock)
    bundle, metadata = compared._repr_mimebundle_()
    assert "old (against itself)" in bundle["text/plain"]
    assert "ms" in bundle["text/plain"]
    assert "<table" in bundle["text/html"]
    assert metadata["scalelab"]["kind"] == "comparison"


def test_the_collector_is_off_while_a_call_is_timed_and_on_again():
    states = []
    assert gc.isenabled()
    compare({"a": lambda: (states.append(gc.isenabled()), sum(range(2000)))}, rounds=6)
    assert gc.isenabled()
    assert not any(states)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: compare({}), "at least one function"),
        (lambda: compare({"a": int}, rounds=5), "at least 6 rounds"),
        (lambda: compare({"a": int}, order="BABA"), "ABAB"),
        (lambda: compare({"a": int}, clock=itertools.repeat(0).__next__).floor, "timer's step"),
        (lambda: paired_ratio([1] * 6, [1] * 7), "one length"),
        (lambda: compare({"a": lambda: sum(range(1000))}, rounds=6).ratio("b", "a"), "Expected one of a"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, said):
    with pytest.raises(ComparisonError, match=said):
        call()


def test_the_timers_step_is_the_least_that_was_seen():
    ticks = itertools.chain([0, 0, 3], itertools.accumulate(itertools.cycle([0, 0.5, 0, 2])))
    assert timer_step(ticks.__next__) == 0.5
    assert 0 < timer_step() < 0.02


@pytest.mark.parametrize(
    ("seconds", "words"), [(2, "2 s"), (0.0123, "12.3 ms"), (4.5e-6, "4.5 µs"), (4.96e-8, "49.6 ns")]
)
def test_durations_are_written_in_the_unit_that_suits(seconds, words):
    assert duration(seconds) == words
