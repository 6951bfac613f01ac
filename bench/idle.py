"""What a stack costs while nothing happens: the CPU time of every process of the services and servers."""

import time

from bench.usage import cpu_seconds
from holdfast.local.process import children_by_parent
from holdfast.local.stack import Stack

__all__ = ["measure", "measure_each"]

SETTLE_SECONDS = 15.0
"""Imports, first connections and what the cases before left behind are over by then."""

SECONDS = 30.0
"""Long enough for every sweep to have run a few times, but the scheduler's, which ticks once a minute."""


def measure(stack: Stack, *, seconds: float = SECONDS) -> float:
    """Percent of a core that all processes take together."""
    time.sleep(SETTLE_SECONDS)
    return sum(measure_each(stack, seconds=seconds).values())


def measure_each(stack: Stack, *, seconds: float) -> dict[str, float]:
    """Percent of a core that each service and server takes, all of its processes together."""
    before = _used(stack)
    time.sleep(seconds)
    return {name: 100 * (used - before[name]) / seconds for name, used in _used(stack).items()}


def _used(stack: Stack) -> dict[str, float]:
    children = children_by_parent()
    processes = {
        **stack.services,
        stack.postgres.process.name: stack.postgres.process,
        stack.redis.process.name: stack.redis.process,
    }
    return {name: cpu_seconds(process.pids(children)) for name, process in processes.items()}
