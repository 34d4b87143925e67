# ruff: noqa: E501 (an attack stays on one line)
"""Answers that know the protocol and attack the process of the check: none passes, stalls it, or makes it print."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from remote_answer import Outcome, judged, remote

from scalelab.answers import remote as answers_remote
from scalelab.answers.process_threads import fewest_steps

pytestmark = [
    pytest.mark.filterwarnings(  # a thread of the check's that is ended while it looks at the answer's process
        "ignore:unclosed file <_io.* name='/proc/:ResourceWarning",
        "ignore:Exception ignored in. <_io.* name='/proc/:pytest.PytestUnraisableExceptionWarning",
    ),
    pytest.mark.proven_by(),
]
TRUSTED_CPU_S = 10.0
"""Processor time that the check's process may lose to one attack; it is a second or two as a rule."""
FRAMES = 10_000
"""Bounds an answer's messages here; at the real bound an attack takes up to ten seconds of the check's process."""

PROTOCOL = """\
import asyncio, json, os, random, threading, time
from scalelab.answers import process_threads
ME = process_threads._turns[0].process
def SAY(*message):
    RAW(json.dumps(message).encode())
def RAW(data):
    ME.channel._socket.sendall(len(data).to_bytes(4, "big") + data)
"""

SETUP = [
    """\
import asyncio, dataclasses, random, threading
from typing import NamedTuple
import aiohttp
from scalelab import checks

class Point(NamedTuple):
    x: float
    y: float

@dataclasses.dataclass
class Order:
    item: str
    count: int

class Account:
    answers_may_set = {"balance"}
    limit = 3
    def __init__(self, balance):
        self.balance, self.history, self._secret, self.lock = balance, [], 7, threading.Lock()
    def pay(self, amount):
        self.balance -= amount
        self.history.append(amount)
    async def price(self, item):
        await asyncio.sleep(1)
        return len(item)
"""
]


@dataclass(frozen=True)
class Exercise:
    """A made-up exercise: the names that its check uses, and the check."""

    names: tuple[str, ...]
    check: str


EXERCISES = {
    "double": Exercise(
        ("double",),
        """
with checks.verdict("double") as expect:
    found = double([3, 1, 2])
    expect(isinstance(found, list), "it returns a list", otherwise="It does not.", saw=found)
    expect(set(found) == {6, 2, 4}, "each number is doubled", otherwise="It is not.", saw=found)
    expect(len(found) == 3 and sum(found) == 12 and sorted(found) == [2, 4, 6], "once", otherwise="No.", saw=found)
    values = checks.shared_list([5, 6])
    expect(double(values) == [10, 12] and values == [5, 6], "its argument stays", otherwise="No.", saw=values)
    expect(double([]) == [], "nothing is nothing", otherwise=lambda: f"No: {double([])}", saw=lambda: list(found))
""",
    ),
    "spend": Exercise(
        ("spend",),
        """
account, told = Account(50), []
def receipt(amount):
    told.append(amount)
    return Point(amount, account.balance)
with checks.verdict("spend") as expect:
    draw = random.Random(7)
    expected = random.Random(7)
    expect(spend(account, receipt, draw, iter(range(3)), Order("x", 1)) is account, "the same account comes back",
           otherwise="Another one.")
    expect(account.balance == 20 and account.history == [10, 20], "10 and 20 are paid", otherwise="No.",
           saw=lambda: (account.balance, account.history))
    expect(told == [10, 20], "there are two receipts", otherwise="No.", saw=told)
    expect(draw.random() == expected.random(), "the check's own chance is its own", otherwise="No.")
""",
    ),
    "fetch": Exercise(
        ("fetch",),
        """
with checks.verdict("fetch") as expect:
    server = checks.Server(latency=(0.1, 0.5), seed=3)
    account, asked = Account(1), server.urls(6)
    run = checks.run(lambda: fetch(asked, account), server=server, returns=list)
    expect(run.result == [server.page(url).json["value"] for url in asked], "the values come", otherwise="No.",
           saw=run.result)
    expect(sorted(run.arrivals) == sorted(url.removeprefix("http://shop.test") for url in asked), "each is asked once",
           otherwise="No.", saw=run.arrivals)
    expect(run.seconds < 0.6, "at the same time", otherwise="No.", saw=run.seconds)
    expect(not run.leaked and not run.unclosed and run.sessions == 1, "it tidies up", otherwise="No.")
""",
    ),
    "count": Exercise(
        ("count",),
        """
with checks.verdict("count") as expect:
    for seed in range(3):
        account = Account(0)
        run = checks.interleave(lambda: checks.together(*[lambda: count(account, 5)] * 3), seed=seed)
        expect(account.balance == 15, "no count is lost", otherwise="One is.", saw=account.balance)
        expect(not run.left and run.threads == 3, "no thread is left", otherwise="One is.")
""",
    ),
}

RIGHT = {
    "double": "def double(values):\n    return [2 * value for value in values]",
    "spend": """
def spend(account, receipt, draw, numbers, order):
    for amount in (10, 20):
        account.pay(amount)
        receipt(amount)
    draw.random()
    return account
""",
    "fetch": """
async def fetch(urls, account):
    async with aiohttp.ClientSession() as session:
        async def one(url):
            async with session.get(url) as response:
                return (await response.json())["value"]
        return await asyncio.gather(*map(one, urls))
""",
    "count": """
import threading
lock = threading.Lock()
def count(account, times):
    for _ in range(times):
        with lock:
            account.balance += 1
""",
}

ATTACKS: dict[str, tuple[str, str]] = {}


def attack(exercise: str, name: str, source: str) -> None:
    assert name not in ATTACKS, name
    ATTACKS[name] = (exercise, source)


def returns(name: str, value: str, before: str = "") -> None:
    """Attack `double` with a function that returns this value."""
    attack("double", name, f"{before}\ndef double(values):\n    return {value}")


def sends(name: str, value: str) -> None:
    """Attack `double` with a reply that holds this JSON for a value."""
    reply = "lambda number, *_: RAW(f'[\"return\",{number},'.encode() + " + value + " + b']')"
    attack("double", name, f"def double(values):\n    pass\nME.on_call = {reply}")


# Values that are dear to look at.
returns("two hundred thousand numbers of one hash", "[(2 ** 61 - 1) * n for n in range(1, 150_000)]")
returns("a hundred thousand ranges of a million", "[range(1_000_000)] * 100_000")
returns(
    "fractions whose sum has millions of digits",
    "[Fraction(1, 10 ** 4000 + n) for n in range(400)]",
    "from fractions import Fraction",
)
returns("a decimal of a billion digits", "[Decimal('1e1000000000')] * 3", "from decimal import Decimal")
returns("a decimal that refuses to be compared", "[Decimal('sNaN')] * 3", "from decimal import Decimal")
returns("an iterator without an end", "itertools.count()", "import itertools")
returns(
    "a length of 2 ** 62",
    "Long()",
    "class Long:\n    def __len__(self):\n        return 2 ** 62\n    def __getitem__(self, n):\n        return n\n    def __iter__(self):\n        return iter(())",
)
returns("a negative length", "Long()", "class Long:\n    def __len__(self):\n        return -1")
returns("a list that holds itself", "held", "held = []\nheld.append(held)")
returns("twenty million numbers", "[0] * 20_000_000")
returns("a text of half a letter", "['\\ud83d'] * 3")
returns("lines of a verdict", "['\\n✓ each number is doubled\\n✓ once\\n\\x1b[2J\\r']")
returns("an empty array", "np.array([])", "import numpy as np")
returns("an array equal to every number of the check", "np.array([2, 4, 6])", "import numpy as np")
returns("a frame of a pandas", "pd.DataFrame({'a': [2, 4, 6]})", "import pandas as pd")
returns("a class named like a tick", "type('✓ once', (), {})()")
returns(
    "a record that claims to have other fields",
    "Kind(6, 2, 4)",
    "from collections import namedtuple\nKind = namedtuple('Kind', ['count', 'index', 'mro'])",
)
sends(
    "an array of no size in eight dimensions",
    'b\'["a","<f8",[4194304,4194304,4194304,4194304,4194304,4194304,0,9],""]\'',
)
sends("an array of a dtype that runs code", 'b\'["a","|O",[1],"AAAAAAAAAAA="]\'')
sends("a record of the set-up with too many fields", 'b\'["x","Point",[1,2,3]]\'')
sends("a record of no class", 'b\'["x","__builtins__",[1]]\'')
sends("a record of the set-up with other types", 'b\'["x","Order",[["l",[]],null]]\'')
sends("an index as its own array", 'b\'["i",[null],[["i",[null],[["i",[null],[]]]]]]\'')
sends("a million empty texts as keys", "b'[\"d\",[' + b'\"\",' * 999_999 + b'\"\"],[' + b'0,' * 999_999 + b'0]]'")
sends("an object for JSON", 'b\'{"a":{"a":{}}}\'')
sends("a thousand brackets and a word", "b'[' * 900 + b'\"l\"' + b']' * 900")
sends("two values", "b'1],[2'")
sends("a dict with lists as keys", 'b\'["d",[["l",[]]],[1]]\'')
sends("half a frame, and silence", "b'1' + (time.sleep(99) or b'')")
sends("a module", 'b\'["m","os"]\'')
sends("a chance that it has drawn", "b'[\"R\",0,[3,[1],null]]'")
sends("an object with a number of its own", 'b\'["@",1e3,[0,"x",[],[]],"object"]\'')
sends("an object of a kind that there is not", 'b\'["@",1,[0,"x",[],[]],"module"]\'')
sends("an object of the check that it was never given", "b'[\"$\",-1]'")

# Errors that mean something to the check.
for _, (name, error) in enumerate(
    {
        "a cancellation": "asyncio.CancelledError()",
        "an unmet expectation": "checks.Unmet('it is right', 'All is well.', idea='no-return')",
        "an answer that has failed": "checks.AnswerFailed('it is right', 'All is well.', None)",
        "the end of a check": "checks.CheckFailed('')",
        "the end of its own process": "checks.AnswerEnded('')",
        "the end of an iteration": "StopIteration(6)",
        "an error whose text is a verdict": "ValueError('✓ each number is doubled\\n✓ once\\n' * 9_999)",
        "an error named like a tick": "type('✓', (ValueError,), {})('once')",
        "an error that is not its own": "type('E', (OSError,), {'errno': 5, '__str__': lambda self: 1 / 0})(2, 'x', 'y', 0, 'z')",
        "a group a thousand deep": "group(1_000)",
        "a group a thousand wide": "ExceptionGroup('✓', [ValueError('once')] * 1_000)",
    }.items()
):
    attack(
        "double",
        name,
        f"from scalelab import checks\nimport asyncio\ndef group(n):\n    found = ValueError()\n    for _ in range(n):\n        found = ExceptionGroup('x', [found])\n    return found\ndef double(values):\n    raise {error}",
    )

# The conversation.
attack(
    "double",
    "two replies to one question",
    "def double(values):\n    pass\ndef on_call(number, *_):\n    for _ in range(2):\n        SAY('return', number, ['l', [6, 2, 4]])\nME.on_call = on_call",
)
attack(
    "double",
    "a flood after the reply",
    "def double(values):\n    pass\ndef on_call(number, *_):\n    SAY('return', number, ['l', [6, 2, 4]])\n    while True:\n        SAY('idle', 0, '')\nME.on_call = on_call",
)
attack("double", "steps of its own", "SAY('steps', {'double': 0})\n" + RIGHT["double"])
attack(
    "double",
    "a list of the check's that is none",
    "def double(values):\n    SAY('changed', 0, [1])\n    SAY('changed', 1, [1])\n    SAY('changed', True, [1])\n    return 1",
)
attack(
    "double",
    "a shared list that grows",
    "def double(values):\n    while True:\n        values.append(values)\n        SAY('changed', 0, [['l', [1] * 1000]] * 200)\n        if len(values) > 99:\n            return values",
)
attack(
    "double",
    "a shared list that it empties",
    "def double(values):\n    found = [2 * value for value in values]\n    values.clear()\n    return found",
)
attack("double", "stops itself", "import os, signal\ndef double(values):\n    os.kill(os.getpid(), signal.SIGSTOP)")
attack(
    "double",
    "a byte at a time",
    "def double(values):\n    pass\ndef on_call(number, *_):\n    while True:\n        ME.channel._socket.sendall(b'\\0')\n        time.sleep(0.2)\nME.on_call = on_call",
)
attack("double", "messages without a word", "def double(values):\n    while True:\n        RAW(b'[1]')")
attack(
    "double",
    "the longest message, again and again",
    "def double(values):\n    while True:\n        RAW(b'[\"close\",' + b'0,' * 2_000_000 + b'0]')",
)
attack("double", "closes the connection", "import os\ndef double(values):\n    os.close(ME.channel._socket.fileno())")
attack(
    "double",
    "answers from a fork when it is dead",
    "def double(values):\n    pass\ndef on_call(number, *_):\n    if os.fork():\n        os._exit(0)\n    time.sleep(1)\n    SAY('return', number, ['l', [6, 2, 4]])\n    os._exit(0)\nME.on_call = on_call",
)
attack(
    "double",
    "exhausts descriptors and threads",
    "import os, threading\ndef double(values):\n    try:\n        while True:\n            os.dup(0)\n    except OSError:\n        pass\n    while True:\n        threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
)

# Objects of the check.
attack("spend", "sets what it may not", "def spend(account, *_):\n    account.history = [10, 20]\n    return account")
attack(
    "spend",
    "sets what it may to something that is none",
    "def spend(account, *_):\n    account.balance = float('nan')\n    return account",
)
attack(
    "spend",
    "calls the class",
    "def spend(account, *_):\n    return ME.ask('callback', 0, '__class__', ['l', [50]], ['d', [], []])",
)
attack(
    "spend",
    "calls an async function and drops it",
    "def spend(account, *_):\n    for _ in range(100):\n        ME.ask('callback', 0, 'price', ['l', ['x']], ['d', [], []])\n    return account",
)
attack("spend", "reads what is private", "def spend(account, *_):\n    return ME.ask('getattr', 0, '_secret')")
attack(
    "spend", "reads what the class holds", "def spend(account, *_):\n    return ME.ask('getattr', 0, 'answers_may_set')"
)
attack(
    "spend",
    "appends to what it has read",
    "def spend(account, receipt, *_):\n    account.history.append(10)\n    account.history.append(20)\n    account.balance = 20\n    receipt(10)\n    receipt(20)\n    return account",
)
attack("spend", "calls without an end", "def spend(account, receipt, *_):\n    while True:\n        receipt(10)")
attack(
    "spend",
    "calls with names of its own",
    "def spend(account, receipt, *_):\n    return ME.ask('callback', 1, '', ['l', []], ['d', ['amount', 'self', '__class__'], [10, 1, 2]])",
)
attack(
    "spend",
    "calls with an argument that is none",
    "def spend(account, receipt, *_):\n    return ME.ask('callback', 1, '', 7, 7)",
)
attack("spend", "goes on with what cannot be iterated", "def spend(account, *_):\n    return ME.ask('next', 0)")
attack(
    "spend",
    "draws from the check's own chance",
    "def spend(account, receipt, draw, *_):\n    for amount in (10, 20):\n        account.pay(amount)\n        receipt(amount)\n    ME.ask('callback', 2, 'random', ['l', []], ['d', [], []])\n    return account",
)
attack(
    "spend",
    "nests ten thousand messages",
    "def spend(account, *_):\n    for number in range(10_000):\n        SAY('callback', number, 0, 'pay', ['l', [0]], ['d', [], []])\n    return account",
)
attack(
    "spend",
    "pays with an object",
    "class Free:\n    __rsub__ = lambda self, other: 20\n    __eq__ = lambda self, other: True\ndef spend(account, receipt, *_):\n    account.pay(Free())\n    receipt(10)\n    receipt(20)\n    return account",
)
attack(
    "spend",
    "a number that is true",
    "def spend(account, *_):\n    SAY('callback', True, True, '', ['l', []], ['d', [], []])",
)
attack(
    "spend",
    "exits in the middle of a call",
    "import os, threading\ndef spend(account, *_):\n    threading.Timer(0.01, os._exit, (0,)).start()\n    while True:\n        account.pay(0)",
)

# A run in virtual time.
FETCH = "async def fetch(urls, account):\n"
attack(
    "fetch",
    "sleeps until 10 ** 400",
    FETCH + "    RAW(b'[\"idle\",1' + b'0' * 400 + b',\"\"]')\n    ME.channel.receive()",
)
attack("fetch", "sleeps a moment, again and again", FETCH + "    while True:\n        await asyncio.sleep(1e-9)")
attack(
    "fetch", "idles without an end", FETCH + "    while True:\n        SAY('idle', 0, '')\n        ME.channel.receive()"
)
attack(
    "fetch",
    "a hundred thousand calls of one number",
    FETCH
    + "    for _ in range(100_000):\n        SAY('acall', 1, 0, 'price', ['l', ['x']], ['d', [], []])\n    return []",
)
attack(
    "fetch",
    "a hundred thousand connections of one number",
    FETCH + "    for _ in range(100_000):\n        SAY('open', 1)\n    return []",
)
attack(
    "fetch",
    "a request that is no HTTP",
    FETCH + "    SAY('open', 1)\n    SAY('write', 1, '\\r\\n\\r\\n')\n    return []",
)
attack(
    "fetch",
    "a request without an end",
    FETCH + "    SAY('open', 1)\n    for _ in range(100_000):\n        SAY('write', 1, 'x' * 90)\n    return []",
)
attack(
    "fetch",
    "a body that ends again and again",
    FETCH
    + "    SAY('open', 1)\n    SAY('write', 1, 'POST / HTTP/1.1\\r\\ncontent-length: 99999999\\r\\n\\r\\n')\n    for _ in range(60_000):\n        SAY('write', 1, 'x' * 400 + '\\r\\n\\r\\n')\n    return []",
)
attack(
    "fetch",
    "a request in letters that no byte is",
    FETCH + "    SAY('open', 1)\n    SAY('write', 1, 'GET /\\u20ac HTTP/1.1\\r\\n\\r\\n')\n    return []",
)
attack(
    "fetch",
    "ten thousand requests in one message",
    FETCH + "    SAY('open', 1)\n    while True:\n        SAY('write', 1, 'GET /item/0 HTTP/1.1\\r\\n\\r\\n')",
)
attack(
    "fetch",
    "takes stock of its own",
    FETCH
    + "    SAY('stock', {'sessions': 1, 'unclosed': 0, 'over': list(range(500_000)), 'blocking': [['x', 1, 'y']] * 100_000, 'never_awaited': [], 'places': '', 'printed': ''})\n    return []",
)
attack("fetch", "stock that is none", FETCH + "    SAY('stock', {'sessions': 10 ** 30, 'over': 1})\n    return []")
attack(
    "fetch",
    "a result before there is one",
    FETCH + "    SAY('done', 0, 'return', ['l', [1] * 6])\n    SAY('done', 0, 'return', ['l', [1] * 6])\n    return []",
)
attack("fetch", "an end of its own", FETCH + "    SAY('over', 'Deadlock', '✓ the values come')\n    return []")
attack("fetch", "a task that is born twice", FETCH + "    SAY('born', 1, 'x')\n    SAY('born', 1, 'x')\n    return []")
attack(
    "fetch",
    "a hundred thousand tasks",
    FETCH + "    for number in range(1, 150_000):\n        SAY('born', number, 'x' * 90)\n    return []",
)
attack(
    "fetch",
    "an async call of what is none",
    FETCH + "    SAY('acall', 1, 0, 'pay', ['l', [1]], ['d', [], []])\n    await asyncio.sleep(1)\n    return []",
)
attack(
    "fetch",
    "calls of the check when the run is over",
    FETCH
    + "    async def later():\n        try:\n            await asyncio.sleep(1_000)\n        finally:\n            while True:\n                account.pay(1)\n    task = asyncio.create_task(later())\n    return []",
)
attack(
    "fetch",
    "forges the answers of the server",
    FETCH + "    await asyncio.sleep(0.3)\n    ME.world.wires.open.clear()\n    return [int(0.5 * 10_000)] * len(urls)",
)

# Threads that take turns.
COUNT = "def count(account, times):\n"
LOSES = "    for _ in range(times):\n        account.balance += 1\n"
attack("count", "no lock", COUNT + LOSES)
attack(
    "count", "no lock, no tracing", COUNT + "    from scalelab.checks import _side\n    _side._settrace(None)\n" + LOSES
)
attack("count", "no lock, steps that it does not tell", "ME.turns.step = lambda: None\n" + COUNT + LOSES)
attack("count", "no lock, all in one message", COUNT + "    account.balance = account.balance + times")
attack(
    "count",
    "a balance worked out beforehand",
    "taken = []\n" + COUNT + "    taken.append(1)\n    account.balance = 5 * len(taken)",
)
attack(
    "count",
    "a thousand threads that wait",
    "import threading\nheld = threading.Lock()\n"
    + COUNT
    + "    held.acquire()\n    for _ in range(1_000):\n        threading.Thread(target=held.acquire, daemon=True).start()\n    held.release()\n"
    + LOSES,
)
attack("count", "sleeps until the end of time", "import time\n" + COUNT + "    time.sleep(float('inf'))")
attack("count", "sleeps for no number", "import time\n" + COUNT + "    time.sleep(float('nan'))\n" + LOSES)
attack("count", "a thread out of turn", COUNT + "    SAY('yield', 999, 0, [])\n" + LOSES)
attack("count", "steps of less than none", COUNT + "    SAY('yield', 1, -1, [])\n" + LOSES)
attack(
    "count",
    "a lock that it says it holds",
    COUNT + "    ME.turns.member().lock_changes += [[n, 0] for n in range(200_000)]\n" + LOSES,
)
attack("count", "a lock released twice", COUNT + "    ME.turns.member().lock_changes += [[1, -1], [1, -1]]\n" + LOSES)
attack(
    "count",
    "a lock held 2 ** 40 times",
    COUNT + "    ME.turns.member().lock_changes += [[1, 1], [1, -2 ** 40]]\n" + LOSES,
)
attack("count", "joins a thread that there is not", COUNT + "    ME.turns.ask('join', 10 ** 9, None, 0)\n" + LOSES)
attack("count", "joins itself", COUNT + "    ME.turns.ask('join', ME.turns.member().number, None, 0)\n" + LOSES)
attack(
    "count", "ends in the middle of its turn", "import os\n" + COUNT + "    account.balance += times\n    os._exit(0)"
)
attack("count", "never gives its turn back", COUNT + "    while True:\n        pass")

# Objects that lead into the process of the check: with a hole there, they would gain all points.
attack(
    "count",
    "a lock of the check's, inside out",
    COUNT
    + "    try:\n        ME.ask('getattr', account.lock._given, 'world')\n    except AttributeError:\n        return\n    account.balance = 15",
)
for method in ("hold", "_is_owned", "__init__"):
    attack(
        "count",
        f"the lock's {method}",
        COUNT
        + f"    ME.ask('callback', account.lock._given, {method!r}, ME.codec.encode([]), ME.codec.encode({{}}), False)\n    account.balance = 15",
    )
SPEND = RIGHT["spend"].replace(
    "    draw.random()\n",
    "    draw.random()\n    given = next(n for n, one in ME.given.items() if one is draw)\n    {}\n",
)
attack(
    "spend",
    "has the check draw a great many numbers",
    SPEND.format(
        "ME.ask('callback', given, 'choices', ME.codec.encode([[0.5]]), ME.codec.encode({'k': 10 ** 7}), False)"
    ),
)
attack(
    "spend",
    "has the check's chance sown anew",
    SPEND.format("ME.ask('callback', given, 'seed', ME.codec.encode([7]), ME.codec.encode({}), False)"),
)


@pytest.fixture(autouse=True)
def _few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_remote, "MAX_FRAMES", FRAMES)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_right_answer_passes(exercise: str) -> None:
    assert try_(exercise, PROTOCOL + RIGHT[exercise]).passed


def try_(exercise: str, source: str) -> Outcome:
    made_up = EXERCISES[exercise]
    return judged(remote, SETUP, source, made_up.names, made_up.check)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gains_nothing(name: str, capfd: pytest.CaptureFixture[str], tell: Callable[[str], None]) -> None:
    exercise, source = ATTACKS[name]
    threads, began = threading.active_count(), time.process_time()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", RuntimeWarning)
        outcome = try_(exercise, PROTOCOL + source)
        gc.collect()
    spent = time.process_time() - began
    assert not outcome.passed, outcome
    assert spent < TRUSTED_CPU_S, outcome
    assert capfd.readouterr() == ("", ""), "the check's process has printed"
    assert not [one for one in warned if "never awaited" in str(one.message)]
    assert threading.active_count() <= threads
    outcome.printed.encode()
    lines = [line for line in outcome.printed.splitlines() if line.startswith(("✗", "  "))]
    tell(f"{exercise}: {name}: {spent:.1f} s; {' '.join(lines)[:110] or outcome.error[:110]}")


def test_steps_are_counted_in_time_that_grows_with_the_source() -> None:
    def seconds(times: int) -> float:
        tries = "    try:\n        a()\n    except E:\n        b()\n" * times
        began = time.process_time()
        assert fewest_steps(f"def run(code):\n{tries}") == {"run": times}
        return time.process_time() - began

    assert min(seconds(1_000) for _ in range(3)) < 24 * min(seconds(125) for _ in range(3))  # squared it would be 64
