"""Liveness, readiness and metrics over HTTP, on a port of their own.

``/livez`` touches nothing but the process; ``/readyz`` asks every dependency and says which one is missing;
``/metrics`` is Prometheus's text format.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from holdfast.runtime import logging
from holdfast.runtime.descriptors import keep_from_children
from holdfast.runtime.health_server import Answer, Routes, serve_in_thread
from holdfast.runtime.listening import open_listener
from holdfast.runtime.shared_metrics import registry
from holdfast.runtime.telemetry import Log

__all__ = ["Check", "Readiness", "readiness", "serve_health"]

log = logging.get(__name__)

RETRY_SECONDS = 1.0
"""Between two looks at a port that is taken."""


WAIT_SECONDS = 2.0
"""A probe that takes longer has failed: what it asks answers nobody in time."""

FRESH_SECONDS = 0.2
"""An answer this young is given again, so that many probes cost as much as five a second."""


class Check:
    """A dependency: ``probe`` raises when it is missing. Without an optional one the service is degraded, yet ready.

    One probe runs at a time, in a thread of its own, however many ask: a dependency that hangs holds one thread up.
    """

    def __init__(self, probe: Callable[[], object], is_optional: bool = False) -> None:
        self.is_optional = is_optional
        self._probe = probe
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def begin(self) -> "_Run":
        """The probe that is under way, or was over a moment ago, or a new one."""
        with self._lock:
            if self._run is None or self._run.is_old():
                self._run = _Run(self._probe)
            return self._run


class _Run:
    """One call of a probe."""

    def __init__(self, probe: Callable[[], object]) -> None:
        self._probe = probe
        self._result = ""
        self._is_done = threading.Event()
        self._began = self._ended = time.monotonic()
        threading.Thread(target=self._call, name="probe", daemon=True).start()

    def is_old(self) -> bool:
        return self._is_done.is_set() and time.monotonic() - self._ended > FRESH_SECONDS

    def result(self) -> str:
        """``ok`` or the error's type; ``TimeoutError`` for a probe that has taken too long already."""
        is_done = self._is_done.wait(max(0.0, self._began + WAIT_SECONDS - time.monotonic()))
        return self._result if is_done else TimeoutError.__name__

    def _call(self) -> None:
        try:
            self._probe()
            self._result = "ok"
        except Exception as exc:  # noqa: BLE001 (a probe may fail in any way; the answer is its type)
            self._result = type(exc).__name__
        self._ended = time.monotonic()
        self._is_done.set()


@dataclass(frozen=True, slots=True)
class Readiness:
    """``status`` is ``ok``, ``degraded`` or ``unavailable``; ``checks`` says ``ok`` or the error's type per dependency."""

    status: str
    checks: Mapping[str, str]

    @property
    def http_status(self) -> int:
        """200 unless a dependency that cannot be done without is missing."""
        return 503 if self.status == "unavailable" else 200

    def body(self) -> str:
        """JSON text."""
        return json.dumps({"status": self.status, "checks": dict(self.checks)})


def readiness(checks: Mapping[str, Check]) -> Readiness:
    """Ask every dependency once."""
    runs = {name: check.begin() for name, check in list(checks.items())}
    answers = {name: run.result() for name, run in runs.items()}
    missing = [name for name, answer in answers.items() if answer != "ok"]
    if not missing:
        return Readiness("ok", answers)
    return Readiness("degraded" if all(checks[name].is_optional for name in missing) else "unavailable", answers)


def serve_health(
    host: str, port: int, checks: Mapping[str, Check], *, is_alive: Callable[[], bool] = lambda: True
) -> None:
    """Serve in a daemon thread; port 0 serves nothing.

    A port that is taken is logged, and taken once it is free: it may be that of an orphan, which ends within seconds, and
    a process that nobody can ask for its health is one that nobody replaces.
    """
    if port == 0:
        return
    routes = _routes(checks, is_alive)
    try:
        _serve(host, port, routes)
    except OSError:
        log.warning(Log.METRICS_PORT_TAKEN, port=port)
        threading.Thread(target=_serve_when_free, args=(host, port, routes), name="health", daemon=True).start()


def _serve_when_free(host: str, port: int, routes: Routes) -> None:
    while True:
        time.sleep(RETRY_SECONDS)
        with suppress(OSError):
            _serve(host, port, routes)
            return


def _serve(host: str, port: int, routes: Routes) -> None:
    listener = open_listener(host, port)
    keep_from_children(listener)
    serve_in_thread(listener, routes, _NOT_FOUND)


def _metrics() -> Answer:
    try:
        return 200, generate_latest(registry()), CONTENT_TYPE_LATEST
    except Exception as exc:  # noqa: BLE001 (the files of shared metrics may be gone, or be anything)
        return 503, json.dumps({"status": "no metrics", "reason": type(exc).__name__}).encode(), "application/json"


_NOT_FOUND: Answer = (404, b'{"status":"not found","paths":["/metrics","/livez","/readyz"]}', "application/json")


def _routes(checks: Mapping[str, Check], is_alive: Callable[[], bool]) -> Routes:
    def live() -> Answer:
        status = "ok" if is_alive() else "dead"
        return 200 if status == "ok" else 503, json.dumps({"status": status}).encode(), "application/json"

    def ready() -> Answer:
        answer = readiness(checks)
        return answer.http_status, answer.body().encode(), "application/json"

    return {"/metrics": _metrics, "/livez": live, "/readyz": ready}
