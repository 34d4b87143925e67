"""Requests in one line before a number of servers: what theory says of a run that never ends."""

from __future__ import annotations

from scalelab.explorables.knobs import State
from scalelab.theory import allen_cunneen_wait, erlang_b, mmc_wait_percentile

SERVICE_MS = 10.0
NO_LIMIT = 100


def expected(state: State) -> dict[str, float]:
    """Return waits in ms, requests in line, shares of the servers' time and of the requests; nothing without a formula.

    Without a limit: Allen and Cunneen's formula, which is exact for exponential services (Erlang C) and, because
    arrivals are Poisson, for one server (Pollaczek and Khinchine's). Its p99 takes the wait of those who wait as
    exponential. With a limit: M/M/c/K; with no place to wait, Erlang's loss formula, which holds for all service times.
    """
    load, servers, scv, limit = state["load"] / 100, state["servers"], state["scv"], state["limit"]
    if limit < NO_LIMIT:
        return {} if scv != 1 and limit else _limited(load, servers, limit)
    if load >= 1:
        return {"growth": (load - 1) * servers / SERVICE_MS * 1000, "busy": 1.0, "refused": 0.0}
    mean = float(allen_cunneen_wait(servers, load, SERVICE_MS, 1, scv))
    return {
        "mean_wait_ms": mean,
        "p99_wait_ms": float(mmc_wait_percentile(99, servers, load, SERVICE_MS)) * (1 + scv) / 2,
        "mean_waiting": load * servers / SERVICE_MS * mean,
        "busy": load,
        "refused": 0.0,
    }


def describe(state: State) -> str:
    """Return what theory says, for a reader without JavaScript."""
    says = expected(state)
    servers = f"{state['servers']} server{'' if state['servers'] == 1 else 's'}"
    places = f"{state['limit']} place{'' if state['limit'] == 1 else 's'}"
    limit = "" if state["limit"] == NO_LIMIT else f" The line has {places}."
    offered = (
        f"Requests of 10 ms on average (squared coefficient of variation {state['scv']}) offer {servers} "
        f"{state['load']} % of what they can serve.{limit}"
    )
    if "growth" in says:
        return f"{offered} There is no steady state: the line grows by {says['growth']:,.0f} requests/s."
    if not says:
        return f"{offered} No simple formula covers this case."
    p99 = f" and the p99 wait {_ms(says['p99_wait_ms'])}" if "p99_wait_ms" in says else ""
    refused = "" if not limit else f"; {says['refused'] * 100:.1f} % of the requests are refused"
    return f"{offered} Theory says that the mean wait is {_ms(says['mean_wait_ms'])}{p99}{refused}."


def _limited(load: float, servers: int, limit: int) -> dict[str, float]:
    refused = float(erlang_b(servers, load * servers))
    for _ in range(limit):  # one more place in line
        refused = load * refused / (1 + load * refused)
    waiting = sum(i * refused / load ** (limit - i) for i in range(1, limit + 1))
    admitted = load * servers / SERVICE_MS * (1 - refused)  # per ms
    return {
        "mean_wait_ms": waiting / admitted,
        "mean_waiting": waiting,
        "busy": load * (1 - refused),
        "refused": refused,
    }


def _ms(value: float) -> str:
    return f"{value:,.1f} ms" if value < 10 else f"{value:,.0f} ms"
