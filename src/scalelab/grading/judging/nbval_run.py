"""Run pytest with nbval on an assembled notebook, in separate processes, and report each check as soon as it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any

from scalelab.grading.judging import CPU_S, OWN_PROCESS, PREFIX, RECORDS
from scalelab.grading.judging.assemble import SET_UP
from scalelab.notebooks.format import Notebook, written
from scalelab.running.isolated import family

CELL_TIMEOUT_S = 900
"""nbval's own limit, in real seconds. The limits on processor time end a check long before."""
SILENCE_S = CELL_TIMEOUT_S + 60
POLL_S = 0.5
KERNEL_START_S = 120
KEPT_LINES = 20
KERNEL_CONFIG = "c.HistoryManager.enabled = False\n"
"""The kernel's configuration file."""
NOT_NEEDED = (
    *("cacheprovider", "debugging", "doctest", "faulthandler", "junitxml", "logging", "nose", "pastebin", "setuponly"),
    *("recwarn", "setupplan", "stepwise", "subtests", "threadexception", "tmpdir", "unittest", "unraisableexception"),
    "warnings",
)
"""Plugins of pytest that a session does not use."""
OPTIONS = (
    *(word for name in NOT_NEEDED for word in ("-p", f"no:{name}")),
    *("-p", "scalelab.grading.judging.nbval_plugin", "-p", "nbval.plugin", "--noconftest"),
    *("--assert=plain", "--capture=no", "--color=no", "--tb=no", "--quiet"),
    *("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", str(CELL_TIMEOUT_S)),
    *("--nbval-kernel-startup-timeout", str(KERNEL_START_S)),
)


class Stopped(Exception):
    """The batch was interrupted."""


@dataclass(frozen=True)
class Record:
    """The result of the check `key`: whether it passed in nbval, and the details that the kernel has recorded.

    `alone`: it ran a second time, in a session of its own.
    """

    key: str
    passed: bool
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False


def run(
    notebook: Notebook, environment: Mapping[str, str], *, cpu_s: float, stop: threading.Event, last_lines: list[str]
) -> Iterator[Record]:
    """Yield a record of each check that ran, until the session ends or prints nothing for SILENCE_S seconds.

    `cpu_s` is an answer's processor time per check; `last_lines` collects the output of pytest. Raises Stopped if
    `stop` is set.
    """
    with family() as own:
        file, records = own.folder / "checks.ipynb", own.folder / "records"
        file.write_text(written(notebook), encoding="utf-8", newline="\n")
        records.touch()
        (own.folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        profile = Path(own.environment["IPYTHONDIR"]) / "profile_default"
        profile.mkdir(parents=True)
        (profile / "ipython_kernel_config.py").write_text(KERNEL_CONFIG, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pytest", "-c", str(own.folder / "pytest.ini"), *OPTIONS, str(file)],
            cwd=own.folder,
            env={
                **own.environment,
                **environment,
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                RECORDS: str(records),
                CPU_S: str(cpu_s),
                OWN_PROCESS: "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must not reach it: the grader ends it in order
        )
        assert process.stdout is not None
        try:
            with records.open(encoding="utf-8") as recorded:
                yield from _records(process, recorded, stop, last_lines)
        finally:
            process.kill()
            own.end()
            process.wait()
            process.stdout.close()
    if stop.is_set():
        raise Stopped


def _records(
    process: subprocess.Popen[bytes], recorded: IO[str], stop: threading.Event, last_lines: list[str]
) -> Iterator[Record]:
    details: dict[str, dict[str, Any]] = {}
    for line in _lines(process, stop):
        if not line.startswith(PREFIX):
            last_lines[:] = [*last_lines, line][-KEPT_LINES:]
            continue
        event = json.loads(line.removeprefix(PREFIX))
        # A kernel that ended for another reason has not judged its cell: the grader or the system has failed.
        over_its_limit = event.get("kernel_ended") == -getattr(signal, "SIGXCPU", 0) != 0
        if not (event.get("ran") or over_its_limit) or event["cell"] == SET_UP:
            continue
        for entry in recorded:
            with suppress(ValueError):  # cut off, because its writer was ended
                record = json.loads(entry)
                details.setdefault(record["key"], {}).update(record)
        key = event["cell"]
        yield Record(key, event.get("passed", False), event["seconds"], details.pop(key, {}))


def _lines(process: subprocess.Popen[bytes], stop: threading.Event) -> Iterator[str]:
    """Yield a process's lines until it ends, prints nothing for SILENCE_S seconds, or `stop` is set."""
    assert process.stdout is not None
    lines: Queue[str | None] = Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    last_line_at = time.monotonic()
    while time.monotonic() - last_line_at < SILENCE_S and not stop.is_set():
        try:
            line = lines.get(timeout=POLL_S)
        except Empty:
            continue
        if line is None:
            return
        last_line_at = time.monotonic()
        yield line


def _read(stream: IO[bytes], lines: Queue[str | None]) -> None:
    with suppress(ValueError, OSError):  # closed while we read
        for line in stream:
            lines.put(line.decode("utf-8", "replace").rstrip("\n"))
    lines.put(None)
