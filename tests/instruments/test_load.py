"""Load generators: when they send, what they count; on a loop whose clock jumps, so every figure is exact."""

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab import checks
from scalelab.measure import Load, LoadError, closed_loop, open_loop


def virtual(main):
    """Return what the coroutine function returns, run in virtual time."""
    done = checks.run(main)
    assert done.error is None, done.error
    return done.result


def always(seconds):
    async def send(i):
        await asyncio.sleep(seconds)

    return send


class Pausing:
    """Answers in `quick` seconds, but nobody between `start` and `end`, as a server that stands still."""

    def __init__(self, quick, start, end):
        self.quick, self.start, self.end = quick, start, end

    async def send(self, i):
        clock = asyncio.get_running_loop().time
        if i == 0:
            self.began = clock()
        await asyncio.sleep(self.quick)
        if self.start <= clock() - self.began < self.end:
            await asyncio.sleep(self.began + self.end - clock())


def test_open_loop_sends_when_it_meant_to_whatever_comes_back():
    load = virtual(lambda: open_loop(always(10), 100, requests=200, arrivals="even"))
    assert load.intended == pytest.approx(np.arange(200) / 100)
    assert load.sent == pytest.approx(load.intended, abs=1e-9)
    assert load.latency == pytest.approx(np.full(200, 10))
    assert load.errors == 0
    assert load.offered == 100


def test_closed_loop_has_no_more_in_flight_than_users():
    most = now = 0

    async def send(i):
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.1)
        now -= 1

    load = virtual(lambda: closed_loop(send, 5, requests=100))
    assert most == 5
    assert load.throughput == pytest.approx(50)
    assert load.in_flight == pytest.approx(5)
    assert math.isnan(load.offered)
    assert load.intended == pytest.approx(load.sent)


def test_users_think():
    load = virtual(lambda: closed_loop(always(0.1), 2, requests=20, think=0.3))
    assert load.sent[-1] == pytest.approx(9 * 0.4)


def test_a_paced_closed_loop_omits_what_it_delays():
    """One user, a request each 10 ms, and a server that stands still for a second: the textbook case."""
    server = Pausing(0.001, 1.0, 2.0)
    load = virtual(lambda: closed_loop(server.send, 1, requests=300, rate=100))
    assert (load.service > 0.5).sum() == 1
    assert 40 < (load.latency > 0.5).sum() < 60
    assert load.histogram.percentile(99) > 100 * load.service_histogram.percentile(99)


def test_an_open_loop_sees_the_pause_from_each_request():
    server = Pausing(0.001, 1.0, 2.0)
    load = virtual(lambda: open_loop(server.send, 100, requests=300, arrivals="even"))
    assert (load.latency > 0.5).sum() == pytest.approx(50, abs=2)
    assert load.latency == pytest.approx(load.service, abs=1e-9)


def test_poisson_arrivals_have_their_rate_their_spread_and_their_seed():
    def load(seed):
        return virtual(lambda: open_loop(always(0), 50, requests=4000, seed=seed))

    one, same, other = load(1), load(1), load(2)
    gaps = np.diff(one.intended)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.05)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.05)
    assert one.intended[0] == 0
    assert (one.intended == same.intended).all()
    assert (one.intended != other.intended).any()


def test_failures_are_counted_by_kind_and_are_no_latencies():
    async def send(i):
        await asyncio.sleep(0.01)
        if i % 4 == 3:
            raise ConnectionResetError

    load = virtual(lambda: open_loop(send, 100, requests=100, arrivals="even"))
    assert load.failures == {"ConnectionResetError": 25}
    assert np.isnan(load.latency).sum() == 25
    assert load.histogram.count == 75
    assert load.throughput == pytest.approx(75 / load.seconds)


def test_a_request_is_given_up_a_timeout_after_its_intended_start():
    load = virtual(lambda: open_loop(always(5), 10, requests=10, arrivals="even", timeout=1.0))
    assert load.failures == {"TimeoutError": 10}
    assert load.throughput == load.seconds == load.in_flight == 0


def test_in_the_closed_loop_the_timeout_counts_from_the_intended_start_too():
    server = Pausing(0.001, 0.5, 1.5)
    load = virtual(lambda: closed_loop(server.send, 1, requests=100, rate=100, timeout=0.2))
    assert load.errors == 50  # counted from when each was sent, it would be 5


def test_how_late_the_generator_was_is_told():
    def hog(i):
        async def body():
            import time

            time.sleep(0.05)

        return body()

    load = virtual(lambda: open_loop(hog, 100, requests=50, arrivals="even"))
    assert load.late(100) > 1
    assert virtual(lambda: open_loop(always(1), 100, requests=50)).late() < 1e-6


def test_stopping_a_load_stops_its_requests():
    left = []

    async def send(i):
        try:
            await asyncio.sleep(100)
        finally:
            left.append(i)

    async def main():
        task = asyncio.create_task(open_loop(send, 100, requests=50, arrivals="even"))
        await asyncio.sleep(0.205)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(left)

    assert virtual(main) == 21


@settings(max_examples=30)
@given(st.integers(1, 8), st.integers(1, 60), st.floats(0.001, 1))
def test_every_request_is_sent_once_and_littles_law_holds(users, requests, seconds):
    sent = []

    async def send(i):
        sent.append(i)
        await asyncio.sleep(seconds)

    load = virtual(lambda: closed_loop(send, users, requests=requests))
    assert sorted(sent) == list(range(requests))
    assert load.in_flight == pytest.approx(load.throughput * load.service.mean())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: open_loop(always(0), 0, requests=1), "rate above 0"),
        (lambda: open_loop(always(0), math.inf, requests=1), "rate above 0"),
        (lambda: open_loop(always(0), 1, requests=0), "at least one request"),
        (lambda: open_loop(always(0), 1, requests=1, arrivals="random"), "poisson"),
        (lambda: closed_loop(always(0), 0, requests=1), "at least one user"),
        (lambda: closed_loop(always(0), 1, requests=0), "at least one request"),
        (lambda: closed_loop(always(0), 1, requests=1, think=-1), "to think"),
        (lambda: closed_loop(always(0), 1, requests=1, rate=0), "rate above 0"),
    ],
)
def test_an_impossible_load_is_refused(call, said):
    with pytest.raises(LoadError, match=said):
        asyncio.run(call())


def test_a_load_without_answers_has_figures_of_nothing():
    nothing = np.array([math.nan])
    load = Load(1.0, np.array([0.0]), np.array([0.0]), nothing, {"OSError": 1})
    assert load.seconds == load.throughput == 0
