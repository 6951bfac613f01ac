"""What handlers fork: given default signals, kept off the worker's connections, and ended with the worker.

On Linux everything that descends from a worker is found. Elsewhere a process that left its worker's process group, by
``setsid`` for instance, is not.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from holdfast.runtime.descriptors import lead_nowhere

__all__ = [
    "SIGNALS", "adopt_orphans", "children", "end_group", "hear_of_parents_end", "lead_a_group", "prepare_forks",
]  # fmt: skip

SIGNALS = (signal.SIGTERM, signal.SIGINT)

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""``prctl(2)``"""


def prepare_forks() -> None:
    """From now on, what this process forks gets default signals and copies of its connections that lead nowhere."""
    os.register_at_fork(after_in_child=_become_independent)


def lead_a_group() -> None:
    """Become the leader of a process group, which everything that is forked from now on belongs to."""
    os.setpgid(0, 0)


def end_group(leader: int) -> None:
    """Kill what is left of the group of a process that has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def hear_of_parents_end(number: int) -> None:
    """Be sent this signal when the parent ends (Linux only). What is forked from here does not inherit that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def children() -> set[int]:
    """Processes whose parent this one is, those that have ended included (Linux only: otherwise none)."""
    found, me = set(), str(os.getpid())
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything: fields count from behind it.
            if stat.read_text().rpartition(")")[2].split()[1] == me:
                found.add(int(stat.parent.name))
    return found


def _become_independent() -> None:
    """In a child right after the fork: it neither hears signals as the worker does nor uses the worker's connections."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    lead_nowhere()
