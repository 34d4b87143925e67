"""Measure how a block of code changes this process's memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


@dataclass
class MemoryUse:
    """Sizes in bytes, set when the block ends; negative if it freed more than it allocated.

    resident: growth of the process's resident memory, from any allocator; freed memory may stay resident. traced:
    exact growth of the memory in Python's allocator; traced_peak: its peak within the block. Both traced sizes are 0
    unless the block was traced.
    """

    resident: int = 0
    traced: int = 0
    traced_peak: int = 0


@contextmanager
def memory(*, trace: bool = True) -> Iterator[MemoryUse]:
    """Measure what the block allocates: `with memory() as used: …`, then `used.resident`, `used.traced_peak`.

    trace: also run tracemalloc within the block. It makes allocation several times slower and needs memory of its own,
    which `resident` then includes; so measure `resident` with trace=False, in a process of its own (`run_fresh`).
    """
    used = MemoryUse()
    gc.collect()
    process = psutil.Process()
    was_tracing = tracemalloc.is_tracing()
    resident_before = process.memory_info().rss
    if trace and not was_tracing:
        tracemalloc.start()
    if trace:
        tracemalloc.reset_peak()
        traced_before = tracemalloc.get_traced_memory()[0]
    try:
        yield used
    finally:
        used.resident = process.memory_info().rss - resident_before
        if trace:
            traced_after, peak = tracemalloc.get_traced_memory()
            used.traced, used.traced_peak = traced_after - traced_before, peak - traced_before
            if not was_tracing:
                tracemalloc.stop()
