"""The types that a function of the check declares for its arguments, which an answer chooses.

An operator does more than its author meant if the type is another: `row % 7` formats a text of any width, and `7 * row`
repeats it. With `def value(row: int)`, an answer that passes a text gets a TypeError, and the function does not run.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scalelab.checks._words import short


def check_types(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise TypeError if an argument is not of the type that its parameter declares.

    An annotation that is not a class, such as Any or a text, declares nothing: nothing is evaluated here. Of the items
    of a container, only a list's are looked at. For an object, its class's `__call__` declares the types.
    """
    declares = function.func if isinstance(function, functools.partial) else function
    if not inspect.isroutine(declares) and not inspect.isclass(declares):
        declares = type(declares).__call__
    if not getattr(declares, "__annotations__", None):
        return
    signature = inspect.signature(function)
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        parameter = signature.parameters[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            values = list(value)
        else:
            values = list(value.values()) if parameter.kind is parameter.VAR_KEYWORD else [value]
        for part in values:
            if not _fits(part, parameter.annotation):
                raise TypeError(
                    f"{getattr(function, '__name__', 'the function')}() expects {_name(parameter.annotation)} for "
                    f"{name!r}, and got {type(part).__name__}: {short(part)}"
                )


def _fits(value: Any, annotation: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in args)
    if origin is list and args:
        return isinstance(value, list) and all(_fits(item, args[0]) for item in value)
    kind = origin or annotation
    if kind is None:
        return value is None
    if kind is float:
        return isinstance(value, (int, float))
    declares = isinstance(kind, type) and kind not in (inspect.Parameter.empty, Any)
    return not declares or isinstance(value, kind)


def _name(annotation: Any) -> str:
    return inspect.formatannotation(annotation).removeprefix("__main__.")
