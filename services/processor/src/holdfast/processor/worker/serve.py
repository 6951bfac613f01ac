"""A worker process from its start to its end: until it is told to stop, has lost a thread, or is an orphan."""

import signal
import sys
import time

from holdfast.domain.errors import ConfigurationError
from holdfast.processor import VERSION
from holdfast.processor.handlers.registry import Handlers
from holdfast.processor.worker import offspring
from holdfast.processor.worker.board import Board
from holdfast.processor.worker.canary import Canary
from holdfast.processor.worker.ending import BROKEN, Ending
from holdfast.processor.worker.grace import Grace
from holdfast.processor.worker.importing import import_handlers
from holdfast.processor.worker.process import WorkerProcess
from holdfast.processor.worker.roles import Role
from holdfast.runtime import logging, tracing
from holdfast.runtime.refusal import refuse
from holdfast.runtime.settings import ProcessorSettings
from holdfast.runtime.telemetry import Log, export_metrics

__all__ = ["serve"]

log = logging.get(__name__)

LOOK_SECONDS = 1.0
"""How soon an idle process notices what no signal tells: a thread that has ended and, elsewhere than on Linux, that the
first process is gone."""

BUSY_LOOK_SECONDS = 0.2
"""…and one in which handlers run, any of which may close descriptors that are not its own."""

SWITCH_SECONDS = 0.0005
"""How long a thread that computes keeps the interpreter from those whose answers have come. With Python's five milliseconds a
thread that waits for the database a few times an event waits for its neighbours most of its time."""

HURRY_SECONDS = 5.0
"""Grace of a process whose first process is gone, beside which another one may be starting; and of one that is to be
replaced, because until then nobody does its work.
"""


def serve(settings: ProcessorSettings, role: Role, board: Board, *, parent_pid: int) -> int:
    """Be a worker process; returns its exit status. See ``import_handlers`` for those of one that cannot start."""
    ending = Ending(parent_pid)
    sys.setswitchinterval(SWITCH_SECONDS)
    offspring.prepare_forks()
    logging.configure(
        service="processor", version=VERSION, log_format=settings.log_format, level=settings.log_level,
        with_error_texts=settings.log_error_texts,
    )  # fmt: skip
    tracing.configure(settings, service="processor", version=VERSION)
    export_metrics("processor", version=VERSION)
    canary = Canary()
    process = _started(settings, role, import_handlers(settings.handlers, ending), board, canary)
    while not (ending.is_requested or ending.is_orphan() or canary.is_dead() or _is_broken(process, role)):
        board.note_alive(role.name, time.monotonic(), is_well=process.is_alive())
        process.note_use()
        ending.wait(LOOK_SECONDS if process.is_idle and not canary.is_starving else BUSY_LOOK_SECONDS)
    if canary.is_dead():
        log.error(Log.WORKER_SPOILED, worker=role.name)
        return BROKEN  # at once: what it still sends may reach another connection than it is meant for
    if ending.is_requested:
        _stop(process, role, board, settings.shutdown_seconds)
        return 0
    is_orphan = ending.is_orphan()
    log.error(Log.ORPHANED if is_orphan else Log.WORKER_BROKEN, worker=role.name)
    _stop(process, role, board, min(settings.shutdown_seconds, HURRY_SECONDS))
    if is_orphan:
        offspring.end_group(0)  # this process included: there is no first process that would do it
    return BROKEN


def _stop(process: WorkerProcess, role: Role, board: Board, seconds: float) -> None:
    """Stop within the grace. When it is over the kernel ends the process, whatever its threads are busy with."""
    grace = Grace(seconds)
    board.note_ending(role.name, grace.ends_at)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    process.stop(grace)
    tracing.stop()


def _started(
    settings: ProcessorSettings, role: Role, handlers: Handlers, board: Board, canary: Canary
) -> WorkerProcess:
    try:
        process = WorkerProcess(settings, role, handlers, board, canary)
    except ConfigurationError as exc:
        refuse(exc)
    process.start()
    return process


def _is_broken(process: WorkerProcess, role: Role) -> bool:
    """Whether it has to end by itself. For a lost thread that is up to what asks ``/livez``, where it can."""
    return process.is_stuck or (role.metrics_port == 0 and not process.is_alive())
