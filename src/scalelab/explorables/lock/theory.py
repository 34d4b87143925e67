"""Threads under one interpreter lock: the longest wait and the longest request that the lock's rule allows."""

from __future__ import annotations

from scalelab.explorables.knobs import State

SLICE_MS = 0.1
CALL_MS = 0.05


def expected(state: State) -> dict[str, float]:
    """Return, in ms, what no wait (`most_ms`) and no request (`request_ms`) exceeds.

    A thread that asks for the lock stands behind each busy thread once at most. Each keeps the lock for a switch
    interval, or for its turn if that is shorter. A request asks for the lock twice.
    """
    most = state["threads"] * min(state["interval"] / 1000, state["work"])
    return {"most_ms": most, "request_ms": 2 * (most + SLICE_MS) + CALL_MS}


def describe(state: State) -> str:
    """Return what theory says, for a reader without JavaScript."""
    says = expected(state)
    threads = f"{state['threads']} busy thread{'' if state['threads'] == 1 else 's'}"
    io = f", which wait {state['io']} % of their own time," if state["io"] else ""
    each = "switch interval" if state["interval"] / 1000 < state["work"] else "turn"
    return (
        f"A thread that answers requests shares the interpreter lock with {threads}{io} at a switch interval of "
        f"{state['interval'] / 1000:g} ms. The rule, busy threads × {each}, says that it waits for the lock "
        f"{says['most_ms']:g} ms at most, each time it asks. A request, which needs 0.2 ms of the lock and asks twice, "
        f"takes {says['request_ms']:g} ms at most."
    )
