"""Memcached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from scalelab.servers.process import Server, running
from scalelab.servers.spec import LOOPBACK, NOTHING, Run, ServerKind, ServiceError, replies


def _command(run: Run) -> list[str]:
    memory = run.settings.get("memory-limit", "64")
    return [*run.launch, "-l", LOOPBACK, "-p", str(run.port), "-U", "0", "-m", memory]


KIND = ServerKind(
    name="memcached",
    title="a Memcached server",
    purpose="caches",
    schemes={"memcached": 11211},
    url="memcached://{host}:{port}",
    programs=("memcached",),
    debian="memcached",
    homebrew="memcached",
    image="memcached:1.6",
    user="nobody",
    command=_command,
    ready=lambda run: replies(run.port, b"version\r\n", b"VERSION"),
)


@contextmanager
def memcached_server(*, megabytes: int | None = None, own: bool = False) -> Iterator[Server]:
    """Run a Memcached server; yield it with its `host` and `port`.

    megabytes: memory for stored items (64 if None); implies own=True. own: ignore servers that the user named, and
    containers. Raises MissingServer if there is none, and ServiceError if `megabytes` is below 1 or the server does not
    start or answer.
    """
    if megabytes is not None and megabytes < 1:
        raise ServiceError(f"Expected at least 1 megabyte; got {megabytes}.")
    settings: Mapping[str, str] = NOTHING if megabytes is None else {"memory-limit": str(megabytes)}
    with running(KIND, settings, own=own) as server:
        yield server
