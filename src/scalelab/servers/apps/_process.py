"""Start one of our servers in its own process, and end it however the caller ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from scalelab.servers.spec import ServiceError, keep_last_lines
from scalelab.servers.supervisor import STOP_S

START_S = 30.0
ASK_S = 10.0
OPEN_FILES = 4096


def ask(url: str, what: str) -> dict[str, Any]:
    """Return the JSON object at `url`/`what`. Raises ServiceError if the server does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/{what}", timeout=ASK_S) as answer:
            data: dict[str, Any] = json.load(answer)
            return data
    except OSError as error:
        raise ServiceError(
            f"The server at {url} does not answer ({error}). It lives only inside its `with` block: "
            "run the cell that opens it again."
        ) from error


@contextmanager
def python_server(module: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Run `python -m module`, yield the JSON object that it prints on its first line, then end it.

    The server reads its `options` as JSON from its first argument. It must exit when its standard input closes: the
    operating system closes that when this process ends in any way, so no server outlives a killed notebook. Raises
    ServiceError with the last lines of the server's standard error if it ends before it is ready.
    """
    allow_open_files()
    process = subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[str] = []
    reader = threading.Thread(target=keep_last_lines, args=(process.stderr, errors), daemon=True)
    reader.start()
    give_up = threading.Timer(START_S, process.kill)
    give_up.start()
    try:
        first_line = process.stdout.readline()
        give_up.cancel()
        if not first_line:
            process.wait()
            reader.join()
            raise ServiceError(
                f"{module} ended before it was ready (exit status {process.returncode}). Its last lines:\n"
                + "".join(errors)
                + "Run the cell again; if it fails again, the lines above say why."
            )
        yield json.loads(first_line)
    finally:
        give_up.cancel()
        process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()


def allow_open_files(wanted: int = OPEN_FILES) -> None:
    """Raise this process's soft limit on open files to `wanted`, or to its hard limit if that is lower.

    Every connection is an open file, and macOS starts programs with a limit of 256. Windows has no such limit.
    """
    try:
        import resource  # noqa: PLC0415 - Windows does not have this module
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
