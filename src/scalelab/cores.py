"""How many cores there are to use. It brings nothing along: a grader asks before its first submission."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Return how many cores this process may run on: its CPU affinity where the system has one, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_quota() -> str:
    """Return how many cores a container may use, in words: Linux control groups, version 2."""
    try:
        quota, period = CGROUP_CPU.read_text().split()
    except (OSError, ValueError):
        return "none found"
    return "none" if quota == "max" else f"{int(quota) / int(period):.2g} cores"
