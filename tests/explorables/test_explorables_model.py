"""The model of one event loop against a pool of threads, in Python: what holds for every run, and for long ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from event_loop_vectors import CASES, VECTORS, play
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalelab.explorables import KnobError
from scalelab.explorables import _event_loop_model as event_loop

states = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "rate": st.integers(5, 100).map(lambda tens: tens * 10),
        "wait": st.integers(5, 100).map(lambda tens: tens * 10),
        "threads": st.integers(1, 500),
        "blocking": st.booleans(),
    }
)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
steps = st.lists(st.floats(0, 400, allow_nan=False), min_size=1, max_size=6)


@unhurried
@given(states, steps)
def test_no_request_is_lost_and_no_thread_too_many(state: dict[str, Any], spans: list[float]) -> None:
    model = event_loop.create_model(state)
    for span in spans:
        event_loop.advance(model, span)
        now = event_loop.readout(model)
        for side in (now["loop"], now["pool"]):
            assert now["arrived"] == side["done"] + side["in_flight"] + side["queued"]
            assert side["ready"] <= side["in_flight"]
        assert now["loop"]["queued"] == 0
        assert now["pool"]["in_flight"] <= state["threads"]
        assert now["pool"]["queued"] == 0 or now["pool"]["in_flight"] == state["threads"]


@unhurried
@given(states, steps)
def test_how_time_is_cut_changes_nothing(state: dict[str, Any], spans: list[float]) -> None:
    cut, whole = event_loop.create_model(state), event_loop.create_model(state)
    for span in spans:
        event_loop.advance(cut, span)
    event_loop.advance(whole, cut.now / 1000)
    assert event_loop.readout(cut) == event_loop.readout(whole)


@unhurried
@given(states, states, steps)
def test_turning_knobs_loses_no_request(state: dict[str, Any], turned: dict[str, Any], spans: list[float]) -> None:
    model = event_loop.create_model(state)
    most = state["threads"]
    for i, span in enumerate(spans):
        event_loop.advance(model, span)
        event_loop.set_knobs(model, turned if i % 2 else state)
        most = max(most, int(model.knobs["threads"]))
        now = event_loop.readout(model)
        for side in (now["loop"], now["pool"]):
            assert now["arrived"] == side["done"] + side["in_flight"] + side["queued"]
        assert now["pool"]["in_flight"] <= most
    assert model.knobs["seed"] == state["seed"]


@unhurried
@given(states)
def test_without_blocking_no_request_waits_longer_than_its_answer_and_the_processor(state: dict[str, Any]) -> None:
    model = event_loop.create_model({**state, "blocking": False})
    event_loop.advance(model, 3_000)
    latencies = [latency for one in model.loop.bins for latency in one.latencies]
    assert all(latency >= state["wait"] * 1000 + 2 * event_loop.SLICE_US for latency in latencies)
    p99 = event_loop.readout(model)["loop"]["p99_ms"]
    assert p99 is None or p99 < event_loop.theory(state)["alone_ms"] + 10


def long_run(seconds: int = 300, **state: Any) -> dict[str, dict[str, float]]:
    """Means over a whole run but its first five seconds: in flight, requests/s, seconds from arrival to answer."""
    model = event_loop.create_model(state)
    event_loop.advance(model, 5_000)
    totals = {name: {"area": 0, "latency": 0, "done": 0, "busy": 0} for name in ("loop", "pool")}
    for _ in range((seconds - 5) // 5):
        event_loop.advance(model, 5_000)
        for name, total in totals.items():
            for one in getattr(model, name).bins:
                total["area"] += one.area
                total["busy"] += one.busy
                total["latency"] += sum(one.latencies)
                total["done"] += len(one.latencies)
    passed = (seconds - 5) // 5 * 5e6
    return {
        name: {
            "in_flight": total["area"] / passed,
            "rate": total["done"] / passed * 1e6,
            "latency": total["latency"] / max(1, total["done"]) / 1e6,
            "busy": total["busy"] / passed,
        }
        for name, total in totals.items()
    }


@pytest.mark.parametrize("seed", [1, 8, 1961])
@pytest.mark.parametrize("blocking", [False, True])
def test_little(seed: int, blocking: bool) -> None:
    state = {"seed": seed, "rate": 300, "wait": 400, "threads": 200, "blocking": blocking}
    run, expected = long_run(**state), event_loop.theory(state)
    for name in ("loop", "pool"):
        seen = run[name]
        assert seen["in_flight"] == pytest.approx(seen["rate"] * seen["latency"], rel=0.01)
        assert seen["rate"] == pytest.approx(expected[name]["throughput"], rel=0.02)
    # The loop's value is an approximation once something blocks: arrivals after a block are not independent.
    assert run["loop"]["in_flight"] == pytest.approx(expected["loop"]["in_flight"], rel=0.12 if blocking else 0.02)
    assert run["loop"]["busy"] == pytest.approx(expected["loop"]["busy"], rel=0.1 if blocking else 0.02)
    assert run["pool"]["in_flight"] == pytest.approx(expected["pool"]["in_flight"], rel=0.02)


def test_a_pool_that_is_too_small_serves_k_by_w_and_queues_the_rest() -> None:
    state = {"rate": 600, "wait": 500, "threads": 150}
    expected = event_loop.theory(state)["pool"]
    model = event_loop.create_model(state)
    event_loop.advance(model, 60_000)
    seen = event_loop.readout(model)["pool"]
    assert not expected["stable"]
    assert seen["in_flight"] == 150
    assert seen["throughput"] == pytest.approx(expected["throughput"], rel=0.01)
    assert seen["queued"] == pytest.approx(60 * expected["growth"], rel=0.05)


def test_a_loop_that_must_do_more_than_a_second_of_work_per_second_falls_behind_as_theory_says() -> None:
    state = {"rate": 1000, "wait": 100, "threads": 500, "blocking": True}
    expected = event_loop.theory(state)["loop"]
    seen = long_run(seconds=400, **state)["loop"]
    assert not expected["stable"]
    assert seen["rate"] == pytest.approx(expected["throughput"], rel=0.08)
    assert seen["busy"] == pytest.approx(1, rel=0.001)


@pytest.mark.parametrize("seed", range(12))
def test_what_the_figure_teaches_holds_for_every_seed(seed: int) -> None:
    calm, blocked = (event_loop.create_model({"seed": seed, "blocking": blocking}) for blocking in (False, True))
    for model in (calm, blocked):
        event_loop.advance(model, 10_000)
    before, after = event_loop.readout(calm), event_loop.readout(blocked)
    assert before["loop"]["p99_ms"] == pytest.approx(before["pool"]["p99_ms"], rel=0.01)
    assert after["loop"]["p99_ms"] > 1.5 * before["loop"]["p99_ms"]
    assert after["loop"]["p99_ms"] > 1.3 * after["pool"]["p99_ms"]


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"rate": 405}, "steps of 10"),
        ({"rate": 1010}, "50 to 1000"),
        ({"wait": 500.0}, "500.0"),
        ({"threads": 0}, "1 to 500"),
        ({"blocking": 1}, "True or False"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"workers": 4}, "workers"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_words(state: dict[str, Any], says: str) -> None:
    with pytest.raises(KnobError, match=says):
        event_loop.create_model(state)


def test_the_vectors_are_this_models() -> None:
    kept = json.loads(VECTORS.read_text("utf-8"))
    assert [case["name"] for case in kept] == list(CASES)
    for case in kept:
        state, script = CASES[case["name"]]
        assert (case["state"], case["script"]) == (state, script)
        now = play(state, script)
        assert now["readout"] == case["readout"], case["name"]
        assert now["theory"]["loop"] == pytest.approx(case["theory"]["loop"]), case["name"]
        assert now["theory"]["pool"] == pytest.approx(case["theory"]["pool"]), case["name"]
