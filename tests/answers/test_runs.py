"""Runs in virtual time of an answer in a process of its own: what is seen, what is reported, and how they end."""

from __future__ import annotations

import os
import signal
import threading
from textwrap import dedent

import pytest
from remote_answer import judged, local, remote, run_cell

from scalelab import checks

SETUP = [
    dedent(
        """
        import asyncio
        import time
        from concurrent.futures import ThreadPoolExecutor

        import aiohttp

        from scalelab import checks


        class Shop:
            async def price(self, item):
                await asyncio.sleep(0.1 * item)
                if item == 13:
                    raise LookupError(item)
                return 10 * item
        """
    )
]
SHOW = """
import dataclasses

pages = {"/item/3": checks.Page(hangs=True), "/item/4": checks.Page(breaks=True), "/item/5": checks.Page(status=503)}
server = checks.Server(pages, latency=(0.1, 1.0), seed=5)
try:
    run = checks.run(lambda: answer(server, Shop()), server=server, limit=100, most_requests=50, may_raise=Exception)
except checks.AnswerFailed as failed:
    run = dataclasses.replace(failed.run, result=None)
    print(failed)
print(run, run.error.__notes__ if hasattr(run.error, "__notes__") else "")
print(run.arrivals, run.answers, run.cancelled, run.requests, run.blocking)
"""

PROGRAMS = {
    "requests at once": """
        async def answer(server, shop):
            async with aiohttp.ClientSession() as session:
                async def one(url):
                    async with session.get(url) as response:
                        return await response.json()
                return await asyncio.gather(*map(one, server.urls(3)))
    """,
    "a session each": """
        async def answer(server, shop):
            async def one(url):
                async with aiohttp.ClientSession() as session, session.post(url, data=b"x" * 3000) as response:
                    return response.status
            return [await one(url) for url in server.urls(3)]
    """,
    "a session left open": """
        async def answer(server, shop):
            session = aiohttp.ClientSession()
            async with session.head(server.url("/item/7")) as response:
                return response.status
    """,
    "requests given up": """
        async def answer(server, shop):
            async with aiohttp.ClientSession() as session:
                async def one(url):
                    async with session.get(url) as response:
                        return response.status
                tasks = [asyncio.create_task(one(url)) for url in server.urls(6)]
                done, late = await asyncio.wait(tasks, timeout=0.5)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
                return len(done)
    """,
    "cancelled, and not waited for": """
        async def answer(server, shop):
            calls = [asyncio.create_task(shop.price(n)) for n in (1, 2, 30)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            for call in calls:
                call.cancel()
            return 1
    """,
    "tasks left at work": """
        async def answer(server, shop):
            asyncio.create_task(asyncio.sleep(5), name="sleeper")
            asyncio.create_task(shop.price(20))
            return 1
    """,
    "a task that dies unheard": """
        async def answer(server, shop):
            asyncio.create_task(shop.price(13))
            await asyncio.sleep(2)
            return 1
    """,
    "calls of the check, at once and in turn": """
        async def answer(server, shop):
            prices = await asyncio.gather(*map(shop.price, range(5)))
            return prices + [await shop.price(n) for n in range(3)]
    """,
    "a call of the check that fails": """
        async def answer(server, shop):
            return await shop.price(13)
    """,
    "deadlines": """
        async def answer(server, shop):
            try:
                async with asyncio.timeout(0.25):
                    await shop.price(9)
            except TimeoutError:
                return await asyncio.wait_for(shop.price(2), 5)
    """,
    "a loop that stands still": """
        async def answer(server, shop):
            time.sleep(0.5)
            return 1
    """,
    "threads": """
        async def answer(server, shop):
            def work(seconds):
                time.sleep(seconds)
                return time.monotonic()
            return await asyncio.gather(*(asyncio.to_thread(work, n) for n in (3, 1, 2)))
    """,
    "a pool that the loop waits for": """
        async def answer(server, shop):
            with ThreadPoolExecutor(2) as pool:
                return list(pool.map(time.sleep, [1, 2, 3]))
    """,
    "a thread that waits for the loop": """
        async def answer(server, shop):
            loop = asyncio.get_running_loop()
            call = asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(asyncio.sleep(2, "slept"), loop).result())
            return await call
    """,
    "a coroutine that nobody awaits": """
        async def answer(server, shop):
            asyncio.sleep(1)
            return 1
    """,
    "a coroutine for a result": """
        async def answer(server, shop):
            return [asyncio.sleep(1), 2]
    """,
    "a task for a result": """
        async def answer(server, shop):
            return asyncio.ensure_future(asyncio.sleep(1))
    """,
    "no coroutine": """
        def answer(server, shop):
            return 1
    """,
    "nothing written yet": """
        async def answer(server, shop):
            raise NotImplementedError
    """,
    "a deadlock": """
        async def answer(server, shop):
            places = asyncio.Semaphore(1)
            async with places:
                async with places:
                    pass
    """,
    "a deadlock with a request that hangs": """
        async def answer(server, shop):
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session:
                async with session.get(server.url("/item/3")):
                    pass
    """,
    "a loop that waits for its own thread": """
        async def answer(server, shop):
            loop = asyncio.get_running_loop()
            return asyncio.run_coroutine_threadsafe(asyncio.sleep(1), loop).result(timeout=1)
    """,
    "past the limit of seconds": """
        async def answer(server, shop):
            while True:
                await asyncio.sleep(30)
    """,
    "past the limit of requests": """
        async def answer(server, shop):
            async with aiohttp.ClientSession() as session:
                while True:
                    async with session.get(server.url("/item/7")):
                        pass
    """,
    "errors in a group": """
        async def answer(server, shop):
            async with asyncio.TaskGroup() as group:
                group.create_task(shop.price(13))
                group.create_task(shop.price(90))
    """,
    "a second loop": """
        async def answer(server, shop):
            asyncio.run(shop.price(1))
    """,
    "a run in a run": """
        async def answer(server, shop):
            checks.run(lambda: asyncio.sleep(1))
    """,
    "prints": """
        async def answer(server, shop):
            print("one", 2)
            return 1
    """,
    "an error of its own": """
        class OutOfStock(Exception):
            pass

        async def answer(server, shop):
            raise OutOfStock("boots")
    """,
}


class TestTheSameAsInANotebook:
    @pytest.mark.parametrize("name", PROGRAMS)
    def test_all_that_a_run_shows(self, name: str) -> None:
        case = (SETUP, dedent(PROGRAMS[name]), ["answer"], SHOW)
        assert judged(remote, *case) == judged(local, *case)

    def test_a_cell_that_tries_its_answer(self) -> None:
        source = """
        async def answer(server, shop):
            return await shop.price(3)

        print(checks.run(lambda: answer(None, Shop())).seconds)
        """
        case = (SETUP, dedent(source), ["answer"], SHOW)
        outcome = judged(remote, *case)
        assert outcome.passed
        assert outcome.printed.startswith("Run(result=30, seconds=0.3")
        assert judged(local, *case).printed == f"0.3\n{outcome.printed}"


LIE = """
from scalelab.answers import process_loop


def lie(self, places, given_up):
    stock = {"names": [], "sessions": 1, "unclosed": 0, "over": list(range(100)), "blocking": [], "never_awaited": [],
             "places": "", "printed": ""}
    self.tell(["stock", stock])


process_loop.ProcessWorld._send_report = lie
"""


class TestReportsAreComparedWithWhatIsSeen:
    def run(self, source: str) -> str:
        check = SHOW + "print('sessions', run.sessions, 'unclosed', run.unclosed, 'leaked', bool(run.leaked))\n"
        return judged(remote, SETUP, LIE + dedent(source), ["answer"], check).printed.splitlines()[-1]

    def test_an_honest_answer_with_the_same_report(self) -> None:
        assert self.run(PROGRAMS["requests at once"]) == "sessions 1 unclosed 0 leaked False"

    def test_sessions_that_close_one_after_another(self) -> None:
        assert self.run(PROGRAMS["a session each"]) == "sessions 3 unclosed 0 leaked False"

    @pytest.mark.parametrize("sessions", ["one", "several"])
    def test_sessions_that_all_stay_open_to_the_end(self, sessions: str) -> None:
        source = f"""
        async def answer(server, shop):
            sessions = []
            for number in range(6):
                if not sessions or {sessions == "several"}:
                    sessions.append(aiohttp.ClientSession())
                async with sessions[-1].get(server.url(f"/item/{{number}}")):
                    pass
                await asyncio.sleep(14 if number % 2 else 16)  # aiohttp closes what was idle for 15 s
            for session in sessions:
                await session.close()
            return 1
        """
        assert self.run(source) == f"sessions {2 if sessions == 'several' else 1} unclosed 0 leaked False"

    def test_a_connection_left_open(self) -> None:
        assert self.run(PROGRAMS["a session left open"]) == "sessions 1 unclosed 1 leaked False"

    @pytest.mark.parametrize("left", ["asyncio.sleep(5)", "shop.price(20)", "fetch(server.url('/item/3'))"])
    def test_a_task_that_waits_for_something(self, left: str) -> None:
        source = f"""
        async def answer(server, shop):
            session = aiohttp.ClientSession()

            async def fetch(url):
                async with session.get(url):
                    pass

            answer.kept = asyncio.create_task({left})
            await asyncio.sleep(0)
            return 1
        """
        assert self.run(source).startswith("sessions 1 unclosed ")
        assert self.run(source) != "sessions 1 unclosed 0 leaked False"

    def test_a_list_of_tasks_that_is_emptied(self) -> None:
        source = """
        async def answer(server, shop):
            asyncio.create_task(asyncio.sleep(5))
            loop = asyncio.get_running_loop()
            loop.tasks.clear()
            loop._world._tasks.clear()
            return 1
        """
        check = SHOW + "print(run.leaked)\n"
        assert judged(remote, SETUP, dedent(source), ["answer"], check).printed.splitlines()[-1] == "('sleep',)"


class TestEndings:
    @pytest.mark.parametrize(
        ("line", "state"),
        [("os._exit(3)", "ended"), ("os.kill(os.getpid(), 9)", "ended"), ("while True: pass", "timed out")],
    )
    def test_an_answer_that_ends_or_never_does(self, line: str, state: str) -> None:
        source = f"import os\nasync def answer(server, shop):\n    await asyncio.sleep(1)\n    {line}"
        with remote(SETUP, source, ["answer"], cpu_s=6.0) as namespace:
            for _ in range(2):  # the second time its process is gone
                with pytest.raises(checks.AnswerEnded) as ended:
                    run_cell("checks.run(lambda: answer(None, None))", "<check>", namespace)
                assert ended.value.state == state

    def test_an_interrupt_ends_the_run(self) -> None:
        source = "async def answer():\n    while True: pass"
        with remote(SETUP, source, ["answer"]) as namespace:
            run = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
            run.start()
            with pytest.raises(KeyboardInterrupt):
                run_cell("checks.run(answer)", "<check>", namespace)
            with pytest.raises(checks.AnswerEnded):
                run_cell("checks.run(answer)", "<check>", namespace)
        assert checks.run(_seven).result == 7


async def _seven() -> int:
    return 7
