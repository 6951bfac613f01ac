"""``python -m bench.tracing``: what traces cost an event, sampled at 10 % and off, in interleaved rounds.

Two stacks, of which one exports to a collector that swallows what it gets and is not counted. CPU time is that of all
processes of the services and servers; the load generator's is left out.
"""

import argparse
import http.server
import multiprocessing
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from bench import ingest, limits, processing
from bench.idle import used_by
from bench.usage import cpu_seconds
from holdfast.domain.trace import Origin
from holdfast.local.process import Guarded
from holdfast.local.stack import Stack

__all__ = ["Cost", "collector", "measure_ingest", "measure_processing"]

HERE = Path(__file__).parent

GOAL = 0.95
"""Of what it is without: CPU time an event the other way round."""

HEAD = """| stage | off, CPU ms | on, CPU ms | off / on | events/s, on / off | goal ≥ 0.95 |
|---|---|---|---|---|---|
"""

WARMING = 500
"""Events that the processor has worked on before."""

REST_SECONDS = 2.5
"""After which everything is exported that has happened."""

BATCH = 100

PATIENCE_SECONDS = 300.0

ASKED = 10


class Cost(NamedTuple):
    """CPU time an event in milliseconds, and events a second."""

    cpu_ms: float
    rate: float


def measure_ingest(stack: Stack, *, seconds: float, batch: int = 1) -> Cost:
    """Of ``POST /v1/events``, while the processor is held."""
    limits.clear(stack)
    before = _used(stack)
    rate = ingest.measure(stack, seconds=seconds, batch=batch)
    return Cost(1000 * (_used(stack) - before) / (rate * seconds), rate)


def measure_processing(stack: Stack, *, events: int, kind: str, origin: Callable[[], Origin]) -> Cost:
    """Of claim, run, settle and publish, of a backlog, by processes that have worked before: what they import and plan at
    their begin is no event's.

    Raises:
        RuntimeError: not all were processed in time.
    """
    limits.clear(stack)
    stack.resume("processor")
    try:
        processing.record(stack, WARMING, kind, origin=origin)
        _await(stack, WARMING)
        time.sleep(REST_SECONDS)
        with _paused(stack.services["processor"]):
            processing.record(stack, events, kind, origin=origin)
            before, began = _used(stack), time.monotonic()
        _await(stack, WARMING + events)
        took = time.monotonic() - began
        time.sleep(REST_SECONDS)  # what is still to be exported belongs to these events too
        used = _used(stack) - before
    finally:
        stack.hold("processor")
    return Cost(1000 * used / events, events / took)


def sampled(ratio: float) -> Callable[[], Origin]:
    """Origins as ingest stores them that keeps this share of its requests."""

    def origin() -> Origin:
        if random.random() < ratio:
            return Origin(uuid4().hex, uuid4().hex, uuid4().hex[:16])
        return Origin(uuid4().hex)

    return origin


@contextmanager
def collector() -> Iterator[str]:
    """The address of one that takes everything and keeps nothing, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_swallow, args=(sending,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiving.recv()}"
    finally:
        process.terminate()
        process.join()


def _swallow(told: Connection) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def _paused(process: Guarded) -> Iterator[None]:
    pids = process.pids()
    for pid in pids:
        process.send(signal.SIGSTOP, pid=pid)
    try:
        yield
    finally:
        for pid in reversed(pids):
            process.send(signal.SIGCONT, pid=pid)


def _await(stack: Stack, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while processing.count_of(stack, "processed") < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count} events were not processed in {PATIENCE_SECONDS:g} s")
        time.sleep(0.1)


def _used(stack: Stack) -> float:
    for _ in range(ASKED):
        with suppress(OSError):  # a connection of PostgreSQL has ended meanwhile: from now on its server counts it
            return sum(used_by(stack, cpu_seconds).values())
    raise RuntimeError(f"processes of the stack come and go: not one of {ASKED} looks found all of them there")


def _stages(options: argparse.Namespace) -> list[tuple[str, Callable[[Stack, float], Cost]]]:
    """Each is given a stack and the share of events that its ingest keeps."""
    seconds, events = options.seconds, options.events

    def processed(kind: str, count: int) -> Callable[[Stack, float], Cost]:
        return lambda stack, ratio: measure_processing(stack, events=count, kind=kind, origin=sampled(ratio))

    return [
        ("ingest, one event a request", lambda stack, _: measure_ingest(stack, seconds=seconds)),
        (f"ingest, {BATCH} events a request", lambda stack, _: measure_ingest(stack, seconds=seconds, batch=BATCH)),
        ("processor, empty handler", processed("bench.processing", events)),
        ("processor, a row through ctx.session", processed("bench.insert", events // 3)),
        ("processor, the same with batch=50", processed("bench.batched", events)),
    ]


def _rounds(off: Stack, on: Stack, options: argparse.Namespace) -> dict[str, list[tuple[Cost, Cost]]]:
    """For each stage and round the cost without and with traces; every other round the other way round."""
    stages = [(name, measure) for name, measure in _stages(options) if options.only in name]
    found: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name, _ in stages}
    pairs = [(off, 0.0), (on, options.ratio)]
    for number in range(options.rounds):
        for name, measure in stages:
            order = pairs if number % 2 == 0 else pairs[::-1]
            costs = {stack: measure(stack, ratio) for stack, ratio in order}
            found[name].append((costs[off], costs[on]))
            sys.stderr.write(
                f"round {number + 1} of {options.rounds}  {name}: off {_told(costs[off])}, on {_told(costs[on])}\n"
            )
    return found


def _told(cost: Cost) -> str:
    return f"{cost.cpu_ms:.3f} ms of CPU and {cost.rate:,.0f} events/s"


def _row(name: str, pairs: Sequence[tuple[Cost, Cost]]) -> str:
    cpu = statistics.median(off.cpu_ms / on.cpu_ms for off, on in pairs)
    rate = statistics.median(on.rate / off.rate for off, on in pairs)
    off_ms, on_ms = (statistics.median(pair[side].cpu_ms for pair in pairs) for side in (0, 1))
    verdict = "met" if min(cpu, rate) >= GOAL else "missed"
    return f"| {name} | {off_ms:.3f} | {on_ms:.3f} | {cpu:.3f} | {rate:.3f} | {verdict} |\n"


def main() -> int:
    """Print a table; medians of the rounds, and of their ratios."""
    parser = argparse.ArgumentParser(prog="python -m bench.tracing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each stage, off and on (5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load on ingest (5)")
    parser.add_argument("--events", type=int, default=12_000, help="for the processor; a third of them with a row each")
    parser.add_argument("--only", default="", help="measure the stages with this in their names")
    parser.add_argument("--ratio", type=float, default=0.1, help="share of the requests that are kept (0.1)")
    options = parser.parse_args()
    settings = {"HOLDFAST_HANDLERS": "handlers:handlers"}
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder, collector() as url:
        traced = {"HOLDFAST_OTLP_ENDPOINT": url, "HOLDFAST_TRACE_SAMPLE_RATIO": str(options.ratio)}
        with (
            Stack(Path(folder) / "off", settings=settings, python_path=str(HERE)) as off,
            Stack(Path(folder) / "on", settings=settings | traced, python_path=str(HERE)) as on,
        ):
            off.hold("processor")
            on.hold("processor")
            found = _rounds(off, on, options)
    sys.stdout.write(HEAD)
    sys.stdout.writelines(_row(name, pairs) for name, pairs in found.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
