"""How many cores this process may use: fewer than the machine has, where it is bound to some or has a quota."""

import os
from pathlib import Path

__all__ = ["quota_of", "usable_cores"]

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""A container's quota: microseconds of CPU in a period, and the period (Linux, control groups, version 2)."""


def usable_cores() -> int:
    """At least 1."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota = quota_of(CPU_MAX.read_text())
    except OSError:  # no such control group
        quota = None
    return max(1, bound if quota is None else min(bound, round(quota)))


def quota_of(text: str) -> float | None:
    """Cores that a ``cpu.max`` allows; ``None`` where it sets no limit, or is none of the kind."""
    words = text.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words) or words[1] == "0":
        return None
    return int(words[0]) / int(words[1])
