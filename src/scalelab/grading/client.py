"""jupyter_client's client for a warm kernel: ready as soon as the kernel is."""

from __future__ import annotations

import math
import time
from queue import Empty
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient

PATIENCE_S = 1.0
"""How long an answer may take before the kernel is asked again, as jupyter_client does."""


class WarmClient(BlockingKernelClient):
    """Takes a kernel for ready when it has answered and says that it is idle again.

    jupyter_client's own waits until nothing has come for a fixed while, in which several answers could be judged.
    """

    def wait_for_ready(self, timeout: float | None = None) -> None:
        """Return when the kernel answers and all that it said until then is read; `timeout` is in seconds.

        Raises RuntimeError where it has ended, or does not answer in time.
        """
        until = time.monotonic() + (math.inf if timeout is None else timeout)
        while time.monotonic() < until:
            asked = self.kernel_info()
            try:
                reply = self._answer(self.get_shell_msg, asked, "kernel_info_reply")
                while self._answer(self.get_iopub_msg, asked, "status")["content"]["execution_state"] != "idle":
                    pass
            except Empty:
                if not self.is_alive():
                    raise RuntimeError("Kernel died before replying to kernel_info") from None
            else:
                self._handle_kernel_info_reply(reply)
                return
        raise RuntimeError(f"Kernel didn't respond in {timeout:g} seconds")

    def _answer(self, get: Any, asked: str, kind: str) -> dict[str, Any]:
        """Return the next message of this kind that answers a request. Raises Empty where none comes for a while."""
        while True:
            message: dict[str, Any] = get(timeout=PATIENCE_S)
            if message["msg_type"] == kind and message["parent_header"].get("msg_id") == asked:
                return message
