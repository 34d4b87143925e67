"""One event loop against a pool of threads: what Little's law and queueing theory say of both."""

from __future__ import annotations

from scalelab.explorables.knobs import State
from scalelab.theory import in_flight, kingman_wait, throughput_ceiling

SLICE = 250e-6  # seconds of the processor; a request needs two
BLOCK = 0.25
BLOCKS = 1 / 200


def expected(state: State) -> dict[str, dict[str, float | bool]]:
    """Return, for the loop and the pool: whether it is `stable`, its `ceiling` in requests/s, the requests in flight.

    Little: in flight = rate × time in flight. The loop's ceiling is 1 / (processor time per request), the pool's is
    threads / (time that a request keeps one). The wait for the loop is Pollaczek and Khinchine's, which takes the
    slices' arrivals as independent; an unstable loop has no steady state, so nothing is said of it.
    """
    rate, threads = state["rate"], state["threads"]
    share = BLOCKS if state["blocking"] else 0.0
    work = 2 * SLICE + share * BLOCK
    held = state["wait"] / 1000 + work
    ceiling = min(float(throughput_ceiling(threads, held)), 1 / (2 * SLICE))
    loop: dict[str, float | bool] = {"stable": rate * work < 1, "ceiling": 1 / work}
    if loop["stable"]:
        mean = work / 2  # of all slices, half of them first ones
        square = ((1 - share) * SLICE**2 + share * (SLICE + BLOCK) ** 2 + SLICE**2) / 2
        delay = float(kingman_wait(rate * work, mean, 1, square / mean**2 - 1))
        loop |= {"in_flight": float(in_flight(rate, held + 2 * delay)), "throughput": rate}
    pool = {"stable": rate < ceiling, "ceiling": ceiling, "throughput": min(rate, ceiling)}
    return {"loop": loop, "pool": {**pool, "in_flight": min(float(in_flight(rate, held)), threads)}}


def describe(state: State) -> str:
    """Return what theory says, for a reader without JavaScript."""
    rate, wait = state["rate"], state["wait"]
    free, blocked = (expected({**state, "blocking": blocking}) for blocking in (False, True))
    threads = f"{state['threads']} thread{'' if state['threads'] == 1 else 's'}"
    return (
        f"{rate:,} requests/s arrive and wait {wait:,} ms each, so that {rate * wait / 1000:,.0f} wait at once "
        f"(Little's law). One event loop can serve {free['loop']['ceiling']:,.0f} requests/s, a pool of {threads} "
        f"{free['pool']['ceiling']:,.0f}. If one handler in 200 blocks for 250 ms, the loop can serve "
        f"{blocked['loop']['ceiling']:,.0f} and stands still during each block, and the pool can serve "
        f"{blocked['pool']['ceiling']:,.0f} with only the blocked thread standing still."
    )
