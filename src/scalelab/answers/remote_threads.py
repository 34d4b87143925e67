"""`checks.interleave` for an answer in another process: turns are dealt, and locks held, on this side.

Each thread of the answer has an agent here, a thread of `_interleave`'s world. When the agent has the turn, it lets the
answer's thread go on for so many bytecodes; that thread comes back with what it wants: a lock, a sleep, a value of an
object that is on this side, or only its turn to be over.
"""

from __future__ import annotations

import math
import threading
from typing import Any

from scalelab.answers.channel import ProtocolError
from scalelab.answers.codec import checked_int, checked_text
from scalelab.answers.remote import Answer
from scalelab.checks import AnswerEnded, _interleave
from scalelab.checks._interleave import Interleaving, Lock, Member, NeverEnds, RLock, Turns
from scalelab.checks._world import Ended
from scalelab.errors import ScalelabError

AT_SHARED = 0.3  # of the reads and writes of what is on this side, before which the turn is dealt anew


class RemoteTurns(Turns):
    """The threads of one run. None is traced here: what the answer's threads do comes in messages."""

    traced = False

    def __init__(self, answer: Answer, *args: Any) -> None:
        super().__init__(*args)
        self.answer = answer
        self.locks_by_number: dict[int, Any] = {}
        self.threads_by_number: dict[int, threading.Thread] = {}
        self.line = 0
        self.calls = 0

    def run(self) -> None:
        self.answer.ask("turns")
        self.answer.turns = self
        try:
            super().run()
        finally:
            self.answer.turns = None
            if not self.answer.ended:
                self.answer.ask("endturns")
                self._text += self.answer.printed()

    def report(self) -> Interleaving:
        if self.answer.ended:
            raise AnswerEnded(self.answer.ended)
        if self.calls and not self.steps and self._error is None:
            self.answer.fail("its code runs where no turn can be dealt")
        return super().report()

    def _watch(self) -> None:
        self._over.acquire()  # the answer's monitor ends what takes too long

    def step(self) -> None:
        """No code of this side is stepped through."""

    def _where(self) -> Any:
        return self.line or None

    # The answer's threads.

    def call(self, target: Any, method: str, args: Any, kwargs: Any, keep: bool = False) -> Any:
        encode = self.answer.codec.encode
        self.calls += not keep
        return self._converse(["call", target, method, encode(list(args)), encode(kwargs), keep])

    def _converse(self, payload: list[Any]) -> Any:
        """Let the answer's thread of the calling agent go on, again and again, until it has what was asked for."""
        me = self.member()
        if me is None:
            raise ScalelabError("only threads that take turns can call the answer here")
        answer, ends = self.answer, ("return", "raise") if payload[0] == "call" else ("ended",)
        while True:
            if self.closed:
                raise Ended
            quantum = self._quantum()
            answer.send(["go", me.number, quantum, payload, self.now])
            message = answer.receive()
            if (
                len(message) < 3
                or message[1] != me.number
                or type(message[2]) is not int
                or not 0 <= message[2] <= quantum
            ):
                answer.fail("a thread spoke out of its turn")
            self.steps += message[2]
            self._limit()
            word, rest = message[0], message[3:]
            if word in ends:
                value = answer.decoded(rest[0]) if rest else None
                if word != "return" and isinstance(value, BaseException):
                    raise value
                return value
            try:
                try:
                    payload = ["ok", answer.codec.encode(self._obey(me, word, rest))]
                except (Ended, ProtocolError, AnswerEnded):
                    raise
                except Exception as error:
                    payload = ["error", answer.codec.error(error)]
            except (ProtocolError, TypeError, ValueError, KeyError, IndexError) as error:
                answer.fail(str(error))

    def _quantum(self) -> int:
        """Deal how many bytecodes come before the turn is dealt anew; nobody is interrupted where nobody else could go on."""
        me = self.member()
        if not any(other is not me and not other.over and other.can_go_on(self.now) for other in self._members):
            return _interleave.STEPS
        return 1 + int(math.log(1.0 - self._draw.random()) / math.log(1.0 - self._share))

    def _limit(self) -> None:
        if self.steps > _interleave.STEPS and not self.closed:
            self._fail(NeverEnds("the threads went on and on, and came to no end"))
            self.closed = True
            self._over.release()

    def _obey(self, me: Member, word: str, rest: list[Any]) -> Any:
        self.line = 0
        match word, rest:
            case "yield", []:
                self._pass_on(me)
                return None
            case "lock", [again, known, holder, depth]:
                if len(self.locks_by_number) > 100_000:
                    raise ProtocolError("too many locks")
                number = len(self.locks_by_number) + 10**6
                lock = self.locks_by_number[number] = (RLock if again is True else Lock)(self, known is True)
                if type(holder) is int and 0 <= holder < len(self._members):
                    lock.owner, lock.depth = self._members[holder], checked_int(depth)
                    self._members[holder].holds.append(lock)
                return number
            case "acquire", [number, blocking, timeout, line]:
                self.line = checked_int(line)
                return self._lock(number).acquire(blocking is True, float(timeout))
            case "release", [number]:
                return self._lock(number).release()
            case "locked", [number]:
                return self._lock(number).locked()
            case "owned", [number]:
                return self._lock(number)._is_owned()
            case "release_all", [number]:
                return self._lock(number)._release_save()
            case "restore", [number, depth, line]:
                self.line = checked_int(line)
                return self._lock(number)._acquire_restore(checked_int(depth))
            case "sleep", [seconds, line]:
                self.line = checked_int(line)
                return self.wait(lambda: False, min(float(seconds), 1e9)) and None
            case "start", []:
                return self._start_far()
            case "join", [number, timeout, line]:
                self.line = checked_int(line)
                member = self.member_of(self.threads_by_number[number])
                assert member is not None
                if member is me:
                    raise RuntimeError("cannot join current thread")
                if not member.over:
                    self.wait(lambda: member.over, None if timeout is None else max(float(timeout), 0.0), member)
                return None
            case "alive", [number]:
                member = self.member_of(self.threads_by_number[number])
                return member is not None and not member.over
            case "callback", [given, method, args, kwargs]:
                return self.answer.function(given, method)(*self.answer.args(args), **self.answer.kwargs(kwargs))
            case "getattr", [given, name]:
                self._maybe_pass_on(me)
                return self.answer.read(given, name)
            case "setattr", [given, name, value]:
                self._maybe_pass_on(me)
                return self.answer.write(given, name, value)
            case "next", [given]:
                return self.answer.next_items(given)
        raise ProtocolError(f"{checked_text(word, 20)!r} was not expected")

    def _maybe_pass_on(self, me: Member) -> None:
        """Deal the turn anew before an object of this side is read or written: this no answer can keep from happening."""
        if self._draw.random() < AT_SHARED:
            self._pass_on(me)

    def _lock(self, number: Any) -> Any:
        """Return a lock of the answer's, or one that the check has given."""
        lock = self.locks_by_number.get(number) or self.answer.object(number)
        if not hasattr(lock, "acquire"):
            raise ProtocolError("no lock")
        return lock

    def _start_far(self) -> int:
        number = len(self._members)
        thread = threading.Thread(target=self._converse, args=(["thread"],), name=f"Thread-{number}")
        if number > 1_000:
            raise RuntimeError("can't start new thread")
        self.threads_by_number[number] = thread
        self.start(thread)
        return number
