"""RabbitMQ: one node, with its own Erlang port mapper (epmd), so that it never meets another node on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scalelab.servers.process import Server, running
from scalelab.servers.spec import LOOPBACK, NOTHING, Run, ServerKind, first_version, replies

PROGRAM = "rabbitmq-server"
ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none"
"""The Erlang distribution listens on loopback, and schedulers do not spin while they wait."""
AMQP = b"AMQP\0\0\x09\x01"
START_WITH_PORT_MAPPER = 'epmd -port "$ERL_EPMD_PORT" & exec "$0"'
"""The node would start epmd as a daemon, which outlives it; one in the server's process group ends with the server."""


def _prepare(run: Run) -> None:
    settings = {
        "listeners.tcp.1": f"{LOOPBACK}:{run.port}",
        "loopback_users": "none",
        "log.console": "true",
        "log.console.level": "warning",
        "log.file": "false",
        **run.settings,
    }
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    (run.folder / "rabbitmq.conf").write_text(lines, encoding="utf-8")
    (run.folder / "plugins").write_text("[].\n", encoding="utf-8")


def _env(run: Run) -> Mapping[str, str]:
    folder = run.folder
    return {
        "HOME": str(folder),  # of the Erlang cookie
        "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(run.launch[0]).parent)]),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_EPMD_PORT": str(run.ports["epmd"]),
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_NODE_PORT": str(run.port),
        "RABBITMQ_DIST_PORT": str(run.ports["distribution"]),
        "RABBITMQ_NODENAME": f"scalelab{run.port}@localhost",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
    }


def _version(program: Path) -> str:
    """Return the version in the name of the program's folder: with --version, the program would start."""
    return first_version(str(program.resolve().with_name(PROGRAM).resolve().parent))


KIND = ServerKind(
    name="rabbitmq",
    title="a RabbitMQ server",
    purpose="message queues",
    schemes={"amqp": 5672, "amqps": 5671},
    url="amqp://guest:guest@{host}:{port}/",
    programs=(PROGRAM,),
    debian="rabbitmq-server",
    homebrew="rabbitmq",
    image="rabbitmq:4",
    image_env=("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-rabbit loopback_users []",),
    ports=("epmd", "distribution"),
    prepare=_prepare,
    # Debian's program on PATH is a wrapper that changes the user and the folder; the server lies beside it.
    command=lambda run: ["/bin/sh", "-c", START_WITH_PORT_MAPPER, run.beside(PROGRAM)],
    env=_env,
    ready=lambda run: replies(run.port, AMQP, b"\1"),
    keeps=("mnesia", ".erlang.cookie"),
    ready_s=120.0,
    version=_version,
)


@contextmanager
def rabbitmq_server(*, settings: Mapping[str, str] = NOTHING, own: bool = False) -> Iterator[Server]:
    """Run a RabbitMQ node without plugins; yield it with its `url`.

    settings: lines of rabbitmq.conf, such as {"consumer_timeout": "10000"}; they imply own=True. own: ignore servers
    that the user named, and containers. Raises MissingServer if there is none, and ServiceError if the server does not
    start or answer.
    """
    with running(KIND, settings, own=own) as server:
        yield server
