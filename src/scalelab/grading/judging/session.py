"""Run pytest with nbval over one assembled notebook, in processes of their own, and report each check as it ends."""

from __future__ import annotations

import json
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

from scalelab.course.isolated import family
from scalelab.course.notebooks import Notebook, written
from scalelab.grading.judging import PREFIX, trusted
from scalelab.grading.judging.notebook import SET_UP

CELL_TIMEOUT_S = 900
"""nbval's own limit, in real seconds: a check ends long before, by the processor time that it and its answer use."""
SILENCE_S = CELL_TIMEOUT_S + 60
POLL_S = 0.5
KERNEL_START_S = 120
KEPT_LINES = 20
KERNEL_CONFIG = "c.HistoryManager.enabled = False\n"
"""IPython's own configuration of the kernel, a file of Python."""
NOT_NEEDED = (
    *("cacheprovider", "debugging", "doctest", "faulthandler", "junitxml", "logging", "nose", "pastebin", "setuponly"),
    *("recwarn", "setupplan", "stepwise", "subtests", "threadexception", "tmpdir", "unittest", "unraisableexception"),
    "warnings",
)
"""Plugins of pytest that a session has no use for."""
OPTIONS = (
    *(word for name in NOT_NEEDED for word in ("-p", f"no:{name}")),
    *("-p", "scalelab.grading.judging.plugin", "-p", "nbval.plugin", "--noconftest"),
    *("--assert=plain", "--capture=no", "--color=no", "--tb=no", "--quiet"),
    *("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", str(CELL_TIMEOUT_S)),
    *("--nbval-kernel-startup-timeout", str(KERNEL_START_S)),
)


class Stopped(Exception):
    """The batch was interrupted."""


@dataclass(frozen=True)
class Record:
    """What became of the check `key`: whether nbval passed it, and what the kernel recorded of it.

    `alone`: it ran in a session of its own, because an earlier session ended in it.
    """

    key: str
    passed: bool
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False


def run(
    notebook: Notebook, environment: Mapping[str, str], *, cpu_s: float, stop: threading.Event, last_words: list[str]
) -> Iterator[Record]:
    """Yield a record of each check that ran, until the session ends, falls silent, or `stop` is set (raises Stopped).

    `cpu_s` is the processor time that an answer has for a check; `last_words` collects what pytest printed.
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
                trusted.RECORDS: str(records),
                trusted.CPU_S: str(cpu_s),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us: we end what runs
        )
        assert process.stdout is not None
        try:
            with records.open(encoding="utf-8") as recorded:
                yield from _records(process, recorded, stop, last_words)
        finally:
            process.kill()
            own.end()
            process.wait()
            process.stdout.close()
    if stop.is_set():
        raise Stopped


def _records(
    process: subprocess.Popen[bytes], recorded: IO[str], stop: threading.Event, last_words: list[str]
) -> Iterator[Record]:
    details: dict[str, dict[str, Any]] = {}
    for line in _lines(process, stop):
        if not line.startswith(PREFIX):
            last_words[:] = [*last_words, line][-KEPT_LINES:]
            continue
        words = json.loads(line.removeprefix(PREFIX))
        if not words.get("ran") or words["cell"] == SET_UP:
            continue
        for record in map(json.loads, recorded):
            details.setdefault(record["key"], {}).update(record)
        key = words["cell"]
        yield Record(key, words["passed"], words["seconds"], details.pop(key, {}))


def _lines(process: subprocess.Popen[bytes], stop: threading.Event) -> Iterator[str]:
    """Yield the lines that a process prints until it ends, is silent for SILENCE_S seconds, or `stop` is set."""
    assert process.stdout is not None
    lines: Queue[str | None] = Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    heard = time.monotonic()
    while time.monotonic() - heard < SILENCE_S and not stop.is_set():
        try:
            line = lines.get(timeout=POLL_S)
        except Empty:
            continue
        if line is None:
            return
        heard = time.monotonic()
        yield line


def _read(stream: IO[bytes], lines: Queue[str | None]) -> None:
    with suppress(ValueError, OSError):  # closed while we read
        for line in stream:
            lines.put(line.decode("utf-8", "replace").rstrip("\n"))
    lines.put(None)
