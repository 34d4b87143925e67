"""Measure time, load, memory and event-loop lag, and describe the machine."""

from scalelab.cores import usable_cores
from scalelab.measure.budget import BudgetError, within
from scalelab.measure.compare import Comparison, ComparisonError, compare, paired_ratio, timer_step
from scalelab.measure.fresh import FreshProcessError, run_fresh
from scalelab.measure.histogram import Histogram, HistogramError
from scalelab.measure.interpreters import InterpreterError, free_threaded, missing_free_threaded
from scalelab.measure.lag import LoopLag
from scalelab.measure.load import Load, LoadError, closed_loop, open_loop
from scalelab.measure.machine import MachineCard, machine_card
from scalelab.measure.memory import MemoryUse, memory
from scalelab.measure.sample import EmptySample, Interval, median_interval, percentile

__all__ = [
    "BudgetError",
    "Comparison",
    "ComparisonError",
    "EmptySample",
    "FreshProcessError",
    "Histogram",
    "HistogramError",
    "InterpreterError",
    "Interval",
    "Load",
    "LoadError",
    "LoopLag",
    "MachineCard",
    "MemoryUse",
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
]
