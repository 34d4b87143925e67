"""The servers that take load: their queues follow the arithmetic, they count, they stand still when told to."""

import asyncio
import math
import urllib.error
import urllib.request
from collections import Counter

import aiohttp
import numpy as np
import pytest

from scalelab import open_loop, queue_server, work_server
from scalelab.servers import ServiceError
from scalelab.servers.apps._queue_app import Service
from scalelab.servers.apps._work_app import burn, turns_for

POLICIES = ("one queue", "random", "round robin", "two choices", "shortest")


def service(**options):
    defaults = {"mean": 0.1, "distribution": "exponential", "scv": 1.0, "servers": 1}
    return Service(**{**defaults, "policy": "one queue", "seed": 2, "limit": None, **options})


def load(server, rate, requests):
    """Put an even open loop on the server and return its load."""

    async def main():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def send(i):
                async with session.get(server.work(i), raise_for_status=True) as response:
                    return await response.json()

            return await open_loop(send, rate, requests=requests, arrivals="even")

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("distribution", "scv"), [("fixed", 1.0), ("exponential", 1.0), ("hyperexponential", 4.0), ("hyperexponential", 20)]
)
def test_service_times_have_their_mean_and_their_variation(distribution, scv):
    one = service(distribution=distribution, scv=scv)
    times = np.array([one.service_time(i) for i in range(40_000)])
    assert times.mean() == pytest.approx(0.1, rel=0.05)
    expected = 0 if distribution == "fixed" else scv
    assert times.var() / times.mean() ** 2 == pytest.approx(expected, rel=0.15, abs=1e-9)
    assert [one.service_time(i) for i in range(20)] == times[:20].tolist()
    if distribution != "fixed":
        other = service(distribution=distribution, scv=scv, seed=3)
        assert [other.service_time(i) for i in range(20)] != times[:20].tolist()


def test_one_queue_gives_the_next_to_whoever_is_free_first():
    one = service(servers=2)
    one.ends[0].append(5.0)
    one.ends[1].append(3.0)
    assert one.choose(1.0) == 1
    assert one.choose(4.0) == 1
    assert not one.ends[1]


def test_in_turn_takes_turns_and_random_takes_all():
    assert [service(servers=3, policy="round robin").choose(0) for _ in range(1)] == [1]
    one = service(servers=3, policy="round robin")
    assert [one.choose(0) for _ in range(6)] == [1, 2, 0, 1, 2, 0]
    random = service(servers=3, policy="random")
    assert Counter(random.choose(0) for _ in range(300)).keys() == {0, 1, 2}


def test_the_shortest_and_the_shorter_of_two():
    shortest = service(servers=4, policy="shortest")
    for k, length in enumerate((2, 3, 1, 2)):
        shortest.ends[k].extend([10.0] * length)
    assert {shortest.choose(0) for _ in range(50)} == {2}
    two = service(servers=2, policy="two choices")
    two.ends[0].extend([10.0, 11.0])
    assert {two.choose(0) for _ in range(50)} == {1}
    many = service(servers=4, policy="two choices")
    many.ends[3].extend([10.0] * 9)
    assert 3 not in {many.choose(0) for _ in range(200)}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_answers_everyone(policy):
    with queue_server(0.001, servers=3, policy=policy) as server:
        answered = load(server, 400, 60)
        seen = server.stats()
    assert answered.errors == 0
    assert (seen.arrived, seen.completed, seen.in_system, seen.refused) == (60, 60, 0, 0)


def test_what_the_server_counts_is_the_queues_arithmetic():
    with queue_server(0.02, distribution="fixed") as server:
        answered = load(server, 100, 20)  # twice what it can serve: request i waits i times 10 ms
        seen = server.stats()
    assert seen.busy_seconds == pytest.approx(20 * 0.02)
    assert answered.service.min() >= 0.019
    # The last is begun after 19 service times at the least, whatever the machine does.
    assert answered.ended[-1] - answered.sent[0] >= 20 * 0.02 - 0.001
    assert seen.in_system_seconds >= seen.busy_seconds + seen.waited_seconds - 0.02
    assert seen.most_in_system >= 2
    assert seen.seconds >= 0.4


def test_counters_begin_again_and_requests_inside_stay_inside():
    async def main(server):
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:

            async def get(i):
                async with session.get(server.work(i)) as response:
                    return response.status

            tasks = [group.create_task(get(i)) for i in range(3)]
            while (await asyncio.to_thread(server.stats)).in_system < 3:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.reset)
            return await asyncio.to_thread(server.stats), tasks

    with queue_server(0.5, distribution="fixed", servers=3) as server:
        between, tasks = asyncio.run(main(server))
        after = server.stats()
    assert (between.arrived, between.completed, between.in_system) == (0, 0, 3)
    assert [task.result() for task in tasks] == [200] * 3
    assert (after.completed, after.in_system) == (3, 0)


def test_a_full_server_refuses():
    with queue_server(0.3, distribution="fixed", limit=2) as server:
        answered = load(server, 1000, 10)
        seen = server.stats()
    assert answered.failures == {"ClientResponseError": 8}
    assert (seen.refused, seen.most_in_system) == (8, 2)


@pytest.mark.parametrize("kind", [queue_server, work_server])
def test_a_pause_stops_everything_for_its_time(kind):
    with kind(0.001) as server:
        server.pause(0.4)
        answered = load(server, 50, 30)
    assert answered.errors == 0
    assert (answered.latency > 0.1).sum() >= 10  # of the 15 to 20 that were meant for the pause
    assert answered.latency.max() <= answered.ended.max()


def test_work_is_worked():
    with work_server(0.004) as server:
        load(server, 1000, 50)
        seen = server.stats()
        server.reset()
        again = server.stats()
    assert (seen.arrived, seen.completed, again.completed) == (50, 50, 0)
    assert seen.cpu_seconds >= 50 * 0.002
    assert again.cpu_seconds < seen.cpu_seconds


def test_turns_are_calibrated_to_processor_time():
    assert turns_for(1e-9) >= 1
    ratios = [turns_for(0.02) / turns_for(0.002) for _ in range(5)]
    assert 3 < sorted(ratios)[2] < 30
    assert burn(10) == burn(10) != burn(11)


def test_it_is_gone_after_its_block_and_says_so():
    with queue_server() as server:
        pass
    with pytest.raises(ServiceError, match="run the cell that opens it again"):
        server.stats()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.work(1), timeout=5)


@pytest.mark.parametrize(
    ("open_it", "said"),
    [
        (lambda: queue_server(0), "service > 0"),
        (lambda: queue_server(servers=0), "servers >= 1"),
        (lambda: queue_server(limit=0), "limit >= 1"),
        (lambda: queue_server(distribution="normal"), "hyperexponential"),
        (lambda: queue_server(policy="best"), "two choices"),
        (lambda: queue_server(distribution="hyperexponential"), "scv > 1"),
        (lambda: queue_server(scv=4.0), "only there"),
        (lambda: work_server(0), "cost above 0"),
    ],
)
def test_options_that_make_no_queue_are_refused(open_it, said):
    with pytest.raises(ServiceError, match=said), open_it():
        pass


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_a_pause_needs_a_length(seconds):
    with queue_server() as server, pytest.raises(ServiceError, match="above 0 s"):
        server.pause(seconds)
