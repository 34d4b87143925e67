"""The instruments of *Scalable Python, Measured*: what chapters and exercises import."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalelab import caches, plots, simulate, theory
    from scalelab.claims import claim
    from scalelab.explorables import explorable
    from scalelab.measure import (
        Histogram,
        Interval,
        LoopLag,
        closed_loop,
        compare,
        free_threaded,
        machine_card,
        median_interval,
        memory,
        missing_free_threaded,
        open_loop,
        paired_ratio,
        percentile,
        run_fresh,
        timer_step,
        usable_cores,
        within,
    )
    from scalelab.panels import Knob, panel
    from scalelab.predictions import predict
    from scalelab.recordings import recorded
    from scalelab.servers import latency_server, missing, queue_server, work_server

__all__ = [
    "Histogram",
    "Interval",
    "Knob",
    "LoopLag",
    "caches",
    "claim",
    "closed_loop",
    "compare",
    "explorable",
    "free_threaded",
    "latency_server",
    "machine_card",
    "median_interval",
    "memory",
    "missing",
    "missing_free_threaded",
    "open_loop",
    "paired_ratio",
    "panel",
    "percentile",
    "plots",
    "predict",
    "queue_server",
    "recorded",
    "run_fresh",
    "simulate",
    "theory",
    "timer_step",
    "usable_cores",
    "within",
    "work_server",
]

__version__ = "0.1.0"

_HOMES = {
    "claims": ("claim",),
    "explorables": ("explorable",),
    "measure": (
        "Histogram",
        "Interval",
        "LoopLag",
        "closed_loop",
        "compare",
        "free_threaded",
        "machine_card",
        "median_interval",
        "memory",
        "missing_free_threaded",
        "open_loop",
        "paired_ratio",
        "percentile",
        "run_fresh",
        "timer_step",
        "usable_cores",
        "within",
    ),
    "panels": ("Knob", "panel"),
    "predictions": ("predict",),
    "recordings": ("recorded",),
    "servers": ("latency_server", "missing", "queue_server", "work_server"),
}
_MODULES = ("caches", "plots", "simulate", "theory")
_KINDS = "servers.kinds"


def _servers() -> dict[str, str]:
    """Return the functions that run a server, such as `redis_server`, and the module of each: one per kind."""
    folder = Path(__file__).parent.joinpath(*_KINDS.split("."))
    return {f"{kind.name}_server": f"{_KINDS}.{kind.name}" for kind in iter_modules([str(folder)])}


def __getattr__(name: str) -> Any:
    """Import a name on first use: drawing takes 0.6 s to import, and grading starts many kernels that never draw."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    if name.endswith("_server") and (home := _servers().get(name, "")):
        return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_servers()])
