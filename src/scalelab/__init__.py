"""The instruments of *Scalable Python, Measured*: what chapters and exercises import."""

from scalelab import plots, theory
from scalelab.claims import claim
from scalelab.measure import LoopLag, machine_card, median_interval, percentile, run_fresh
from scalelab.predictions import predict
from scalelab.services import latency_server

__all__ = [
    "LoopLag",
    "claim",
    "latency_server",
    "machine_card",
    "median_interval",
    "percentile",
    "plots",
    "predict",
    "run_fresh",
    "theory",
]

__version__ = "0.1.0"
