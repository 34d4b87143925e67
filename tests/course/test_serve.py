"""One address serves JupyterLab and the book, to those who have the token, and ends with all it started."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import urllib3
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_server.serverapp import ServerApp
from tornado.web import HTTPError

from scalelab.cli import main
from scalelab.course import Course
from scalelab.lab.book_handler import with_lab_buttons
from scalelab.lab.serve import CourseServer, _listen
from support import CTRL_C, ON_WINDOWS, Served

Serve = Callable[..., Served]


@pytest.fixture
def http() -> urllib3.PoolManager:
    return urllib3.PoolManager(retries=False)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder where the server keeps the files that say how to reach it and its kernels."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


def listens(address: str) -> bool:
    split = urlsplit(address)
    with socket.socket() as probe:
        return probe.connect_ex((split.hostname, split.port)) == 0


def test_a_button_leads_to_lab_and_only_where_lab_is() -> None:
    page = (
        '<p><a class="sl-open-in-lab" data-path="chapters/a b.md" hidden>Open</a>'
        '<a class="sl-open-in-lab" data-path="exercises/08.ipynb" hidden="hidden">Open</a><a hidden>Other</a></p>'
    )
    assert with_lab_buttons(page, "/base/") == (
        '<p><a class="sl-open-in-lab" data-path="chapters/a b.md" href="/base/lab/tree/chapters/a%20b.md">Open</a>'
        '<a class="sl-open-in-lab" data-path="exercises/08.ipynb" href="/base/lab/tree/exercises/08.ipynb">Open</a>'
        "<a hidden>Other</a></p>"
    )
    beside_a_workspace = with_lab_buttons(page, "/", in_workspace=True)
    assert 'href="/lab/tree/chapters/a%20b.ipynb"' in beside_a_workspace
    assert 'href="/lab/tree/exercises/08.ipynb"' in beside_a_workspace


def test_the_book_and_lab_are_served_beside_each_other(
    small_course: Course, serve: Serve, http: urllib3.PoolManager
) -> None:
    served = serve("course", "--course", str(small_course.root))
    assert f"JupyterLab: {served.link('lab/tree/start.md')}\nThe book:   {served.link('book/')}\n" in served.said
    assert listens(served.address)

    assert http.request("GET", served.link("lab")).status == 200
    locked = http.request("GET", f"{served.address}book/", redirect=False)
    assert (locked.status, urlsplit(locked.headers["Location"]).path) == (302, "/login")
    assert http.request("GET", f"{served.address}book/chapters/01_first.html", redirect=False).status == 302

    front = http.request("GET", served.link("book/"))
    assert front.status == 200
    assert front.headers["Content-Type"] == "text/html; charset=utf-8"
    cookie = {"Cookie": front.headers["Set-Cookie"].split(";")[0]}

    def get(path: str, **headers: str) -> urllib3.BaseHTTPResponse:
        return http.request("GET", f"{served.address}{path}", headers=cookie | headers, redirect=False)

    page = get("book/chapters/01_first.html")
    assert 'data-path="chapters/01_first.ipynb" href="/lab/tree/chapters/01_first.ipynb">' in page.data.decode()
    built = (small_course.html / "chapters" / "01_first.html").read_text(encoding="utf-8")
    assert 'data-path="chapters/01_first.md" hidden>' in built
    assert get("book/chapters/01_first.html", **{"If-None-Match": page.headers["ETag"]}).status == 304
    style = get("book/_static/basic.css")
    assert (style.status, style.headers["Content-Type"]) == (200, "text/css")
    assert get("book/_static/basic.css", **{"If-None-Match": style.headers["ETag"]}).status == 304
    assert get("book").headers["Location"] == "/book/"
    assert get("book/nowhere.html").status == 404
    for escape in ("..", "%2e%2e", "..%2f..", "%2e%2e/%2e%2e", "chapters/../../.."):
        assert get(f"book/{escape}/_config.yml").status in {403, 404}
    head = http.request("HEAD", f"{served.address}book/chapters/01_first.html", headers=cookie)
    assert (head.status, head.data) == (200, b"")
    assert head.headers["Content-Length"] == page.headers["Content-Length"]

    specs = json.loads(get("api/kernelspecs").data)
    assert list(specs["kernelspecs"]) == ["python3"]
    assert specs["kernelspecs"]["python3"]["spec"]["display_name"] == "Scalable Python"
    chapter = json.loads(get("api/contents/chapters/01_first.ipynb?type=notebook&content=1").data)
    assert chapter["type"] == "notebook"
    assert [cell["cell_type"] for cell in chapter["content"]["cells"]].count("code") == 2

    # An edit and a build in another terminal show at the next visit.
    text = built.replace("first chapter", "chapter that changed")
    (small_course.html / "chapters" / "01_first.html").write_text(text, encoding="utf-8")
    changed = get("book/chapters/01_first.html", **{"If-None-Match": page.headers["ETag"]})
    assert changed.status == 200
    assert "chapter that changed" in changed.data.decode()

    left, said = served.stop()
    assert left == []
    assert said == "\nStopping.\n"
    assert served.process.returncode == 0
    assert not listens(served.address)


@pytest.mark.parametrize(
    "number",
    [CTRL_C, pytest.param(signal.SIGTERM, marks=pytest.mark.skipif(ON_WINDOWS, reason="Windows has no SIGTERM"))],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_kernels_terminals_and_what_they_started_end_with_the_server(
    small_course: Course,
    serve: Serve,
    http: urllib3.PoolManager,
    runtime: Path,
    number: int,
) -> None:
    served = serve("lab", "--course", str(small_course.root))
    assert "book" not in served.said
    authorised = {"Authorization": f"token {served.token}"}
    kernel = http.request("POST", f"{served.address}api/kernels", headers=authorised)
    assert kernel.status == 201
    if not ON_WINDOWS:
        assert http.request("POST", f"{served.address}api/terminals", headers=authorised).status == 200

    client = BlockingKernelClient()
    client.load_connection_file(str(runtime / f"kernel-{json.loads(kernel.data)['id']}.json"))
    client.hb_channel.time_to_dead = 60.0  # in its second of patience, a busy machine has not begun the kernel
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        sleeper = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], start_new_session=True)"
        reply = client.execute(f"import os, subprocess, sys; {sleeper}; print(sys.executable, os.getcwd())", reply=True)
        assert reply["content"]["status"] == "ok"
        client.execute("import time\nwhile True:\n    try: time.sleep(1)\n    except KeyboardInterrupt: pass")
        # The server, its kernel, the kernel's child; beside them Windows' console host, or the terminal's shell.
        assert len(psutil.Process(served.process.pid).children(recursive=True)) >= 2 + (not ON_WINDOWS)
        left, said = served.stop(number)
    finally:
        client.stop_channels()
    assert left == []
    assert "Traceback" not in said
    assert list(runtime.glob("*.json")) == []


def test_it_ends_while_a_kernel_is_starting(small_course: Course, serve: Serve, http: urllib3.PoolManager) -> None:
    served = serve("lab", "--course", str(small_course.root))
    server = psutil.Process(served.process.pid)

    def start_kernel() -> None:
        with suppress(urllib3.exceptions.HTTPError):  # the server ends before it has answered
            http.request(
                "POST",
                f"{served.address}api/kernels",
                headers={"Authorization": f"token {served.token}"},
                retries=False,
            )

    asking = threading.Thread(target=start_kernel)
    asking.start()
    while not server.children():
        time.sleep(0.001)
    left, _ = served.stop()
    asking.join()
    assert left == []


@pytest.mark.parametrize("step", ["cleanup_kernels", "cleanup_extensions"])
def test_it_ends_though_jupyter_fails_to_shut_down(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, runtime: Path
) -> None:
    async def fail(server: ServerApp) -> None:
        raise HTTPError(404, "Kernel does not exist")  # one that is starting, in Jupyter's words

    class Loop:
        def __init__(self) -> None:
            self.callbacks: list[Callable[[], Coroutine[Any, Any, None]]] = []
            self.stopped = False

        def add_callback(self, callback: Callable[[], Coroutine[Any, Any, None]]) -> None:
            self.callbacks.append(callback)

        def stop(self) -> None:
            self.stopped = True

    monkeypatch.setattr(ServerApp, step, fail)
    server = CourseServer(log=logging.getLogger("test"))
    server.io_loop = loop = Loop()
    server.stop()
    for callback in loop.callbacks:
        asyncio.run(callback())
    assert loop.stopped
    assert "Kernel does not exist" in caplog.text


def test_a_port_that_is_taken_is_named(small_course: Course, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert main(["lab", "--course", str(small_course.root), "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"scalelab: Port {port} is taken by another process. Name another with --port, or leave the option away.\n"
    )


def test_a_port_can_be_named(small_course: Course, serve: Serve) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    served = serve("lab", "--course", str(small_course.root), "--port", str(port))
    assert urlsplit(served.address).port == port


def test_servers_that_start_at_the_same_moment_take_different_ports() -> None:
    with _listen(None) as first, _listen(None) as second:
        assert first.getsockname() != second.getsockname()
