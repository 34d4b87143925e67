"""Runs a server as its child and ends it when standard input closes, which happens however the caller ends.

`python -P supervisor.py JSON`, an object with the server's `command`, the `user` to run it as, the `stop`
signal, and a command to run `after` it has ended. The first line of standard output is the server's process id; the
server's output goes to standard error. It runs as a file, and imports nothing else from scalelab: it starts quickly.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

STOP_S = 5.0
STDIN, STDERR = 0, 2


def main(options: dict[str, Any]) -> int:
    """Run the server until it ends or standard input closes; return its exit status."""
    # Interrupting the notebook signals its whole process group, but must not end the server. A handler, unlike
    # SIG_IGN, is not inherited by the server.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    command: list[str] = options["command"]
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=STDERR,
            stderr=STDERR,
            start_new_session=True,
            **as_user(options["user"]),
        )
    except OSError as error:
        print(f"Cannot start {command[0]}: {error}.", file=sys.stderr)
        return 127
    print(server.pid, flush=True)
    stop = getattr(signal, options["stop"], signal.SIGTERM)
    ending = threading.Lock()

    def end_it() -> None:
        with ending:
            end(server, stop)

    def end_with_caller() -> None:
        while os.read(STDIN, 1024):  # not sys.stdin: at exit, its lock would still be held
            pass
        end_it()

    def end_on_signal(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=end_it).start()  # the main thread, which runs this, holds the lock of `server.wait`

    threading.Thread(target=end_with_caller, daemon=True).start()
    signal.signal(signal.SIGTERM, end_on_signal)
    status = server.wait()
    with ending:  # its children have ended, too
        pass
    _signal_group(server, getattr(signal, "SIGKILL", signal.SIGTERM))
    if options["after"]:
        subprocess.run(options["after"], stdin=subprocess.DEVNULL, stdout=STDERR, stderr=STDERR, check=False)
    return status


def end(server: subprocess.Popen[bytes], stop: signal.Signals) -> None:
    """Ask the server and its children to end; kill those that still run after STOP_S seconds."""
    processes = family(server.pid)
    for process in processes:  # a paused process does not see the signal to end
        _do(process, "resume")
    try:
        _signal_group(server, stop)
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass
    for process in processes:
        _do(process, "kill")


def family(pid: int) -> list[psutil.Process]:
    """Return the process and all its descendants that still run, the process first; empty if it has ended."""
    import psutil  # noqa: PLC0415 - a server starts sooner without it

    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _do(process: psutil.Process, action: str) -> None:
    import psutil  # noqa: PLC0415 - as above

    with contextlib.suppress(psutil.Error):
        getattr(process, action)()


def pause(pid: int) -> None:
    """Stop the process and all its descendants until `resume`: they keep memory and connections, and do nothing."""
    for _ in range(2):  # the first round stops the process that starts others
        for process in family(pid):
            _do(process, "suspend")


def resume(pid: int) -> None:
    """Let the process and all its descendants go on after `pause`."""
    for process in family(pid):
        _do(process, "resume")


def kill(pid: int) -> None:
    """Kill the process and all its descendants at once, as a power failure would: none can write or say goodbye."""
    pause(pid)
    for process in family(pid):
        _do(process, "kill")


def as_user(name: str) -> dict[str, Any]:
    """Return the arguments of Popen that run a program as this user; none for ""."""
    if not name:
        return {}
    import pwd  # noqa: PLC0415 - Windows does not have this module

    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise OSError(f"this machine has no user {name}, and this server must not run as root") from None
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _signal_group(server: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(server.pid, number)
        else:
            server.terminate()


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
