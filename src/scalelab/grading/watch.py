"""Runs in a kernel: notes the machinery that judges an answer as it is before, and says afterwards what was changed.

Importing this module takes the note, of what is imported by then: best in a process that kernels are forked from.
`begin` brings it up to date at the end of a set-up, and `look` compares. Everything is compared by identity, and by
functions that were bound before an answer ran. An answer that sets out to deceive `look` itself can do so, since it
runs in the same process: it has to be set aside by `screen` before it runs.
"""

from __future__ import annotations

import builtins
import gc
import os
import signal
import sys
import threading
from asyncio import events

# What they are before any answer runs.
from builtins import (  # noqa: UP029
    all,
    bool,
    callable,
    getattr,
    hasattr,
    id,
    isinstance,
    len,
    list,
    map,
    min,
    next,
    set,
    sorted,
    str,
    type,
    zip,
)
from collections.abc import Callable, Iterable, Iterator
from inspect import unwrap
from operator import attrgetter, is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

WATCHED = frozenset(
    {
        *("_asyncio", "_thread", "abc", "asyncio", "bisect", "builtins", "collections", "concurrent", "contextlib"),
        *("contextvars", "copy", "functools", "heapq", "inspect", "io", "ipykernel", "itertools", "json", "linecache"),
        *("math", "multidict", "operator", "queue", "random", "re", "reprlib", "scalelab", "selectors", "socket"),
        *("statistics", "sys", "textwrap", "threading", "time", "traceback", "types", "warnings", "yarl"),
    }
)
"""Packages and modules of which every function and class is watched."""
CORE = frozenset({"_asyncio", "builtins", "scalelab", "sys", "time"})
"""Of these, those that decide what a check says, and when it is."""
ALSO = frozenset(
    {
        *("IPython.core.async_helpers", "IPython.core.builtin_trap", "IPython.core.compilerop", "IPython.core.error"),
        *("IPython.core.displayhook", "IPython.core.displaypub", "IPython.core.events", "IPython.core.ultratb"),
        *("IPython.core.inputtransformer2", "IPython.core.interactiveshell", "jupyter_client.session"),
        *("aiohttp", "aiohttp.client", "aiohttp.client_proto", "aiohttp.client_reqrep", "aiohttp.connector"),
        *("aiohttp.helpers", "aiohttp.resolver", "aiohttp.streams", "aiohttp.test_utils", "aiohttp.web"),
        *("aiohttp.web_app", "aiohttp.web_request", "aiohttp.web_response", "aiohttp.web_urldispatcher"),
        *("numpy", "numpy.linalg", "traitlets.traitlets", "zmq.eventloop.zmqstream", "zmq.sugar.socket"),
    }
)
"""Modules that are watched without what is below them."""
SETS_ITS_OWN = frozenset({"_event_loop_policy", "_abc_impl", "__abstractmethods__", "__annotations__"})
"""Names that Python itself gives another value, when it first needs it."""
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGUSR1", "SIGUSR2", "SIGCHLD")
    if hasattr(signal, name)
)
BUILTINS = frozenset(name for name in dir(builtins) if not name.startswith("__"))
IMMUTABLE = 1 << 8  # of a class's flags: no attribute of it can be set
STATUS = 70  # with which a process ends whose output can no longer be believed
UNTOUCHED = "untouched\n"

_of_class = type.__dict__["__dict__"].__get__
_get: Any = dict.get
_code, _defaults, _keywords = map(attrgetter, ("__code__", "__defaults__", "__kwdefaults__"))
_bases = attrgetter("__bases__")
_cell = CellType.cell_contents.__get__
_of_tee: set[CodeType] = set()
_end = os._exit


Part = tuple[Callable[[Any], Any], list[Any], list[Any]]
"""What gets a part of something, what it is got from, and what it was for each."""


class Watch:
    """What was noted of a process's machinery, in long flat lists, which are compared in one go.

    `scopes` are the dictionaries of modules and classes, once for each of the `names` in them, and `labels` the words
    for each; `values` what the names stood for. The values are kept, so that no other object gets their place.
    """

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.labels: list[str] = []
        self.whole: list[dict[str, Any]] = []  # every dictionary once
        self.owners: list[
            tuple[str, bool, frozenset[str]]
        ] = []  # whose it is, whether a class's, and what may be in it
        self.functions: dict[int, Any] = {}
        self.classes: dict[int, Any] = {}
        self.seen: set[str] = set()
        self.given: dict[str, Any] = {}
        self.namespace: dict[str, Any] = {}
        self.used: list[str] = []  # by the functions of the set-up
        self.states: list[tuple[str, Any]] = []
        self.core: tuple[int, int] | None = None  # how many of the names and functions are of CORE, and so come first
        self.write: Callable[[str], object] = sys.stdout.write
        self.take()

    def take(self) -> None:
        """Note all modules that are watched and have not been noted yet, and what they hold."""
        for name, module in sorted(sys.modules.items(), key=lambda one: (one[0].partition(".")[0] not in CORE, one[0])):
            if self.names and not self.core and name.partition(".")[0] not in CORE:
                self.core = (len(self.names), len(self.functions))
            watched = name.partition(".")[0] in WATCHED or name in ALSO
            if watched and name not in self.seen and isinstance(module, ModuleType):
                self.seen.add(name)
                self._module(name, module)
        self._remember()

    def begin(self, namespace: dict[str, Any]) -> None:
        """Bring the note up to date, and add the namespace of a notebook whose set-up has run."""
        _of_tee.update(_tees())
        self.namespace = namespace
        self.given = {name: value for name, value in namespace.items() if not name.startswith("_")}
        for name, value in self.given.items():
            self._value(name, value, "__main__")
        self.used = sorted({name for code in self._codes() for name in code.co_names} & self.given.keys())
        self.take()
        self.states = list(_apart(_states()))
        self.write = sys.stdout.write

    def changed(self, needed: Iterable[str], *, whole: bool) -> str:
        """Return what is not as it was, or "". `needed` are names of the notebook that must mean what they meant.

        Not `whole` leaves out the modules that are not of CORE, which takes a tenth of the time.
        """
        state = self._changed_state() or self._changed_meaning(needed)
        return state or self._changed_name(whole=whole) or self._changed_part(whole=whole)

    def _changed_name(self, *, whole: bool) -> str:
        values = self.values if whole or not self.core else self.values_of_core
        if not all(map(is_, map(_get, self.scopes, self.names), values)):
            now = map(_get, self.scopes, self.names)
            return next(label for label, one, noted in zip(self.labels, now, values, strict=False) if one is not noted)
        sizes = list(map(len, self.whole))
        if sizes != self.sizes:
            for owner, scope, one, other in zip(self.owners, self.whole, sizes, self.sizes, strict=True):
                label, of_class, known = owner
                new = (set(scope) if of_class else BUILTINS & scope.keys()) - known - SETS_ITS_OWN
                if one != other and new:
                    return f"{label}.{min(new)}"
        return ""

    def _changed_part(self, *, whole: bool) -> str:
        """Return the function or class that is made of something else, or ""."""
        for get, owners, noted in self.parts if whole or not self.core else self.parts_of_core:
            if not all(map(is_, map(get, owners), noted)):
                owner = next(one for one, part in zip(owners, noted, strict=True) if get(one) is not part)
                owner = self.owners_of_cells.get(id(owner), owner)
                return f"{owner.__module__}.{owner.__qualname__}"
        return ""

    def _changed_state(self) -> str:
        now = list(_apart(_states()))
        for (label, value), (before, noted) in zip(now, self.states, strict=False):
            if label != before:
                return before if any(label == known for known, _ in self.states) else label
            if value is not noted:
                return label
        return ""

    def _codes(self) -> Iterator[CodeType]:
        """Yield the code of all functions that the set-up defines."""
        rest: list[Any] = [
            function.__code__ for function in self.functions.values() if function.__globals__ is self.namespace
        ]
        while rest:
            code = rest.pop()
            yield code
            rest += [inner for inner in code.co_consts if isinstance(inner, CodeType)]

    def _changed_meaning(self, needed: Iterable[str]) -> str:
        for name in (*needed, *self.used):
            value = self.namespace.get(name)
            if name in self.given:
                if value is not self.given[name]:
                    return name
            elif callable(value) and hasattr(builtins, name):
                return name
        return ""

    # What is noted.

    def _module(self, name: str, module: ModuleType) -> None:
        scope = module.__dict__
        ours = name.partition(".")[0] == "scalelab"
        names = [
            key
            for key, value in scope.items()
            if (ours or callable(value) or isinstance(value, ModuleType))
            and key not in SETS_ITS_OWN
            and not key.startswith("__")
        ]
        if name == "builtins":
            names = [
                key for key in scope if key not in {"_", "__debug__", "input"}
            ]  # ipykernel binds input anew for each cell
        elif name == "sys":
            names = [key for key in names if isinstance(scope[key], BuiltinFunctionType) and not key.endswith("hook")]
        self._scope(name, scope, names, of_class=False)
        for key in names:
            self._value(f"{name}.{key}", scope[key], name.partition(".")[0])

    def _value(self, label: str, value: Any, package: str) -> None:
        """Note a function or a class, where it is the package's own."""
        if isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, type) and id(value) not in self.classes and not value.__flags__ & IMMUTABLE:
            if str(getattr(value, "__module__", "")).partition(".")[0] in WATCHED | {package}:
                self._class(label, value, package)
        elif isinstance(value, (staticmethod, classmethod, MethodType)):
            self._value(label, value.__func__, package)
        elif isinstance(value, property):
            for function in (value.fget, value.fset, value.fdel):
                self._value(label, function, package)

    def _class(self, label: str, kind: type, package: str) -> None:
        self.classes[id(kind)] = kind
        scope = gc.get_referents(_of_class(kind))[0]  # the dictionary itself, and no view of it
        self._scope(label, scope, [name for name in scope if name not in SETS_ITS_OWN], of_class=True)
        for name, value in list(scope.items()):
            self._value(f"{label}.{name}", value, package)

    def _function(self, function: FunctionType) -> None:
        rest: list[Any] = [function]
        while rest:
            one = rest.pop()
            if isinstance(one, FunctionType) and id(one) not in self.functions:
                self.functions[id(one)] = one
                rest += [_content(cell) for cell in one.__closure__ or ()]
                rest.append(one.__dict__.get("__wrapped__"))

    def _scope(self, label: str, scope: dict[str, Any], names: list[str], *, of_class: bool) -> None:
        self.scopes += [scope] * len(names)
        self.names += names
        self.labels += [f"{label}.{name}" for name in names]
        self.whole.append(scope)
        self.owners.append((label, of_class, frozenset(scope if of_class else BUILTINS & scope.keys())))

    def _remember(self) -> None:
        """Keep what every name stands for, and what functions and classes are made of."""
        functions = list(self.functions.values())
        owned = [(function, cell) for function in functions for cell in function.__closure__ or ()]
        owned = [(function, cell) for function, cell in owned if isinstance(_content(cell), FunctionType)]
        self.owners_of_cells = {id(cell): function for function, cell in owned}
        self.values = list(map(_get, self.scopes, self.names))
        self.sizes = list(map(len, self.whole))
        self.parts = [_made_of(get, functions) for get in (_code, _defaults, _keywords)]
        self.parts.append(_made_of(_bases, list(self.classes.values())))
        self.parts.append(_made_of(_content, [cell for _, cell in owned]))
        if self.core:
            names, number = self.core
            self.values_of_core = self.values[:names]
            self.parts_of_core = [(get, owners[:number], noted[:number]) for get, owners, noted in self.parts[:3]]


def _made_of(get: Callable[[Any], Any], owners: list[Any]) -> Part:
    return get, owners, list(map(get, owners))


def _content(cell: CellType) -> Any:
    try:
        return _cell(cell)
    except ValueError:
        return None


def _states() -> Iterator[tuple[str, Any]]:
    """Yield all that a running process can be given to call, by name: hooks, streams, handlers, the shell's lists."""
    for name in ("stdout", "stderr", "__stdout__", "displayhook", "excepthook", "unraisablehook", "breakpointhook"):
        yield f"sys.{name}", getattr(sys, name, None)
    yield "sys.modules", sys.modules
    yield "sys.settrace", sys.gettrace()
    yield "sys.setprofile", sys.getprofile()
    yield "threading.settrace", getattr(threading, "_trace_hook", None)
    yield "threading.setprofile", getattr(threading, "_profile_hook", None)
    policy = getattr(events, "_event_loop_policy", None)
    yield "asyncio.set_event_loop_policy", type(policy or events.get_event_loop_policy())
    for number in SIGNALS:
        yield f"signal {number}", signal.getsignal(number)
    for label, several in (
        ("sys.meta_path", sys.meta_path),
        ("sys.path_hooks", sys.path_hooks),
        ("gc.callbacks", gc.callbacks),
    ):
        yield from _each(label, several)
    shell = _shell()
    if shell is not None:
        yield from _of_shell(shell)
    yield from _overrides("sys.stdout", sys.stdout)
    yield from _overrides("sys.stderr", sys.stderr)
    yield "", None


def _apart(states: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield a bound method, which is made anew whenever it is looked up, as its function and its object."""
    for label, value in states:
        if isinstance(value, MethodType):
            yield label, value.__func__
            yield label, value.__self__
        else:
            yield label, value


def _of_shell(shell: Any) -> Iterator[tuple[str, Any]]:
    for event, several in sorted(shell.events.callbacks.items()):
        yield from _each(f"shell.events.{event}", several)
    manager = shell.input_transformer_manager
    for name in ("cleanup_transforms", "line_transforms", "token_transformers"):
        yield from _each(f"shell.{name}", getattr(manager, name))
    yield from _each("shell.ast_transformers", shell.ast_transformers)
    yield from _each("shell.input_transformers_post", shell.input_transformers_post)
    yield from _each("shell.custom_exceptions", shell.custom_exceptions)
    yield "shell.ast_node_interactivity", shell.ast_node_interactivity
    yield "shell.user_ns", shell.user_ns
    parts = ("events", "input_transformer_manager", "display_pub", "displayhook", "compile", "builtin_trap")
    for name in parts:
        yield f"shell.{name}", getattr(shell, name)
        yield from _overrides(f"shell.{name}", getattr(shell, name))
    yield from _overrides("shell", shell)
    yield from _each("display hooks", getattr(shell.display_pub, "_hooks", ()))
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        yield from _overrides("kernel", kernel)
        yield from _overrides("kernel.session", kernel.session)
        yield "kernel.session.pack", kernel.session.pack
        for name in ("shell_handlers", "control_handlers"):
            yield from _each(f"kernel.{name}", getattr(kernel, name).values())


def _overrides(label: str, one: Any) -> Iterator[tuple[str, Any]]:
    """Yield an object's class, and what it holds that can be called, which may stand before its class's methods."""
    yield f"{label}.__class__", type(one)
    for name, value in sorted(getattr(one, "__dict__", {}).items()):
        if callable(value) and not _is_its_own(one, name, value):
            yield f"{label}.{name}", value


def _is_its_own(one: Any, name: str, value: Any) -> bool:
    """Whether a value is the object's own method, or IPython's wrapper of a stream's, made for each cell anew."""
    if isinstance(value, MethodType):
        return value.__self__ is one and value.__func__ is getattr(type(one), name, None)
    if not isinstance(value, FunctionType) or _code(value) not in _of_tee:
        return False
    wrapped = [_content(cell) for cell in value.__closure__ or ()]
    return all(_is_its_own(one, name, inner) for inner in wrapped if callable(inner))


def _tees() -> tuple[CodeType, ...]:
    """Return the code of the functions that IPython puts before the streams' `write`."""
    module = sys.modules.get("IPython.core.interactiveshell")
    tee = getattr(getattr(module, "InteractiveShell", None), "_tee", None)
    codes: list[CodeType] = [] if tee is None else [_code(unwrap(tee))]
    for code in codes:
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return tuple(codes)


def _each(label: str, several: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for number, one in enumerate(several):
        yield f"{label}[{number}]", one


def _shell() -> Any:
    module = sys.modules.get("IPython.core.interactiveshell")
    kind = getattr(module, "InteractiveShell", None)
    return kind.instance() if kind is not None and kind.initialized() else None


_watch = Watch()


def begin() -> None:
    """Note the machinery as it is now, at the end of a set-up; the caller's namespace is the notebook's."""
    _watch.begin(sys._getframe(1).f_globals)


def look(names: Iterable[str] = (), whole: bool = True) -> None:
    """Print "untouched", or what has been changed since `begin`; `names` are those that a check uses.

    Not `whole` looks at the streams, hooks and shell, at these names, and at the modules of CORE alone.
    Where the way of what is printed is changed itself, the process ends: nothing that it says could be believed.
    """
    found = _watch.changed(names, whole=whole)
    if found.partition(".")[0] in {"IPython", "ipykernel", "jupyter_client", "kernel", "shell", "sys", "zmq"}:
        _end(STATUS)
    _watch.write(f"{found} is not what it was before the answer ran\n" if found else UNTOUCHED)
