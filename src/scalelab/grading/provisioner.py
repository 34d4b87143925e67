"""How jupyter_client gets a kernel from the zygote: its own extension point, which the kernelspec names."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import suppress
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

from scalelab.errors import ScalelabError
from scalelab.grading.client import WarmClient
from scalelab.grading.zygote import SOCKET

START_S = 60.0
END_S = 5.0
"""How long to wait for the zygote's word that a kernel is gone, which takes it some milliseconds."""
LARGEST_WORD = 65536


class NoKernel(ScalelabError):
    """The zygote gave no kernel; the message says why."""


class WarmProvisioner(KernelProvisionerBase):
    """A kernel that a zygote forked. It is there when `launch_kernel` returns, its sockets bound."""

    _socket: socket.socket | None = None
    _heard = b""
    _status: int | None = None

    @property
    def has_process(self) -> bool:
        """Whether there is a kernel to look after, dead or alive."""
        return self._socket is not None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Take no command, folder or environment: the zygote has its own for every kernel."""
        if isinstance(self.parent, KernelManager) and self.parent.client_factory is BlockingKernelClient:
            self.parent.client_factory = WarmClient
        return {"cmd": []}

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Return the connection of a new kernel. Raises NoKernel where the zygote is gone or cannot make one."""
        path = os.environ.get(SOCKET)
        if path is None:
            raise NoKernel(f"{SOCKET} is not set; such kernels start below `warm_kernels` only.")
        self._heard, self._status = b"", None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(self._socket, path)
            told = await asyncio.wait_for(self._next(), START_S)
        except TimeoutError:
            told = {"error": f"none was ready within {START_S:g} s"}
        except OSError as error:
            told = {"error": f"its zygote does not answer ({error.strerror})"}
        if "connection" not in told:
            self._socket.close()
            self._socket = None
            raise NoKernel(f"No warm kernel could be started: {told.get('error', 'it ended at once')}.")
        connection = told["connection"]
        self.connection_info = connection | {"key": connection["key"].encode()}
        return self.connection_info

    async def poll(self) -> int | None:
        """Return None while the kernel lives, else the status that it ended with."""
        if self._socket is None:
            return self._status or 0
        with suppress(BlockingIOError):
            while self._status is None:
                self._take(_received(self._socket))
        return self._status

    async def wait(self) -> int | None:
        """Return the kernel's status once it is gone."""
        while self._socket is not None and self._status is None:
            await self._next()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        return self._status

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel and its process group; SIGKILL goes to all that it has started."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send(json.dumps({"signal": int(signum)}).encode() + b"\n")

    async def kill(self, restart: bool = False) -> None:
        """End the kernel with all that it has started, and return when it is gone."""
        await self.send_signal(signal.SIGKILL)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wait_for_end(), END_S)

    async def terminate(self, restart: bool = False) -> None:
        """Ask the kernel to end."""
        await self.send_signal(signal.SIGTERM)

    async def cleanup(self, restart: bool = False) -> None:
        """Let go of the kernel: the zygote ends it, if it has not yet."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def wait_for_end(self) -> None:
        """Return when the kernel is gone, and keep its status."""
        while self._socket is not None and self._status is None:
            await self._next()

    async def _next(self) -> dict[str, Any]:
        """Return the zygote's next word."""
        assert self._socket is not None
        while True:
            try:
                heard = await asyncio.get_running_loop().sock_recv(self._socket, LARGEST_WORD)
            except ConnectionError:
                heard = b""
            if words := self._take(heard):
                return words[-1]

    def _take(self, heard: bytes) -> list[dict[str, Any]]:
        """Return the words that `heard` completes; without the zygote, the kernel has ended."""
        self._heard += heard
        *lines, self._heard = self._heard.split(b"\n")
        words = [json.loads(line) for line in lines] if heard else [{"ended": 1}]
        for word in words:
            self._status = word.get("ended", self._status)
        return words


def _received(connected: socket.socket) -> bytes:
    """Return what has come, b"" where the other end is gone. Raises BlockingIOError where nothing has."""
    try:
        return connected.recv(LARGEST_WORD)
    except ConnectionError:
        return b""
