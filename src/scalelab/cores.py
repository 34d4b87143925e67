"""Count usable cores, with few imports, because a grader needs the count before its first submission."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Return how many cores this process may run on: its CPU affinity if the system has one, else all cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_quota() -> str:
    """Return in words how many cores the container may use, from Linux control groups, version 2."""
    try:
        quota, period = CGROUP_CPU.read_text().split()
    except (OSError, ValueError):
        return "none found"
    return "none" if quota == "max" else f"{int(quota) / int(period):.2g} cores"
