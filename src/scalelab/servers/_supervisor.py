"""Runs a server as its child and ends it when standard input closes, which happens however the caller ends.

`python -m scalelab.servers._supervisor COMMAND …`. The server's output is passed on. This module imports nothing else
from scalelab, so that it starts quickly, and has no options of its own.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

STOP_S = 5.0
STDIN = 0


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input closes; return its exit status."""
    # Interrupting the notebook signals its whole process group, but must not end the server.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True)

    def end_with_caller() -> None:
        while os.read(STDIN, 1024):  # not sys.stdin: at exit, its lock would still be held
            pass
        end(server)

    threading.Thread(target=end_with_caller, daemon=True).start()
    with contextlib.suppress(AttributeError):  # Windows ends a process without a signal
        signal.signal(signal.SIGTERM, lambda number, frame: end(server))
    return server.wait()


def end(server: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the server and its children, then SIGKILL if the server still runs after STOP_S seconds."""
    try:
        _signal(server, "SIGTERM")
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        _signal(server, "SIGKILL")


def _signal(server: subprocess.Popen[bytes], name: str) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(server.pid, getattr(signal, name))
        else:
            server.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
