"""What a stack costs while nothing happens: CPU time and wakes of every process of the services and servers.

``python -m bench.idle`` starts a stack and tells both for each of them. CPU time says what a wake costs on this machine; how
often processes wake says it of the program, and hardly depends on who else is at work.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.usage import cpu_seconds, wakes
from holdfast.local.process import children_by_parent
from holdfast.local.stack import Stack

__all__ = ["measure", "measure_each", "measure_wakes", "used_by"]

SETTLE_SECONDS = 15.0
"""Imports, first connections and what the cases before left behind are over by then."""

SECONDS = 30.0
"""Long enough for every sweep to have run a few times, but the scheduler's, which ticks once a minute."""

Used = Callable[[Iterable[int]], float]
"""Of some processes, since they began."""


def measure(stack: Stack, *, seconds: float = SECONDS) -> float:
    """Percent of a core that all processes take together."""
    time.sleep(SETTLE_SECONDS)
    [used] = measure_each(stack, cpu_seconds, seconds=seconds)
    return 100 * sum(used.values())


def measure_wakes(stack: Stack, *, seconds: float = SECONDS) -> float:
    """Wakes a second of all threads of all processes."""
    time.sleep(SETTLE_SECONDS)
    [used] = measure_each(stack, wakes, seconds=seconds)
    return sum(used.values())


def measure_each(stack: Stack, *kinds: Used, seconds: float) -> list[dict[str, float]]:
    """For each kind: what each service and server uses a second, all of its processes together."""
    before = [used_by(stack, kind) for kind in kinds]
    time.sleep(seconds)
    return [
        {name: (used - then[name]) / seconds for name, used in used_by(stack, kind).items()}
        for kind, then in zip(kinds, before, strict=True)
    ]


def used_by(stack: Stack, kind: Used) -> dict[str, float]:
    """What each service and server has used since its processes began."""
    children = children_by_parent()
    processes = {
        **stack.services,
        stack.postgres.process.name: stack.postgres.process,
        stack.redis.process.name: stack.redis.process,
    }
    return {name: kind(process.pids(children)) for name, process in processes.items()}


def main() -> None:
    """Print a table."""
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder,
        Stack(
            Path(folder), settings={"HOLDFAST_HANDLERS": "handlers:handlers"}, python_path=str(Path(__file__).parent)
        ) as stack,
    ):
        time.sleep(SETTLE_SECONDS)
        cpu, woken = measure_each(stack, cpu_seconds, wakes, seconds=SECONDS)
    lines = [(name, woken[name], 100 * cpu[name]) for name in woken]
    lines.append(("all", sum(woken.values()), 100 * sum(cpu.values())))
    sys.stdout.write("| process | wakes/s | % of a core |\n|---|---|---|\n")
    sys.stdout.writelines(f"| {name} | {count:.1f} | {percent:.2f} |\n" for name, count, percent in lines)


if __name__ == "__main__":
    main()
