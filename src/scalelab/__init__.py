"""The instruments of *Scalable Python, Measured*: what chapters and exercises import.

`__init__.pyi` names them, and each kind of server in `servers/kinds` adds a function, such as `redis_server`. Each is
imported on first use: drawing takes 0.6 s to import, and grading starts many kernels that never draw. Importing the
package itself needs nothing but Python: the list of Debian's packages is made before the environment is.
"""

from functools import cache as _cache
from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import Any as _Any

__version__ = "0.1.0"


@_cache
def _stub() -> tuple[_Any, _Any, list[str]]:
    """Return the functions `__getattr__` and `__dir__` for the names of `__init__.pyi`, and these names."""
    import lazy_loader  # noqa: PLC0415

    attributes: tuple[_Any, _Any, list[str]] = lazy_loader.attach_stub(__name__, __file__)
    return attributes


def _kinds() -> dict[str, str]:
    """Return the module of each function that runs a kind of server."""
    paths = _Path(__file__).parent.glob("servers/kinds/[a-z]*.py")
    return {f"{path.stem}_server": f"{__name__}.servers.kinds.{path.stem}" for path in paths}


def __getattr__(name: str) -> _Any:
    import_name, _, names = _stub()
    if name == "__all__":
        return names
    if name.endswith("_server") and name not in names and (module := _kinds().get(name)):
        return getattr(_import_module(module), name)
    return import_name(name)


def __dir__() -> list[str]:
    return sorted({*_stub()[1](), *_kinds()})
