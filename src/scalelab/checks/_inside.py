"""The replacements during a run in virtual time: clocks, sleeping, thread pools, and records of what happens."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING, Any

from scalelab.checks._world import THREADS, World

if TYPE_CHECKING:
    import aiohttp

EPOCH = 1_750_000_000  # what time.time() says when a run begins, in seconds
CLOCKS = ("time", "monotonic", "perf_counter")
_replaced = [*(vars(time)[name] for clock in CLOCKS for name in (clock, f"{clock}_ns")), time.sleep]
_replaced += [asyncio.run, asyncio.run_coroutine_threadsafe]
NEVER_AWAITED = re.compile(r"coroutine '(?:.*\.)?(\w+)' was never awaited")


@functools.cache
def _names(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if any(value is one for one in _replaced)]


_own_modules = [time, asyncio]
for _module in _own_modules:
    _names(_module)  # before anything is replaced


def looked_up() -> list[tuple[dict[str, Any], list[str]]]:
    """Return the namespaces of modules that use replaced functions, with the names of those functions."""
    modules = [*_own_modules, *filter(None, [sys.modules.get("aiohttp.connector")])]
    return [(vars(module), _names(module)) for module in modules]


@contextlib.contextmanager
def patched(world: World, sessions: list[aiohttp.ClientSession], namespace: dict[str, Any]) -> Iterator[None]:
    """Replace clocks, pools and the network for the threads of `world`, and no others; collect their client sessions.

    This includes the names that `namespace` has imported from `time`.
    """
    clocks = {name: _clock(world, name) for name in CLOCKS}
    clocks |= {f"{name}_ns": _clock(world, f"{name}_ns") for name in clocks}
    clocks["sleep"] = _for_members(world, time.sleep, world.sleep)
    replaced = {id(getattr(time, name)): new for name, new in clocks.items()}
    replaced[id(asyncio.run)] = _for_members(world, asyncio.run, _no_second_loop)
    from_thread = asyncio.run_coroutine_threadsafe
    replaced[id(from_thread)] = _for_members(world, from_thread, functools.partial(_from_thread, world, from_thread))
    resolve = functools.partial(_no_network, world)
    with contextlib.ExitStack() as stack:
        for scope, names in (*looked_up(), (namespace, list(namespace))):
            for name in names:
                if new := replaced.get(id(scope.get(name))):
                    set_name(stack, scope, name, new)
        set_attribute(stack, socket, "getaddrinfo", _for_members(world, socket.getaddrinfo, resolve))
        set_attribute(stack, ThreadPoolExecutor, "__init__", pool_size(world.takes_part))
        set_attribute(stack, ThreadPoolExecutor, "submit", _submit(world))
        set_attribute(stack, ThreadPoolExecutor, "shutdown", _shutdown(world))
        if aiohttp := sys.modules.get("aiohttp"):
            set_attribute(
                stack, aiohttp.ClientSession, "__init__", _opening(world, sessions, aiohttp.ClientSession.__init__)
            )
            set_attribute(stack, aiohttp.TCPConnector, "__init__", _connector(world, aiohttp.TCPConnector.__init__))
        yield


@contextlib.contextmanager
def warned(never_awaited: list[str]) -> Iterator[None]:
    """Hide warnings; collect the names of coroutines that were never awaited."""

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        match = NEVER_AWAITED.match(str(message))
        if match:
            never_awaited.append(match.group(1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message="coroutine .* was never awaited", category=RuntimeWarning)
        warnings.showwarning = note
        yield


def set_name(stack: contextlib.ExitStack, scope: dict[str, Any], name: str, new: Any) -> None:
    """Bind a name in a scope until `stack` is closed."""
    old = scope[name]
    scope[name] = new

    def restore() -> None:
        if scope.get(name) is new:  # else the answer has bound the name anew
            scope[name] = old

    stack.callback(restore)


def set_attribute(stack: contextlib.ExitStack, owner: Any, name: str, new: Any) -> None:
    """Set an attribute until `stack` is closed."""
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, new)


def _for_members(world: World, real: Callable[..., Any], virtual: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (virtual if world.takes_part() else real)(*args, **kwargs)

    return call


def _clock(world: World, name: str) -> Callable[..., Any]:
    begin = EPOCH if name.startswith("time") else 0

    def now() -> float | int:
        moment = begin + world.now
        return round(moment * 1e9) if name.endswith("_ns") else moment

    return _for_members(world, getattr(time, name), now)


def _no_network(world: World, host: Any, *_: Any, **__: Any) -> None:
    if world.on_loop():
        world.note_blocking("a blocking network call")
    raise ConnectionError(f"{host} lives in the event loop of this check: only a client that awaits can reach it")


def _no_second_loop(main: Any, **_: Any) -> None:
    main.close()
    raise RuntimeError("asyncio.run() cannot be called from a running event loop")


def _from_thread(world: World, real: Callable[..., Future[Any]], coro: Any, loop: Any) -> Future[Any]:
    return world.follow(real(coro, loop))


def pool_size(takes_part: Callable[[], bool]) -> Callable[..., None]:
    """Return a constructor of thread pools: their default size is THREADS if the calling thread takes part in a run."""
    real = ThreadPoolExecutor.__init__

    @functools.wraps(real)
    def init(self: ThreadPoolExecutor, max_workers: int | None = None, *args: Any, **kwargs: Any) -> None:
        if max_workers is None and takes_part():
            max_workers = THREADS  # the real default depends on the machine's cores
        real(self, max_workers, *args, **kwargs)

    return init


def _submit(world: World) -> Callable[..., Future[Any]]:
    real: Callable[..., Future[Any]] = ThreadPoolExecutor.submit

    @functools.wraps(real)
    def submit(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not world.takes_part():
            return real(self, fn, *args, **kwargs)
        return world.submit(self, getattr(self, "_max_workers", THREADS), functools.partial(fn, *args, **kwargs))

    return submit


def _shutdown(world: World) -> Callable[..., None]:
    real = ThreadPoolExecutor.shutdown

    @functools.wraps(real)
    def shutdown(self: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if world.takes_part():
            world.close_pool(self, wait=wait, cancel_futures=cancel_futures)
        real(self, wait=wait, cancel_futures=cancel_futures)

    return shutdown


def _opening(world: World, sessions: list[aiohttp.ClientSession], real: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(real)
    def init(self: aiohttp.ClientSession, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        if world.takes_part():
            sessions.append(self)

    return init


def _connector(world: World, real: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(real)
    def init(self: aiohttp.TCPConnector, *args: Any, **kwargs: Any) -> None:
        if world.takes_part():
            kwargs["use_dns_cache"] = False  # the cache wakes those who wait for a name in an order that varies
        real(self, *args, **kwargs)

    return init
