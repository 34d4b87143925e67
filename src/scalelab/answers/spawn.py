"""Start an answer's process as a new Python, without a sandbox: for tests, and for systems without fork."""

from __future__ import annotations

import base64
import ctypes
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

PR_SET_PDEATHSIG = 1


def spawn(setup: Sequence[str]) -> tuple[socket.socket, int]:
    """Start a process that runs the cells of `setup` first; return the connection to it, and its id.

    The process ends when the connection is closed.
    """
    own_end, other_end = socket.socketpair()
    handle = {} if sys.platform == "win32" else {"pass_fds": (other_end.fileno(),)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "scalelab.answers.spawn"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **handle,  # type: ignore[call-overload]
    )
    threading.Thread(target=process.wait, daemon=True).start()  # or it would stay a zombie
    assert process.stdin is not None
    shared: Any = other_end.fileno()
    if sys.platform == "win32":
        shared = base64.b64encode(other_end.share(process.pid)).decode()
    with process.stdin:
        process.stdin.write(json.dumps({"socket": shared, "setup": list(setup)}).encode())
    other_end.close()
    return own_end, process.pid


def main() -> None:
    """Run the answer's process."""
    from scalelab.answers import process  # noqa: PLC0415 (the process that spawns it does not need it)
    from scalelab.answers.channel import Channel  # noqa: PLC0415

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # end with the parent
    task = json.load(sys.stdin)
    if sys.platform == "win32":
        connection = socket.fromshare(base64.b64decode(task["socket"]))
    else:
        connection = socket.socket(fileno=task["socket"])
    process.main(Channel(connection), process.run_setup(task["setup"]))


if __name__ == "__main__":
    main()
