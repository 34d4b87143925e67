"""What one event loop of a run in virtual time awaits of the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from scalelab.answers.channel import ProtocolError
from scalelab.answers.codec import Codec
from scalelab.checks._world import Ended


class FarFuture(asyncio.Future[Any]):
    """The result of an awaitable in the other process.

    `ask_to_cancel` asks for a cancellation there, and returns False if nobody is left to ask.
    """

    def __init__(self, ask_to_cancel: Callable[[], bool]) -> None:
        super().__init__()
        self._ask_to_cancel = ask_to_cancel

    def cancel(self, msg: Any = None) -> bool:
        return not self.done() and (self._ask_to_cancel() or super().cancel(msg))

    def finish(self, how: Any, value: Any) -> None:
        """Set what came of the awaitable: the three values of `outcome`. Raises ProtocolError."""
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
        return ["return", codec.encode(await awaitable)]
    except asyncio.CancelledError:
        return ["cancelled", None]
    except (Ended, GeneratorExit):
        raise
    except BaseException as error:
        return ["raise", codec.error(error)]
