"""Sandboxes for answers' processes, as a fork server's client sees them."""

from __future__ import annotations

import json
import socket

from scalelab.errors import ScalelabError

ADDRESS = "SCALELAB_ANSWERS"
"""The environment variable with the path of a fork server's socket."""


class NotStarted(ScalelabError):
    """The fork server did not start, or cannot start a process; the message gives the reason."""


class Box:
    """A sandbox in which one answer's process runs at a time; `pid` is that of their parent, the sandbox's init."""

    def __init__(self, control: socket.socket, pid: int, slug: str) -> None:
        self.pid = pid
        self._control = control
        self._slug = slug

    def start(self) -> socket.socket:
        """End the processes in the sandbox; return the connection to a new answer's process.

        Raises NotStarted if the sandbox has ended.
        """
        own_end, other_end = socket.socketpair()
        with other_end:
            try:
                socket.send_fds(self._control, [self._slug.encode()], [other_end.fileno()])
                if self._control.recv(1):
                    return own_end
            except OSError:
                pass
        own_end.close()
        raise NotStarted("The sandbox has ended.")

    def close(self) -> None:
        """End the sandbox and its processes."""
        self._control.close()


def connect(address: str, slug: str) -> Box:
    """Return a new sandbox for answers of a set. Raises NotStarted."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(address)
            data, handles, _, _ = socket.recv_fds(client, 4096, 1)
        except OSError as error:
            raise NotStarted(f"The fork server does not answer ({error}).") from error
    reply = json.loads(data or b'{"error": "it ended"}')
    if "error" in reply:
        raise NotStarted(f"No process could be started for an answer: {reply['error']}")
    return Box(socket.socket(fileno=handles[0]), reply["pid"], slug)
