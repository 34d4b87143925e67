"""The stdout and stderr of a warm kernel: ipykernel's own, which are flushed only where there is something to send."""

from __future__ import annotations

from ipykernel.iostream import OutStream


class Stream(OutStream):
    """ipykernel flushes both streams three times a cell, and waits each time for the thread that sends."""

    def flush(self) -> None:
        """Send what was written. What the sending thread has taken already, it sends before all that follows."""
        with self._buffer_lock:
            waiting = bool(self._buffers)
        if waiting:
            super().flush()  # type: ignore[no-untyped-call]
