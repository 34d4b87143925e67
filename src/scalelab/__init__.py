"""The instruments of *Scalable Python, Measured*: what chapters and exercises import.

`__init__.pyi` names them, and each kind of server in `servers/kinds` adds a function, such as `redis_server`. Each is
imported on first use: drawing takes 0.6 s to import, and grading starts many kernels that never draw.
"""

from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import Any as _Any

import lazy_loader as _lazy_loader

__version__ = "0.1.0"

_import, _named, __all__ = _lazy_loader.attach_stub(__name__, __file__)


def _kinds() -> dict[str, str]:
    """Return the module of each function that runs a kind of server."""
    paths = _Path(__file__).parent.glob("servers/kinds/[a-z]*.py")
    return {f"{path.stem}_server": f"{__name__}.servers.kinds.{path.stem}" for path in paths}


def __getattr__(name: str) -> _Any:
    if name.endswith("_server") and name not in __all__ and (module := _kinds().get(name)):
        return getattr(_import_module(module), name)
    return _import(name)


def __dir__() -> list[str]:
    return sorted({*_named(), *_kinds()})
