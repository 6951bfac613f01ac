"""A program under guard: started, signalled, stopped, killed and started again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["LIBPQ_NOTICES", "Guarded", "StartFailed", "children_by_parent", "log_lines", "wait_until"]

GUARD = Path(__file__).with_name("guard.py")

LIBPQ_NOTICES = tuple(f"{severity}:  " for severity in ("NOTICE", "WARNING", "ERROR", "FATAL", "PANIC"))
"""Begins of what libpq writes to stderr by itself: words of a server to a connection that nobody reads at that moment, such
as one that is being opened or closed. The severities are those of PostgreSQL's protocol."""

STOP_SECONDS = 30
"""More than any grace: a guard that takes longer is itself stuck."""


class StartFailed(Exception):
    """A program did not start. The message has the end of its log."""


class Guarded:
    """A program that cannot outlive this process.

    Args:
        log: file that its output is appended to.
        output: a descriptor that it goes to instead, such as that of a terminal.
        is_unrooted: run it as "nobody" when this process is root.
    """

    def __init__(
        self,
        name: str,
        *,
        log: Path,
        stop_signal: int = signal.SIGTERM,
        grace_seconds: float = 10,
        is_unrooted: bool = False,
        output: int | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.pid = 0
        self._stop_signal = stop_signal
        self._grace_seconds = grace_seconds
        self._is_unrooted = is_unrooted
        self._output = output
        self._guard: subprocess.Popen[bytes] | None = None
        self._is_wanted = False
        self.status: int | None = None
        """Exit status of the last program that was seen to its end; 0 is success."""

    @property
    def is_running(self) -> bool:
        """Whether the program runs."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def has_died(self) -> bool:
        """Whether the program ended though nobody here asked it to."""
        return self._is_wanted and not self.is_running

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the program, again if it has ended; does not wait for it to be ready."""
        self._wait()
        reading, writing = os.pipe()
        unrooted = {"HOLDFAST_GUARD_UNROOT": "1"} if self._is_unrooted else {}
        with self.log.open("ab") if self._output is None else os.fdopen(os.dup(self._output), "ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-S", "-c", _PRELUDE.format(fd=writing, guard=str(GUARD)),
                 str(int(self._stop_signal)), str(self._grace_seconds), *command],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env={**environment, **unrooted},
                pass_fds=[writing],
                start_new_session=True,  # Ctrl-C is for the launcher, which stops things in order
            )  # fmt: skip
        self._is_wanted = True
        os.close(writing)
        with os.fdopen(reading) as told:
            self.pid = int(told.readline() or 0)

    def stop(self) -> None:
        """End it in its orderly way; after the grace the hard way."""
        self._is_wanted = False
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
        self._wait()

    def join(self, seconds: float) -> None:
        """Wait for a program that ends by itself; stop it when the time is up."""
        self._is_wanted = False
        if self._guard is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(seconds)
        self.stop()

    def kill(self) -> None:
        """SIGKILL the program: what a power cut or the OOM killer does."""
        self.end_by(signal.SIGKILL)

    def end_by(self, signal_number: int) -> None:
        """Send the program a signal that ends it, and wait for its end."""
        self._is_wanted = False
        self.send(signal_number)
        self._wait()

    def send(self, signal_number: int, *, pid: int | None = None) -> None:
        """Send the program, or one of its descendants, a signal."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid if pid is None else pid, signal_number)

    def pids(self, children: Mapping[int, Sequence[int]] | None = None) -> list[int]:
        """The program's process id, then those of all its descendants; empty when it does not run.

        Args:
            children: what :func:`children_by_parent` said, for asking about several programs at once.
        """
        if not self.is_running:
            return []
        return [self.pid, *_descendants(self.pid, children_by_parent() if children is None else children)]

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def _wait(self) -> None:
        """See the guard to its end and let go of it."""
        if self._guard is not None:
            self.status = self._guard.wait(STOP_SECONDS)
            if self._guard.stdin is not None:
                self._guard.stdin.close()
        self._guard = None


def wait_until(is_ready: Callable[[], bool], *, process: Guarded, seconds: float, what: str) -> None:
    """Wait until ``is_ready()`` is true.

    Raises:
        StartFailed: the process ended or the time is up.
    """
    deadline = time.monotonic() + seconds
    while not is_ready():
        if not process.is_running or time.monotonic() > deadline:
            raise StartFailed(f"{what} did not start; the end of {process.log}:\n{process.tail()}")
        time.sleep(0.02)


# The pid travels on descriptor 3, whatever number the pipe had here.
_PRELUDE = (
    "import os, runpy, sys; os.dup2({fd}, 3); os.set_inheritable(3, False);"
    " sys.argv[0] = {guard!r}; runpy.run_path({guard!r}, run_name='__main__')"
)


def log_lines(log: Path) -> list[dict[str, Any]]:
    """The lines of a JSON log. One that is being written is left out: a reader may see the beginning of a write.

    Raises:
        json.JSONDecodeError: a line is not JSON.
    """
    whole, _, _ = log.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if not line.startswith(LIBPQ_NOTICES)]


def children_by_parent() -> dict[int, list[int]]:
    """The children of every process that has any."""
    children: dict[int, list[int]] = {}
    for child, parent in _processes():
        children.setdefault(parent, []).append(child)
    return children


def _descendants(pid: int, children: Mapping[int, Sequence[int]]) -> list[int]:
    found, todo = [], [pid]
    while todo:
        for child in sorted(children.get(todo.pop(), [])):
            found.append(child)
            todo.append(child)
    return found


def _processes() -> list[tuple[int, int]]:
    """``(pid, parent's pid)`` of every process."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        return [(int(line.split()[0]), int(line.split()[1])) for line in listed.splitlines()]
    found = []
    # Not glob(): that looks at each path itself, and fails for a process that has just ended.
    for pid in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 (names alone)
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything: fields count from behind it.
            found.append((int(pid), int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])))
    return found
