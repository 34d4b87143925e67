"""Virtual time: what waits in parallel takes as long as the longest wait, and nothing takes real time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import multiprocessing
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from textwrap import dedent
from time import monotonic as from_import_monotonic
from time import sleep as from_import_sleep
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalelab import checks
from scalelab.checks import _run, _world

unhurried = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
SECONDS = st.integers(0, 5_000).map(lambda milliseconds: milliseconds / 1_000)
SOME = st.lists(SECONDS, max_size=12)


async def in_parallel(delays: list[float]) -> list[float]:
    done: list[float] = []

    async def one(delay: float) -> None:
        await asyncio.sleep(delay)
        done.append(delay)

    await asyncio.gather(*(one(delay) for delay in delays))
    return done


async def one_by_one(delays: list[float]) -> None:
    for delay in delays:
        await asyncio.sleep(delay)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "PATIENCE", 0.4)


class TestTheClock:
    @unhurried
    @given(SOME)
    def test_waits_in_parallel_take_as_long_as_the_longest(self, delays: list[float]) -> None:
        run = checks.run(lambda: in_parallel(delays))
        assert run.seconds == max(delays, default=0)

    @unhurried
    @given(SOME)
    def test_what_waits_less_ends_sooner_and_equals_end_in_the_order_of_their_start(self, delays: list[float]) -> None:
        numbers = list(enumerate(delays))

        async def ends() -> list[tuple[int, float]]:
            done = []

            async def one(number: int, delay: float) -> None:
                await asyncio.sleep(delay)
                done.append((number, delay))

            await asyncio.gather(*(one(*each) for each in numbers))
            return done

        # sleep(0) waits for no timer, and so ends before all others, as it does in a real loop
        assert checks.run(ends).result == sorted(numbers, key=lambda each: each[1])

    @unhurried
    @given(SOME)
    def test_waits_in_a_row_add_up(self, delays: list[float]) -> None:
        assert checks.run(lambda: one_by_one(delays)).seconds == pytest.approx(sum(delays), abs=1e-9)

    @unhurried
    @given(st.integers(1, 40), st.integers(1, 12))
    def test_a_semaphore_of_k_takes_n_equal_jobs_in_rounds_of_k(self, jobs: int, places: int) -> None:
        async def bounded() -> int:
            semaphore, most, now = asyncio.Semaphore(places), 0, 0

            async def job() -> None:
                nonlocal most, now
                async with semaphore:
                    now += 1
                    most = max(most, now)
                    await asyncio.sleep(1)
                    now -= 1

            await asyncio.gather(*(job() for _ in range(jobs)))
            return most

        run = checks.run(bounded)
        assert run.seconds == math.ceil(jobs / places)
        assert run.result == min(jobs, places)

    def test_instants_that_are_equal_on_paper_are_equal(self) -> None:
        async def sum_of_tenths() -> float:
            await one_by_one([0.1] * 10)
            return asyncio.get_running_loop().time()

        run = checks.run(sum_of_tenths)
        assert run.result == run.seconds == 1.0

    def test_an_hour_takes_no_time(self) -> None:
        start = time.monotonic()
        assert checks.run(lambda: asyncio.sleep(3599)).seconds == 3599
        assert time.monotonic() - start < 60

    def test_the_answer_sees_the_virtual_clock_and_others_the_real_one(self) -> None:
        outside: list[float] = []
        go, gone = threading.Event(), threading.Event()

        def look() -> None:
            go.wait()
            outside.extend([time.monotonic(), time.time()])
            gone.set()

        bystander = threading.Thread(target=look)
        bystander.start()

        async def clocks() -> list[float]:
            before = [clock() for clock in (time.time, time.monotonic, time.perf_counter, from_import_monotonic)]
            nanoseconds = time.monotonic_ns()
            await asyncio.sleep(100)
            go.set()
            while not gone.is_set():
                await asyncio.sleep(0)
            after = [clock() for clock in (time.time, time.monotonic, time.perf_counter, from_import_monotonic)]
            return [b - a for a, b in zip(before, after, strict=True)] + [(time.monotonic_ns() - nanoseconds) / 1e9]

        began = time.monotonic(), time.time()
        run = checks.run(clocks)
        bystander.join()
        assert all(100 <= difference < 150 for difference in run.result)
        assert 0 <= outside[0] - began[0] < 90
        assert 0 <= outside[1] - began[1] < 90

    def test_a_deadline_is_met_to_the_nanosecond(self) -> None:
        async def late() -> str:
            try:
                async with asyncio.timeout(0.3):
                    await asyncio.sleep(0.30000001)
            except TimeoutError:
                return "late"
            return "in time"

        run = checks.run(late)
        assert (run.result, run.seconds) == ("late", 0.3)


class TestBlockingCalls:
    def test_time_sleep_on_the_loop_moves_the_clock_and_makes_others_late(self) -> None:
        async def answer() -> float:
            async def tick() -> float:
                await asyncio.sleep(0.1)
                return asyncio.get_running_loop().time()

            ticking = asyncio.create_task(tick())
            await asyncio.sleep(0.05)
            time.sleep(2)
            return await ticking

        run = checks.run(answer)
        assert run.result == 2.05
        (call,) = run.blocking
        assert (call.call, call.seconds) == ("time.sleep", 2)
        assert call.where.endswith("of your cell: `time.sleep(2)`")

    def test_a_sleep_that_was_imported_by_name_is_seen(self) -> None:
        async def answer() -> None:
            from_import_sleep(1)

        assert [call.seconds for call in checks.run(answer).blocking] == [1]
        assert from_import_sleep is time.sleep

    def test_the_place_is_the_coroutine_that_called_the_blocking_function(self) -> None:
        async def answer() -> None:
            helper()

        def helper() -> None:
            time.sleep(1)

        assert checks.run(answer).blocking[0].where.endswith("`helper()`")

    def test_waiting_for_a_pool_on_the_loop_is_a_blocking_call(self) -> None:
        async def answer() -> list[None]:
            with ThreadPoolExecutor(2) as pool:
                return list(pool.map(time.sleep, [1, 1, 1, 1]))

        run = checks.run(answer)
        assert run.seconds == 2
        assert sum(call.seconds for call in run.blocking) == 2
        assert {call.call for call in run.blocking} == {"Future.result"}

    def test_leaving_a_pools_block_waits_for_its_calls(self) -> None:
        async def answer() -> None:
            with ThreadPoolExecutor(2) as pool:
                pool.submit(time.sleep, 3)

        run = checks.run(answer)
        assert run.seconds == 3
        assert [call.call for call in run.blocking] == ["waiting for a thread pool"]

    def test_a_result_can_be_waited_for_with_a_time_out(self) -> None:
        async def answer() -> str:
            with ThreadPoolExecutor(1) as pool:
                future = pool.submit(time.sleep, 3)
                try:
                    future.result(timeout=1)
                except TimeoutError:
                    return "late"
            return "in time"

        run = checks.run(answer)
        assert run.result == "late"
        assert [call.seconds for call in run.blocking] == [1, 2]

    def test_time_sleep_refuses_what_the_real_one_refuses(self) -> None:
        async def answer() -> None:
            time.sleep(-1)

        with pytest.raises(checks.AnswerFailed, match="non-negative"):
            checks.run(answer)


class TestThreads:
    @unhurried
    @given(st.lists(SECONDS, max_size=8))
    def test_sleeping_threads_wait_in_parallel_and_free_the_loop(self, delays: list[float]) -> None:
        async def answer() -> None:
            await asyncio.gather(*(asyncio.to_thread(time.sleep, delay) for delay in delays))

        run = checks.run(answer)
        assert run.seconds == max(delays, default=0)
        assert not run.blocking

    @unhurried
    @given(st.integers(1, 12), st.integers(1, 5))
    def test_a_pool_of_k_takes_n_equal_calls_in_rounds_of_k(self, calls: int, size: int) -> None:
        async def answer() -> None:
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(size) as pool:
                await asyncio.gather(*(loop.run_in_executor(pool, time.sleep, 1) for _ in range(calls)))

        assert checks.run(answer).seconds == math.ceil(calls / size)

    @pytest.mark.parametrize("own", [False, True], ids=["the loop's pool", "a pool of no given size"])
    def test_a_pool_has_32_threads_whatever_the_machine(self, own: bool) -> None:
        async def answer() -> None:
            loop = asyncio.get_running_loop()
            pool = ThreadPoolExecutor() if own else None
            await asyncio.gather(*(loop.run_in_executor(pool, time.sleep, 1) for _ in range(33)))

        assert checks.run(answer).seconds == 2

    def test_loop_and_threads_share_one_clock(self) -> None:
        order: list[tuple[str, float]] = []

        def in_thread() -> None:
            for _ in range(3):
                time.sleep(0.2)
                order.append(("thread", time.monotonic()))

        async def on_loop() -> None:
            for _ in range(3):
                await asyncio.sleep(0.3)
                order.append(("loop", time.monotonic()))

        async def answer() -> None:
            await asyncio.gather(asyncio.to_thread(in_thread), on_loop())

        run = checks.run(answer)
        assert run.seconds == 0.9
        # at 0.6 both are due: the thread is first, because threads are looked at before timers
        assert order == [("thread", 0.2), ("loop", 0.3), ("thread", 0.4), ("thread", 0.6), ("loop", 0.6), ("loop", 0.9)]

    def test_threads_run_in_the_order_of_their_calls_one_at_a_time(self) -> None:
        def answer_for(log: list[int]) -> Any:
            def call(number: int) -> None:
                log.append(number)
                time.sleep(0.1)
                log.append(number)

            async def answer() -> None:
                await asyncio.gather(*(asyncio.to_thread(call, number) for number in range(12)))

            return answer

        for _ in range(5):
            log: list[int] = []
            checks.run(answer_for(log))
            assert log == [*range(12), *range(12)]

    def test_a_thread_may_use_a_pool_of_its_own(self) -> None:
        def nested() -> list[float]:
            with ThreadPoolExecutor(2) as pool:
                return list(pool.map(lambda seconds: time.sleep(seconds) or seconds, [1.0, 2.0, 3.0]))

        run = checks.run(lambda: asyncio.to_thread(nested))
        assert run.result == [1.0, 2.0, 3.0]
        assert run.seconds == 4
        assert not run.blocking

    def test_a_thread_can_hand_a_coroutine_to_the_loop(self) -> None:
        async def answer() -> str:
            loop = asyncio.get_running_loop()

            def ask() -> str:
                return asyncio.run_coroutine_threadsafe(asyncio.sleep(2, "done"), loop).result()

            return await asyncio.to_thread(ask)

        run = checks.run(answer)
        assert (run.result, run.seconds, run.blocking) == ("done", 2, ())

    def test_an_error_in_a_thread_arrives(self) -> None:
        def fail() -> None:
            raise ValueError("no")

        run = checks.run(lambda: asyncio.to_thread(fail), may_raise=ValueError)
        assert str(run.error) == "no"

    def test_a_thread_that_was_given_up_ends_with_the_run(self) -> None:
        ended = threading.Event()

        def long() -> None:
            try:
                while True:
                    time.sleep(3600)
            finally:
                ended.set()

        async def answer() -> str:
            try:
                async with asyncio.timeout(1):
                    await asyncio.to_thread(long)
            except TimeoutError:
                return "late"
            return "in time"

        run = checks.run(answer)
        assert (run.result, run.seconds) == ("late", 1)
        assert ended.wait(10)

    def test_another_process_works_while_the_clock_stands(self) -> None:
        async def answer() -> int:
            loop = asyncio.get_running_loop()
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                return await loop.run_in_executor(pool, math.factorial, 5)

        run = checks.run(answer)
        assert (run.result, run.seconds, run.blocking) == (120, 0, ())


class TestEndings:
    def test_a_deadlock_ends_at_once(self) -> None:
        async def answer() -> None:
            await asyncio.sleep(5)
            await asyncio.Event().wait()

        run = checks.run(answer, may_raise=checks.Deadlock)
        assert run.deadlock
        assert run.seconds == 5
        with pytest.raises(checks.AnswerFailed, match="every coroutine waits"):
            checks.run(answer)

    def test_too_many_virtual_seconds(self) -> None:
        async def answer() -> None:
            while True:
                await asyncio.sleep(1)

        run = checks.run(answer, limit=50, may_raise=checks.NeverEnds)
        assert "50 virtual seconds" in str(run.error)
        assert run.seconds == 51

    def test_turn_after_turn(self) -> None:
        async def answer() -> None:
            while True:
                await asyncio.sleep(0)

        run = checks.run(answer, may_raise=checks.NeverEnds)
        assert "turn after turn" in str(run.error)

    def test_whoever_asks_again_and_again_sees_time_pass(self) -> None:
        async def answer() -> None:
            waiting = asyncio.create_task(asyncio.sleep(0.5))
            while not waiting.done():
                await asyncio.sleep(0)

        assert 0.5 <= checks.run(answer).seconds < 0.6

    def test_a_task_that_swallows_its_cancellation_is_left_behind(self) -> None:
        async def stubborn() -> None:
            while True:
                with contextlib.suppress(BaseException):
                    await asyncio.sleep(1)

        async def answer() -> str:
            task = asyncio.create_task(stubborn())
            await asyncio.sleep(3)
            task.cancel()
            return "done"

        run = checks.run(answer)
        assert run.result == "done"
        assert run.leaked == ("stubborn",)

    @pytest.mark.usefixtures("impatient")
    def test_a_loop_without_a_turn(self) -> None:
        async def answer() -> None:
            while True:
                pass

        run = checks.run(answer, may_raise=checks.Stuck)
        assert isinstance(run.error, checks.Stuck)

    @pytest.mark.usefixtures("impatient")
    def test_a_loop_that_catches_everything(self) -> None:
        left = 5

        async def answer() -> None:
            nonlocal left
            while left:
                try:
                    while True:
                        pass
                except BaseException:
                    left -= 1

        run = checks.run(answer, may_raise=checks.Stuck)
        assert isinstance(run.error, checks.Stuck)

    @pytest.mark.usefixtures("impatient")
    def test_an_interruption_while_an_earlier_one_is_recorded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(attempt: Any, error: BaseException) -> None:
            for _ in range(0 if attempt._closed else 20):
                sleep(0.01)  # in real time
            failed(attempt, error)

        def make(attempt: Any) -> Any:
            loops.append(made(attempt))
            return loops[-1]

        loops: list[asyncio.AbstractEventLoop] = []
        failed, made, sleep = _run.Attempt._fail, _run.Attempt._make_loop, time.sleep
        monkeypatch.setattr(_run.Attempt, "_fail", fail)
        monkeypatch.setattr(_run.Attempt, "_make_loop", make)

        async def answer() -> None:
            while True:
                pass

        run = checks.run(answer, may_raise=checks.Stuck)
        assert isinstance(run.error, checks.Stuck)
        assert [loop.is_closed() for loop in loops] == [True]

    @pytest.mark.usefixtures("impatient")
    def test_a_thread_that_does_not_come_back(self) -> None:
        over = threading.Event()
        run = checks.run(lambda: asyncio.to_thread(over.wait), may_raise=checks.Stuck)
        assert "a thread has waited, or computed" in str(run.error)
        over.set()

    @pytest.mark.usefixtures("impatient")
    def test_a_lock_that_nobody_opens_is_left_to_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_run, "LET_GO", 0.5)
        lock = threading.Lock()
        lock.acquire()

        async def answer() -> None:
            lock.acquire()

        run = checks.run(answer, may_raise=checks.Stuck)
        assert isinstance(run.error, checks.Stuck)
        lock.release()

    def test_a_thread_that_the_system_does_not_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        async def answer() -> list[str]:
            with ThreadPoolExecutor(2) as pool:
                first = pool.submit(time.sleep, 1)
                first.add_done_callback(lambda _: ended.append(time.monotonic()))
                second = pool.submit(time.sleep, 2)
            return [str(future.exception()) for future in (first, second)]

        ended: list[float] = []
        monkeypatch.setattr(_world._Real, "start", start)
        assert checks.run(answer).result == ["can't start new thread"] * 2
        assert ended == [0.0]

    def test_a_pool_that_waits_for_itself(self) -> None:
        async def answer() -> None:
            pool = ThreadPoolExecutor(1)
            futures: list[Future[Any]] = []

            def wait_for(number: int) -> None:
                futures[number].result()

            futures += [pool.submit(wait_for, 1), pool.submit(wait_for, 0)]
            futures[0].result()

        run = checks.run(answer, may_raise=checks.Deadlock)
        assert run.deadlock

    def test_the_stop_button(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop(*_: Any) -> None:
            time.sleep(0.2)
            raise KeyboardInterrupt

        async def answer() -> None:
            while True:
                pass

        monkeypatch.setattr(_run.Attempt, "_watch", stop)
        before = set(threading.enumerate())
        with pytest.raises(KeyboardInterrupt):
            checks.run(answer)
        assert set(threading.enumerate()) <= before
        monkeypatch.undo()
        assert checks.run(lambda: asyncio.sleep(1)).seconds == 1


class TestSurroundings:
    @pytest.fixture(autouse=True)
    def nothing_stays(self) -> Iterator[None]:
        def state() -> list[Any]:
            return [
                *(getattr(time, name) for name in ("sleep", "time", "monotonic", "perf_counter", "time_ns")),
                socket.getaddrinfo,
                asyncio.run,
                ThreadPoolExecutor.submit,
                ThreadPoolExecutor.shutdown,
                ThreadPoolExecutor.__init__,
                aiohttp.ClientSession.__init__,
                aiohttp.TCPConnector.__init__,
                asyncio.run_coroutine_threadsafe,
                aiohttp.connector.monotonic,
                from_import_sleep,
                warnings.showwarning,
                list(warnings.filters),
                sys.stdout,
                sys.stderr,
                set(threading.enumerate()),
            ]

        before = state()
        yield
        assert state() == before

    def test_after_an_answer(self) -> None:
        checks.run(lambda: in_parallel([1, 2]))

    def test_after_threads(self) -> None:
        checks.run(lambda: asyncio.to_thread(time.sleep, 1))

    def test_after_an_error(self) -> None:
        async def answer() -> None:
            raise ValueError

        checks.run(answer, may_raise=ValueError)

    def test_after_a_deadlock(self) -> None:
        checks.run(lambda: asyncio.Event().wait(), may_raise=checks.Deadlock)

    def test_a_name_that_the_answer_has_bound_anew_stays_bound(self) -> None:
        namespace = {"time": time, "sleep": time.sleep}
        exec("async def answer():\n    global sleep\n    sleep(1)\n    sleep = 'mine'", namespace)
        run = checks.run(namespace["answer"])  # type: ignore[arg-type]
        assert len(run.blocking) == 1
        assert namespace["sleep"] == "mine"

    def test_an_answer_that_is_the_first_to_import_aiohttp(self) -> None:
        code = """
            import sys, time
            from scalelab import checks
            assert "aiohttp" not in sys.modules

            async def answer():
                import aiohttp
                async with aiohttp.ClientSession() as session, session.get(server.urls(1)[0]) as response:
                    return await response.json()

            for _ in range(2):
                server = checks.Server(latency=(5, 5))
                run = checks.run(answer, server=server)
                assert run.sessions == len(run.requests) == 1
                assert 5 <= run.seconds < 6
            assert sys.modules["aiohttp.connector"].monotonic is time.monotonic
        """
        fresh = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=False)
        assert (fresh.returncode, fresh.stderr) == (0, "")

    def test_inside_a_running_loop(self) -> None:
        async def notebook() -> float:
            before = asyncio.get_running_loop()
            seconds = checks.run(lambda: asyncio.sleep(3)).seconds
            assert asyncio.get_running_loop() is before
            return seconds

        assert asyncio.run(notebook()) == 3

    def test_no_run_inside_a_run(self) -> None:
        async def answer() -> None:
            checks.run(lambda: asyncio.sleep(1))

        with pytest.raises(checks.AnswerFailed, match="NestedRun"):
            checks.run(answer)

    def test_two_runs_are_the_same(self) -> None:
        server = checks.Server(seed=3)

        def work(seconds: float) -> float:
            time.sleep(seconds)
            return seconds

        async def answer() -> list[Any]:
            async with aiohttp.ClientSession() as session:

                async def one(url: str) -> Any:
                    async with session.get(url) as response:
                        page = await response.json()
                    return await asyncio.to_thread(work, page["value"] / 10_000)

                return await asyncio.gather(*(one(url) for url in server.urls(20)))

        first, *others = (checks.run(answer, server=server) for _ in range(5))
        assert all(other == first for other in others)

    def test_a_partial_function_is_an_answer(self) -> None:
        assert checks.run(functools.partial(asyncio.sleep, 2, "two")).result == "two"


def test_sleeping_until_a_moment_between_two_ticks_ends():
    """Rounding leaves a remainder that no clock shows; whoever asks again for the rest must get past it."""

    async def answer():
        clock = asyncio.get_running_loop().time
        for due in (0.1 + 0.2, 1 / 3, 0.5000000004, 2 / 3):
            while (left := due - clock()) > 0:
                await asyncio.sleep(left)
        return clock()

    assert checks.run(answer).result == pytest.approx(2 / 3, abs=3e-9)


def test_calls_are_timed_in_parts_and_by_the_processor() -> None:
    results, seconds = checks.time_calls(pow, range(8), [2] * 8, parts=4)
    assert results == [0, 1, 4, 9, 16, 25, 36, 49]
    assert 0 <= seconds < 0.1
    assert checks.time_calls(time.sleep, [0.2])[1] < 0.1, "who sleeps does not use the processor"
    with pytest.raises(ValueError, match="8 calls cannot be divided into 3 parts"):
        checks.time_calls(pow, range(8), [2] * 8, parts=3)
