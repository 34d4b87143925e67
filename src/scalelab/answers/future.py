"""Awaitables of the other process, for the two event loops of a run in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from scalelab.answers.channel import ProtocolError
from scalelab.answers.codec import Codec, unsendable
from scalelab.checks._world import Ended


class RemoteFuture(asyncio.Future[Any]):
    """The result of an awaitable in the other process.

    `request_cancel` sends a request to cancel it, and returns False if the other loop has ended.
    """

    def __init__(self, request_cancel: Callable[[], bool]) -> None:
        super().__init__()
        self._request_cancel = request_cancel

    def cancel(self, msg: Any = None) -> bool:
        return not self.done() and (self._request_cancel() or super().cancel(msg))

    def finish(self, how: Any, value: Any) -> None:
        """Set the result, error or cancellation that `outcome` has reported. Raises ProtocolError."""
        if how == "cancelled":
            super().cancel()
        elif how == "raise" and isinstance(value, BaseException):
            self.set_exception(value)
        elif how == "return":
            self.set_result(value)
        else:
            raise ProtocolError("not a result")


async def outcome(awaitable: Awaitable[Any], codec: Codec) -> list[Any]:
    """Return ["return", value], ["raise", error] or ["cancelled", None], as data."""
    try:
        value = await awaitable
        try:
            return ["return", codec.encode(value)]
        except Exception as error:
            return ["raise", codec.error(unsendable(value, error))]
    except asyncio.CancelledError:
        return ["cancelled", None]
    except (Ended, GeneratorExit):
        raise
    except BaseException as error:
        return ["raise", codec.error(error)]
