"""Simulated queues against exact recursions, each other, and theory; and how fast they are."""

import subprocess
import sys
import time
from collections import deque
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab import simulate, theory

MANY = 1_000_000
LONG = 4_000_000
POLICIES = get_args(simulate.Policy)
DRAWN = {"fixed": None, "exponential": None, "hyperexponential": 4.0, "lognormal": 4.0}


@st.composite
def paths(draw, fixed=False):
    """A few requests, some at the same moment, some without any work: whole numbers, so that sums are exact."""
    gaps = draw(st.lists(st.integers(0, 5), min_size=1, max_size=40))
    services = [draw(st.integers(0, 9))] * len(gaps) if fixed else [draw(st.integers(0, 12)) for _ in gaps]
    return np.cumsum(gaps).astype(float), np.array(services, dtype=float)


def one_queue(arrivals, services, servers):
    """G/G/c as one would write it down: each request takes the server that is free first."""
    free, result = [0.0] * servers, []
    for arrival, service in zip(arrivals, services, strict=True):
        earliest = min(range(servers), key=free.__getitem__)
        start = max(arrival, free[earliest])
        free[earliest] = start + service
        result.append(start - arrival)
    return result


def lindley(arrivals, services):
    """G/G/1 as Lindley wrote it down: the wait before, and the work, less the gap."""
    wait, result, last = 0.0, [], arrivals[0]
    before = 0.0
    for arrival, service in zip(arrivals, services, strict=True):
        wait = max(0.0, wait + before - (arrival - last))
        result.append(wait)
        before, last = service, arrival
    return result


def shortest_of(arrivals, services, offered, servers):
    """Queues of their own: who arrives counts those still there in each queue on offer, takes the first shortest."""
    queues, result = [deque() for _ in range(servers)], []
    for arrival, service, choices in zip(arrivals, services, offered, strict=True):
        for server in choices:
            while queues[server] and queues[server][0] <= arrival:
                queues[server].popleft()
        queue = queues[min(choices, key=lambda server: len(queues[server]))]
        start = max(arrival, queue[-1]) if queue else arrival
        queue.append(start + service)
        result.append(start - arrival)
    return result


@pytest.fixture(scope="module")
def busy():
    """Poisson arrivals at .8 per second, and service times of mean 1 s for one server."""
    return simulate.poisson(0.8, LONG, 1), simulate.service_times("exponential", 1.0, LONG, 2)


@given(path=paths())
def test_one_server_waits_as_lindley_wrote(path):
    assert simulate.waits(*path).tolist() == lindley(*path)
    assert simulate.waits(*path).tolist() == one_queue(*path, servers=1)


@settings(deadline=None)
@given(path=paths(), servers=st.integers(2, 9))
def test_many_servers_wait_as_the_plain_loop_says(path, servers):
    assert simulate.waits(*path, servers).tolist() == one_queue(*path, servers)


@settings(deadline=None)
@given(path=paths(), servers=st.integers(1, 6))
def test_round_robin_is_one_queue_for_every_nth_request(path, servers):
    arrivals, services = path
    waits = simulate.dispatched(arrivals, services, servers, "round robin")
    for server in range(min(servers, len(arrivals))):
        mine = slice(server, None, servers)
        assert waits[mine].tolist() == lindley(arrivals[mine], services[mine])


@settings(deadline=None)
@given(path=paths(), servers=st.integers(2, 6), seed=st.integers(0, 99))
def test_random_and_the_shorter_queues_are_as_the_plain_loop_says(path, servers, seed):
    arrivals, services = path
    rng = np.random.default_rng(seed)
    first = rng.integers(servers, size=len(arrivals))
    step = rng.integers(1, servers, size=len(arrivals))
    offers = {
        "random": [[one] for one in first],
        "two choices": [[one, (one + by) % servers] for one, by in zip(first, step, strict=True)],
        "shortest": [[(one + k) % servers for k in range(servers)] for one in first],
    }
    for policy, offered in offers.items():
        waits = simulate.dispatched(arrivals, services, servers, policy, seed)
        assert waits.tolist() == shortest_of(arrivals, services, offered, servers), policy


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_with_one_server_has_no_choice(policy, busy):
    arrivals, services = busy[0][:1000], busy[1][:1000]
    expected = simulate.waits(arrivals, services)
    assert simulate.dispatched(arrivals, services, 1, policy) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(path=paths(fixed=True), servers=st.integers(1, 6), policy=st.sampled_from(POLICIES))
def test_with_equal_services_one_queue_is_never_worse_than_separate_ones(path, servers, policy):
    separate = simulate.dispatched(*path, servers, policy)
    assert simulate.waits(*path, servers).sum() <= separate.sum()


@pytest.mark.parametrize("distribution", ["exponential", "hyperexponential", "lognormal"])
@pytest.mark.parametrize("servers", [2, 8])
def test_on_a_long_path_one_queue_beats_the_shortest_beats_two_choices_beats_taking_turns_beats_chance(
    servers, distribution
):
    arrivals = simulate.poisson(0.8 * servers, 200_000, 3)
    services = simulate.service_times(distribution, 1.0, 200_000, 4, DRAWN[distribution])
    means = {policy: simulate.dispatched(arrivals, services, servers, policy, 5).mean() for policy in POLICIES}
    one = simulate.waits(arrivals, services, servers).mean()
    assert one < means["shortest"] < means["round robin"] < means["random"]
    if servers > 2:  # of two servers, two choices are all there are
        assert means["shortest"] < means["two choices"] < means["round robin"]


@settings(deadline=None)
@given(path=paths(fixed=True), servers=st.integers(1, 6))
def test_with_equal_services_taking_turns_is_one_queue(path, servers):
    """Who came first is done first, so the server whose turn it is is the one that is free first."""
    waits = simulate.dispatched(*path, servers, "round robin")
    assert waits.tolist() == simulate.waits(*path, servers).tolist()


def test_on_a_short_path_of_unequal_services_separate_queues_can_do_better_by_luck():
    """Why the claim above is of long paths: a long job that stands in the wrong queue leaves the other server free."""
    arrivals, services = [0.0, 0.0, 0.0, 0.0, 2.0], [1.0, 2.0, 100.0, 1.0, 1.0]
    assert simulate.waits(arrivals, services, 2).sum() == 4
    best = min(simulate.dispatched(arrivals, services, 2, "random", seed).sum() for seed in range(200))
    assert best == 3


def agrees(sample, expected, error=0.03):
    """Return whether the sample's mean lies within four standard errors of the expected one, and these are small.

    The standard error comes from the means of 40 stretches, since one wait depends on the next.
    """
    stretches = sample[: len(sample) // 40 * 40].reshape(40, -1).mean(axis=1)
    of_mean = stretches.std(ddof=1) / np.sqrt(40)
    assert of_mean < error * expected
    return abs(stretches.mean() - expected) < 4 * of_mean


def test_one_server_agrees_with_theory(busy):
    waits = simulate.waits(*busy)
    assert agrees(waits, theory.mmc_wait(1, 0.8, 1))
    assert agrees(waits > 0, 0.8)
    for p in (50, 90, 99):
        assert agrees(waits + busy[1] > theory.mm1_percentile(p, 0.8, 1), 1 - p / 100, error=0.1)


@pytest.mark.parametrize("servers", [2, 4, 16])
def test_many_servers_agree_with_theory(servers, busy):
    arrivals, services = busy[0], busy[1] * servers
    waits = simulate.waits(arrivals, services, servers)
    assert agrees(waits, theory.mmc_wait(servers, 0.8, servers), error=0.05)
    assert agrees(waits > 0, theory.erlang_c(servers, 0.8))
    for p in (50, 99):
        late = 1 - p / 100
        assert agrees(waits + services > theory.mmc_percentile(p, servers, 0.8, servers), late, error=0.1)
    assert agrees(waits > theory.mmc_wait_percentile(99, servers, 0.8, servers), 0.01, error=0.1)


def test_fixed_services_wait_half_as_long(busy):
    waits = simulate.waits(busy[0], simulate.service_times("fixed", 1.0, LONG, 1))
    assert agrees(waits, theory.md1_wait(0.8, 1))


@pytest.mark.parametrize("distribution", ["hyperexponential", "lognormal"])
def test_variable_services_wait_as_kingman_says_exactly_for_poisson_arrivals(distribution, busy):
    services = simulate.service_times(distribution, 1.0, LONG, 3, 4.0)
    assert agrees(simulate.waits(busy[0], services), theory.kingman_wait(0.8, 1, 1, 4), error=0.05)


def test_random_dispatch_makes_every_server_a_queue_of_one(busy):
    """A Poisson stream split at random is Poisson: 16 servers wait as one does, however many there are."""
    arrivals, services = busy[0], busy[1] * 16
    waits = simulate.dispatched(arrivals, services, 16, "random", 3)
    assert agrees(waits, theory.mmc_wait(1, 0.8, 16))


def test_two_choices_agree_with_mitzenmachers_limit():
    """Mean time with many servers: the sum of ρ^(2^i − 2), i >= 1 (Mitzenmacher 2001, d = 2)."""
    services = simulate.service_times("exponential", 1.0, MANY, 2)
    waits = simulate.dispatched(simulate.poisson(0.9 * 250, MANY, 1), services, 250, "two choices", 3)
    steady = (waits + services)[MANY // 5 :]
    assert steady.mean() == pytest.approx(sum(0.9 ** (2**i - 2) for i in range(1, 9)), rel=0.03)


@pytest.mark.parametrize("distribution", DRAWN)
def test_service_times_have_their_mean_and_variability(distribution):
    drawn = simulate.service_times(distribution, 0.25, MANY, 7, DRAWN[distribution])
    scv = {"fixed": 0.0, "exponential": 1.0}.get(distribution, 4.0)
    assert drawn.shape == (MANY,)
    assert drawn.mean() == pytest.approx(0.25, rel=0.01)
    assert drawn.var() / drawn.mean() ** 2 == pytest.approx(scv, rel=0.1, abs=1e-12)


def test_a_mix_of_scv_1_is_exponential():
    drawn = simulate.service_times("hyperexponential", 1.0, MANY, 7, 1.0)
    assert np.percentile(drawn, [10, 50, 99]) == pytest.approx(-np.log1p([-0.1, -0.5, -0.99]), rel=0.02)


def test_poisson_arrivals_have_exponential_gaps():
    gaps = np.diff(simulate.poisson(4.0, MANY, 1), prepend=0)
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1 / 4, rel=0.01)
    assert np.percentile(gaps, [10, 50, 99]) == pytest.approx(-np.log1p([-0.1, -0.5, -0.99]) / 4, rel=0.02)


def dispersion(arrivals, window):
    """Variance by mean of the arrivals per window: 1 for Poisson arrivals, whatever the window."""
    counts = np.bincount((arrivals / window).astype(int))[:-1]
    return counts.var() / counts.mean()


def test_bursts_keep_the_mean_rate_and_crowd():
    plain, crowded = simulate.poisson(2.0, MANY, 1), simulate.bursts(2.0, MANY, 1)
    assert (np.diff(crowded) >= 0).all()
    assert MANY / crowded[-1] == pytest.approx(2.0, rel=0.05)
    assert dispersion(plain, 50) == pytest.approx(1, rel=0.1)
    assert dispersion(crowded, 50) > 20
    assert dispersion(simulate.bursts(2.0, MANY, 1, factor=1), 50) == pytest.approx(1, rel=0.1)


def test_bursts_fill_their_share_of_the_time_and_nothing_comes_between_if_they_bring_all():
    """Bursts of 25 s fill a fifth of the time, so the pauses between them last 100 s on average."""
    arrivals = simulate.bursts(2.0, MANY, 1, factor=5, share=0.2, length=25)
    gaps = np.diff(arrivals)
    pauses = gaps[gaps > 5]  # inside a burst, at 10 per second, no gap lasts 5 s
    assert pauses.mean() == pytest.approx(100 + 5, rel=0.05)  # exponential: those over 5 s last 100 s more
    assert pauses.sum() / arrivals[-1] == pytest.approx(0.8, abs=0.03)


def test_bursts_are_as_likely_at_the_start_as_at_any_time():
    """In a fifth of 400 seeds a burst is on at once, 10 per second; in the others the first arrival is far off."""
    first = np.array([simulate.bursts(2.0, 1, seed, factor=5, share=0.2, length=25)[0] for seed in range(400)])
    assert (first < 1).mean() == pytest.approx(0.2 + 0.8 * 0.01, abs=0.08)


def test_bursts_break_kingman_and_shuffling_their_gaps_mends_it(busy):
    """The gaps are hardly more variable than a Poisson process's; that they come in rows is what makes the queue."""
    arrivals, services = simulate.bursts(0.8, LONG, 1, factor=2), busy[1]
    gaps = np.diff(arrivals, prepend=0)
    promised = theory.kingman_wait(0.8, 1, gaps.var() / gaps.mean() ** 2, 1)
    shuffled = np.cumsum(np.random.default_rng(1).permutation(gaps))
    assert promised < 1.3 * theory.mmc_wait(1, 0.8, 1)
    assert simulate.waits(arrivals, services).mean() > 8 * promised
    assert simulate.waits(shuffled, services).mean() == pytest.approx(promised, rel=0.1)


def test_a_seed_repeats_and_another_differs():
    for draw in (
        lambda seed: simulate.poisson(1, 50, seed),
        lambda seed: simulate.bursts(1, 50, seed),
        lambda seed: simulate.service_times("hyperexponential", 1, 50, seed, 3),
        lambda seed: simulate.dispatched(np.arange(50) / 4, np.ones(50), 4, "two choices", seed),
    ):
        assert draw(3).tolist() == draw(3).tolist()
        assert draw(3).tolist() != draw(4).tolist()


def test_nothing_comes_of_no_requests():
    for made in (simulate.poisson(1, 0, 1), simulate.bursts(1, 0, 1), simulate.service_times("exponential", 1, 0, 1)):
        assert made.shape == (0,)
    assert simulate.waits([], []).shape == simulate.waits([], [], 3).shape == (0,)
    for policy in POLICIES:
        assert simulate.dispatched([], [], 3, policy).shape == (0,)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: simulate.poisson(0, 5, 1), "rate > 0; got 0"),
        (lambda: simulate.poisson(float("nan"), 5, 1), "rate > 0; got nan"),
        (lambda: simulate.poisson(1, -5, 1), "n, a whole number >= 0; got -5"),
        (lambda: simulate.poisson(1, 2.5, 1), "n, a whole number >= 0; got 2.5"),
        (lambda: simulate.bursts(-1, 5, 1), "rate > 0"),
        (lambda: simulate.bursts(1, 5, 1, length=0), "length > 0"),
        (lambda: simulate.bursts(1, 5, 1, factor=6), "a burst cannot bring more than all arrivals"),
        (lambda: simulate.bursts(1, 5, 1, factor=0.5), "1 <= factor"),
        (lambda: simulate.bursts(1, 5, 1, factor=1, share=1), "0 < share < 1"),
        (lambda: simulate.service_times("exponential", -1, 5, 1), "mean > 0"),
        (lambda: simulate.service_times("normal", 1, 5, 1), "'lognormal'; got 'normal'"),
        (lambda: simulate.service_times("fixed", 1, 5, 1, 1.0), "scv 0 or none for fixed times; got 1"),
        (lambda: simulate.service_times("exponential", 1, 5, 1, 2.0), "Choose 'hyperexponential'"),
        (lambda: simulate.service_times("hyperexponential", 1, 5, 1), "scv >= 1 .*got None"),
        (lambda: simulate.service_times("hyperexponential", 1, 5, 1, 0.5), "scv >= 1 .*got 0.5"),
        (lambda: simulate.service_times("lognormal", 1, 5, 1, 0.0), "scv > 0"),
        (lambda: simulate.waits([0, 1], [1]), "one service time for each arrival"),
        (lambda: simulate.waits([[0, 1]], [[1, 1]]), "both flat"),
        (lambda: simulate.waits([1, 0], [1, 1]), "ascending order.*Sort them"),
        (lambda: simulate.waits([0, float("nan")], [1, 1]), "ascending order"),
        (lambda: simulate.waits([0, 1], [1, -1]), "service times >= 0"),
        (lambda: simulate.waits([0, 1], [1, 1], 0), "servers, a whole number >= 1; got 0"),
        (lambda: simulate.dispatched([0, 1], [1, 1], 1.5, "random"), "servers, a whole number"),
        (
            lambda: simulate.dispatched([0, 1], [1, 1], 2, "one queue"),
            "got 'one queue'. One queue before all servers is",
        ),
        (lambda: simulate.dispatched([1, 0], [1, 1], 2, "random"), "ascending order"),
    ],
)
def test_outside_the_domain_it_says_what_it_expects(call, expected):
    with pytest.raises(theory.OutOfDomain, match=f"Expected .*{expected}"):
        call()


def test_where_no_folder_can_keep_the_compiled_loops_they_run_all_the_same():
    """Numba finds a folder that it can write, or raises before it compiles anything; a fresh process finds none."""
    code = (
        "from numba.core import caching\n"
        "import numba, scalelab.simulate as simulate\n"
        "caching.CacheImpl._locator_classes = []\n"
        "try: numba.njit(cache=True)(simulate._separate_queues)\n"
        "except RuntimeError as error: print('no locator' in str(error))\n"
        "print(simulate.waits([0., 0, 0], [5., 3, 1], 2).tolist())\n"
        "print(simulate.dispatched([0., 0, 0], [5., 3, 1], 2, 'round robin').tolist())\n"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert fresh.stdout.splitlines() == ["True", "[0.0, 0.0, 3.0]", "[0.0, 0.0, 5.0]"], fresh.stderr


def each_second(call, events):
    """Return events per second of processor time in the best of three runs: a neighbour's time is not counted."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return events / max(best, 1e-9)


def plain_loop(policy, came, work, servers):
    """Return what the same simulation is without NumPy and Numba."""
    if policy == "one queue":
        return (lambda: lindley(came, work)) if servers == 1 else (lambda: one_queue(came, work, servers))
    looks = {"random": 1, "round robin": 1, "two choices": min(2, servers), "shortest": servers}[policy]
    offered = [[(i + k) % servers for k in range(looks)] for i in range(len(came))]
    return lambda: shortest_of(came, work, offered, servers)


@pytest.mark.parametrize("servers", [1, 4, 16])
@pytest.mark.parametrize("policy", ["one queue", *POLICIES])
def test_a_simulation_is_many_times_as_fast_as_a_plain_loop(policy, servers, busy):
    """Millions a second and core is the promise; what any machine can be held to is the ratio to a plain loop."""
    arrivals, services = busy[0], busy[1] * servers

    def simulation():
        if policy == "one queue":
            return simulate.waits(arrivals, services, servers)
        return simulate.dispatched(arrivals, services, servers, policy)

    simulation()  # compiles
    loop = plain_loop(policy, arrivals[:20_000].tolist(), services[:20_000].tolist(), servers)
    speed, slow = each_second(simulation, LONG), each_second(loop, 20_000)
    print(f"{policy}, {servers} servers: {speed / 1e6:.1f} million requests/s, {speed / slow:.0f} × a plain loop")
    if policy == "one queue" and servers == 1:
        assert speed > 4 * slow  # Lindley's recursion is the one that plain Python is quick at
    elif policy in ("two choices", "shortest"):
        assert speed > 10 * slow
    else:
        assert speed > 20 * slow
