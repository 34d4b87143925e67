"""A warm kernel's client: the kernel is ready when it has answered and is idle, and all that it said is read."""

from __future__ import annotations

from collections import deque
from queue import Empty
from typing import Any

import pytest

from scalelab.grading.client import WarmClient


def message(kind: str, parent: str, **content: object) -> dict[str, Any]:
    return {"msg_type": kind, "parent_header": {"msg_id": parent} if parent else {}, "content": content}


def reply(parent: str) -> dict[str, Any]:
    return message("kernel_info_reply", parent, protocol_version="5.3")


def status(parent: str, state: str = "idle") -> dict[str, Any]:
    return message("status", parent, execution_state=state)


class Scripted(WarmClient):
    """A client of a kernel that says what a test has written, in order; None stands for a second of silence."""

    def __init__(self, shell: list[Any], iopub: list[Any], *, lives: bool = True) -> None:
        super().__init__()
        self.shell, self.iopub, self.lives, self.asked = deque(shell), deque(iopub), lives, 0

    def kernel_info(self, *_: Any, **__: Any) -> str:
        self.asked += 1
        return f"{self.asked}"

    def get_shell_msg(self, *_: Any, **__: Any) -> dict[str, Any]:
        return self.said(self.shell)

    def get_iopub_msg(self, *_: Any, **__: Any) -> dict[str, Any]:
        return self.said(self.iopub)

    def is_alive(self) -> bool:
        return self.lives

    @staticmethod
    def said(messages: deque[Any]) -> dict[str, Any]:
        if not messages or (first := messages.popleft()) is None:
            raise Empty
        assert isinstance(first, dict)
        return first


def test_all_that_a_kernel_said_before_is_read() -> None:
    early = [status("", "starting"), status("1", "busy"), message("stream", "1", text="x"), status("0")]
    client = Scripted([reply("0"), reply("1")], [*early, status("1"), status("next")])
    client.wait_for_ready(timeout=9)
    assert client.asked == 1
    assert [one["parent_header"]["msg_id"] for one in client.iopub] == ["next"]


@pytest.mark.parametrize(
    ("shell", "iopub"),
    [
        pytest.param([None, reply("1"), reply("2")], [status("1"), status("2")], id="no answer yet"),
        pytest.param([reply("1"), reply("2")], [None, status("2")], id="nothing heard, for the line is not up yet"),
    ],
)
def test_a_kernel_is_asked_again_after_silence(shell: list[Any], iopub: list[Any]) -> None:
    client = Scripted(shell, iopub)
    client.wait_for_ready(timeout=9)
    assert client.asked == 2
    assert not client.shell
    assert not client.iopub


def test_a_dead_kernel_is_not_waited_for() -> None:
    with pytest.raises(RuntimeError, match="died before"):
        Scripted([], [], lives=False).wait_for_ready(timeout=9)


def test_a_silent_kernel_is_waited_for_as_long_as_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Scripted([None] * 100, [])
    monkeypatch.setattr("scalelab.grading.client.time.monotonic", lambda: 1.0 * client.asked)
    with pytest.raises(RuntimeError, match="didn't respond in 5 seconds"):
        client.wait_for_ready(timeout=5)
    assert client.asked == 5
