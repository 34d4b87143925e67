"""`checks.interleave` for an answer in another process: turns are dealt, and locks held, on this side.

Each thread of the answer has an agent here, a thread of `_interleave.Turns`. When the agent has the turn, it lets the
answer's thread take a number of steps. That thread then asks for a lock, a sleep or an object of the check, or passes
the turn on. The rules are those of a student's notebook. There, code of the set-up's objects takes steps as well, so
the turns of a seed can differ.
"""

from __future__ import annotations

import threading
from typing import Any

from scalelab.answers.channel import ProtocolError
from scalelab.answers.codec import checked_int, checked_text
from scalelab.answers.remote import Answer, Remote
from scalelab.checks import AnswerEnded, _interleave
from scalelab.checks._interleave import Interleaving, Lock, Member, RLock, Turns
from scalelab.checks._world import Ended
from scalelab.errors import ScalelabError

MAX_LOCKS = 100_000
MAX_THREADS = 1_000
MAX_SLEEP_S = 1e9
NOT_DEALT = "its code runs where no turn can be dealt"


class RemoteTurns(Turns):
    """The threads of one run; the answer's threads report their steps in messages.

    An answer can report too few steps. So each access to an object of the check counts as at least one step, the
    answer's locks are held here, and a call or thread that returns must have taken the steps of the shortest path
    through its function. The answer's process has counted those before it ran the answer.
    """

    traced = False

    def __init__(self, answer: Answer, *args: Any) -> None:
        super().__init__(*args)
        self.answer = answer
        self._locks: dict[int, Lock] = {}
        self._lines: dict[Member, int] = {}  # of the answer's cell, in which threads wait
        self._steps: dict[Member, int] = {}
        self._steps_at_access: dict[Member, int] = {}  # when they last used an object of the check
        self._called = False

    def run(self) -> None:
        self.answer.turns = self
        try:
            super().run()
        finally:
            self.answer.turns = None
            if self._called and not self.answer.ended:
                self._text += self.answer.printed("endturns")

    def report(self) -> Interleaving:
        self.answer.raise_if_ended()
        if self._called and not self.steps and self._error is None:
            self.answer.fail(NOT_DEALT)
        return super().report()

    def _watch(self) -> None:
        self._over.acquire()  # the answer's monitor ends an answer that takes too long

    def _where(self, member: Member) -> int | None:
        return self._lines.get(member) or None

    # The answer's threads.

    def call(self, target: Any, method: str, args: Any, kwargs: Any, keep: bool = False) -> Any:
        """Make a call in the answer's thread whose agent calls this."""
        encode = self.answer.codec.encode
        name = method or next(
            (name for name, value in self.namespace.items() if isinstance(value, Remote) and value._number == target),
            "",
        )
        return self._converse(["call", target, method, encode(list(args)), encode(kwargs), keep], name)

    def _converse(self, payload: list[Any], name: str) -> Any:
        """Give turns to the calling agent's thread until its call, or the thread itself, has ended.

        `name` is the name of the function that it runs.
        """
        me = self.member()
        if me is None:
            raise ScalelabError("only threads that take turns can call the answer here")
        self._called = True
        ends = ("return", "raise") if payload[0] == "call" else ("ended",)
        line, before = self._lines.get(me, 0), self._steps.get(me, 0)
        while True:
            word, rest = self._exchange(me, payload)
            if word in ends:
                break
            try:
                payload = ["ok", self.answer.codec.encode(self._handle(me, word, rest))]
            except (Ended, AnswerEnded):
                raise
            except ProtocolError as error:
                self.answer.fail(error)
            except MemoryError:
                self.answer.fail_of_resources("memory")
            except Exception as error:
                payload = ["error", self.answer.codec.error(error)]
        self._lines[me] = line
        value = self.answer.decoded(rest[0]) if rest else None
        if word != "return" and isinstance(value, BaseException):
            raise value
        if self._steps[me] - before < self.answer.fewest_steps.get(name, 0):
            self.answer.fail(NOT_DEALT)
        return value

    def _exchange(self, me: Member, payload: list[Any]) -> tuple[str, list[Any]]:
        """Give a thread its turn and a payload; return the word and arguments of the message that it sends."""
        if self.closed:
            raise Ended
        quantum, answer = self._quantum(me), self.answer
        steps_left = _interleave.STEPS + 1 - self.steps
        answer.send(["go", me.number, min(quantum or steps_left, steps_left), payload, self.now])
        match answer.receive():
            case [str() as word, number, int() as steps, list() as changes, *rest] if (
                number == me.number and type(steps) is int and 0 <= steps <= (quantum or steps_left)
            ):
                pass
            case _:
                answer.fail("a thread spoke out of its turn")
        self._steps[me] = self._steps.get(me, 0) + steps
        self._count(steps)
        try:
            for number, change in changes:
                self._change(me, checked_int(number), change)
        except (ProtocolError, TypeError, ValueError) as error:
            answer.fail(error)
        if word in ("getattr", "setattr", "next"):
            steps += self._steps_at_access.get(me) == self._steps[me]
            self._steps_at_access[me] = self._steps[me]
        if quantum is not None:
            self._spend(me, steps)
        return word, rest

    def _change(self, me: Member, number: int, change: Any) -> None:
        """Apply a change of a lock's owner, reported by a thread that did not wait for it."""
        lock = self._lock(number, change == 1, of_answer=True)
        if change in (0, 1):
            if not lock.acquire(blocking=False):
                raise ProtocolError("it took a lock that another thread holds")
        elif lock.owner is None:
            raise ProtocolError("it released a lock that nobody holds")
        else:
            lock.depth = checked_int(-1 - change) or 1
            if change == -1:
                lock.release()

    def _lock(self, number: int, reentrant: bool, *, of_answer: bool) -> Lock:
        if number not in self._locks:
            if len(self._locks) >= MAX_LOCKS:
                raise ProtocolError("too many locks")
            self._locks[number] = (RLock if reentrant else Lock)(self, of_answer)
        return self._locks[number]

    def _handle(self, me: Member, word: str, rest: list[Any]) -> Any:
        """Serve a thread's request; return the result."""
        answer = self.answer
        result: Any = None
        match word, rest:
            case "yield" | "changed", []:
                pass
            case "acquire", [number, reentrant, holder, timeout, line]:
                self._lines[me] = checked_int(line)
                lock = self._lock(checked_int(number), reentrant is True, of_answer=holder is None)
                if not lock.of_answer and holder is not None:  # only the answer's process knows who holds it
                    lock.hold(self._members[checked_int(holder)])
                result = lock.acquire(timeout != 0, float(timeout))
            case "sleep", [seconds, line]:
                self._lines[me] = checked_int(line)
                self.sleep(min(max(float(seconds), 0.0), MAX_SLEEP_S))
            case "start", [name]:
                if len(self._members) > MAX_THREADS:
                    raise RuntimeError("can't start new thread")
                result, name = len(self._members), checked_text(name, 100)
                self.start(threading.Thread(target=self._converse, args=(["thread"], name), name=f"Thread-{result}"))
            case "join", [number, timeout, line]:
                self._lines[me] = checked_int(line)
                timeout = None if timeout is None else max(float(timeout), 0.0)
                self.join(self._members[checked_int(number)].thread, timeout)
            case "callback", [given, method, args, kwargs, _, line]:
                self._lines[me] = checked_int(line)
                result = answer.call_given(given, method, args, kwargs)
            case "getattr", [given, name]:
                result = answer.read(given, name)
            case "setattr", [given, name, value]:
                answer.write(given, name, value)
            case "next", [given]:
                result = answer.next_items(given)
            case _:
                raise ProtocolError(f"{checked_text(word, 20)!r} was not expected")
        return result
