"""Strikes a plan's faults at a running stack."""

import contextlib
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from redis.exceptions import RedisError

from holdfast.local.process import Guarded, StartFailed, children_by_parent
from holdfast.local.stack import Stack

from .defaults import change_defaults
from .history import Recorder
from .pausing import pause_type
from .plan import Fault, Kind
from .strangers import AT_GATEWAY, AT_INGEST, visit

__all__ = ["strike", "workers_of"]

SAY_SECONDS = 30.0
"""Between two lines of progress."""

ENDING = frozenset({Kind.KILL, Kind.TERMINATE, Kind.TERMINATE_WORKER})
"""Kinds that end a process of a service."""

REQUEUED = 5
"""Events that one REQUEUE puts back."""

BUSY_SECONDS = 8.0
"""How long a SIGTERM waits for a handler that it is to meet at work."""

BUSY = """
SELECT s.lease_owner FROM processing_state s JOIN event e ON e.id = s.event_id
JOIN event_update u ON u.event_id = s.event_id AND u.version = s.version
WHERE s.state = 'processing' AND e.type = '{type}' AND u.at > now() - interval '0.5 s' LIMIT 1
"""

REQUEUE = """
SET synchronous_commit = on;  -- whatever the database's default is: what is recorded must not be lost in a crash
WITH chosen AS (
    SELECT s.event_id FROM processing_state s JOIN event e ON e.id = s.event_id
    WHERE s.state = 'processed' AND e.type <> 'soak.ordered'  -- whose turn was before those that have had theirs since
    ORDER BY s.finished_at DESC LIMIT {limit} FOR UPDATE OF s SKIP LOCKED
)
UPDATE processing_state s SET state = 'queued', version = version + 1, attempt = 0, crashes = 0,
    finished_at = NULL, available_at = now(), next_dispatch_at = now()
FROM chosen WHERE s.event_id = chosen.event_id RETURNING s.event_id
"""


def strike(
    stack: Stack, plan: Sequence[Fault], recorder: Recorder, *, until_seconds: float, say: Callable[[str], None]
) -> None:
    """Strike every fault at its time; return after ``until_seconds``, when all are over and the servers run.

    ``say`` is told now and then how far that is.
    """
    striking = _Striking(stack, recorder)
    said = began = time.monotonic()
    with ThreadPoolExecutor(max_workers=16, thread_name_prefix="fault") as pool:
        struck = []
        for number, fault in enumerate(plan):
            _wait(began + fault.at - time.monotonic())
            if time.monotonic() - said >= SAY_SECONDS:
                said = time.monotonic()
                say(f"{said - began:.0f} of {until_seconds:.0f} s, {number} of {len(plan)} faults")
            struck.append(pool.submit(striking.strike, fault))
        _wait(began + until_seconds - time.monotonic())
    for each in struck:
        each.result()


class _Striking:
    def __init__(self, stack: Stack, recorder: Recorder) -> None:
        self._stack = stack
        self._recorder = recorder
        self._kinds: dict[Kind, Callable[[Fault], object]] = {
            Kind.KILL: lambda fault: self._signal(fault, signal.SIGKILL),
            Kind.TERMINATE: self._terminate,
            Kind.TERMINATE_WORKER: self._terminate_worker,
            Kind.PAUSE: self._pause,
            Kind.KILL_BACKEND: self._kill_backend,
            Kind.CRASH_POSTGRES: self._crash_postgres,
            Kind.KILL_REDIS: self._kill_redis,
            Kind.EMPTY_REDIS: self._empty_redis,
            Kind.HANG_REDIS: self._hang_redis,
            Kind.FLUSH_REDIS: lambda _: self._flush_redis(),
            Kind.REQUEUE: lambda _: self._requeue(),
            Kind.ODD_DEFAULTS: lambda fault: change_defaults(stack.postgres, fault),
            Kind.PAUSE_TYPE: lambda fault: pause_type(stack.database_url, fault),
            Kind.HOSTILE_FRAMES: lambda fault: visit(stack.live_url, AT_GATEWAY, fault.seconds),
            Kind.HOSTILE_REQUESTS: lambda fault: visit(stack.ingest_url, AT_INGEST, fault.seconds),
        }

    def strike(self, fault: Fault) -> None:
        """Strike, and record what was hit and until when."""
        at = time.time()
        is_struck = fault.kind not in ENDING or self._is_up(fault.target)
        hit = self._kinds[fault.kind](fault) if is_struck else None
        record = {"kind": fault.kind, "target": fault.target, "at": at, "ended": time.time(), "hit": hit}
        self._recorder.add("faults" if is_struck else "spared", record)

    def _is_up(self, target: str) -> bool:
        """Whether the target has come up since it was last struck. Otherwise it is spared: on a slow machine, where a start
        takes longer than the time between two faults, a service would be down throughout and nothing would be tested.
        """
        if target == "scheduler":  # has no address to ask at
            return True
        try:
            with urllib.request.urlopen(f"{self._stack.metrics_url(target)}/livez", timeout=1):  # noqa: S310 (our own address)
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def _chosen(self, fault: Fault) -> tuple[Guarded, int] | None:
        """The process that the fault's choice falls on; ``None`` while the service is down."""
        process = self._stack.services[fault.target]
        pids = [process.pid, *workers_of(process)] if process.is_running else []
        return (process, pids[int(fault.choice * len(pids))]) if pids else None

    def _signal(self, fault: Fault, signal_number: int) -> int | None:
        if (chosen := self._chosen(fault)) is None:
            return None
        process, pid = chosen
        process.send(signal_number, pid=pid)
        return pid

    def _terminate(self, fault: Fault) -> None:
        if fault.target == "processor":
            self._busy_worker("soak.progress")
        self._stack.services[fault.target].send(signal.SIGTERM)

    def _terminate_worker(self, fault: Fault) -> int | None:
        """Terminate the worker process that has a handler in its pool; any, if none has."""
        process = self._stack.services[fault.target]
        workers = workers_of(process)
        if not workers:
            return None
        pid = self._busy_worker("soak.pool")
        chosen = pid if pid in workers else workers[int(fault.choice * len(workers))]
        process.send(signal.SIGTERM, pid=chosen)
        return chosen

    def _busy_worker(self, type_: str) -> int | None:
        """Wait for a handler of that type that has just begun; the process it runs in, or ``None`` if none comes."""
        deadline = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):  # PostgreSQL is down, or recovering
                if owner := self._stack.postgres.execute(BUSY.format(type=type_), database="holdfast").strip():
                    return int(owner.rpartition(":")[2])
            _wait(0.1)
        return None

    def _pause(self, fault: Fault) -> int | None:
        """Pause a worker, if there are any: the first process has nothing but those to look after."""
        process = self._stack.services[fault.target]
        if not process.is_running:
            return None
        pids = workers_of(process) or [process.pid]
        chosen = pids[int(fault.choice * len(pids))]
        process.send(signal.SIGSTOP, pid=chosen)
        _wait(fault.seconds)
        process.send(signal.SIGCONT, pid=chosen)
        return chosen

    def _kill_backend(self, fault: Fault) -> int | None:
        server = self._stack.postgres.process
        backends = server.pids()[1:]
        if not backends:
            return None
        pid = backends[int(fault.choice * len(backends))]
        server.send(signal.SIGKILL, pid=pid)
        return pid

    def _crash_postgres(self, fault: Fault) -> None:
        self._stack.postgres.crash()
        _wait(fault.seconds)
        _start(self._stack.postgres.start)

    def _kill_redis(self, fault: Fault) -> None:
        self._stack.redis.kill()
        _wait(fault.seconds)
        _start(self._stack.redis.start)

    def _empty_redis(self, fault: Fault) -> None:
        self._stack.redis.kill()
        shutil.rmtree(self._stack.redis.folder / "appendonlydir", ignore_errors=True)
        _wait(fault.seconds)
        _start(self._stack.redis.start)

    def _hang_redis(self, fault: Fault) -> None:
        self._stack.redis.send(signal.SIGSTOP)
        _wait(fault.seconds)
        self._stack.redis.send(signal.SIGCONT)

    def _flush_redis(self) -> None:
        with contextlib.suppress(RedisError):
            self._stack.redis.execute("FLUSHALL")

    def _requeue(self) -> list[str]:
        try:
            rows = self._stack.postgres.execute(REQUEUE.format(limit=REQUEUED), database="holdfast")
        except RuntimeError:  # it is down, or recovering
            return []
        return rows.split()


def workers_of(process: Guarded) -> list[int]:
    """Processes that the service itself started. Below them is what handlers have forked: a handler that waits in a pool
    whose child was killed waits until its timeout and 30 s have passed, longer than a run has to settle.
    """
    return sorted(children_by_parent().get(process.pid, []))


def _start(start: Callable[[], None]) -> None:
    """Start a server; on a loaded machine it may not come up within its time, so more than once."""
    for _ in range(2):
        with contextlib.suppress(StartFailed):
            return start()
    return start()


def _wait(seconds: float) -> None:
    threading.Event().wait(max(0.0, seconds))
