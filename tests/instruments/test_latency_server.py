"""The latency server: seeded, counted, on loopback, and gone with whoever started it."""

import asyncio
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request

import aiohttp
import psutil
import pytest

from scalelab import latency_server
from scalelab.servers import ServiceError
from scalelab.servers.apps._latency_app import Service
from scalelab.servers.apps._process import allow_open_files, python_server


async def fetch(urls, limit=0):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit)) as session:

        async def get(url):
            async with session.get(url) as response:
                return response.status

        return await asyncio.gather(*(get(url) for url in urls))


def service(**options):
    return Service(
        **{"latency": 0.1, "spread": 0.2, "seed": 8, "capacity": None, "fail_every": None, "hang_every": None} | options
    )


def test_latencies_depend_on_seed_and_item_only():
    first = [service().item_latency(i) for i in range(100)]
    assert first == [service().item_latency(i) for i in range(100)]
    assert first != [service(seed=9).item_latency(i) for i in range(100)]
    assert len(set(first)) == 100
    assert all(0.08 <= latency <= 0.12 for latency in first)


def test_it_counts_what_it_sees():
    with latency_server(0.05) as server:
        assert asyncio.run(fetch(server.items(20))) == [200] * 20
        seen = server.stats()
        server.reset()
        after = server.stats()
    assert (seen.requests, seen.answered, seen.in_flight, seen.refused, seen.abandoned) == (20, 20, 0, 0, 0)
    assert seen.connections == 20
    assert 1 <= seen.most_in_flight <= 20
    assert seen.mean_latency >= 0.04
    assert after.requests == after.connections == after.most_in_flight == 0
    assert after.mean_latency == 0


def test_one_connection_is_counted_once():
    with latency_server(0.001) as server:
        asyncio.run(fetch(server.items(20), limit=1))
        assert server.stats().connections == 1


def test_beyond_its_capacity_it_refuses():
    with latency_server(0.3, spread=0, capacity=5) as server:
        answers = asyncio.run(fetch(server.items(15)))
        seen = server.stats()
    assert sorted(set(answers)) == [200, 503]
    assert seen.most_in_flight == 5
    assert seen.refused == answers.count(503) == 10


def test_every_so_many_items_fail():
    with latency_server(0.001, fail_every=5) as server:
        answers = asyncio.run(fetch(server.items(10)))
    assert answers == [200] * 4 + [500] + [200] * 4 + [500]


def test_a_hanging_item_is_abandoned_by_a_caller_who_gives_up():
    with latency_server(0.001, hang_every=1) as server:

        async def give_up():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await fetch(server.items(1))

        asyncio.run(give_up())
        for _ in range(100):
            if server.stats().abandoned:
                break
            time.sleep(0.05)
        assert server.stats().abandoned == 1
        assert server.stats().in_flight == 0


def test_it_listens_on_loopback_only_and_is_gone_afterwards():
    before = {child.pid for child in psutil.Process().children()}
    with latency_server() as server:
        (child,) = [child for child in psutil.Process().children() if child.pid not in before]
        listening = [c.laddr.ip for c in child.net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening == ["127.0.0.1"]
    assert not child.is_running()
    with pytest.raises(ServiceError, match="open"):
        server.stats()


def test_it_is_gone_when_its_owner_is_killed():
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import psutil, time
                from scalelab import latency_server
                with latency_server() as server:
                    print(psutil.Process().children()[0].pid, server.url, flush=True)
                    time.sleep(60)
            """),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    pid, url = owner.stdout.readline().split()
    assert urllib.request.urlopen(f"{url}/stats").status == 200
    server = psutil.Process(int(pid))
    owner.kill()
    owner.wait()
    owner.stdout.close()
    server.wait(timeout=30)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/stats", timeout=5)


def test_a_server_that_cannot_start_says_why():
    with pytest.raises(ServiceError, match="no_such_server"), python_server("scalelab.no_such_server", {}):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_the_limit_on_open_files_is_raised_and_never_lowered():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        allow_open_files(256)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, hard)
        allow_open_files(200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
