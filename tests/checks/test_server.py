"""The server in virtual time: a real aiohttp client cannot tell, and the books are right."""

from __future__ import annotations

import asyncio
import math
import time
import urllib.request
from typing import Any

import aiohttp
import aiohttp.connector
import pytest
from aiohttp import ClientSession
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalelab import checks

unhurried = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])  # a busy machine


async def get_all(urls: list[str], most: int | None = None, **connector: Any) -> list[Any]:
    places = asyncio.Semaphore(most or len(urls) or 1)
    async with ClientSession(connector=aiohttp.TCPConnector(**connector)) as session:

        async def get(url: str) -> Any:
            async with places, session.get(url) as response:
                return await response.json()

        return await asyncio.gather(*(get(url) for url in urls))


async def get_one(url: str, **options: Any) -> int:
    async with ClientSession() as session, session.get(url, **options) as response:
        return response.status


class TestWhatTheClientSees:
    def test_the_ways_to_read_a_response(self) -> None:
        server = checks.Server({"/text": checks.Page(text="grün"), "/json": {"a": [1, None]}}, latency=0.1)

        async def answer() -> list[Any]:
            async with ClientSession() as session:
                async with session.get(server.url("/text")) as response:
                    seen: list[Any] = [await response.text(), await response.read(), response.status, response.reason]
                    seen += [response.content_type, response.charset, response.ok, str(response.url)]
                response = await session.get(server.url("/json"))
                seen.append(await response.json())
                async with session.head(server.url("/text")) as response:
                    seen.append(await response.read())
                async with session.post(server.url("/json"), json={"b": 2}) as response:
                    seen.append(await response.json())
                async with session.get("https://elsewhere.test/json?page=2") as response:
                    seen.append((await response.json())["path"])
                async with session.post(server.url("/json"), data=chunks()) as response:
                    seen.append(response.status)
                return seen

        async def chunks() -> Any:
            yield b"some"
            await asyncio.sleep(0.5)
            yield b"more"

        run = checks.run(answer, server=server)
        assert run.result == [
            "grün",
            "grün".encode(),
            200,
            "OK",
            "text/plain",
            "utf-8",
            True,
            "http://shop.test/text",
            {"a": [1, None]},
            b"",
            {"a": [1, None]},
            "/json?page=2",
            200,
        ]
        assert [request.method for request in run.requests] == ["GET", "GET", "HEAD", "POST", "GET", "POST"]
        assert run.seconds == 1.1

    def test_a_failure_is_a_response_until_it_is_asked_to_complain(self) -> None:
        server = checks.Server({"/bad": checks.Page(status=500, json={"error": "no"})})

        async def answer() -> int:
            async with ClientSession() as session:
                async with session.get(server.url("/bad")) as response:
                    assert await response.json() == {"error": "no"}
                    assert not response.ok
                async with session.get(server.url("/bad")) as response:
                    response.raise_for_status()
            return 0

        run = checks.run(answer, server=server, may_raise=aiohttp.ClientResponseError)
        assert isinstance(run.error, aiohttp.ClientResponseError)
        assert run.error.status == 500

    def test_a_session_that_complains_by_itself(self) -> None:
        server = checks.Server({"/bad": checks.Page(status=404)})

        async def answer() -> None:
            async with ClientSession(raise_for_status=True) as session, session.get(server.url("/bad")):
                pass

        run = checks.run(answer, server=server, may_raise=aiohttp.ClientResponseError)
        assert run.error is not None

    def test_a_connection_that_breaks(self) -> None:
        server = checks.Server({"/item/1": checks.Page(breaks=True, latency=0.2)})
        run = checks.run(lambda: get_one(server.url("/item/1")), server=server, may_raise=aiohttp.ClientConnectionError)
        assert isinstance(run.error, aiohttp.ClientConnectionError)
        # aiohttp asks a second time, as it does for every GET whose connection breaks
        assert [(request.outcome, request.ended) for request in run.requests] == [("broken", 0.2), ("broken", 0.4)]
        assert run.answers == ["/item/1", "/item/1"]

    def test_without_a_server_no_connection_is_made(self) -> None:
        run = checks.run(lambda: get_one("http://shop.test/"), may_raise=aiohttp.ClientConnectorError)
        assert "this check has no server" in str(run.error)

    def test_a_server_that_hangs_is_given_up_after_aiohttps_five_minutes(self) -> None:
        server = checks.Server({"/": checks.Page(hangs=True)})
        run = checks.run(lambda: get_one(server.url("/")), server=server, may_raise=TimeoutError)
        assert isinstance(run.error, TimeoutError)
        assert run.seconds == 300
        assert run.cancelled == ["/"]

    @pytest.mark.parametrize("options", [{"timeout": aiohttp.ClientTimeout(total=0.7)}])
    def test_a_time_out_of_the_call(self, options: dict[str, Any]) -> None:
        server = checks.Server(latency=1.0)
        run = checks.run(lambda: get_one(server.url("/"), **options), server=server, may_raise=TimeoutError)
        assert isinstance(run.error, TimeoutError)
        assert run.seconds == 0.7

    def test_a_time_out_of_the_session(self) -> None:
        server = checks.Server(latency=1.0)

        async def answer() -> None:
            async with ClientSession(timeout=aiohttp.ClientTimeout(sock_read=0.4)) as session:
                await session.get(server.url("/"))

        run = checks.run(answer, server=server, may_raise=TimeoutError)
        assert isinstance(run.error, TimeoutError)
        assert run.seconds == 0.4

    def test_no_time_out_at_all_is_a_deadlock(self) -> None:
        server = checks.Server({"/": checks.Page(hangs=True)})
        never = aiohttp.ClientTimeout(total=None)
        run = checks.run(lambda: get_one(server.url("/"), timeout=never), server=server, may_raise=checks.Deadlock)
        assert run.deadlock
        assert [request.outcome for request in run.requests] == ["open"]

    def test_a_client_that_blocks_is_told_so(self) -> None:
        server = checks.Server()

        async def answer() -> bytes:
            with urllib.request.urlopen(server.url("/item/1")) as response:
                return bytes(response.read())

        run = checks.run(answer, server=server, may_raise=OSError)
        assert "only a client that awaits" in str(run.error)
        assert [call.call for call in run.blocking] == ["a blocking network call"]

    def test_the_same_client_in_a_thread_blocks_nobody(self) -> None:
        server = checks.Server()
        run = checks.run(
            lambda: asyncio.to_thread(urllib.request.urlopen, server.url("/")), server=server, may_raise=OSError
        )
        assert run.error is not None
        assert not run.blocking


class TestTheBooks:
    @unhurried
    @given(st.integers(0, 30), st.integers(1, 10), st.integers(0, 1000))
    def test_in_flight_never_above_the_bound_and_the_time_of_a_full_pool(
        self, count: int, most: int, seed: int
    ) -> None:
        server = checks.Server(latency=(0.1, 1), seed=seed)
        urls = server.urls(count)
        latencies = [server.latency(url) for url in urls]
        run = checks.run(lambda: get_all(urls, most), server=server)
        assert run.result == [server.page(url).json for url in urls]
        assert run.most_in_flight == min(most, count)
        workers = [0.0] * most
        for latency in latencies:  # whoever is free first takes the next page
            workers[workers.index(min(workers))] += latency
        assert run.seconds == pytest.approx(max(workers), abs=1e-6)
        assert run.arrivals[:most] == [f"/item/{number}" for number in range(min(most, count))]
        assert sorted(run.arrivals) == sorted(run.answers)

    def test_one_session_keeps_its_connection(self) -> None:
        server = checks.Server()
        run = checks.run(lambda: get_all(server.urls(9), 1), server=server)
        assert (run.sessions, run.connections, run.unclosed) == (1, 1, 0)
        assert {request.connection for request in run.requests} == {0}

    def test_a_session_per_request_opens_a_connection_per_request(self) -> None:
        server = checks.Server()

        async def answer() -> None:
            for url in server.urls(7):
                await get_one(url)

        run = checks.run(answer, server=server)
        assert (run.sessions, run.connections, run.unclosed) == (7, 7, 0)

    def test_an_idle_connection_is_closed_after_15_virtual_seconds(self) -> None:
        server = checks.Server()

        async def answer() -> None:
            async with ClientSession() as session:
                for pause in (14, 16, 0):
                    await (await session.get(server.url("/"))).read()
                    await asyncio.sleep(pause)

        assert checks.run(answer, server=server).connections == 2

    def test_aiohttps_hundred_connections_are_felt(self) -> None:
        server = checks.Server(latency=1.0)
        run = checks.run(lambda: get_all(server.urls(250)), server=server)
        assert (run.most_in_flight, run.seconds, run.connections) == (100, 3, 100)

    @pytest.mark.parametrize(("limit", "most"), [({"limit": 0}, 250), ({"limit": 7}, 7), ({"limit_per_host": 9}, 9)])
    def test_the_connectors_limits_are_felt(self, limit: dict[str, int], most: int) -> None:
        server = checks.Server(latency=1.0)
        run = checks.run(lambda: get_all(server.urls(250), **limit), server=server)
        assert (run.most_in_flight, run.seconds) == (most, math.ceil(250 / most))

    def test_requests_at_one_instant_arrive_in_the_order_of_their_tasks(self) -> None:
        server = checks.Server()
        for _ in range(5):
            run = checks.run(lambda: get_all(server.urls(50)), server=server)
            assert run.arrivals == [f"/item/{number}" for number in range(50)]

    def test_above_its_capacity_the_server_refuses(self) -> None:
        server = checks.Server(latency=1.0, capacity=3)

        async def answer() -> list[int]:
            return await asyncio.gather(*(get_one(url) for url in server.urls(5)))

        run = checks.run(answer, server=server)
        assert run.result == [200, 200, 200, 503, 503]
        assert run.most_in_flight == 3

    def test_what_the_client_gives_up_is_cancelled(self) -> None:
        server = checks.Server({"/item/2": checks.Page(hangs=True)}, latency=0.5)

        async def answer() -> int:
            async def one(url: str) -> int:
                try:
                    async with asyncio.timeout(1):
                        return await get_one(url)
                except TimeoutError:
                    return 0

            return sum(await asyncio.gather(*(one(url) for url in server.urls(4))))

        run = checks.run(answer, server=server)
        assert run.result == 600
        assert run.cancelled == ["/item/2"]
        assert run.requests[2].ended == 1

    def test_the_server_works_on_while_the_clients_loop_stands_still(self) -> None:
        server = checks.Server(latency=0.1)

        async def answer() -> float:
            async def ask() -> float:
                async with ClientSession() as session:
                    async with session.get(server.url("/a")) as response:
                        await response.read()
                    async with session.get(server.url("/b")) as response:
                        await response.read()
                return time.monotonic()

            asking = asyncio.create_task(ask())
            await asyncio.sleep(0.05)
            time.sleep(1)
            return await asking

        run = checks.run(answer, server=server)
        assert [request.ended for request in run.requests] == [0.1, 1.15]
        assert run.result == 1.15
        assert run.most_in_flight == 1

    def test_an_answer_sent_before_the_client_went_away_counts(self) -> None:
        server = checks.Server(latency=0.1)

        async def answer() -> None:
            task = asyncio.create_task(get_one(server.url("/")))
            await asyncio.sleep(0.05)
            time.sleep(1)
            task.cancel()

        (request,) = checks.run(answer, server=server).requests
        assert (request.outcome, request.ended) == ("answered", 0.1)

    def test_a_session_left_open_is_counted_and_closed(self) -> None:
        opened: list[ClientSession] = []

        async def answer() -> None:
            opened.extend([ClientSession(), aiohttp.ClientSession()])
            await opened[0].close()

        run = checks.run(answer)
        assert (run.sessions, run.unclosed) == (2, 1)
        assert all(session.closed for session in opened)

    def test_too_many_requests_end_a_run(self) -> None:
        server = checks.Server(latency=0.01)

        async def answer() -> None:
            while True:
                await get_all(server.urls(10))

        run = checks.run(answer, server=server, most_requests=35, may_raise=checks.NeverEnds)
        assert "35 requests" in str(run.error)
        assert len(run.requests) == 35

    def test_and_a_student_who_tries_again_whatever_happens(self) -> None:
        server = checks.Server(latency=0.01)

        async def answer() -> None:
            while True:
                try:
                    await get_all(server.urls(10))
                except BaseException:
                    await asyncio.sleep(0)

        run = checks.run(answer, server=server, most_requests=35, may_raise=checks.NeverEnds)
        assert isinstance(run.error, checks.NeverEnds)


class TestTasksLeftToThemselves:
    def test_a_task_that_goes_on(self) -> None:
        async def answer() -> None:
            long = asyncio.create_task(asyncio.sleep(10), name="the long one")
            short = asyncio.create_task(asyncio.sleep(2))
            await asyncio.wait([long, short], timeout=1)

        run = checks.run(answer)
        assert run.leaked == ("sleep", "the long one")
        assert run.seconds == 1

    def test_a_task_that_goes_wild_afterwards_does_not_undo_the_result(self) -> None:
        server = checks.Server(latency=0)

        async def wild() -> None:
            while True:
                await get_all(server.urls(5))

        async def answer() -> str:
            task = asyncio.create_task(wild())
            await asyncio.sleep(0)
            return f"returned, {task.get_name() != ''}"

        run = checks.run(answer, server=server, most_requests=10)
        assert (run.result, run.error) == ("returned, True", None)
        assert "wild" in run.leaked

    def test_a_task_that_dies_with_the_session(self) -> None:
        server = checks.Server({"/": checks.Page(hangs=True)})

        async def answer() -> None:
            async with ClientSession() as session:

                async def fetch() -> None:
                    await session.get(server.url("/"))

                task = asyncio.create_task(fetch())
                await asyncio.wait([task], timeout=1)

        assert checks.run(answer, server=server).leaked == ("fetch",)

    def test_a_task_that_was_cancelled_is_none(self) -> None:
        async def answer() -> None:
            task = asyncio.create_task(asyncio.sleep(10))
            await asyncio.sleep(1)
            task.cancel()

        assert checks.run(answer).leaked == ()

    def test_an_error_that_was_asked_for_is_none(self) -> None:
        async def fail() -> None:
            raise ValueError

        async def answer() -> None:
            await asyncio.gather(fail(), fail(), return_exceptions=True)
            task = asyncio.create_task(fail())
            await asyncio.wait([task])
            task.exception()

        assert checks.run(answer).leaked == ()

    def test_a_group_that_fails_leaves_none(self) -> None:
        async def fail() -> None:
            raise ValueError

        async def answer() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(5))
                group.create_task(fail())
                group.create_task(fail())

        run = checks.run(answer, may_raise=ExceptionGroup)
        assert run.leaked == ()
        assert [type(error) for error in run.errors] == [ValueError, ValueError]

    def test_a_gather_that_fails_leaves_the_others(self) -> None:
        async def fail() -> None:
            raise ValueError

        async def answer() -> None:
            await asyncio.gather(asyncio.sleep(5), fail(), fail())

        assert checks.run(answer, may_raise=ValueError).leaked == ("sleep",)


class TestDescriptions:
    def test_pages_are_drawn_from_seed_and_path(self) -> None:
        server = checks.Server(latency=(0.05, 0.5), seed=8)
        assert server.urls(2, "/x/{}") == ["http://shop.test/x/0", "http://shop.test/x/1"]
        assert server.page("/item/3") == server.page(server.url("/item/3")) == checks.Server(seed=8).page("/item/3")
        # the references of all exercises hold numbers like these
        assert server.page("/item/3").json == {"path": "/item/3", "value": 1172}
        assert server.latency("/item/3") == 0.267633609
        assert checks.Server(seed=9).page("/item/3") != server.page("/item/3")

    def test_latencies_lie_between_their_bounds_and_differ(self) -> None:
        server = checks.Server(latency=(0.2, 0.3))
        latencies = [server.latency(url) for url in server.urls(200)]
        assert 0.2 <= min(latencies) < 0.21
        assert 0.29 < max(latencies) < 0.3
        assert len(set(latencies)) == 200

    def test_one_number_is_everybodys_latency(self) -> None:
        assert checks.Server(latency=0.25).latency("/anything") == 0.25

    def test_a_page_that_hangs_has_no_end(self) -> None:
        assert checks.Server({"/": checks.Page(hangs=True)}).latency("/") == math.inf

    @pytest.mark.parametrize("options", [{"json": 1, "text": "1"}, {"latency": -1}, {"latency": math.inf}])
    def test_a_page_that_cannot_be_served_says_why(self, options: dict[str, Any]) -> None:
        with pytest.raises(checks.PageError, match=r"drop one|from 0 up"):
            checks.Page(**options)

    def test_a_run_can_be_read(self) -> None:
        server = checks.Server(latency=0.5)
        run = checks.run(lambda: get_all(server.urls(2)), server=server)
        assert repr(run) == (
            "Run(result=[{'path': '/item/0', 'value': 105}, {'path': '/item/1', 'value': 3935}], seconds=0.5, "
            "requests=2, most_in_flight=2, connections=2, sessions=1)"
        )


def test_what_we_rely_on_in_aiohttp_and_asyncio_is_there() -> None:
    """These are not promised to anyone; if one goes, so do the books that need it."""
    assert aiohttp.connector.monotonic is time.monotonic  # type: ignore[attr-defined]
    assert aiohttp.TCPConnector.__init__.__kwdefaults__["use_dns_cache"] is True

    async def fails() -> None:
        raise ValueError

    async def main() -> list[bool]:
        task = asyncio.create_task(fails())
        await asyncio.wait([task])
        before = task._log_traceback  # type: ignore[attr-defined]
        task.exception()
        return [before, task._log_traceback]  # type: ignore[attr-defined]

    assert asyncio.run(main()) == [True, False]
