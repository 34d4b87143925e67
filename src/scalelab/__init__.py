"""The instruments of *Scalable Python, Measured*: what chapters and exercises import."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalelab import plots, theory
    from scalelab.claims import claim
    from scalelab.explorables import explorable
    from scalelab.measure import LoopLag, machine_card, median_interval, percentile, run_fresh
    from scalelab.panels import Knob, panel
    from scalelab.predictions import predict
    from scalelab.services import latency_server

__all__ = [
    "Knob",
    "LoopLag",
    "claim",
    "explorable",
    "latency_server",
    "machine_card",
    "median_interval",
    "panel",
    "percentile",
    "plots",
    "predict",
    "run_fresh",
    "theory",
]

__version__ = "0.1.0"

_HOMES = {
    "claims": ("claim",),
    "explorables": ("explorable",),
    "measure": ("LoopLag", "machine_card", "median_interval", "percentile", "run_fresh"),
    "panels": ("Knob", "panel"),
    "predictions": ("predict",),
    "services": ("latency_server",),
}


def __getattr__(name: str) -> Any:
    """Import a name on first use: drawing takes 0.6 s to import, and grading starts many kernels that never draw."""
    if name in ("plots", "theory"):
        return import_module(f"{__name__}.{name}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
