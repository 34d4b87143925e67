"""The kinds of servers: each module here holds one as KIND, and the function NAME_server that runs it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from scalelab.servers.find import lacks
from scalelab.servers.spec import ServerKind, ServiceError

KINDS: dict[str, ServerKind] = {
    module.name: import_module(f"{__name__}.{module.name}").KIND for module in iter_modules(__path__)
}


def missing(name: str, *, own: bool = False) -> str:
    """Return "" if this machine has the server, else its title and how to get it, for `recorded(lacks=…)`.

    name: a kind, such as "redis". own: ignore servers that the user named, and containers. Raises ServiceError if the
    name is unknown.
    """
    if name not in KINDS:
        raise ServiceError(f"Expected one of {', '.join(KINDS)}; got {name!r}.")
    return lacks(KINDS[name], own=own)
