"""What is measured, in the order of a round: each limit right before what is held against it."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import idle, ingest, latency, limits, live, processing, sustained
from bench.rounds import Case
from holdfast.local.stack import Stack

__all__ = ["COMPARISONS", "Comparison", "cases"]

BATCH = 100

MICRO = 50

SILENT_SECONDS, SILENT_EVENTS = 3.0, 8


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figure ``of`` (divided by ``to``, if there is one); the goal is at least that much, or ``is_most``, at most."""

    of: str
    to: str | None
    """``None``: the goal is the figure's own, in its unit. Only for what does not depend on how fast a machine is today."""
    goal: float
    is_most: bool = False

    @property
    def name(self) -> str:
        """By which a recorded ratio is found."""
        return self.of if self.to is None else f"{self.of} / {self.to}"


COMPARISONS = [
    Comparison("ingest", "pgbench-record", 0.5),
    Comparison("ingest-batches", "pgbench-record-100", 0.5),
    Comparison("ingest-batches", "pgbench-loop", 12),
    Comparison("processing", "pgbench-claim-settle", 0.9),
    Comparison("processing", "celery-commits", 5),
    Comparison("processing", "dramatiq-commits", 2),
    Comparison("processing", "oban-noop", 1.2),
    Comparison("processing-insert", "pgbench-claim-insert-settle", 0.6),
    Comparison("processing-insert", "celery-insert", 3),
    Comparison("micro-batches", "pgbench-claim-settle-50", 0.4),
    Comparison("micro-batches", "dramatiq-noop", 2),
    Comparison("micro-batches-list", "pgbench-claim-settle-50", 0.4),
    Comparison("micro-batches-list", "dramatiq-noop", 2),
    Comparison("sustained", "pgbench-claim-settle", 0.35),
    Comparison("latency-p50", "post-p50", 3, is_most=True),
    Comparison("latency-p99", "post-p50", 5, is_most=True),
    Comparison("latency-silent", "post-silent", 3, is_most=True),
    Comparison("live", "node-ws", 2.5),
    Comparison("live-single", "node-ws-single", 0.8),
    Comparison("live-memory", None, 20, is_most=True),
    Comparison("live-resume", None, 3, is_most=True),
    Comparison("live-resume-topics", None, 3, is_most=True),
    Comparison("idle", None, 1.5, is_most=True),
    Comparison("idle-wakes", None, 80, is_most=True),
]
"""With the goals of 2026-11-28. Those whose peer was not measured are left out of the page."""


def cases(stack: Stack, *, seconds: float) -> list[Case]:
    """The limits, and Holdfast beside them."""

    def stage(name: str, title: str, measure: Callable[[], float]) -> Case:
        return Case(name, title, lambda: _alone(stack, measure))

    latencies = _Latencies(stack, events=max(20, int(40 * seconds)))
    silent = _Latencies(stack, events=SILENT_EVENTS, pause_seconds=SILENT_SECONDS)
    return [
        stage("pgbench-record", "pgbench: event, state and update in one transaction, 8 clients",
              lambda: limits.record(stack, seconds=seconds)),
        stage("ingest", "ingest: POST one event a request, 32 connections",
              lambda: ingest.measure(stack, seconds=seconds)),
        stage("pgbench-record-100", f"pgbench: {BATCH} events with their rows in one transaction, 8 clients",
              lambda: limits.record_many(stack, seconds=seconds, batch=BATCH)),
        stage("pgbench-loop", "pgbench: one event a transaction, one client in a loop",
              lambda: limits.record_in_a_loop(stack, seconds=seconds)),
        stage("ingest-batches", f"ingest: POST {BATCH} events a request, 8 connections",
              lambda: ingest.measure(stack, seconds=seconds, batch=BATCH)),
        stage("pgbench-claim-settle", "pgbench: claim and settle in two transactions, 8 clients",
              lambda: limits.claim_and_settle(stack, seconds=seconds)),
        stage("processing", "processor: claim, empty handler, settle, publish; 8 threads",
              lambda: processing.measure(stack, events=int(2400 * seconds))),
        stage("pgbench-claim-insert-settle", "pgbench: the same with a row written by the settle",
              lambda: limits.claim_insert_and_settle(stack, seconds=seconds)),
        stage("processing-insert", "processor: the same with a row written through ctx.session",
              lambda: processing.measure(stack, events=int(1000 * seconds), kind="bench.insert")),
        stage("pgbench-claim-settle-50", f"pgbench: {MICRO} claimed and settled at a time with a row each, 4 clients",
              lambda: limits.claim_and_settle_many(stack, seconds=seconds, batch=MICRO)),
        stage("micro-batches", f"processor: a row written through ctx.session, batch={MICRO}",
              lambda: processing.measure(stack, events=int(3000 * seconds), kind="bench.batched")),
        stage("micro-batches-list", "processor: the same by a handler of lists, in one statement",
              lambda: processing.measure(stack, events=int(4000 * seconds), kind="bench.listed")),
        Case("sustained", "POST one a request to `processed`, every service at work",
             lambda: sustained.measure(stack, seconds=seconds)),
        Case("post-p50", "POST alone, one at a time, p50", latencies.post, "ms"),
        Case("latency-p50", "POST to live `processed`, back to back, p50", latencies.p50, "ms"),
        Case("latency-p99", "the same, p99", latencies.p99, "ms"),
        Case("post-silent", f"POST alone, {SILENT_SECONDS:g} s between two, p50", silent.post, "ms"),
        Case("latency-silent", f"POST to live `processed`, {SILENT_SECONDS:g} s between two, p50", silent.p50, "ms"),
        *_live_cases(stack, seconds=seconds),
        Case("idle", "all services and servers, idle", lambda: idle.measure(stack), "% of a core"),
        Case("idle-wakes", "the same, how often their threads wake", lambda: idle.measure_wakes(stack), "wakes a second"),
    ]  # fmt: skip


def _live_cases(stack: Stack, *, seconds: float) -> list[Case]:
    gateway = live.Gateway(stack)

    def delivered(burst: int, topics: int = 1) -> Callable[[], float]:
        return lambda: live.deliveries(gateway, seconds=seconds, burst=burst, topics=topics)

    def memory() -> float:
        with gateway.away():
            pass
        return live.memory(gateway)

    return [
        Case("live", f"gateway: {live.CLIENTS} clients of one topic, {live.BURST} updates at once", delivered(live.BURST),
             live.DELIVERIES),
        Case("live-single", "the same, one update at a time", delivered(1), live.DELIVERIES),
        Case("live-topics", f"the same, {live.CLIENTS} clients of a topic each", delivered(1, live.CLIENTS),
             live.DELIVERIES),
        Case("live-memory", f"gateway: memory of each of {live.IDLE} idle connections", memory, "KiB"),
        Case("live-resume", f"gateway: {live.RESUMING} clients of one topic come back at once, {live.MISSED} updates each",
             lambda: live.resume(gateway, topics=1), "s"),
        Case("live-resume-topics", "the same, a topic each", lambda: live.resume(gateway, topics=live.RESUMING), "s"),
    ]  # fmt: skip


def _alone(stack: Stack, measure: Callable[[], float]) -> float:
    """One stage by itself, on an empty database."""
    stack.hold("processor")
    limits.clear(stack)
    try:
        return measure()
    finally:
        limits.clear(stack)
        stack.resume("processor")


class _Latencies:
    """One measurement a round, of which three figures are told."""

    def __init__(self, stack: Stack, *, events: int, pause_seconds: float = 0) -> None:
        self._stack = stack
        self._events = events
        self._pause_seconds = pause_seconds
        self._last: latency.Latency | None = None

    def post(self) -> float:
        """Milliseconds; measures."""
        self._last = latency.measure(self._stack, events=self._events, pause_seconds=self._pause_seconds)
        return self._last.post_p50

    def p50(self) -> float:
        """Of the last measurement."""
        return self._measured().p50

    def p99(self) -> float:
        """Of the last measurement."""
        return self._measured().p99

    def _measured(self) -> latency.Latency:
        if self._last is None:
            raise RuntimeError("measure the POST first: all three figures come from one measurement")
        return self._last
