"""Measure time, memory, loop lag, and the machine they were measured on."""

from scalelab.measure.fresh import FreshProcessError, run_fresh
from scalelab.measure.lag import LoopLag
from scalelab.measure.machine import MachineCard, machine_card
from scalelab.measure.sample import Interval, median_interval, percentile

__all__ = [
    "FreshProcessError",
    "Interval",
    "LoopLag",
    "MachineCard",
    "machine_card",
    "median_interval",
    "percentile",
    "run_fresh",
]
