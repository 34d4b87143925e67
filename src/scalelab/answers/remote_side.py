"""The functions that `scalelab.checks` calls for an answer that runs in another process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scalelab.answers.remote import Answer, Remote, RemoteMethod, SharedList
from scalelab.answers.remote_run import RemoteAttempt
from scalelab.answers.remote_threads import RemoteTurns


class RemoteSide:
    """The `checks._side.Side` of one answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def attempt(self, *args: Any, **options: Any) -> RemoteAttempt:
        return RemoteAttempt(self.answer, *args, **options)

    def turns(self, *args: Any) -> RemoteTurns:
        return RemoteTurns(self.answer, *args)

    def assemble(self, program: str, file: str, names: dict[str, Any]) -> dict[str, Any]:
        return self.answer.ask("assemble", program, file, list(names))  # type: ignore[no-any-return]

    def by_reference(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        remote, method = (function.remote, function.name) if isinstance(function, RemoteMethod) else (function, "")
        return self.answer.call(remote._number, method, args, kwargs, keep=True)

    def beside(self, function: Any) -> Any:
        if isinstance(function, (Remote, RemoteMethod)):
            return function
        return self.answer.ask("beside", function.__module__, function.__qualname__)

    def shared_list(self, values: Iterable[Any]) -> list[Any]:
        return SharedList(values)

    def called_in_loop(self) -> bool:
        return self.answer.called_in_loop

    def ending(self) -> tuple[str, str] | None:
        return (self.answer.state, self.answer.ended) if self.answer.ended else None
