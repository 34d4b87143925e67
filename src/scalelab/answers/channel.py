"""Frames of JSON over a socket between the check and the answer's process.

A frame is four bytes of length (big-endian) and a JSON list, `[word, ...]`. Received data is never evaluated, imported
or unpickled. `README.md` in this folder describes the protocol.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

MAX_FRAME_BYTES = 4 * 2**20
MANY_BYTES = 2**15  # a sender with so many unread ones may have to wait

_encode_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode_json = json.JSONDecoder().raw_decode
_encode_readable = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


class ProtocolError(Exception):
    """The other side sent something that the protocol does not allow."""


class TooMuch(ProtocolError):
    """The other side went beyond a bound; the text says which, in words for the answer's author."""


class Disconnected(Exception):
    """The other side has closed the connection."""


class Channel:
    """A socket that carries frames.

    `idle` is called while a frame is being sent or received, even if single bytes arrive, if `poll_s` seconds have
    passed since the last time; it may raise an error to end the wait. Frames that arrive do not put it off. Without
    `idle`, the channel waits without a limit.
    """

    def __init__(self, connection: socket.socket, idle: Callable[[], None] | None = None, poll_s: float = 0.25) -> None:
        self._socket = connection
        self._received = bytearray()
        self._unsent = bytearray()
        self._idle = idle
        self._poll_s = poll_s
        self._next_poll = monotonic() + poll_s
        self.frames_sent = self.frames_received = self.bytes_received = 0
        self._flushing = False
        connection.settimeout(poll_s if idle is not None else None)

    def tell(self, message: list[Any]) -> None:
        """Queue a frame that needs no reply; it is sent with the next `send`. Raises the errors of `send`."""
        self._unsent += self._frame(message)
        if len(self._unsent) > MAX_FRAME_BYTES:
            self._flush()

    def send(self, message: list[Any]) -> None:
        """Send the queued frames and this one. Raises ProtocolError if a frame is too large, Disconnected."""
        self._unsent += self._frame(message)
        self._flush()

    def _frame(self, message: list[Any]) -> bytes:
        try:
            data = _encode_json(message).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ProtocolError(str(error)[:200]) from None
        _check_size(len(data))
        self.frames_sent += 1
        return len(data).to_bytes(4, "big") + data

    def _flush(self) -> None:
        data, self._unsent, self._flushing = memoryview(self._unsent), bytearray(), True
        while data:
            try:
                self._limit_wait()
                data = data[self._socket.send(data) :]
            except TimeoutError:
                pass
            except OSError:
                raise Disconnected from None
            if data:
                self._poll()
        self._flushing = False

    def receive(self) -> list[Any]:
        """Return the next frame. Raises ProtocolError, Disconnected."""
        self._read(4)
        length = int.from_bytes(self._received[:4], "big")
        _check_size(length)
        end = 4 + length
        self._read(end)
        data = self._received[4:end]
        del self._received[:end]
        self.frames_received += 1
        self.bytes_received += end
        try:
            text = data.decode()
            message, length = _decode_json(text)
            if "\\ud" in text or "\\uD" in text:  # perhaps half a character, which nothing can print
                message = json.loads(_encode_readable(message).encode(errors="replace"))
        except (ValueError, RecursionError) as error:  # not JSON, an int of more than 4,300 digits, too deep
            raise ProtocolError(f"not a message: {str(error)[:80]}") from None
        if length != len(text) or not isinstance(message, list) or not message or not isinstance(message[0], str):
            raise ProtocolError("not a message")
        return message

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for a frame
        self._socket.close()

    def is_readable(self) -> bool:
        """Whether a frame is due and has come whole, or so much of it that its sender may have to wait."""
        if self._flushing or not select.select([self._socket], [], [], 0)[0]:
            return False
        try:
            unread = self._socket.recv(MANY_BYTES, socket.MSG_PEEK)
        except OSError:
            return False
        known = bytes(self._received[:4] + unread[:4])
        length = int.from_bytes(known[:4], "big")
        return len(unread) == MANY_BYTES or (len(known) >= 4 and len(self._received) + len(unread) >= 4 + length)

    def _limit_wait(self) -> None:
        if self._idle is not None:
            self._socket.settimeout(min(max(self._next_poll - monotonic(), 0.001), self._poll_s))

    def _poll(self) -> None:
        if self._idle is not None and monotonic() >= self._next_poll:
            self._next_poll = monotonic() + self._poll_s
            self._idle()

    def _read(self, count: int) -> None:
        """Read until `count` bytes have been received."""
        while len(self._received) < count:
            try:
                self._limit_wait()
                chunk = self._socket.recv(1 << 16)
                if not chunk:
                    raise Disconnected
                self._received += chunk
            except TimeoutError:
                pass
            except OSError:
                raise Disconnected from None
            if len(self._received) < count:
                self._poll()


def _check_size(length: int) -> None:
    if length > MAX_FRAME_BYTES:
        raise TooMuch(
            f"a value takes {length / 2**20:,.1f} MB as text; at most {MAX_FRAME_BYTES // 2**20} MB are allowed"
        )
