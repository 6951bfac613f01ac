"""``python -m bench.scaling``: how throughput grows with threads, processes and the size of a batch. Five minutes."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import ingest, limits, processing
from holdfast.local.stack import Stack

HERE = Path(__file__).parent

WAITING = [(1, 4), (1, 8), (1, 16), (1, 32), (1, 64), (2, 32), (2, 64), (4, 64)]
"""(processes, threads) of handlers that wait 50 ms."""

COMPUTING = [1, 2, 4]
"""Processes for empty handlers, 8 threads each."""

BATCHES = [1, 10, 50, 100, 500]
"""Events a request."""


def main() -> int:
    """Print a table for each curve."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement, about (3)")
    options = parser.parse_args()
    _table("processes x threads, handlers that wait 50 ms", "events/s", _waiting(options.seconds))
    _table("processes of 8 threads, empty handlers", "events/s", _computing(options.seconds))
    _table("events a request, 8 connections (32 for one event)", "accepted events/s", _batches(options.seconds))
    return 0


def _waiting(seconds: float) -> Iterator[tuple[str, float]]:
    for processes, threads in WAITING:
        most = 20 * processes * threads  # 50 ms each
        with _stack(processes, threads) as stack:
            events = int(min(most, 1000) * seconds)
            yield f"{processes} x {threads}", processing.measure(stack, events=events, kind="bench.waits")


def _computing(seconds: float) -> Iterator[tuple[str, float]]:
    for processes in COMPUTING:
        with _stack(processes, 8) as stack:
            yield str(processes), processing.measure(stack, events=int(1000 * seconds))


def _batches(seconds: float) -> Iterator[tuple[str, float]]:
    with _stack(1, 8) as stack:
        stack.hold("processor")
        for batch in BATCHES:
            limits.clear(stack)
            yield str(batch), ingest.measure(stack, seconds=seconds, batch=batch)


@contextmanager
def _stack(processes: int, threads: int) -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    settings = {
        "HOLDFAST_HANDLERS": "handlers:handlers",
        "HOLDFAST_PROCESSOR_PROCESSES": str(processes),
        "HOLDFAST_PROCESSOR_THREADS": str(threads),
    }
    stack = Stack(folder, settings=settings, python_path=str(HERE))
    try:
        stack.start()
        stack.hold("processor")
        limits.clear(stack)
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _table(
    name: str, unit: str, rows: Iterator[tuple[str, float]], write: Callable[[str], object] = sys.stdout.write
) -> None:
    write(f"\n| {name} | {unit} |\n|---|---|\n")
    for label, value in rows:
        write(f"| {label} | {value:,.0f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
