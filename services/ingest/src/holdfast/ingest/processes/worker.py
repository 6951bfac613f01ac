"""A process that serves: from its application to its end."""

import asyncio
import signal
import sys
from dataclasses import dataclass
from socket import socket

from holdfast.ingest import console
from holdfast.ingest.edge.server import GRACEFUL_SECONDS, Edge
from holdfast.ingest.edge.threads import Threads
from holdfast.ingest.http.app import create_app
from holdfast.ingest.http.parts import EXTENSION, Parts
from holdfast.ingest.processes.board import BEAT_SECONDS, Place
from holdfast.runtime import logging
from holdfast.runtime.health import Check, serve_health
from holdfast.runtime.settings import IngestSettings
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["CLOSE_SECONDS", "HURRY", "SIGNALS", "Member", "work"]

log = logging.get(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

HURRY = signal.SIGUSR1
"""By which the first process tells a worker not to wait. A second SIGTERM would not do: what stops services may send the
first one to all processes at once, and so does the first process."""

CLOSE_SECONDS = 4.0
"""After the requests' grace, for closing. Then the kernel ends the worker, whatever its threads are busy with."""

ORPHAN_SECONDS = 5.0
"""Grace of a worker whose first process is gone, beside which another service may be starting."""

SWITCH_SECONDS = 0.0005
"""How long a thread that computes keeps the interpreter from the loop. With Python's five milliseconds the loop, which every
request passes twice, waits most of its time."""


@dataclass(frozen=True, slots=True)
class Member:
    """What makes a process one of several.

    Attributes:
        lifeline: reading end of a pipe whose other end the first process alone has. It ends when that process does.
    """

    place: Place
    lifeline: int

    @property
    def serves_health(self) -> bool:
        """One of them does, for all."""
        return self.place.number == 0


def work(settings: IngestSettings, listener: socket, member: Member | None) -> None:
    """Serve until told to stop. SIGTERM and SIGINT may be blocked until the loop hears them.

    Args:
        settings: this process's share of them.
        member: ``None`` for a process that serves alone.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    app = create_app(settings, rooms=(console.install,))
    parts: Parts = app.extensions[EXTENSION]
    threads = Threads(settings.ingest_threads)
    parts.checks["threads"] = Check(threads.check)
    if member is None:
        serve_health(settings.metrics_host, settings.metrics_port, parts.checks)
    else:
        parts.checks["workers"] = Check(member.place.check)
        for gauge in (Metrics.in_flight, Metrics.turning_away):
            gauge.set(0)  # what a predecessor that was killed had in hand is in the file that this process goes on with
        if member.serves_health:
            serve_health(
                settings.metrics_host, settings.metrics_port, parts.checks, is_alive=member.place.is_alive
            )  # fmt: skip
    sys.setswitchinterval(SWITCH_SECONDS)
    processes = member.place.board.workers if member else 1
    edge = Edge(
        app.answer, settings, threads, processes=processes, neighbours=member.place if member else None
    )  # fmt: skip
    try:
        asyncio.run(_serve(edge, listener, threads, member))
    finally:
        threads.close()
        parts.close()


async def _serve(edge: Edge, listener: socket, threads: Threads, member: Member | None) -> None:
    loop = asyncio.get_running_loop()
    if member is None:
        steps = iter([edge.stop, edge.hurry])
        for number in SIGNALS:
            loop.add_signal_handler(number, lambda: next(steps, edge.hurry)())
        await edge.run(listener)
        return
    _listen_to_first_process(loop, edge, member)
    beating = loop.create_task(_beat(member.place, threads))
    await edge.run(listener)
    beating.cancel()
    # The loop gives them back their defaults when it closes, and another one would kill what is being closed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS, HURRY})


def _listen_to_first_process(loop: asyncio.AbstractEventLoop, edge: Edge, member: Member) -> None:
    def stop(seconds: float) -> None:
        member.place.note(float("inf"))
        signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM ends a process that does not handle it
        edge.stop()

    def be_orphan() -> None:
        loop.remove_reader(member.lifeline)
        log.error(Log.ORPHANED, worker=member.place.name)
        stop(ORPHAN_SECONDS)

    loop.add_signal_handler(signal.SIGTERM, stop, GRACEFUL_SECONDS + CLOSE_SECONDS)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C reaches all; the first process says what it means
    loop.add_signal_handler(HURRY, edge.hurry)
    loop.add_reader(member.lifeline, be_orphan)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*SIGNALS, HURRY})


async def _beat(place: Place, threads: Threads) -> None:
    while True:
        place.note_well(threads.waited_seconds())
        await asyncio.sleep(BEAT_SECONDS)
