"""The boundary serves exercises that are still to come: one made-up exercise of each kind, in a notebook and apart.

Each right answer passes and each wrong one fails, with the same words in both places, within 2 s of processor time of
both processes together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import dedent

import psutil
import pytest
from remote_answer import Outcome, judged, local, remote, run_cell

MAX_CPU_S = 2.0


@dataclass(frozen=True)
class MadeUp:
    """An exercise: cells as in a set; `wrong` answers by a word that their failing check must show."""

    setup: Sequence[str]
    names: Sequence[str]
    check: str
    right: str
    wrong: dict[str, str] = field(default_factory=dict)

    def judge(self, source: str) -> Outcome:
        """Return the outcome for an answer, which must be the same in a notebook and apart."""
        case = ([dedent(cell) for cell in self.setup], dedent(source), self.names, dedent(self.check))
        apart = judged(remote, *case)
        assert apart == judged(local, *case)
        return apart

    def cpu_s(self) -> float:
        """Return the processor time of both processes for the check of the right answer."""
        with remote([dedent(cell) for cell in self.setup], dedent(self.right), self.names) as namespace:
            process = psutil.Process(namespace["_answer"]._monitor.pid)
            before = _cpu_s(process)
            begin = time.process_time()
            run_cell(dedent(self.check), "<check>", namespace)
            return time.process_time() - begin + _cpu_s(process) - before


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def assert_fair(exercise: MadeUp) -> None:
    """Judge all answers of an exercise."""
    outcome = exercise.judge(exercise.right)
    assert outcome.passed, outcome
    for words, source in exercise.wrong.items():
        outcome = exercise.judge(source)
        assert not outcome.passed
        assert words in " ".join(outcome.printed.split()), outcome.printed
    assert exercise.cpu_s() < MAX_CPU_S


IMPORTS = """
import asyncio
import time
from scalelab import checks
"""


class TestAPoolInVirtualTime:
    """Tasks of the answer's run in a pool of the check's, which counts them, their bytes and their seconds."""

    POOL = """
    import heapq
    import pickle
    from concurrent.futures import BrokenExecutor


    class Future:
        def __init__(self, value=None, error=None):
            self.value, self.error = value, error

        def result(self):
            if self.error is not None:
                raise self.error
            return self.value


    class Pool:
        \"\"\"Gives each task to the worker that is free first; a deadly item breaks the pool.\"\"\"

        def __init__(self, workers, seconds, deadly=()):
            self.seconds, self.deadly = seconds, deadly
            self.free = [0.0] * workers
            self.bytes = 0
            self.items = []
            self.broken = False

        def submit(self, function, items):
            if self.broken:
                raise BrokenExecutor("a worker died")
            self.bytes += len(pickle.dumps(items))
            self.items += items
            end = heapq.heappop(self.free) + sum(map(self.seconds, items))
            heapq.heappush(self.free, end)
            if set(items) & set(self.deadly):
                self.broken = True
                return Future(error=BrokenExecutor("a worker died"))
            return Future(function(items))

        def restart(self):
            self.broken = False

        def makespan(self):
            return max(self.free)
    """
    EXERCISE = MadeUp(
        setup=[IMPORTS, POOL],
        names=["squares"],
        check="""
        with checks.verdict("squares") as expect:
            pool = Pool(4, lambda item: 1 + item % 3, deadly=[23])
            found, poison = squares(pool, list(range(60)), 5)
            expect(found == [n * n for n in range(60) if n != 23], "all but one are squared, in order",
                   otherwise="Some squares are missing.", saw=found)
            expect(poison == [23], "the poison is named", otherwise="Which item killed its worker?", saw=poison)
            expect(len(pool.items) <= 70, "nothing that was done is done again",
                   otherwise="You do all of it again.", saw=len(pool.items))
            expect(pool.makespan() < 1.3 * sum(1 + n % 3 for n in range(60)) / 4, "all workers work",
                   otherwise="One worker works.", saw=pool.makespan())
            expect(pool.bytes < 2_000, "only the items travel", otherwise="Too much travels.", saw=pool.bytes)
        """,
        right="""
        from concurrent.futures import BrokenExecutor


        def square_all(items):
            return [item * item for item in items]


        def squares(pool, items, size):
            found, poison = {}, []
            left = [items[start:start + size] for start in range(0, len(items), size)]
            while left:
                chunk = left.pop(0)
                try:
                    found.update(zip(chunk, pool.submit(square_all, chunk).result()))
                except BrokenExecutor:
                    pool.restart()
                    if len(chunk) == 1:
                        poison += chunk
                    else:
                        left += [[item] for item in chunk]
            return [found[item] for item in items if item in found], poison
        """,
        wrong={
            "Some squares are missing": """
            from concurrent.futures import BrokenExecutor


            def squares(pool, items, size):
                found = []
                for item in items:
                    try:
                        found += pool.submit(lambda items: [item * item for item in items], [item]).result()
                    except BrokenExecutor:
                        return found, [item]
            """,
            "You do all of it again": """
            from concurrent.futures import BrokenExecutor


            def squares(pool, items, size):
                poison = []
                while True:
                    found = []
                    for item in items:
                        try:
                            if item not in poison:
                                found += pool.submit(lambda items: [item * item for item in items], [item]).result()
                        except BrokenExecutor:
                            pool.restart()
                            poison.append(item)
                            break
                    else:
                        return found, poison
            """,
        },
    )

    def test_right_and_wrong_answers(self) -> None:
        assert_fair(self.EXERCISE)


class TestABrokerInVirtualTime:
    """Messages are delivered until they are acknowledged; a crash at a named point goes past `except Exception`."""

    BROKER = """
    from collections import Counter, deque


    class Died(BaseException):
        \"\"\"The consumer's process is gone.\"\"\"


    class Broker:
        \"\"\"Delivers messages (name, whether it was delivered before) until they are acknowledged.\"\"\"

        def __init__(self, names, prefetch, crashes=()):
            self.waiting = deque((name, False) for name in names)
            self.prefetch, self.crashes = prefetch, list(crashes)
            self.unacknowledged = []
            self.deliveries = self.most_held = self.lives = 0
            self.applied = Counter()
            self.known = set()

        def point(self, name):
            self.deliveries += name == "delivered"
            if self.crashes and self.crashes[0][0] == name and self.crashes[0][1] <= self.deliveries:
                del self.crashes[0]
                raise Died(name)

        async def receive(self):
            if not self.waiting or len(self.unacknowledged) >= self.prefetch:
                return None
            message = self.waiting.popleft()
            self.unacknowledged.append(message)
            self.most_held = max(self.most_held, len(self.unacknowledged))
            await asyncio.sleep(0.01)
            self.point("delivered")
            return message

        async def acknowledge(self, message):
            await asyncio.sleep(0.001)
            self.point("before the acknowledgement")
            self.unacknowledged.remove(message)
            self.point("after the acknowledgement")

        def apply(self, name):
            self.point("before the effect")
            self.applied[name] += 1
            self.known.add(name)
            self.point("after the effect")

        def has_applied(self, name):
            return name in self.known

        def revive(self):
            self.lives += 1
            self.waiting.extendleft((name, True) for name, _ in reversed(self.unacknowledged))
            self.unacknowledged = []
    """
    EXERCISE = MadeUp(
        setup=[IMPORTS, BROKER],
        names=["consume"],
        check="""
        with checks.verdict("consume") as expect:
            points = ["delivered", "before the effect", "after the effect", "before the acknowledgement",
                      "after the acknowledgement"]
            broker = Broker("abcdefghi", prefetch=3, crashes=[(point, 2 * n + 1) for n, point in enumerate(points)])
            for _ in range(20):
                broker.revive()
                run = checks.run(lambda: consume(broker), returns=(type(None), int), may_raise=Died)
                if run.error is None:
                    break
            lost = sorted(set("abcdefghi") - set(broker.applied))
            twice = sorted(name for name, count in broker.applied.items() if count > 1)
            expect(not lost, "no message is lost", saw=lost,
                   otherwise="A message was acknowledged, and its effect was not there.")
            expect(not twice, "none has its effect twice", saw=twice,
                   otherwise="Delivered again, it was applied again.")
            expect(broker.lives == 6, "each crash ends a life", saw=broker.lives,
                   otherwise="Something survived a crash. What does `except` catch?")
            expect(1 < broker.most_held <= 3, "as many are held as may be", otherwise="One after another.")
        """,
        right="""
        async def consume(broker):
            async def one(message):
                if not broker.has_applied(message[0]):
                    broker.apply(message[0])
                await broker.acknowledge(message)

            done = 0
            while message := await broker.receive():
                held = [message]
                while len(held) < 3 and (message := await broker.receive()):
                    held.append(message)
                for message in held:
                    await one(message)
                    done += 1
            return done
        """,
        wrong={
            "A message was acknowledged": """
            async def consume(broker):
                while message := await broker.receive():
                    await broker.acknowledge(message)
                    if not broker.has_applied(message[0]):
                        broker.apply(message[0])
            """,
            "it was applied again": """
            async def consume(broker):
                seen = set()
                while message := await broker.receive():
                    if message[0] not in seen:
                        seen.add(message[0])
                        broker.apply(message[0])
                    await broker.acknowledge(message)
            """,
            "Something survived a crash": """
            async def consume(broker):
                done = 0
                while True:
                    try:
                        message = await broker.receive()
                        if message is None:
                            return done
                        if not broker.has_applied(message[0]):
                            broker.apply(message[0])
                        await broker.acknowledge(message)
                        done += 1
                    except BaseException:
                        pass
            """,
        },
    )

    def test_right_and_wrong_answers(self) -> None:
        assert_fair(self.EXERCISE)

    def test_a_crash_goes_past_except_exception(self) -> None:
        source = """
        async def consume(broker):
            done = 0
            while True:
                try:
                    message = await broker.receive()
                    if message is None:
                        return done
                    if not broker.has_applied(message[0]):
                        broker.apply(message[0])
                    await broker.acknowledge(message)
                except Exception:
                    done += 1
        """
        assert "✓ each crash ends a life" in self.EXERCISE.judge(source).printed


class TestInstancesOverOneStore:
    """Several instances of an answer share a store, and none of the names in its cell."""

    EXERCISE = MadeUp(
        setup=[
            IMPORTS,
            """
            class Store:
                def __init__(self):
                    self.counts, self.calls = {}, 0

                def increment(self, key):
                    self.calls += 1
                    self.counts[key] = self.counts.get(key, 0) + 1
                    return self.counts[key]

                def get(self, key):
                    self.calls += 1
                    return self.counts.get(key, 0)

                def set(self, key, value):
                    self.calls += 1
                    self.counts[key] = value
            """,
        ],
        names=["allow", "Limiter"],
        check="""
        with checks.verdict("allow") as expect:
            store = Store()
            first, second, third = checks.instances(allow, 3)
            asked = [(instance, now) for now in (0.0, 30.0, 59.9, 60.0) for instance in (first, second, third) * 2]
            passed = [now for instance, now in asked if instance(store, "ann", now)]
            expect(len(passed) == 16, "ten in each minute pass, whichever instance is asked", saw=passed,
                   otherwise="Each instance counts for itself.")
            expect(store.calls <= 2 * len(asked), "two calls of the store are enough", otherwise="Too many calls.")
            one, other = checks.instances(Limiter, 2)
            one(store).note("a")
            one(store).note("b")
            expect((one(store).seen(), other(store).seen()) == (2, 0), "classes have their own instances, too",
                   otherwise="Their globals are one.")
        """,
        right="""
        notes = []


        class Limiter:
            def __init__(self, store):
                self.store = store

            def note(self, name):
                notes.append(name)

            def seen(self):
                return len(notes)


        def allow(store, key, now):
            return store.increment(f"{key} {now // 60:g}") <= 10
        """,
        wrong={
            "Each instance counts for itself": """
            counts = {}
            notes = []


            class Limiter:
                def __init__(self, store):
                    self.store = store

                def note(self, name):
                    notes.append(name)

                def seen(self):
                    return len(notes)


            def allow(store, key, now):
                counts[key, now // 60] = counts.get((key, now // 60), 0) + 1
                return counts[key, now // 60] <= 10
            """,
        },
    )

    def test_right_and_wrong_answers(self) -> None:
        assert_fair(self.EXERCISE)

    def test_a_cell_with_a_magic(self) -> None:
        case = (self.EXERCISE.setup, "%%time\n" + dedent(self.EXERCISE.right), self.EXERCISE.names, self.EXERCISE.check)
        setup, source, names, check = case
        assert judged(remote, [dedent(cell) for cell in setup], source, names, dedent(check)).passed


class TestAnIncident:
    """A service under open-loop load for hundreds of virtual seconds, in which clients go away and queries fail."""

    EXERCISE = MadeUp(
        setup=[
            IMPORTS,
            """
            class Connections:
                def __init__(self, most):
                    self.places = asyncio.Semaphore(most)
                    self.in_use = 0

                async def acquire(self):
                    await self.places.acquire()
                    self.in_use += 1

                def release(self):
                    self.in_use -= 1
                    self.places.release()

                async def query(self, number):
                    await asyncio.sleep(0.3)
                    if number % 50 == 7:
                        raise ValueError("the query failed")
                    return number
            """,
        ],
        names=["handle"],
        check="""
        def incident(handle, requests=200):
            connections = Connections(10)

            async def client(number):
                await asyncio.sleep(number * 1.5)
                patience = 0.2 if number % 10 == 3 else 5.0
                try:
                    async with asyncio.timeout(patience):
                        return await handle(connections, number)
                except (TimeoutError, ValueError) as error:
                    return error

            async def load():
                return await asyncio.gather(*map(client, range(requests)))

            run = checks.run(load, returns=list)
            slow = [n for n, found in enumerate(run.result) if isinstance(found, TimeoutError) and n % 10 != 3]
            return run, slow, connections


        with checks.verdict("handle") as expect:
            run, slow, connections = incident(handle)
            expect(not slow, "nobody waits for a connection that is not given back", saw=slow,
                   otherwise="After a while all wait.")
            expect(connections.in_use == 0, "none is in use at the end", saw=connections.in_use,
                   otherwise="When a client goes away, its connection is not given back.")
            expect(run.seconds > 250 and not run.leaked, "the service ran for minutes", otherwise="It did not run.")
            wrong = [n for n, found in enumerate(run.result) if n % 10 != 3 and n % 50 != 7 and found != n]
            expect(not wrong, "each gets its own answer", otherwise="Answers are missing.", saw=wrong)
        """,
        right="""
        async def handle(connections, number):
            await connections.acquire()
            try:
                return await connections.query(number)
            finally:
                connections.release()
        """,
        wrong={
            "After a while all wait": """
            async def handle(connections, number):
                await connections.acquire()
                found = await connections.query(number)
                connections.release()
                return found
            """,
            "its connection is not given back": """
            async def handle(connections, number):
                await connections.acquire()
                try:
                    found = await connections.query(number)
                except Exception:
                    connections.release()
                    raise
                connections.release()
                return found
            """,
        },
    )

    def test_right_and_wrong_answers(self) -> None:
        assert_fair(self.EXERCISE)


class TestBesideTheAnswer:
    """Keys that count, arrays, frames, weak references and tracemalloc stay with the answer."""

    EXERCISE = MadeUp(
        setup=[
            IMPORTS,
            """
            import gc
            import tracemalloc
            import weakref

            import numpy as np
            import pandas as pd


            class Key(int):
                compared = 0

                def __eq__(self, other):
                    Key.compared += 1
                    return int(self) == int(other)

                __hash__ = int.__hash__


            def comparisons(function, count):
                \"\"\"How often the function compares when it is given this many keys, each twice.\"\"\"
                Key.compared = 0
                found = function([Key(n) for n in range(count)] * 2)
                return Key.compared, [int(key) for key in found]


            def is_view(function):
                array = np.arange(12.0)
                return bool(np.shares_memory(array, function(array)))


            def total_of(function, count):
                frame = pd.DataFrame({"shop": np.arange(count) % 3, "sold": np.arange(count) / 2})
                return function(frame)


            def lets_go(make):
                kept = make(10)
                last = weakref.ref(kept)
                del kept
                gc.collect()
                return last() is None


            def peak(function, count):
                tracemalloc.start()
                function(count)
                most = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                return most
            """,
        ],
        names=["unique", "every_other", "by_shop", "make_rows", "total"],
        check="""
        with checks.verdict("memory") as expect:
            comparisons, is_view, total_of = map(checks.beside, (comparisons, is_view, total_of))
            lets_go, peak = map(checks.beside, (lets_go, peak))
            few, found = comparisons(unique, 100)
            many, _ = comparisons(unique, 400)
            expect(found == list(range(100)), "each key is kept once", otherwise="Not once.", saw=found)
            expect(many < 6 * few + 20, "four times the keys, about four times the comparisons",
                   otherwise="Each key is compared with all others.", saw=(few, many))
            expect(is_view(every_other) is True, "no copy is made", otherwise="You copy the array.")
            sold = total_of(by_shop, 3000)
            expect(sold[1] == 749750.0, "sold by shop", otherwise="Wrong sums.", saw=sold)
            expect(lets_go(make_rows), "what is made can go", otherwise="Somebody holds what you make.")
            expect(peak(total, 40_000) < 100_000, "the rows are never all there", otherwise="All rows are there.")
        """,
        right="""
        class Rows(list):
            pass


        def unique(keys):
            return list(dict.fromkeys(keys))


        def every_other(array):
            return array[::2]


        def by_shop(frame):
            return frame.groupby("shop")["sold"].sum().to_dict()


        def make_rows(count):
            return Rows(range(count))


        def total(count):
            return sum(n * n for n in range(count))
        """,
        wrong={
            "Each key is compared with all others. Seen": """
            made = []


            class Rows(list):
                pass


            def unique(keys):
                found = []
                for key in keys:
                    if key not in found:
                        found.append(key)
                return found


            def every_other(array):
                return array[[0, 2, 4]]


            def by_shop(frame):
                return frame.groupby("shop")["sold"].sum().to_dict()


            def make_rows(count):
                made.append(Rows(range(count)))
                return made[-1]


            def total(count):
                return sum([n * n for n in range(count)])
            """,
        },
    )

    def test_right_and_wrong_answers(self) -> None:
        pytest.importorskip("pandas")
        assert_fair(self.EXERCISE)
        printed = self.EXERCISE.judge(next(iter(self.EXERCISE.wrong.values()))).printed
        assert printed.count("✗") == 4


class TestLazyIterators:
    """How many items were drawn is seen, one at a time, in both directions."""

    EXERCISE = MadeUp(
        setup=[IMPORTS],
        names=["running_mean"],
        check="""
        from itertools import islice


        class Rows:
            def __init__(self, numbers):
                self.numbers, self.drawn = iter(numbers), 0

            def __iter__(self):
                return self

            def __next__(self):
                self.drawn += 1
                return next(self.numbers)


        with checks.verdict("running mean") as expect:
            rows = Rows(range(1, 10_000))
            means = running_mean(rows)
            expect(rows.drawn == 0, "nothing is drawn before it is needed", otherwise="All is drawn at once.",
                   saw=rows.drawn)
            expect(list(islice(means, 3)) == [1, 1.5, 2], "the means of the first three", otherwise="Other means.")
            expect(rows.drawn == 3, "three means need three rows", otherwise="More is drawn than is needed.",
                   saw=rows.drawn)
            expect(next(means) == 2.5 and rows.drawn == 4, "and one more row for the next", otherwise="It is not lazy.")
            expect(list(running_mean(iter([4, 6]))) == [4, 5], "and it ends", otherwise="It does not end.")
        """,
        right="""
        def running_mean(rows):
            total = 0
            for count, row in enumerate(rows, start=1):
                total += row
                yield total / count
        """,
        wrong={
            "All is drawn at once": """
            def running_mean(rows):
                rows = list(rows)
                return iter([sum(rows[:count]) / count for count in range(1, min(len(rows), 500) + 1)])
            """,
            "More is drawn than is needed": """
            def running_mean(rows):
                rows, total = iter(rows), 0
                ahead = [row for row, _ in zip(rows, range(10))]
                for count, row in enumerate(ahead, start=1):
                    total += row
                    yield total / count
                for count, row in enumerate(rows, start=11):
                    total += row
                    yield total / count
            """,
        },
    )

    def test_right_and_wrong_answers(self) -> None:
        assert_fair(self.EXERCISE)


class TestManyRequests:
    """5,000 requests of a real client, in one run."""

    SETUP = (IMPORTS + "import aiohttp\n",)
    RIGHT = """
    async def fetch_all(urls, most):
        places = asyncio.Semaphore(most)
        async with aiohttp.ClientSession() as session:

            async def fetch(url):
                async with places, session.get(url) as response:
                    return (await response.json())["value"]

            return await asyncio.gather(*map(fetch, urls))
    """
    CHECK = """
    server = checks.Server(latency=(0.1, 1.0), seed=84)
    asked = server.urls(5_000)
    run = checks.run(lambda: fetch_all(asked, 50), server=server, returns=list, most_requests=6_000)
    assert run.result == [server.page(url).json["value"] for url in asked]
    assert (len(run.requests), run.most_in_flight, run.connections, run.sessions) == (5_000, 50, 50, 1)
    """

    def test_messages_travel_together(self) -> None:
        """Each request costs two messages that wait for a reply, one each way; what is only told rides along."""
        with remote(self.SETUP, dedent(self.RIGHT), ["fetch_all"]) as namespace:
            channel = namespace["_answer"].channel
            run_cell(dedent(self.CHECK), "<check>", namespace)
            assert channel.frames_sent < 5_100
