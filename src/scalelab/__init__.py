"""The instruments of *Scalable Python, Measured*: what chapters and exercises import."""

from importlib import import_module
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
    from scalelab.servers import (
        latency_server,
        memcached_server,
        missing,
        queue_server,
        redis_server,
        work_server,
    )

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
    "memcached_server",
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
    "redis_server",
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
    "servers": ("latency_server", "memcached_server", "missing", "queue_server", "redis_server", "work_server"),
}
_MODULES = ("caches", "plots", "simulate", "theory")


def __getattr__(name: str) -> Any:
    """Import a name on first use: drawing takes 0.6 s to import, and grading starts many kernels that never draw."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
