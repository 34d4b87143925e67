"""Serve JupyterLab and, beside it, the built book: one address, one token, and no process left at the end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.manager import ContentsManager
from jupyter_server.services.kernels.kernelmanager import ServerKernelManager
from tornado.httpserver import HTTPServer

from scalelab.checks._help import COURSE
from scalelab.console import Progress
from scalelab.course import Course
from scalelab.errors import ScalelabError
from scalelab.lab.author_contents import CourseContents
from scalelab.lab.book_handler import serve_book
from scalelab.lab.lab_layout import lay_out
from scalelab.lab.workspace_contents import WorkspaceContents
from scalelab.running import processes
from scalelab.running.kernel import (
    IN_WORKSPACES,
    JUPYTER,
    KERNEL_NAME,
    jupyter_environment,
    transport_encryption,
)
from scalelab.student.workspace import START, VARIABLE, Workspace, write_server_info

ADDRESS = "127.0.0.1"
FIRST_PORT = 8888
PORTS = 50
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class PortTaken(ScalelabError):
    """Another process listens on the requested port, or all default ports are taken."""


class CourseServer(ServerApp):
    """A Jupyter server that ends at the first Ctrl-C, without asking, and ends everything that it started.

    It serves on the socket `listening`, and calls `when_ready` when its address answers.
    """

    when_ready: Callable[[], None]
    listening: socket.socket
    ending = False
    started: Sequence[psutil.Process] = ()

    def init_signal(self) -> None:
        for name in STOPPING:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self.end)

    def end(self, number: int, frame: FrameType | None) -> None:
        """End the server at a signal; a second one does not wait for kernels to end by themselves."""
        if self.ending:
            for process in processes.descendants(os.getpid()):
                process.kill()
            os._exit(128 + number)
        print("\nStopping.", flush=True)
        self.stop(from_signal=True)

    def stop(self, from_signal: bool = False) -> None:
        self.ending = True
        super().stop(from_signal)

    @cached_property
    def http_server(self) -> HTTPServer:
        return HTTPServer(self.web_app, max_body_size=self.max_body_size, max_buffer_size=self.max_buffer_size)

    def init_httpserver(self) -> None:
        """Serve on our socket: Jupyter would look for a port, release it, and take it again when its loop runs."""
        self.io_loop.add_callback(self.http_server.add_socket, self.listening)

    def start_ioloop(self) -> None:
        try:
            self.io_loop.add_callback(self.when_ready)
            super().start_ioloop()
            # A thread of anyio ends with the task that was running when it started; a thread left over would block us.
            self.io_loop.run_sync(_cancel_tasks)
        finally:
            # Not earlier: terminals are our child processes, and the loop must be the first to learn that they ended.
            processes.end({*self.started, *processes.descendants(os.getpid())})

    async def cleanup_extensions(self) -> None:
        self.started = processes.descendants(os.getpid())
        with self.logged_errors():
            await super().cleanup_extensions()

    async def cleanup_kernels(self) -> None:
        with self.logged_errors():  # Jupyter cannot shut down a kernel that is starting; it would wait for ever.
            await super().cleanup_kernels()

    @contextmanager
    def logged_errors(self) -> Iterator[None]:
        """Log an error instead of raising it: the processes are ended anyway."""
        try:
            yield
        except Exception:
            self.log.exception("Not everything was shut down in order; the processes are ended.")


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class CourseKernel(ServerKernelManager):
    """A kernel whose stdout and stderr go into the server's log: it complains if it is ended while it runs a cell."""

    complaints: IO[bytes]

    async def start_kernel(self, *args: Any, **options: Any) -> None:  # type: ignore[override]
        await super().start_kernel(*args, **{**options, "stdout": self.complaints, "stderr": self.complaints})


def serve(
    course: Course,
    progress: Progress,
    *,
    workspace: Workspace | None = None,
    book: bool,
    port: int | None,
    open_browser: bool,
) -> None:
    """Serve until Ctrl-C or SIGTERM, on `port` (default: the first free one from 8888). Raises PortTaken.

    JupyterLab opens on the workspace's start page or, without a workspace, in the folder of the course, for its
    authors. If `book` is true, the book is served beside it and its link is printed. `open_browser` opens the book in
    the browser, or else JupyterLab.
    """
    listening = _listen(port)
    settings = _use_our_settings(course, workspace)
    token = secrets.token_hex(24)
    log = (course.build / "logs" if workspace is None else workspace.own) / "lab.log"
    page = "lab" if workspace is None else f"lab/tree/{START}"
    contents: type[ContentsManager] = CourseContents if workspace is None else WorkspaceContents
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    server = CourseServer.instance(
        jpserver_extensions={"jupyterlab": True},
        logging_config={
            "formatters": {"file": {"format": "%(asctime)s %(levelname)s %(message)s"}},
            "handlers": {
                "file": {"class": "logging.FileHandler", "level": "INFO", "formatter": "file", "filename": str(log)}
            },
            # asyncio logs here that a browser went away before its response was complete.
            "loggers": {
                CourseServer.__name__: {"handlers": ["file"]},
                "asyncio": {"handlers": ["file"], "propagate": False},
            },
        },
    )
    server.listening = listening
    server.initialize(
        argv=[
            f"--ServerApp.default_url=/{page}",
            f"--ServerApp.ip={ADDRESS}",
            f"--ServerApp.port={listening.getsockname()[1]}",
            f"--ServerApp.root_dir={course.root if workspace is None else workspace.root}",
            f"--IdentityProvider.token={token}",
            "--ServerApp.open_browser=False",
            f"--ServerApp.contents_manager_class={contents.__module__}.{contents.__name__}",
            "--ServerApp.allow_root=True",
            "--LabApp.log_level=ERROR",
            "--LabApp.extension_manager=readonly",
            f"--MultiKernelManager.default_kernel_name={KERNEL_NAME}",
            f"--MultiKernelManager.kernel_manager_class={CourseKernel.__module__}.{CourseKernel.__name__}",
            f"--KernelSpecManager.allowed_kernelspecs={KERNEL_NAME}",
            f"--KernelManager.transport_encryption={transport_encryption()}",
            f"--LabApp.user_settings_dir={settings / 'lab' / 'user-settings'}",
            f"--LabApp.workspaces_dir={settings / 'lab' / 'workspaces'}",
            "--LabApp.news_url=",
        ]
    )
    if workspace is not None:
        assert isinstance(server.contents_manager, WorkspaceContents)
        server.contents_manager.course, server.contents_manager.workspace = course, workspace
    if book:
        serve_book(server, course, in_workspace=workspace is not None)
    address = f"http://{ADDRESS}:{server.port}{server.base_url}"
    links = {"JupyterLab": f"{address}{page}?token={token}"}
    if book:
        links["The book"] = f"{address}book/?token={token}"

    def when_ready() -> None:
        if workspace is not None:
            write_server_info(workspace, address, token, links["JupyterLab"])
        for name, link in links.items():
            progress.say(f"{name + ':':<12}{link}")
        progress.say("Ctrl-C ends it, with every kernel and terminal.")
        if open_browser:
            webbrowser.open(links["The book" if book else "JupyterLab"])

    server.when_ready = when_ready
    with log.open("ab") as CourseKernel.complaints:
        server.start()


def _use_our_settings(course: Course, workspace: Workspace | None) -> Path:
    """Make this process and the kernels that it starts use our kernel and settings, not those of the machine.

    Returns the folder in which JupyterLab keeps the user's settings.
    """
    settings = course.root / ".jupyter" if workspace is None else workspace.own / "jupyter"
    folders = [JUPYTER] if workspace is None else [IN_WORKSPACES, JUPYTER]
    os.environ.update(jupyter_environment())
    os.environ["JUPYTER_PATH"] = os.pathsep.join(
        dict.fromkeys([*map(str, folders), *os.environ["JUPYTER_PATH"].split(os.pathsep)])
    )
    os.environ["JUPYTER_CONFIG_DIR"] = str(settings)
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(str(folder / "config") for folder in folders)
    os.environ[COURSE] = str(course.root)
    if workspace is not None:
        # For the commands that a student types into a terminal of this JupyterLab.
        os.environ[VARIABLE] = str(workspace.root)
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        lay_out(settings / "lab" / "workspaces")
    return settings


def _listen(port: int | None) -> socket.socket:
    """Return a socket that listens on `port` (default: the first free one from `FIRST_PORT`). Raises PortTaken."""
    for number in range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else [port]:
        with suppress(OSError):
            listening = socket.create_server((ADDRESS, number), backlog=128)
            listening.setblocking(False)
            return listening
    if port is None:
        last = FIRST_PORT + PORTS - 1
        raise PortTaken(f"The ports {FIRST_PORT} to {last} are taken by other processes. Name a free one with --port.")
    raise PortTaken(f"Port {port} is taken by another process. Name another with --port, or leave the option away.")
