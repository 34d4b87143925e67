"""A web service in virtual time: real HTTP between a real client and a server that exists only inside a run."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from scalelab.checks._world import NeverEnds, World, instant
from scalelab.errors import ScalelabError

ANSWERED, CANCELLED, BROKEN, OPEN = "answered", "cancelled", "broken", "open"
LENGTH = re.compile(r"^content-length[ \t]*:[ \t]*([0-9]+)", re.IGNORECASE | re.MULTILINE)
CLOSE = re.compile(r"^connection[ \t]*:[ \t]*close", re.IGNORECASE | re.MULTILINE)
CHUNKED = re.compile(r"^transfer-encoding[ \t]*:[ \t]*chunked[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)

KEEP_ALIVE_S = 15.0  # after which aiohttp closes a connection that nobody uses


class PageError(ScalelabError):
    """A page was described in a way that no server can serve."""


@dataclass(frozen=True)
class Page:
    """The server's answer at one path.

    `latency` (seconds; None takes the server's own) passes from the request's arrival to the answer. The body is
    `text`, or `json` as JSON; without either it is `{"path": …, "value": …}` with a whole number that depends on seed
    and path. With `hangs` no answer ever comes; with `breaks` the connection is cut after the latency.
    """

    json: Any = None
    text: str | None = None
    status: int = 200
    latency: float | None = None
    hangs: bool = False
    breaks: bool = False

    def __post_init__(self) -> None:
        if self.json is not None and self.text is not None:
            raise PageError("A page has json or text, and this one has both; drop one.")
        if self.latency is not None and not (self.latency >= 0 and math.isfinite(self.latency)):
            raise PageError(f"A page's latency is a number of seconds from 0 up, not {self.latency!r}; use hangs=True.")


@dataclass(frozen=True)
class Request:
    """One request as the server saw it; times in virtual seconds, `connection` counted from 0.

    `outcome` is "answered", "broken" (the server cut the connection), "cancelled" (the client went away first), or
    "open" (still unanswered when the run ended); `ended` is then infinite.
    """

    method: str
    path: str
    arrived: float
    ended: float
    status: int
    outcome: str
    connection: int


class Server:
    """A description of a web service; the same one may serve many runs.

    `latency` is a number of seconds, or (low, high), between which each path has its own, drawn from `seed` and path.
    `pages` maps paths to a Page, or to the JSON of one; every other path exists too, with a page of its own. Above
    `capacity` requests at once, the server answers 503 without delay.

        server = Server(latency=(0.05, 0.5), seed=8)
        server.url("/item/3")           # "http://shop.test/item/3"
        server.page("/item/3").json     # {"path": "/item/3", "value": 1172}
    """

    answers_may_call = ("url", "urls")

    def __init__(
        self,
        pages: Mapping[str, Page | dict[str, Any] | list[Any]] | None = None,
        *,
        latency: float | tuple[float, float] = (0.05, 0.5),
        seed: int = 0,
        capacity: int | None = None,
        host: str = "shop.test",
    ) -> None:
        self.capacity = capacity
        self._origin = f"http://{host}"
        self._seed = seed
        self._low, self._high = latency if isinstance(latency, tuple) else (latency, latency)
        self._pages = {
            path: page if isinstance(page, Page) else Page(json=page) for path, page in (pages or {}).items()
        }
        self._served: dict[str, Page] = {}

    def url(self, path: str) -> str:
        """Return the address of a path, which begins with "/"."""
        return self._origin + path

    def urls(self, count: int, pattern: str = "/item/{}") -> list[str]:
        """Return the addresses of `count` paths."""
        return [self.url(pattern.format(number)) for number in range(count)]

    def page(self, path_or_url: str) -> Page:
        """Return what the server answers there, latency and body filled in."""
        path = path_or_url.removeprefix(self._origin)
        if path not in self._served:
            self._served[path] = self._filled_in(path, self._pages.get(path, Page()))
        return self._served[path]

    def _filled_in(self, path: str, page: Page) -> Page:
        latency, body = page.latency, page.json
        if latency is None:
            latency = instant(self._low + self._draw("latency", path) * (self._high - self._low))
        if body is None and page.text is None:
            body = {"path": path, "value": int(self._draw("value", path) * 10_000)}
        return replace(page, latency=latency, json=body)

    def latency(self, path_or_url: str) -> float:
        """Return the seconds that this page takes; infinite if it hangs."""
        page = self.page(path_or_url)
        return math.inf if page.hangs or page.latency is None else page.latency

    def _draw(self, purpose: str, path: str) -> float:
        digest = hashlib.sha256(f"{self._seed} {purpose} {path}".encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48


class Service:
    """A server at work during one run; keeps the books."""

    def __init__(self, server: Server, world: World, most_requests: int) -> None:
        self.server = server
        self.requests: list[Request] = []
        self.most_in_flight = 0
        self.connections = 0
        self.client_closed: set[float] = set()  # when clients closed connections that could have been used again
        self.opened_beside_idle = False  # whether a client opened one although it had one that could be used again
        self._world = world
        self._most_requests = most_requests
        self._in_flight: set[int] = set()
        self._idle: dict[int, float] = {}  # connections that could be used again, and since when; oldest first
        self._ends: list[tuple[float, int]] = []  # of the requests in flight, as a heap

    def connect(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Return the client's end of a new connection."""
        now = loop.time()
        while self._idle and now - next(iter(self._idle.values())) >= KEEP_ALIVE_S:
            del self._idle[next(iter(self._idle))]
        self.opened_beside_idle |= next(iter(self._idle.values()), now) < now
        wire = _Wire(self, loop, protocol, self.connections)
        self.connections += 1
        protocol.connection_made(wire)
        return wire

    def set_idle(self, connection: int, since: float | None) -> None:
        """Note that a connection could be used again from `since`, or that it could not any more."""
        self._idle.pop(connection, None)
        if since is not None:
            self._idle[connection] = since

    def arrived(self, method: str, path: str, connection: int) -> tuple[int, Page] | None:
        """Enter a request. Return its number and the page that answers it, or end the run: it is one too many."""
        if len(self.requests) >= self._most_requests:
            self._world.interruption = NeverEnds(f"after {len(self.requests)} requests it went on sending more")
            return None
        now = self._world.now
        # The loop may have stood still meanwhile; the server has not.
        while self._ends and self._ends[0][0] <= now:
            self._in_flight.discard(heapq.heappop(self._ends)[1])
        page = self.server.page(path)
        refused = self.server.capacity is not None and len(self._in_flight) >= self.server.capacity
        if refused:
            page = Page(status=503, json={"error": "too many requests at once"}, latency=0.0)
        number = len(self.requests)
        end = math.inf if page.hangs or page.latency is None else instant(now + page.latency)
        outcome = OPEN if end == math.inf else BROKEN if page.breaks else ANSWERED
        self.requests.append(Request(method, path, now, end, page.status, outcome, connection))
        if not refused:
            self._in_flight.add(number)
            heapq.heappush(self._ends, (end, number))
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        return number, page

    def cancelled(self, number: int) -> None:
        """Note that the client went away; if the answer had been sent by then, nothing changes."""
        now = self._world.now
        if self.requests[number].ended > now:
            self.requests[number] = replace(self.requests[number], ended=now, outcome=CANCELLED)
            self._in_flight.discard(number)


class Connection(asyncio.Transport):
    """The client's end of a connection, as asyncio defines it; `write` and `_release` belong to the server's end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._closing = False

    def end(self, error: Exception | None) -> None:
        """Close the connection: without an error for the client, with one for the server."""
        if not self._closing:
            self._closing = True
            self._release(error)
            self._loop.call_soon(self._protocol.connection_lost, error)

    def _release(self, error: Exception | None) -> None:
        raise NotImplementedError

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self.end(None)

    abort = close

    def is_reading(self) -> bool:
        return not self._closing

    def pause_reading(self) -> None:
        """Answers are small and come whole: there is nothing to pause."""

    def resume_reading(self) -> None:
        """See pause_reading."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: all that is written has arrived, and there is no buffer to limit."""

    def can_write_eof(self) -> bool:
        return False


class _Wire(Connection):
    """A connection with the server's end inside."""

    def __init__(
        self, service: Service, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, number: int
    ) -> None:
        super().__init__(loop, protocol)
        self._service = service
        self._number = number
        self._received = bytearray()
        self._head = ""  # of a request whose body has not come whole
        self._body_bytes, self._chunked = 0, False
        self._asked: int | None = None
        self._answer: asyncio.TimerHandle | None = None
        self._reusable_from = math.inf

    @property
    def unread(self) -> int:
        """How many bytes the client has written that are not yet a whole request."""
        return len(self._head) + len(self._received)

    @property
    def is_asked(self) -> bool:
        """Whether the client waits for an answer."""
        return self._asked is not None and not self._closing

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if self._closing:
            return
        self._received += data
        if not self._head:
            end = self._received.find(b"\r\n\r\n", max(len(self._received) - len(data) - 3, 0))
            if end < 0:
                return
            self._head = self._received[:end].decode("latin-1")
            del self._received[: end + 4]
            fields = self._head.partition("\r\n")[2]
            length, self._chunked = LENGTH.search(fields), bool(CHUNKED.search(fields))
            self._body_bytes = int(length[1]) if length else 0
        if len(self._received) < self._body_bytes or (self._chunked and not self._received.endswith(b"0\r\n\r\n")):
            return
        first, _, fields = self._head.partition("\r\n")
        self._head = ""
        self._received.clear()
        self._reusable_from = math.inf if CLOSE.search(fields) else self._loop.time()
        method, path, _ = first.split(" ", 2)
        self._ask(method, path)

    def _ask(self, method: str, path: str) -> None:
        self._service.set_idle(self._number, None)
        arrived = self._service.arrived(method, path, self._number)
        if arrived is None:
            return
        self._asked, page = arrived
        ended = self._service.requests[self._asked].ended
        if ended < math.inf:
            self._answer = self._loop.call_at(ended, self._reply, method, page)

    def _reply(self, method: str, page: Page) -> None:
        self._asked = self._answer = None
        if page.breaks:
            self.end(ConnectionResetError("the server cut the connection"))
            return
        kind, text = ("text/plain", page.text) if page.text is not None else ("application/json", json.dumps(page.json))
        body = text.encode()
        try:
            reason = HTTPStatus(page.status).phrase
        except ValueError:
            reason = "Unknown"
        head = (
            f"HTTP/1.1 {page.status} {reason}\r\nContent-Type: {kind}; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        if self._reusable_from < math.inf:
            self._service.set_idle(self._number, self._loop.time())
        self._protocol.data_received(head.encode("latin-1") + (b"" if method == "HEAD" else body))

    def _release(self, error: Exception | None) -> None:
        self._service.set_idle(self._number, None)
        if self._answer is not None:
            self._answer.cancel()
        if self._asked is not None:
            self._service.cancelled(self._asked)
        elif error is None and self._loop.time() - self._reusable_from < KEEP_ALIVE_S:
            self._service.client_closed.add(self._loop.time())
