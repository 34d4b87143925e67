"""The boundary under attack: whatever an answer's process sends, it costs that answer's question and nothing else."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import json
import os
import random
import re
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalelab import checks
from scalelab.answers import remote
from scalelab.answers.channel import Channel, Disconnected, ProtocolError
from scalelab.answers.monitor import Monitor, OutOfTime
from scalelab.answers.remote import Answer, Record, Remote, SharedList
from scalelab.answers.remote_side import RemoteSide
from scalelab.checks import _side
from scalelab.errors import ScalelabError

SILENCE_S = 0.3
"""After this silence the other process gives up. On a busy machine some attacks are cut short, and none fails."""
MAX_CPU_S = 30.0
FUNCTION = ["@", 1, [0, "function", [], ["call"]], "function"]
COROUTINE = ["@", 2, [1, "coroutine", [], []], "coroutine"]
EVENTS = {
    "exec",
    "compile",
    "pickle.find_class",
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
}
_watched = [False]
_seen: list[str] = []


def _audit(event: str, args: Any) -> None:
    if _watched[0] and event in EVENTS and not _seen:
        _seen.append(f"{event} {args}"[:300])


sys.addaudithook(_audit)
assert pd.Series(np.arange(2)).sum() == 1  # what pandas imports on first use has been imported


class OtherProcess:
    """The other end of an answer's connection: it answers as an honest process does, after the hostile frames."""

    def __init__(self, attack: dict[int, list[Any]]) -> None:
        ours, self._socket = socket.socketpair()
        self.connection = ours
        self.attack = attack
        self.stages: list[str] = []  # of the messages received
        self._channel = Channel(self._socket)
        self._socket.settimeout(SILENCE_S)
        self._thread = threading.Thread(target=self._main)

    def __enter__(self) -> OtherProcess:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _main(self) -> None:
        self._channel._idle = self._give_up
        with contextlib.suppress(Disconnected, ProtocolError, OSError, TimeoutError), self._socket:
            while True:
                message = self._channel.receive()
                for frame in self.attack.get(len(self.stages), ()):
                    data = frame if isinstance(frame, bytes) else json.dumps(self._fill_in(frame, message)).encode()
                    self._socket.sendall(len(data).to_bytes(4, "big") + data)
                self.stages.append(stage_of(message))
                for reply in honest(message):
                    self._channel.send(reply)

    def _give_up(self) -> None:
        raise Disconnected

    def _fill_in(self, frame: Any, message: list[Any]) -> Any:
        """Put the number of the request where the frame says so."""
        if frame == "<number>":
            return message[1] if len(message) > 1 else 0
        return [self._fill_in(part, message) for part in frame] if isinstance(frame, list) else frame


STOCK: dict[str, Any] = {"names": [], "over": [], "blocking": [], "never_awaited": [], "places": "", "printed": ""}
HONEST: dict[str, Any] = {
    "begin": lambda number, *_: [["return", number, ["d", ["f", "g"], [FUNCTION, FUNCTION]]]],
    **dict.fromkeys(("call", "method", "attr"), lambda number, *_: [["return", number, COROUTINE]]),
    **dict.fromkeys(("value", "next"), lambda number, *_: [["return", number, ["l", [1]]]]),
    "endturns": lambda number: [["return", number, "text"]],
    "printed": lambda number: [["return", number, "text"]],
    "loop": lambda _: [["idle", None, ""]],
    "await": lambda number, _: [["done", number, "return", 5]],
    "stock": lambda: [["stock", {"sessions": 0, "unclosed": 0} | STOCK]],
    "end": lambda: [["ended"]],
}
"""What an honest process sends after each word."""


def stage_of(message: list[Any]) -> str:
    """Return the stage of a conversation that a message of the check's belongs to, as in FRAMES."""
    if message[0] == "go":
        return "turns" if isinstance(message[2], int) else "run"
    return "run" if message[0] == "loop" else "call"


def honest(message: list[Any]) -> list[list[Any]]:
    """Return what an honest process sends after a message."""
    if message[0] != "go":
        return HONEST.get(message[0], lambda *_: [])(*message[1:])  # type: ignore[no-any-return]
    if stage_of(message) == "turns":
        return [["return" if message[3][0] == "call" else "ended", message[1], 1, [], None]]
    replies = [reply for inner in message[2] for reply in honest(inner)]
    return replies if ["ended"] in replies else [*replies, ["idle", None, ""]]


class Lent:
    """An object that the check gives to the answer."""

    answers_may_set = ("level",)

    def __init__(self) -> None:
        self.level = 1

    def method(self, *args: Any) -> int:
        return len(args)

    async def wait(self, *args: Any) -> int:
        return len(args)


class Pair(NamedTuple):
    """A record of the set-up."""

    a: Any
    b: Any


async def fetch(*args: Any) -> Any:
    return args


def converse(other: OtherProcess) -> None:
    """Use an answer in all ways that checks do: calls, objects, a run in virtual time, threads that take turns."""
    namespace = {"Pair": Pair}
    answer = Answer(other.connection, namespace, ["Pair"])
    answer.codec.add_records(namespace)
    before, _side.current = _side.current, RemoteSide(answer)
    try:
        names = answer.begin("", ["f", "g"])
        f = names["f"]
        result = f(Lent(), SharedList([1, [2]]), checks.Clock(3.0), random.Random(1), fetch, iter([1]), Pair(1, 2), f)
        for value in (result, f(functools.partial(f))):
            use(value)
        answer.printed()
        seen = [
            checks.run(lambda: f(Lent(), fetch), server=checks.Server(), may_raise=BaseException),
            checks.interleave(lambda: [f(Lent()), f(threading.Lock())], may_raise=BaseException),
        ]
        for run in seen:
            assert run.error is None or hasattr(run.error, "answers_text") or isinstance(run.error, ScalelabError), run
            use(getattr(run, "result", None))
    finally:
        _side.current = before
        answer.close()


def use(value: Any) -> None:
    """Look at a value as a check does."""
    repr(value)
    _ = value == 1
    if isinstance(value, (Remote, Record)):
        for action in (len, list, next, lambda value: value.size, lambda value: value[0], lambda value: 1 in value):
            with contextlib.suppress(TypeError, AttributeError, StopIteration, OverflowError, ValueError, LookupError):
                action(value)
    if isinstance(value, Remote) and value._kind == "function":
        value(1)


def survives(attack: dict[int, list[Any]]) -> list[str]:
    """Hold a conversation with a hostile process, assert how it ends, and return the stages that it went through."""
    _seen.clear()
    started = time.process_time()
    error: BaseException | None = None
    with OtherProcess(attack) as other:
        _watched[0] = True
        try:
            converse(other)
        except BaseException as raised:
            error = raised
        finally:
            _watched[0] = False
            other.connection.close()
    assert error is None or isinstance(error, checks.AnswerEnded) or hasattr(error, "answers_text"), repr(error)
    assert not _seen
    assert time.process_time() - started < MAX_CPU_S
    return other.stages


@functools.cache
def stages() -> list[str]:
    """Return the stages of a whole conversation."""
    return survives({})


NOTHING = ["l", []]
NO_KEYWORDS = ["d", [], []]
ERROR = ["E", {"name": "Own", "kinds": ["__main__.Own", "builtins.KeyError"], "text": "a", "line": 3, "args": ["a"]}]
REQUEST = "GET /item/3 HTTP/1.1\r\nHost: shop.test\r\n\r\n"
VALUES: list[Any] = [
    *(1, -0.0, True, None, "text", "\ud800", 10**4000, float("nan"), float("inf"), "x" * 100_000),
    *(NOTHING, ["t", [1, 2.5]], ["s", [1, 2]], ["f", ["a"]], ["d", ["a", 1], [2, NOTHING]], ["d", [NOTHING], [1]]),
    *(["b", "YWJj"], ["b", "?"], ["B", "YWJj"], ["c", 1.0, 2.0], ["q", 1, 3], ["q", 1, 0], ["D", "1.50"], ["..."]),
    *(["D", "1e999999999"], ["r", 0, 9, 1], ["r", 0, 10**12, 1], ["r", 0, 9, 0], ["S", None, 3, NOTHING]),
    *(["a", "<f8", [1], "AAAAAAAA8D8="], ["a", "<f8", [9], "AAAAAAAA8D8="], ["a", "O", [1], "AAAAAAAA8D8="]),
    *(["p", "Int64", [1, None]], ["p", "object", [FUNCTION]], ["i", ["n"], [["r", 0, 1, 1]]]),
    *(["P", "n", ["i", [None], [["r", 0, 1, 1]]], ["p", "Int64", [1]]], ["i", ["a", "b"], [["r", 0, 1, 1], NOTHING]]),
    *(
        ["F", ["i", [None], [["p", "str", ["a"]]]], ["i", [None], [["r", 0, 1, 1]]], [["p", "Int64", [1]]]],
        ["x", "Pair", []],
    ),
    *(
        ["x", "Pair", [1, 2]],
        ["x", "object", []],
        ERROR,
        ["E", {"name": "E", "kinds": ["builtins.SystemExit"], "text": ""}],
    ),
    *(
        ["@", 7, [7, "Iterator", [], ["iter", "next"]], "iterator"],
        ["@", 8, 7, "object"],
        ["@", 1],
        COROUTINE,
        FUNCTION,
    ),
    *(["N", 9, [8, "Own", [], []], ["a", "b"], [1, 2]], ["N", 9, 8, ["a"], []], ["$", 0], ["$", 10**9], ["$", -1]),
    *(["M", 1, "x"], ["m", "os"], ["R", 0, []], ["C", 2, 9.0], ["L", 1, []], ["eval", "1"], [], ["d", [1], []]),
    *(["E", {"name": "G", "kinds": ["builtins.ExceptionGroup"], "text": "g", "inside": [ERROR, ERROR]}], ["$", 1]),
]
FRAMES: dict[str, list[list[Any]]] = {
    "call": [
        *(
            ["return", "<number>", 1],
            ["raise", "<number>", ERROR],
            ["return", 1, 1],
            ["raise", "<number>", 1],
            ["steps", {"f": 5}],
        ),
        *(
            ["callback", 7, lent, name, NOTHING, NO_KEYWORDS]
            for lent in range(8)
            for name in ("", "method", "__init__")
        ),
        *(["getattr", 7, 0, "level"], ["getattr", 7, 4, "__globals__"], ["setattr", 7, 0, "level", 5]),
        *(["setattr", 7, 0, "level", ["$", 0]], ["setattr", 7, 0, "method", 5], ["next", 7, 5], ["next", 7, 0]),
        *(["changed", 1, [1, ["$", 1]]], ["changed", 0, []], ["changed", 1, [NOTHING] * 5]),
    ],
    "run": [
        *(["idle", None, ""], ["idle", 1.5, "time.sleep"], ["open", 1], ["write", 1, REQUEST], ["write", 1, "\u1234"]),
        *(["close", 1], ["acall", 9, 7, "wait", NOTHING, NO_KEYWORDS], ["acall", 9, 4, "", NOTHING, NO_KEYWORDS]),
        *(["acancel", 9], ["done", 0, "return", 1], ["done", 0, "raise", ERROR], ["done", 0, "cancelled", None]),
        *(["born", 0, "task"], ["died", 0, True], ["over", "Stuck", "why"], ["over", "NeverEnds", "why"], ["ended"]),
        *(["stock", {"sessions": 0, "unclosed": 0} | STOCK], ["stock", STOCK]),
    ],
    "turns": [
        ["yield", "<number>", 1, []],
        *(
            ["acquire", "<number>", 1, [], 3, again, holder, -1, 3]
            for again in (True, False)
            for holder in (None, 0, 1)
        ),
        *(["acquire", "<number>", 1, [], 3, False, None, timeout, 3] for timeout in (0, 0.5, float("nan"), 10**400)),
        *(["yield", "<number>", 1, [[3, change]]] for change in (0, 1, -1, -2, -(10**9))),
        *(["yield", "<number>", 1, [[3, 0], [3, 0]]], ["yield", "<number>", 1, [[3, 1], [3, -3], [3, -1], [3, -1]]]),
        *(["sleep", "<number>", 1, [], seconds, 3] for seconds in (0.5, -1, float("nan"), float("inf"), 10**400)),
        *(["start", "<number>", 1, [], "f"], ["start", "<number>", 1, [], ""]),
        *(
            ["join", "<number>", 1, [], number, timeout, 3]
            for number in (0, 1, 5)
            for timeout in (None, 0, float("nan"))
        ),
        *(["callback", "<number>", 1, [], 8, "method", NOTHING, NO_KEYWORDS, False, 3], ["next", "<number>", 1, [], 5]),
        *(
            ["callback", "<number>", 1, [], 6, "", NOTHING, NO_KEYWORDS, False, 3],
            ["getattr", "<number>", 1, [], 8, "level"],
        ),
        *(
            ["setattr", "<number>", 1, [], 8, "level", 5],
            ["ended", "<number>", 1, [], None],
            ["return", "<number>", 1, [], 5],
        ),
        *(["raise", "<number>", 1, [], ERROR], ["return", "<number>", 10**9, [], 5], ["return", "<number>", 0, [], 5]),
    ],
}
WORDS = sorted({frame[0] for group in FRAMES.values() for frame in group})
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated(draw: st.DrawFn, group: list[list[Any]]) -> list[Any]:
    """Draw a frame of the protocol in which one part, at any depth, may be another value."""
    frame = json.loads(json.dumps(draw(st.sampled_from(group))))
    if len(frame) == 1 or draw(st.booleans()):
        return frame
    place, number = frame, draw(st.integers(1, len(frame) - 1))
    while isinstance(place[number], list) and place[number] and draw(st.booleans()):
        place = place[number]
        number = draw(st.integers(0, len(place) - 1))
    place[number] = draw(st.sampled_from(VALUES) | json_values)
    return frame


@st.composite
def attacks(draw: st.DrawFn) -> dict[int, list[Any]]:
    """Draw frames that fit a stage of the conversation, or nearly so."""
    stage = draw(st.integers(0, len(stages()) - 1))
    return {stage: draw(st.lists(mutated(FRAMES[stages()[stage]]), min_size=1, max_size=5))}


def wrong_words() -> st.SearchStrategy[Any]:
    """Bytes, JSON, and words of the protocol with arguments that fit none."""
    words = st.builds(lambda word, rest: [word, *rest], st.sampled_from(WORDS), st.lists(json_values, max_size=5))
    return st.binary(max_size=20) | st.lists(json_values, max_size=4) | words


def test_an_honest_process_goes_through_all_stages() -> None:
    """Without this, the attacks below might end at the first stage."""
    assert set(stages()) == set(FRAMES)
    assert stages()[-1] == "call"


@settings(max_examples=300)
@given(attacks())
def test_a_hostile_process_ends_its_own_question_only(attack: dict[int, list[Any]]) -> None:
    survives(attack)


@given(st.data())
def test_nonsense_ends_its_own_question_only(data: st.DataObject) -> None:
    survives({data.draw(st.integers(0, len(stages()) - 1)): [data.draw(wrong_words())]})


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:30])
def test_every_value_may_be_a_result(value: Any) -> None:
    survives({1: [["return", "<number>", value]]})


@pytest.mark.parametrize("group", FRAMES)
def test_every_word_may_come_at_every_stage(group: str) -> None:
    for frame in FRAMES[group]:
        for stage in {stages().index(name) for name in FRAMES}:
            survives({stage: [frame, frame]})


@pytest.mark.parametrize(("bound", "most"), [("MAX_FRAMES", 50), ("MAX_BYTES", 5_000), ("MAX_OBJECTS", 20)])
def test_messages_bytes_and_objects_are_bounded(monkeypatch: pytest.MonkeyPatch, bound: str, most: int) -> None:
    objects = [["@", number, [0, "object", [], []], "object"] for number in range(1000)]
    frames = [["setattr", 7, 0, "level", value] for value in objects]
    monkeypatch.setattr(remote, bound, most)
    with OtherProcess({1: frames}) as other, pytest.raises(checks.AnswerEnded, match="too much"):
        converse(other)


def test_a_silent_process_is_out_of_time_and_says_so() -> None:
    class Impatient(Monitor):
        def __call__(self) -> None:
            raise OutOfTime("too long")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        answer = Answer(ours, {}, monitor=Impatient(os.getpid(), 1.0))
        for _ in range(2):
            with pytest.raises(checks.AnswerEnded, match="too long") as caught:
                answer.begin("", [])
            assert caught.value.state == "timed out"


# The description for people.

ANSWERS = Path(remote.__file__).parent
README = (ANSWERS / "README.md").read_text(encoding="utf-8")


def words_described(*headings: str) -> set[str]:
    """Return the words in the first columns of the README's tables under these headings."""
    parts = [README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] for heading in headings]
    return set(re.findall(r"^\| `(\w+)` \|", "\n".join(parts), re.MULTILINE))


def words_received(pattern: str) -> set[str]:
    """Return the words that modules match in messages: `case [word, …]`, `message[0] == word` and methods `on_word`."""
    words = set()
    for path in ANSWERS.glob(pattern):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.MatchSequence([first, *_]):
                    words.update(part.value for part in ast.walk(first) if isinstance(part, ast.Constant))
                case ast.Compare(ast.Subscript(ast.Name("message") | ast.Call(), ast.Constant(0)), _, [compared]):
                    words.update(part.value for part in ast.walk(compared) if isinstance(part, ast.Constant))
                case ast.FunctionDef(name=name) if name.startswith("on_"):
                    words.add(name.removeprefix("on_"))
    return {
        word
        for word in words
        if isinstance(word, str) and word.isalpha() and word not in ("C", "L", "M", "N", "R", "m")
    }


def test_the_description_has_the_words_that_the_code_has() -> None:
    assert words_described("To the check") == words_received("remote*.py")
    assert words_described("To the answer") == words_received("process*.py")
    assert set(WORDS) == words_described("To the check")


def test_the_description_has_the_bounds_that_the_code_has() -> None:
    bounds = re.findall(r"^\| `(\w+)\.(MAX_\w+)` \| ([\d.]+) \|", README, re.MULTILINE)
    assert len(bounds) > 15
    for module, name, value in bounds:
        assert str(getattr(importlib.import_module(f"scalelab.answers.{module}"), name)) == value
