"""The pytest plugin beside nbval: it reports each cell's outcome, and keeps one answer from costing more than itself.

nbval runs and compares the cells, as released. This plugin sees to what nbval leaves open: an answer's comments do not
steer nbval, a dead kernel is noticed at once, output is read while a cell runs and cut at `LARGEST_OUTPUT`, and what
comes after a failed answer is not run. A question that came to grief in one notebook is left out of those that follow,
so that an endless answer waits for its limit once. It loads in the process that judges, never in a kernel.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
import zmq
from jupyter_client.session import json_unpacker

from scalelab.course.isolated import MARK, end_marked
from scalelab.grading import guard
from scalelab.grading.records import DIFFERS, SETUP_S, Seen, as_line
from scalelab.grading.zygote import SOCKET

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LARGEST_OUTPUT = 200_000
LARGEST_REPORT = 10_000
LARGEST_TRACEBACK = 100
COMPARED = {"check", "hidden", "guard"}
QUESTION = {"answer", "check", "hidden"}
UNHEARD = ("execute_input", "comm_open", "comm_msg", "comm_close")
"""Messages that nbval passes over, and yet would lay out for its log, which can take longer than an answer."""
UNHEARD_TOPICS = tuple(f".{name}".encode() for name in UNHEARD)
BUSY = b'{"execution_state": "busy"}'
SLICE_S = 0.1


class Listener:
    """Stands between nbval and a kernel's client: takes output off the line at once, and notices a dead kernel.

    It reads the channels' sockets itself: jupyter_client's own way starts an event loop for every message.
    """

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.died = False
        self._iopub = kernel.kc.iopub_channel
        self._shell = kernel.kc.shell_channel
        self._either = zmq.Poller()
        for channel in (self._iopub, self._shell):
            self._either.register(channel.socket, zmq.POLLIN)
        self._waiting: deque[dict[str, Any]] = deque()
        self._room = LARGEST_OUTPUT
        # Nobody asks for the heart's beat any more, and its thread waits for ever where a kernel broke its sockets.
        kernel.kc.hb_channel.stop()
        kernel.kc.session.unpack = _undated
        kernel.kc.get_iopub_msg = self.get_iopub_msg
        kernel.kc.get_shell_msg = self.get_shell_msg

    def begin(self) -> None:
        """Give the next cell its own room for output."""
        self._room = LARGEST_OUTPUT

    def get_shell_msg(self, *, timeout: float) -> Any:
        """Return the next reply, as jupyter_client does; raise Empty too when the kernel is dead."""
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            ready = dict(self._either.poll(_slice_ms(left)))
            if self._iopub.socket in ready:
                self._take_output(until)
            if self._shell.socket in ready:
                return _needed(_received(self._shell))
            if left <= 0 or not (ready or self._lives()):
                raise Empty

    def get_iopub_msg(self, *, timeout: float) -> Any:
        """Return the next message about output, as jupyter_client does; raise Empty too when the kernel is dead."""
        until = time.monotonic() + timeout
        while not self._waiting:
            left = until - time.monotonic()
            if self._iopub.socket.poll(_slice_ms(left)):
                self._take_output(until)
            elif not self._lives():
                raise Empty
            if left <= 0 and not self._waiting:
                raise Empty
        return self._waiting.popleft()

    def _lives(self) -> bool:
        self.died = not self.kernel.is_alive()
        return not self.died

    def _take_output(self, until: float) -> None:
        with suppress(zmq.Again):
            while True:
                parts = self._iopub.socket.recv_multipart(zmq.NOBLOCK)
                if not parts[0].endswith(UNHEARD_TOPICS) and parts[-1] != BUSY:
                    self._keep(_told(self._iopub, parts))
                if time.monotonic() > until:
                    return

    def _keep(self, message: dict[str, Any]) -> None:
        """Keep a message. What is printed beyond the room that is left is dropped, an error is cut but never dropped.

        Prints that follow each other become one message, because nbval formats every message for its log.
        """
        content = message["content"]
        if message["msg_type"] in UNHEARD or content.get("execution_state") == "busy":
            return
        if message["msg_type"] == "error":
            content["evalue"] = content["evalue"][:LARGEST_REPORT]
            content["traceback"] = [line[:LARGEST_REPORT] for line in content["traceback"]][:LARGEST_TRACEBACK]
        elif message["msg_type"] in {"stream", "display_data", "execute_result", "update_display_data"}:
            self._room -= len(content.get("text", "") or str(content))
            if self._room < 0:
                return
            last = self._waiting[-1] if self._waiting else None
            if last is not None and _prints_on(last, message):
                last["content"]["text"] += content["text"]
                return
        self._waiting.append(_needed(message))


def _slice_ms(left: float) -> int:
    return round(1000 * max(0.0, min(SLICE_S, left)))


def _received(channel: Any) -> dict[str, Any]:
    return _told(channel, channel.socket.recv_multipart())


def _told(channel: Any, parts: list[bytes]) -> dict[str, Any]:
    """Return the message that came in these parts. Raises ValueError where it is not signed by the kernel's key."""
    message: dict[str, Any] = channel.session.deserialize(channel.session.feed_identities(parts)[1])
    return message


class Message(dict[str, Any]):
    """What nbval reads of a message. It lays out each that it gets for a log that nobody keeps: this is soon done."""

    def __repr__(self) -> str:
        return f"<a message, {self['msg_type']}>"


def _undated(part: bytes) -> Any:
    """Return a part of a message without its date, which nobody asks for, and which takes longest to read."""
    told = json_unpacker(part)
    if isinstance(told, dict):
        told.pop("date", None)
    return told


def _needed(message: dict[str, Any]) -> Message:
    parent = {"msg_id": message["parent_header"].get("msg_id", "")}
    return Message(msg_type=message["msg_type"], parent_header=parent, content=message["content"])


def _prints_on(first: dict[str, Any], then: dict[str, Any]) -> bool:
    def stream(message: dict[str, Any]) -> tuple[str, str, str]:
        return message["msg_type"], message["parent_header"].get("msg_id", ""), message["content"].get("name", "")

    return then["msg_type"] == "stream" and stream(first) == stream(then)


class Reporter:
    """Writes one line of JSON to stderr per cell: the process that started pytest reads it there."""

    def __init__(self) -> None:
        self.over: set[Path] = set()
        self.given_up: set[str] = set()
        self.asks: dict[Path, set[str]] = {}
        self.timeout = 0.0  # seconds for a cell, known once there are cells

    @pytest.hookimpl
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        """Let a cell's role, not its text, tell nbval what to do; and remove the files, which hold the outputs."""
        self.timeout = config.option.nbval_cell_timeout
        for item in items:
            if _role(item) in QUESTION:
                self.asks.setdefault(item.path, set()).add(_exercise(item))
            compared = _role(item) in COMPARED
            item.options = {"check": compared, "check_exception": False, "skip": False}
            item.path.unlink(missing_ok=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        """Skip what comes after a cell that ended the kernel, and the question in which an earlier cell went wrong.

        A notebook that has no other question is skipped as a whole: no kernel is started for it.
        """
        needless = self.asks.get(item.path, {""}) <= self.given_up
        if needless or item.path in self.over or _exercise(item) in self.given_up:
            pytest.skip("an earlier cell ended this")
        _say(item, "begins")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: Any) -> None:
        """Listen to the kernel that nbval has started, and set the time that the cell has."""
        kernel = item.parent.kernel
        if not hasattr(kernel, "listener"):
            kernel.listener = Listener(kernel)
        kernel.listener.begin()
        setup = _role(item) == "setup"
        item.config.option.nbval_cell_timeout = max(self.timeout, SETUP_S) if setup else self.timeout

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: Any, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Report the cell: `passed`, `failed`, `timed out`, `died`, or `no kernel` where none could be started."""
        report = yield
        if call.when == "teardown" or (call.when == "setup" and report.outcome != "failed"):
            return report
        if call.when == "setup":
            state = "no kernel"
        elif item.parent.kernel.listener.died:
            state = "died"
        elif item.parent.timed_out:
            state = "timed out"
        else:
            state = report.outcome
        text, said = "", ""
        if state != "passed" and call.excinfo is not None:
            text, said = _shown(item)
            text = text or str(call.excinfo.value)
            if str(call.excinfo.value) == "Cell outputs differ":
                text += f"\n{DIFFERS}"
        # After these, what follows in the same kernel cannot run, or cannot be trusted.
        if state not in {"passed", "failed"} or guard.TOUCHED in said or (state == "failed" and _role(item) == "setup"):
            self.over.add(item.path)
        if item.path in self.over or (state == "failed" and _role(item) == "answer"):
            self.given_up.add(_exercise(item))
        _say(item, state, text, said, call.duration)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: Any, nextitem: Any) -> Generator[None, None, None]:
        """End what a kernel has left behind, before the next one begins."""
        yield
        # A sandbox ends with all that runs in it, and none of that carries the mark.
        if SOCKET not in os.environ and (nextitem is None or nextitem.path != item.path):
            end_marked(os.environ[MARK], spare=os.getpid())

    @pytest.hookimpl
    def pytest_internalerror(self, excrepr: object) -> None:
        """Leave last words."""
        print(str(excrepr)[-LARGEST_REPORT:], file=sys.stderr)


def pytest_configure(config: pytest.Config) -> None:
    """Add the reporter."""
    config.pluginmanager.register(Reporter(), "scalelab-reporter")


def _role(item: Any) -> str:
    return str(item.cell.metadata.get("scalelab", {}).get("role", ""))


def _exercise(item: Any) -> str:
    """Return the exercise that a cell belongs to, or one name for the set-up cells of each notebook."""
    return str(item.cell.metadata.get("scalelab", {}).get("exercise", item.path))


def _shown(item: Any) -> tuple[str, str]:
    """Return what the failed cell showed, in order: with its traceback, and with the error's own words in its place.

    A traceback quotes the cell's source, so words found there were not said.
    """
    shown, said = [], []
    for output in item.test_outputs or ():
        if output.output_type == "error":
            shown.append("\n".join(output.traceback))
            said.append(output.evalue)
        else:
            said.append(output.text if output.output_type == "stream" else str(output.data.get("text/plain", "")))
            shown.append(said[-1].replace(guard.EXPECTED, ""))
    return _cut(shown), _cut(said)


def _cut(parts: list[str]) -> str:
    text = ANSI.sub("", "\n".join(part.rstrip("\n") for part in parts))
    return text if len(text) <= LARGEST_REPORT else f"{text[:LARGEST_REPORT]}\n… ({len(text)} characters in all)"


def _say(item: Any, state: str, text: str = "", said: str = "", seconds: float = 0.0) -> None:
    print(as_line(item.path.parent.name, item.cell.id, Seen(state, text, said, seconds)), file=sys.stderr, flush=True)
