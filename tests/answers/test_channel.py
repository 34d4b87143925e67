"""Frames over a socket: however slowly they come, and whoever stops reading."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalelab.answers.channel import MANY_BYTES, MAX_FRAME_BYTES, Channel, Disconnected, ProtocolError


class Idle(Exception):
    """Raised by a channel's `idle` to end a wait."""


class CountIdle:
    """Count the polls of a channel; raise at the n-th."""

    def __init__(self, most: int) -> None:
        self.polls = 0
        self.most = most

    def __call__(self) -> None:
        self.polls += 1
        if self.polls >= self.most:
            raise Idle


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def frame(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(4, "big") + data


messages = st.lists(
    st.recursive(st.integers() | st.text() | st.floats(allow_nan=False), st.lists, max_leaves=5), max_size=3
)


@given(st.lists(messages, min_size=1, max_size=5))
def test_frames_arrive_as_they_were_sent_and_in_order(parts: list[list[Any]]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender, receiver = Channel(ours), Channel(theirs)
        for part in parts[:-1]:
            sender.tell(["told", *part])
        sender.send(["sent", *parts[-1]])
        assert [receiver.receive()[1:] for _ in parts] == parts
        assert receiver.frames_received == sender.frames_sent == len(parts)


def test_a_frame_that_comes_byte_by_byte_is_polled_for_and_arrives(sockets: Any) -> None:
    ours, theirs = sockets
    idle = CountIdle(10**9)
    channel = Channel(ours, idle=idle, poll_s=0.001)
    drip = threading.Thread(
        target=lambda: [theirs.sendall(bytes([byte])) for byte in frame('["word",1]') if not pause()]
    )
    drip.start()
    assert channel.receive() == ["word", 1]
    drip.join()
    assert idle.polls > 2
    assert channel.bytes_received == 14


def pause() -> None:
    """Pause for longer than a poll of the tests' channels."""
    threading.Event().wait(0.005)


def test_a_frame_that_never_ends_does_not_keep_the_monitor_away(sockets: Any) -> None:
    ours, theirs = sockets
    stop = threading.Event()

    def drip() -> None:
        theirs.sendall((1000).to_bytes(4, "big"))
        while not stop.wait(0.002):  # more often than polls are due
            theirs.sendall(b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    with pytest.raises(Idle):
        Channel(ours, idle=CountIdle(3), poll_s=0.02).receive()
    stop.set()
    thread.join()


def test_a_peer_that_never_reads_does_not_keep_the_monitor_away(sockets: Any) -> None:
    ours, _ = sockets
    with pytest.raises(Idle):
        Channel(ours, idle=CountIdle(3), poll_s=0.01).send(["word", "x" * (MAX_FRAME_BYTES - 100)])


def test_the_largest_frame_arrives_and_a_larger_one_is_neither_sent_nor_taken(sockets: Any) -> None:
    ours, theirs = sockets
    sender, receiver = Channel(ours, idle=CountIdle(10**9)), Channel(theirs)
    largest = ["word", "x" * (MAX_FRAME_BYTES - len('["word",""]'))]
    thread = threading.Thread(target=sender.send, args=(largest,))
    thread.start()
    assert receiver.receive() == largest
    thread.join()
    with pytest.raises(ProtocolError, match="at most"):
        sender.send(["word", largest[1] + "x"])
    ours.sendall((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(ProtocolError, match="at most"):
        receiver.receive()


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"1",
            b"{}",
            b"[]",
            b"[1]",
            b"[[]]",
            b'["a"',
            b'["a"] 1',
            b'["a"]["b"]',
            b'\xff["a"]',
            b'["\xff"]',
            b"null",
        ),
        *('["a"]'.encode("utf-16"), b'["a",' + b"9" * 5000 + b"]", b"[" * 100_000, b'["a",' + b'{"b":' * 100_000),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_not_a_message_is_refused(sockets: Any, data: bytes) -> None:
    ours, theirs = sockets
    sending = threading.Thread(target=theirs.sendall, args=(frame(data),))
    sending.start()
    with pytest.raises(ProtocolError):
        Channel(ours).receive()
    sending.join()


@pytest.mark.parametrize("value", [10**5000, [[]]], ids=["long", "deep"])
def test_what_json_cannot_say_is_not_sent(sockets: Any, value: Any) -> None:
    if value == [[]]:
        for _ in range(100_000):
            value = [value]
    ours, theirs = sockets
    channel = Channel(ours)
    with pytest.raises(ProtocolError):
        channel.send(["word", value])
    channel.send(["next"])
    assert Channel(theirs).receive() == ["next"]
    while isinstance(value, list) and value:  # deep lists must not be freed by recursion
        value = value.pop()


def test_a_peer_that_has_gone_or_half_gone_is_disconnected(sockets: Any) -> None:
    ours, theirs = sockets
    channel = Channel(ours, idle=CountIdle(10**9))
    theirs.sendall(frame('["last"]') + b"\0\0")
    theirs.shutdown(socket.SHUT_WR)
    assert channel.receive() == ["last"]
    for _ in range(2):
        with pytest.raises(Disconnected):
            channel.receive()
    channel.send(["still", "heard"])
    theirs.close()
    with pytest.raises(Disconnected):
        channel.send(["word"])
    channel.close()
    channel.close()
    for use in (channel.receive, lambda: channel.send(["word"])):
        with pytest.raises(Disconnected):
            use()


def test_to_close_a_channel_wakes_a_thread_that_waits_for_a_frame(sockets: Any) -> None:
    channel, ends = Channel(sockets[0]), []

    def wait() -> None:
        try:
            channel.receive()
        except Disconnected:
            ends.append("disconnected")

    thread = threading.Thread(target=wait)
    thread.start()
    channel.close()
    thread.join()
    assert ends == ["disconnected"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no interval timers")
def test_signals_interrupt_neither_a_frame_nor_the_polls(sockets: Any) -> None:
    ours, theirs = sockets
    signals: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: signals.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        sender = threading.Thread(target=lambda: [pause() or theirs.sendall(frame(f'["word",{n}]')) for n in range(20)])
        sender.start()
        channel = Channel(ours, idle=CountIdle(10**9), poll_s=0.002)
        assert [channel.receive() for _ in range(20)] == [["word", n] for n in range(20)]
        sender.join()
        with pytest.raises(Idle):
            Channel(ours, idle=CountIdle(3), poll_s=0.01).receive()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert signals


def test_messages_put_no_poll_off(sockets: tuple[socket.socket, socket.socket]) -> None:
    """Else an answer that says something just before each poll could sleep in between for as long as it likes."""
    ours, theirs = sockets
    idle = CountIdle(3)
    channel = Channel(ours, idle=idle, poll_s=0.2)
    pause = threading.Event()

    def talk() -> None:
        for _ in range(100):
            pause.wait(0.15)
            try:
                theirs.sendall(frame('["idle"]'))
            except OSError:
                return

    talker = threading.Thread(target=talk)
    talker.start()

    def receive_all() -> None:
        for _ in range(90):
            channel.receive()

    try:
        with pytest.raises(Idle):
            receive_all()
    finally:
        pause.set()
        channel.close()
        talker.join()


def test_it_tells_whether_a_message_has_come(sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    channel = Channel(ours, idle=CountIdle(10**9))
    assert not channel.is_readable()
    theirs.sendall(frame('["idle"]'))
    assert channel.is_readable()
    assert channel.receive() == ["idle"]
    assert not channel.is_readable()


def test_a_part_of_a_message_is_none_unless_its_sender_may_have_to_wait(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = sockets
    channel = Channel(ours, idle=CountIdle(10**9))
    text = frame('["idle"]')
    for place in range(len(text)):
        assert not channel.is_readable()
        theirs.sendall(text[place : place + 1])
    assert channel.is_readable()
    assert channel.receive() == ["idle"]
    theirs.sendall((2 * MANY_BYTES).to_bytes(4, "big") + b"x" * (MANY_BYTES - 5))
    assert not channel.is_readable()
    theirs.sendall(b"x")
    assert channel.is_readable()
