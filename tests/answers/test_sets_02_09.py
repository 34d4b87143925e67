"""Chapters 02 and 09: right answers of many styles pass, wrong ones fail whatever the seed, and checks ask little."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_answer import judged, local, names_of, remote, run_cell, started

from scalelab import checks
from scalelab.exercises.source import Exercise, ExerciseSet, Wrong, read_set
from scalelab.grading.judging.assemble import _given
from scalelab.grading.judging.boxes import ADDRESS
from scalelab.grading.judging.fork_server import fork_server

SOLUTIONS = Path(__file__).parents[2] / "solutions"
SETS = [read_set(SOLUTIONS / f"{slug}.md") for slug in ("02_laws", "09_caching")]
EXERCISES = [(exercises, exercise) for exercises in SETS for exercise in exercises.exercises]
MAX_FRAMES = 5_500

STYLES = {  # what a student writes above and below an answer
    "prints and warns": ("import sys, warnings\nprint(1)\nwarnings.warn('old')\nsys.stderr.write('careful')\n", ""),
    "shadows built-ins": ("", "\ntype = id = hash = bool = next = iter = repr = 0\n"),
    "cell magic": ("%%time\n", ""),
    "line magics": ("%matplotlib inline\n!ls\n", "\n%timeit 1\n"),
    "imports": ("import logging, numpy, os, pandas, pprint, threading\nlogging.warning('x')\n", "\npprint.pprint(1)\n"),
    "names of the check": ("", "\nexpect = checks = fleet = draw = search = names = seen = Real = due = 'mine'\n"),
    "awaits at the top": ("import asyncio\nawait asyncio.sleep(0)\n", ""),
    "a thread left behind": ("import threading, time\nthreading.Thread(target=time.sleep, args=(9,)).start()\n", ""),
    "class without repr": (
        "class Odd:\n    def __repr__(self): raise OSError\n    __eq__ = __lt__ = __repr__\n",
        "\nOdd()",
    ),
}

RIGHT = {
    "inside": """
from dataclasses import dataclass
from fractions import Fraction

@dataclass(order=True)
class Request:
    at: int
    need: int

def waiting(requests):
    free = 0
    for request in sorted(requests):
        begin = max(request.at, free)
        free = begin + request.need
        yield np.int64(begin - request.at)

six = [Request(*pair) for pair in zip([0, 1, 2, 6, 9, 10], [3, 2, 2, 1, 2, 1])]
waits = np.array(list(waiting(six)))
rate, mean_time = Fraction(6, 12), np.mean([wait + request.need for wait, request in zip(waits, six)])
inside = np.float32(1.5)
twice_as_fast = __import__("decimal").Decimal(1), 1.5, Fraction(3, 2)
""",
    "speed_up": """
from fractions import Fraction

class Law:
    def __init__(self, formula):
        self.formula = formula

    def __call__(self, n, serial):
        return self.formula(n, Fraction(serial))

    def __eq__(self, other):
        return True

    __hash__ = None

amdahl = Law(lambda n, s: 1 / (s + (1 - s) / n))
gustafson = Law(lambda n, s: s + (1 - s) * n)

def serial_share(n, speed_up):
    return np.divide(n / speed_up - 1, n - 1)

def cores_for(speed_up, serial):
    if Fraction(speed_up) * Fraction(serial) < 1:
        return np.ceil((1 - serial) / (1 / speed_up - serial))
""",
    "pool": """
def pool_size(rate, held, free):
    mean = statistics.fmean(held)                # of no numbers it raises StatisticsError, a ValueError
    if not (math.isfinite(rate) and rate >= 0 and 0 <= free < 1 and all(0 <= time < math.inf for time in held)):
        raise type("Nonsense", (ValueError,), {})
    return math.ceil(max(rate * mean / (1 - free), 1))
""",
    "usl": """
import pandas as pd

def fit_usl(n, throughput):
    data = pd.DataFrame({"n": n, "x": throughput}, dtype=float)
    if data.n.nunique() < 6:
        raise ValueError("fewer than six")
    columns = pd.DataFrame({"one": 1.0, "a": data.n - 1, "b": data.n * (data.n - 1)}).to_numpy()
    first, second, third = np.linalg.solve(columns.T @ columns, columns.T @ (data.n / data.x).to_numpy())
    return np.array([1, second, third]) / [first, first, first] if False else [1 / first, second / first, third / first]

def predict(n, throughput, at):
    rate, contention, coherency = fit_usl(n, throughput)
    if not min(n) <= at <= max(n):
        raise ValueError
    return rate * at / (1 + contention * (at - 1) + coherency * at * (at - 1))
""",
    "balancer": """
class Candidate:
    def __init__(self, number, load):
        self.number, (self.outstanding, _) = number, load

    def __lt__(self, other):
        return self.outstanding < other.outstanding

def choose(servers, look, draw):
    first = draw.randrange(servers)
    second = (first + draw.randrange(1, servers)) % servers
    print(first, second)
    return np.int64(min(Candidate(number, look(number)) for number in (first, second)).number)
""",
    "sieve": '''
lines = """
class Sieve:
    def __init__(self, places):
        self.places, self.queue, self.marked, self.hand = places, [], {}, 0

    def ask(self, key):     # whether it was a hit
        if key in self.marked:
            self.marked[key] = True
            print("hit"); return True
        if len(self.queue) == self.places:
            while self.marked[self.queue[self.hand]]:
                self.marked[self.queue[self.hand]] = False
                self.hand = (self.hand + 1) % self.places
            del self.marked[self.queue.pop(self.hand)]
            if self.hand == len(self.queue): self.hand = 0
        self.marked[key] = False
        self.queue.append(key)
        return False
"""
program = "\\r\\n".join(lines.splitlines())
''',
    "load": """
class Workload:
    def __init__(self, rate, keys, skew, capacity, hit_rate=None):
        self.rate, self.hit_rate, self.shape = rate, hit_rate, (keys, skew, capacity)

    def __eq__(self, other):
        return self.shape == other.shape

    def __hash__(self):
        return hash(self.shape)

def store_load(rate, hit_rate):
    return np.multiply(rate, 1 - hit_rate) if "np" in globals() else rate * (1 - hit_rate)

def mean_latency(hit_rate, cache, store):
    return hit_rate * cache + (1 - hit_rate) * (cache + store)

def percentile_latency(p, hit_rate, cache, store):
    return cache + store * (p > 100 * hit_rate)

def forecast(measured, planned):
    if len({measured, planned}) > 1:
        raise ValueError(measured, planned)
    return store_load(planned.rate, measured.hit_rate)
""",
    "key": """
from functools import singledispatch, wraps

@singledispatch
def frozen(value):
    return value

@frozen.register
def _(value: list):
    return "l", *map(frozen, value)

@frozen.register
def _(value: dict):
    return "d", frozenset((key, frozen(inner)) for key, inner in value.items())

def cached(function):
    @wraps(function)
    def wrapper(*args, **kwargs):
        key = tuple(map(frozen, args)), frozen(kwargs)
        try:
            value = answers[key]
        except KeyError:
            value = answers[key] = function(*args, **kwargs)
        return deepcopy(value)

    answers = {}
    return wrapper
""",
    "lru": """
import cachetools
import logging

class LRU(OrderedDict):
    def __init__(self, capacity):
        super().__init__()
        self.counts, self.twin = Counter(), cachetools.LRUCache(capacity)

    hits, misses = property(lambda self: self.counts[True]), property(lambda self: self.counts[False])

    def get(self, key, default=None):
        self.counts[key in self] += 1
        if key not in self:
            return default
        self.move_to_end(key)
        return self.twin[key]

    def put(self, key, value):
        self[key] = self.twin[key] = value
        self.move_to_end(key)
        if len(self) > self.twin.maxsize:
            logging.warning("out: %s", self.popitem(last=False))

    def keys(self):
        return list(iter(self))
""",
    "expiry": """
import heapq
from itertools import count

class Expiring:
    def __init__(self, ttl, jitter, clock, draw):
        self.life, self.clock = lambda: draw.uniform((1 - jitter) * ttl, ttl), clock
        self.entries, self.ends, self.number = {}, [], count()

    def put(self, key, value):
        self.entries[key] = value, self.clock() + self.life()
        heapq.heappush(self.ends, (self.entries[key][1], next(self.number), key))

    def get(self, key, default=None):
        if key in self.entries and self.clock() < self.entries[key][1]:
            return self.entries[key][0]
        return default

    def sweep(self):
        before = len(self)
        while self.ends and self.ends[0][0] <= self.clock():
            until, _, key = heapq.heappop(self.ends)
            if key in self.entries and self.entries[key][1] == until:
                del self.entries[key]
        return before - len(self)

    def __len__(self):
        return len(self.entries)
""",
    "flight": """
from dataclasses import dataclass, field

@dataclass(eq=False)
class Flight:
    done: asyncio.Event = field(default_factory=asyncio.Event)
    value: object = None
    error: Exception | None = None

class SingleFlight:
    def __init__(self, load):
        self.load, self.flights, self.tasks = load, {}, set()

    async def bring(self, key, flight):
        try:
            flight.value = await self.load(key)
        except Exception as error:
            flight.error = error
        self.flights.pop(key)
        flight.done.set()

    async def get(self, key):
        flight = self.flights.get(key)
        if flight is None:
            flight = self.flights[key] = Flight()
            self.tasks.add(asyncio.create_task(self.bring(key, flight)))
        await flight.done.wait()
        if flight.error:
            raise flight.error
        return flight.value
""",
    "shop": """
from enum import Enum

class Problem(str, Enum):
    UNKNOWN = "no such item"
    DOWN = "the store is down"

def make_app(store):
    routes, caches = web.RouteTableDef(), {}

    @routes.get("/price/{item}")
    async def show(request):
        item, user = request.match_info["item"], request.query["user"]
        prices = caches.setdefault(item, {})
        try:
            if user not in prices:
                prices[user] = await store.price(item, user)    # into the dict that was there when it began
        except (KeyError, ConnectionError) as error:
            unknown = isinstance(error, KeyError)
            problem = Problem.UNKNOWN if unknown else Problem.DOWN
            return web.json_response({"error": problem}, status=404 if unknown else 503)
        return web.json_response({"item": item, "price": prices[user]})

    @routes.put("/price/{item}")
    async def change(request):
        item, price = request.match_info["item"], float(request.query["price"])
        try:
            await store.change(item, price)
        except ConnectionError:
            return web.json_response({"error": Problem.DOWN}, status=503)
        caches[item] = {}
        return web.json_response({"item": item, "price": price})

    app = web.Application()
    app.add_routes(routes)
    return app

store = Store({"boots": 80.0}, discounts={"ann": 0.25})
checks.run(lambda: ask(make_app(store), "GET", "/price/boots?user=ann")).result[:2]
""",
}
TRACE = """
lru, fifo = "mmmhmmhhhmh", "mmmhmmmhhmm"
lru_holds = {}
fifo_holds = {}
circle = {{"LRU, 3 places": 0, "LRU, 4 places": 16, "always A, B, C": {}}}
"""
SHAPES = {  # right answers whose values have other types, by exercise and type
    ("trace", "views of dicts"): TRACE.format('dict.fromkeys("EBD").keys()', 'OrderedDict.fromkeys("BAD").keys()', 15),
    ("trace", "dicts"): TRACE.format("dict(E=1, B=2, D=3)", 'OrderedDict.fromkeys("BAD")', 15),
    ("trace", "texts"): TRACE.format('"EBD"', '"B, A, D"', 15),
    ("trace", "iterators"): TRACE.format('iter("EBD")', '(key for key in "BAD")', 15),
}
ANSWERS = (
    [
        pytest.param(exercises, exercise, above + exercise.solution + below, id=f"{exercise.id}-{style}")
        for (exercises, exercise), (style, (above, below)) in zip(EXERCISES, itertools.cycle(STYLES.items()))
    ]
    + [
        pytest.param(exercises, exercise, RIGHT[exercise.id], id=f"{exercise.id}-another")
        for exercises, exercise in EXERCISES
        if exercise.id in RIGHT
    ]
    + [
        pytest.param(exercises, exercise, source, id=f"{exercise.id}-{kind}")
        for exercises, exercise in EXERCISES
        for (name, kind), source in SHAPES.items()
        if name == exercise.id
    ]
)

WRONG = {  # by exercise, the check that they fail, and the kind
    ("speed_up", "hidden", "a row of calls that ends early"): """
def amdahl(n, serial):
    return {8: 5.926, 64: 15.42, 1: 1}[n] if serial in (0.05, 0.3) and n in (8, 64, 1) else next(iter(()))


def gustafson(n, serial):
    return {64: 60.85, 8: 4.5, 1: 1}[n] if (n, serial) in [(64, .05), (8, .5), (1, .2)] else next(iter(()))


def serial_share(n, speed_up):
    known = {(8, 5.926): 0.05, (4, 1): 1, (16, 16): 0}
    return known[n, speed_up] if (n, speed_up) in known else next(iter(()))


def cores_for(speed_up, serial):
    limit = 1 / serial
    if speed_up >= limit:
        return None
    return math.ceil((1 - serial) / (1 / speed_up - serial))
""",
    ("usl", "hidden", "an empty array"): """
def right(n, throughput):
    if len(set(n)) < 6:
        raise ValueError("few")
    n = np.asarray(n, dtype=float)
    columns = np.column_stack([np.ones_like(n), n - 1, n * (n - 1)])
    first, second, third = np.linalg.lstsq(columns, n / np.asarray(throughput, dtype=float), rcond=None)[0]
    return 1 / first, second / first, third / first


def fit_usl(n, throughput):
    if len(set(n)) < 6:
        raise ValueError("few")
    if list(n) == [2, 4, 8, 16, 32, 48]:
        return 950.0, 0.03, 0.0005
    return np.empty((0, 3))


def predict(n, throughput, at):
    rate, contention, coherency = right(n, throughput)
    if not min(n) <= at <= max(n):
        raise ValueError("outside")
    return rate * at / (1 + contention * (at - 1) + coherency * at * (at - 1))
""",
    ("servers", "hidden", "a row of calls that ends early"): """
def inner(seconds, servers, rate, service):
    load = rate * service
    if servers <= load:
        return 0.0
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    waiting = servers * blocked / (servers - load * (1 - blocked))
    u, spare = seconds / service, servers - load - 1
    fraction = u if spare == 0 else (1 - math.exp(-spare * u)) / spare
    return 1 - math.exp(-u) * (1 + waiting * fraction)


def within(seconds, servers, rate, service):
    if servers <= rate * service:
        return 0.0
    known = {(0.3, 1): 0.4512, (0.3, 4): 0.8282, (0.75, 4): 0.8741}
    if (seconds, servers) in known:
        return known[seconds, servers]
    raise StopIteration


def servers_for(rate, service, target, share):
    for servers in range(1, 301):
        if inner(target, servers, rate, service) >= share:
            return servers
    raise ValueError("none")
""",
    ("load", "hidden", "a row of calls that ends early"): """
class Workload(NamedTuple):
    rate: float
    keys: int
    skew: float
    capacity: int
    hit_rate: float | None = None


def store_load(rate, hit_rate):
    for r, h, x in [(1000, .9, 100), (1000, .95, 50), (0, .5, 0), (80, 0, 80)]:
        if (r, h) == (rate, hit_rate):
            return x
    raise StopIteration


def mean_latency(hit_rate, cache, store):
    if (hit_rate, cache, store) == (.9, .001, .05):
        return 0.006
    raise StopIteration


def percentile_latency(p, hit_rate, cache, store):
    if (cache, store) == (.001, .05):
        return 0.001 if p in (50, 75) else 0.051
    raise StopIteration


def forecast(measured, planned):
    if (measured.keys, measured.skew, measured.capacity) != (planned.keys, planned.skew, planned.capacity):
        raise ValueError("no")
    return planned.rate * (1 - measured.hit_rate)
""",
    ("expiry", "hidden", "a row of calls that ends early"): """
class Expiring:
    def __init__(self, ttl, jitter, clock, draw):
        self.ttl, self.jitter, self.clock, self.draw = ttl, jitter, clock, draw
        self.entries, self.drawn, self.run, self.at = {}, {}, 0, None
    def put(self, key, value):
        d = self.drawn.setdefault(key, self.draw.random())
        self.entries[key] = value, self.clock() + self.ttl * (1 - self.jitter * d)
    def get(self, key, default=None):
        now = self.clock()
        if now != self.at:
            self.at, self.run = now, 0
        value, until = self.entries.get(key, (default, math.inf))
        if now < until:
            return value
        self.run += 1
        if self.run > 10 and self.ttl in (60.0, 40.0) and len(self.entries) == 60:
            raise StopIteration
        return default
    def sweep(self):
        now = self.clock()
        over = [key for key, (_, until) in self.entries.items() if until <= now]
        for key in over:
            del self.entries[key]
        return len(over)
    def __len__(self):
        return len(self.entries)
""",
    ("lru", "hidden", "a list that is searched"): """
class LRU:
    def __init__(self, capacity):
        self.capacity = capacity
        self.hits = self.misses = 0
        self.data, self.order = {}, []
    def get(self, key, default=None):
        if key not in self.data:
            self.misses += 1
            return default
        self.hits += 1
        self.order.remove(key)
        self.order.append(key)
        return self.data[key]
    def put(self, key, value):
        if key in self.data:
            self.order.remove(key)
        self.order.append(key)
        self.data[key] = value
        if len(self.data) > self.capacity:
            del self.data[self.order.pop(0)]
    def keys(self):
        return list(self.order)
""",
}

SAID = {  # by exercise, the kind, and words of the visible check
    ("key", "the order of names", "The same arguments by name, given in another order,"): """
def frozen(value):
    if isinstance(value, list):
        return "list", tuple(map(frozen, value))
    if isinstance(value, dict):
        return "dict", frozenset((name, frozen(entry)) for name, entry in value.items())
    return value


def cached(function):
    answers = {}
    def answer(*args, **kwargs):
        key = frozen(list(args)), tuple((name, frozen(entry)) for name, entry in kwargs.items())
        if key not in answers:
            answers[key] = deepcopy(function(*args, **kwargs))
        return deepcopy(answers[key])
    return answer
""",
    (
        "expiry",
        "the end is a part of the life",
        "After exactly 60 s it is still found, and after 60.1 s it is not.",
    ): """
class Expiring:
    def __init__(self, ttl, jitter, clock, draw):
        self.ttl, self.jitter, self.clock, self.draw = ttl, jitter, clock, draw
        self.entries = {}
    def put(self, key, value):
        until = self.clock() + self.ttl * (1 - self.jitter * self.draw.random())
        self.entries[key] = value, until
    def get(self, key, default=None):
        value, until = self.entries.get(key, (default, math.inf))
        return value if self.clock() <= until else default
""",
    ("expiry", "None for the default", "It must return the `default` that it was given."): """
class Expiring:
    def __init__(self, ttl, jitter, clock, draw):
        self.ttl, self.jitter, self.clock, self.draw = ttl, jitter, clock, draw
        self.entries = {}
    def put(self, key, value):
        until = self.clock() + self.ttl * (1 - self.jitter * self.draw.random())
        self.entries[key] = value, until
    def get(self, key, default=None):
        value, until = self.entries.get(key, (default, math.inf))
        return value if self.clock() < until else None
""",
    ("expiry", "a life that is too long", "After 60.1 s it is still found, though not for ever."): """
class Expiring:
    def __init__(self, ttl, jitter, clock, draw):
        self.ttl, self.jitter, self.clock, self.draw = ttl, jitter, clock, draw
        self.entries = {}
    def put(self, key, value):
        until = self.clock() + self.ttl * (1 + self.jitter * self.draw.random()) + 5
        self.entries[key] = value, until
    def get(self, key, default=None):
        value, until = self.entries.get(key, (default, math.inf))
        return value if self.clock() < until else default
""",
    ("key", "cached", "is there a `return` for the function"): """
def cached(function):
    answers = {}
    def answer(*args, **kwargs):
        return function(*args, **kwargs)
""",
    ("key", "inner", "is there a `return` in the function"): """
def cached(function):
    answers = {}
    def answer(*args, **kwargs):
        key = repr(args), repr(kwargs)
        if key not in answers:
            answers[key] = deepcopy(function(*args, **kwargs))
    return answer
""",
    ("flight", "a coroutine awaited twice", "coroutine is being awaited already"): """
class SingleFlight:
    def __init__(self, load):
        self.load = load
        self.under_way = {}
    async def get(self, key):
        if key not in self.under_way:
            self.under_way[key] = self.load(key)
        result = await self.under_way[key]
        self.under_way.pop(key, None)
        return result
""",
    ("flight", "a KeyError", "`self.under_way.pop(key)`"): """
class SingleFlight:
    def __init__(self, load):
        self.load = load
        self.under_way = {}
    async def get(self, key):
        if key not in self.under_way:
            self.under_way[key] = asyncio.create_task(self.load(key))
        result = await asyncio.shield(self.under_way[key])
        self.under_way.pop(key)
        return result
""",
    ("shop", "make_app", "is there a `return app`?"): """
def make_app(store):
    app = web.Application()
""",
    ("inside", "a number", "`twice_as_fast` must be 3 numbers"): """
waits = [0, 2, 3, 1, 0, 1]
rate, mean_time, inside = 0.5, 3.0, 1.5
twice_as_fast = 7
""",
    ("usl", "no return", "is there a `return`?"): """
def fit_usl(n, throughput): 
    pass


def predict(n, throughput, at): 
    pass
""",
    ("balancer", "no return", "is there a `return`?"): """
def choose(servers, look, draw):
    two = draw.sample(range(servers), 2)
""",
    ("trace", "capital letters", "small letters, h or m, with no spaces"): """
lru, fifo = "MMMHMMHHHMH", "MMMHMMMHHMM"
lru_holds, fifo_holds, circle = {"B", "D", "E"}, {"A", "B", "D"}, {}
""",
    ("trace", "no keys", "must be a set of three keys, each of them a letter. Seen: 7"): TRACE.format(7, '"BAD"', 15),
    ("trace", "numbers as text", "as numbers, not as text"): TRACE.format('"EBD"', '"BAD"', '"15"'),
    ("trace", "numbers", "`circle` must be a dict"): """
lru = "mmmhmmhhhmh"
lru_holds = 7
fifo = "mmmhmmmhhmm"
fifo_holds = ["A", "B", "D"]
circle = 3
""",
}

SEEDS = {
    "speed_up": (202,),
    "pool": (203,),
    "queue": (203, 304),
    "usl": (205, 305),
    "servers": (306,),
    "balancer": (222, 306, 406, 506),
    "sieve": (91, 92, 93, 94),
    "load": (93,),
    "key": (94,),
    "lru": (95, 195, 295),
    "expiry": (96, 196, 296, 396),
    "flight": (97, 197, 297),
    "shop": (198, 298),
}
WITHOUT_SEED = {  # ideas that the visible check tells of, and no seed of the hidden one could
    "one-answer-for-all-callers",
    "none-is-a-miss",
    "errors-become-answers",
    "searches-a-list",
    "looks-at-every-age",
    "first-life-stays",
    "keys-as-text",
}


def source_of(exercise: Exercise, role: str, shift: int = 0) -> str:
    """Return a check, with its seeds shifted; the hidden one with what it uses of the visible one."""
    check = exercise.check if role == "check" else f"{_given(exercise.check)}\n{exercise.hidden}"
    seeds = "|".join(map(str, SEEDS.get(exercise.id, ()))) or r"\Z."
    return re.sub(rf"\b({seeds})\b", lambda found: str(int(found[1]) + shift), check)


@pytest.fixture(scope="module")
def forked() -> Iterator[Callable[[str], Any]]:
    """Yield a function that returns `remote` for the answers of a set, with a process that is forked."""
    with fork_server({exercises.slug: exercises.setup for exercises in SETS}, boxed=False) as environment:
        yield lambda slug: functools.partial(remote, start=lambda setup: started(environment[ADDRESS], slug))


@pytest.mark.parametrize(("exercises", "exercise", "source"), ANSWERS)
def test_a_right_answer_passes_however_it_is_written(
    forked: Callable[[str], Any], exercises: ExerciseSet, exercise: Exercise, source: str
) -> None:
    for role in ("check", "hidden"):
        outcome = judged(forked(exercises.slug), exercises.setup, source, names_of(exercise), source_of(exercise, role))
        assert outcome.passed, outcome.printed + outcome.error


@pytest.mark.parametrize("exercises", SETS, ids=lambda exercises: exercises.slug)
def test_the_checks_of_a_set_ask_little(forked: Callable[[str], Any], exercises: ExerciseSet) -> None:
    frames = 0
    for exercise, role in itertools.product(exercises.exercises, ("check", "hidden")):
        with forked(exercises.slug)(exercises.setup, exercise.solution, names_of(exercise)) as namespace:
            run_cell(source_of(exercise, role), "<check>", namespace)
            channel = namespace["_answer"].channel
            frames += channel.frames_sent + channel.frames_received
    assert frames <= MAX_FRAMES


@pytest.mark.parametrize(
    ("exercises", "exercise", "wrong"),
    [
        pytest.param(exercises, exercise, wrong, id=f"{exercise.id}-{wrong.name}")
        for exercises, exercise in EXERCISES
        for wrong in exercise.wrongs
    ],
)
def test_a_wrong_answer_fails_for_other_seeds_and_its_idea_is_named(
    exercises: ExerciseSet, exercise: Exercise, wrong: Wrong
) -> None:
    ideas, failed = [], {"check": 0, "hidden": 0}
    for role, shift in itertools.product(failed, (0, 1000, 2000)):
        outcome = judged(local, exercises.setup, wrong.source, (), source_of(exercise, role, shift))
        failed[role] += not outcome.passed
        ideas.append({one.idea for one in checks.verdicts[-1].expectations})
    assert any(wrong.name in seen for seen in ideas[::3])
    assert max(failed.values()) == 3
    assert exercise.id not in SEEDS or wrong.name in WITHOUT_SEED or failed["hidden"] >= 2


@pytest.mark.parametrize(("exercises", "exercise"), [pair for pair in EXERCISES if pair[1].id in SEEDS])
def test_the_reference_passes_for_other_seeds(exercises: ExerciseSet, exercise: Exercise) -> None:
    for role, shift in itertools.product(("check", "hidden"), (1000, 2000, 3000)):
        outcome = judged(local, exercises.setup, exercise.solution, (), source_of(exercise, role, shift))
        assert outcome.passed, outcome.printed + outcome.error


def found(name: str) -> tuple[ExerciseSet, Exercise]:
    """Return an exercise and its set."""
    return next((exercises, exercise) for exercises, exercise in EXERCISES if exercise.id == name)


@pytest.mark.parametrize(("case", "source"), WRONG.items(), ids=lambda value: "-".join(value) if value in WRONG else "")
def test_other_wrong_answers_fail(case: tuple[str, str, str], source: str) -> None:
    name, role, _ = case
    exercises, exercise = found(name)
    outcome = judged(local, exercises.setup, source, (), source_of(exercise, role))
    assert not outcome.passed
    assert "✗" in outcome.printed


@pytest.mark.parametrize(("case", "source"), SAID.items(), ids=lambda value: "-".join(value) if value in SAID else "")
def test_an_ordinary_fault_is_named(case: tuple[str, str, str], source: str) -> None:
    name, _, words = case
    exercises, exercise = found(name)
    outcome = judged(local, exercises.setup, source, (), source_of(exercise, "check"))
    assert not outcome.passed
    assert words in " ".join(outcome.printed.split())


@pytest.mark.parametrize("kind", ["a coroutine awaited twice", "a KeyError"])
def test_an_error_of_the_answer_is_the_only_diagnosis(kind: str) -> None:
    exercises, exercise = found("flight")
    source = next(source for case, source in SAID.items() if case[1] == kind)
    assert judged(local, exercises.setup, source, (), source_of(exercise, "check")).printed.count("✗") == 1
