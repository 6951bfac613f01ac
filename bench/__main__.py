"""``python -m bench``: measure, and print (or write) a page of Markdown.

Absolute figures drift with the machine, which is often shared; the ratios are what to compare.
"""

import argparse
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bench import ingest, latency, limits, processing
from bench.report import Figure, page
from holdfast.local.stack import Stack

HERE = str(Path(__file__).parent)


def main() -> int:
    """Run everything once with a stack of its own; about two minutes."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each throughput round (5)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts (3)")
    parser.add_argument("--write", type=Path, help="write the page to this file as well")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    stack = Stack(folder, settings={"HOLDFAST_HANDLERS": "handlers:handlers"}, python_path=HERE, say=_say)
    try:
        stack.start()
        figures = _measure(stack, seconds=options.seconds, rounds=options.rounds)
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
    machine = f"{platform.machine()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    text = page(figures, machine=machine, seconds=options.seconds, rounds=options.rounds)
    sys.stdout.write(text)
    if options.write:
        options.write.write_text(text)
    return 0


def _measure(stack: Stack, *, seconds: float, rounds: int) -> list[Figure]:
    _say("latency, one event at a time")
    back_to_back = latency.measure(stack, events=200, pause_seconds=0)
    paused = latency.measure(stack, events=20, pause_seconds=1)
    stack.hold("processor")  # what is measured below is one stage at a time
    recording = _median("pgbench: record", rounds, lambda: limits.record(stack, seconds=seconds))
    accepted = _median("ingest", rounds, lambda: ingest.measure(stack, seconds=seconds))
    limits.clear(stack)
    transitions = _median("pgbench: claim and settle", rounds, lambda: limits.claim_and_settle(stack, seconds=seconds))
    limits.clear(stack)
    processed = _median("processor", rounds, lambda: processing.measure(stack, events=int(400 * seconds)))
    return [
        Figure("pgbench: event, state and update in one transaction, 8 clients", recording, "events/s"),
        Figure("ingest: POST one event a request, 32 connections", accepted, "events/s", limit=recording),
        Figure("pgbench: claim and settle in two transactions, 8 clients", transitions, "events/s"),
        Figure("processor: claim, empty handler, settle, publish; 8 threads", processed, "events/s", limit=transitions),
        Figure("POST to live `processed`, back to back, p50", back_to_back.p50, "ms"),
        Figure("POST to live `processed`, back to back, p99", back_to_back.p99, "ms"),
        Figure("POST to live `processed`, 1 s between events, p50", paused.p50, "ms"),
        Figure("POST to live `processed`, 1 s between events, worst of 20", paused.p99, "ms"),
    ]


def _median(name: str, rounds: int, measure: Callable[[], float]) -> float:
    values = []
    for number in range(1, rounds + 1):
        values.append(measure())
        _say(f"{name}, round {number} of {rounds}: {values[-1]:,.0f} events/s")
    return statistics.median(values)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
