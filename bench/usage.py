"""What a process uses, read from Linux' ``/proc``: so the load generator beside it does not count."""

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["cpu_seconds", "resident_kib", "wakes"]

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of some processes since they began, with that of children that have ended (proc(5)).

    Raises:
        OSError: one of them has ended.
    """
    return sum(sum(map(int, _fields(pid)[11:15])) for pid in pids) / TICKS_PER_SECOND


def wakes(pids: Iterable[int]) -> float:
    """How often threads of these processes that live had waited and went on (``voluntary_ctxt_switches`` of proc(5)).

    Raises:
        OSError: one of them has ended.
    """
    statuses = [status for pid in pids for status in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(
        int(line.split()[1])
        for status in statuses
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches:")
    )


def resident_kib(pid: int) -> int:
    """Memory that a process has in RAM (``VmRSS``).

    Raises:
        OSError: it has ended.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def _fields(pid: int) -> list[str]:
    """Of ``/proc/<pid>/stat``, from the state on: the name before it, in parentheses, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
