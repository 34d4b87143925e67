"""A local server that serves the built site below a path, as a host would, and weighs what it sends."""

from __future__ import annotations

import functools
import gzip
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page

FOLDER = "/some/where/book/"
COMPRESSED = (".html", ".css", ".js", ".svg", ".json", ".ipynb")


@dataclass
class Site:
    """A served site: its folder on disk, its address, its pages (paths below either), and what each request weighed."""

    folder: Path
    address: str
    pages: tuple[str, ...]
    sent: dict[str, int]


@dataclass
class Visit:
    """What one page did in the browser while it was open."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, compressed where that is usual, and keeps what each response's body weighed."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, folder: Path, sent: dict[str, int], **kwargs: Any) -> None:
        self.folder, self.sent = folder, sent
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        file = self.folder / path.removeprefix(FOLDER) if path.startswith(FOLDER) else None
        if file is not None and path.endswith("/"):
            file /= "index.html"
        found = file is not None and file.is_file()
        if file is None or not found:
            file = self.folder / "404.html"  # as hosts of static sites do
        body = file.read_bytes()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", self.guess_type(str(file)))
        if file.suffix in COMPRESSED and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 6)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.sent[path] = len(body)
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: pytest's output is for the tests."""


@contextmanager
def served(folder: Path) -> Iterator[Site]:
    sent: dict[str, int] = {}
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Handler, folder=folder, sent=sent)
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            below = [path.relative_to(folder) for path in folder.rglob("*.html")]
            pages = sorted(path.as_posix() for path in below if path.parts[0] != "reports")
            yield Site(folder, f"http://127.0.0.1:{server.server_port}{FOLDER}", tuple(pages), sent)
        finally:
            server.shutdown()
            thread.join()
