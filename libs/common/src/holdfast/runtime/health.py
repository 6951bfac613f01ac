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
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from holdfast.runtime import logging
from holdfast.runtime.descriptors import keep_from_children
from holdfast.runtime.shared_metrics import registry
from holdfast.runtime.telemetry import Log

__all__ = ["Check", "Readiness", "readiness", "serve_health"]

log = logging.get(__name__)

RETRY_SECONDS = 1.0
"""Between two looks at a port that is taken."""


@dataclass(frozen=True, slots=True)
class Check:
    """A dependency: ``probe`` raises when it is missing. Without an optional one the service is degraded, yet ready."""

    probe: Callable[[], object]
    is_optional: bool = False


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
    answers = {name: _ask(check) for name, check in checks.items()}
    missing = [name for name, answer in answers.items() if answer != "ok"]
    if not missing:
        return Readiness("ok", answers)
    return Readiness("degraded" if all(checks[name].is_optional for name in missing) else "unavailable", answers)


def serve_health(
    host: str, port: int, checks: Mapping[str, Check], *, is_alive: Callable[[], bool] = lambda: True
) -> None:
    """Serve in a daemon thread; port 0 serves nothing.

    A port that is taken is logged, and had as soon as it is free: it may be that of an orphan, which ends within seconds, and
    a process that nobody can ask for its health is one that nobody replaces.
    """
    if port == 0:
        return
    address, handler = (host, port), _handler(checks, is_alive)
    try:
        server = ThreadingHTTPServer(address, handler)
        keep_from_children(server)
        serve = server.serve_forever
    except OSError:
        log.warning(Log.METRICS_PORT_TAKEN, port=port)
        serve = partial(_serve_when_free, address, handler)
    threading.Thread(target=serve, name="health", daemon=True).start()


def _serve_when_free(address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
    while True:
        time.sleep(RETRY_SECONDS)
        with suppress(OSError), ThreadingHTTPServer(address, handler) as server:
            keep_from_children(server)
            server.serve_forever()


def _ask(check: Check) -> str:
    try:
        check.probe()
    except Exception as exc:  # noqa: BLE001 (a probe may fail in any way; the answer is its type)
        return type(exc).__name__
    return "ok"


def _metrics() -> tuple[int, bytes, str]:
    try:
        return 200, generate_latest(registry()), CONTENT_TYPE_LATEST
    except Exception as exc:  # noqa: BLE001 (the files of shared metrics may be gone, or be anything)
        return 503, json.dumps({"status": "no metrics", "reason": type(exc).__name__}).encode(), "application/json"


def _handler(checks: Mapping[str, Check], is_alive: Callable[[], bool]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(*_metrics())
            elif path == "/livez":
                status = "ok" if is_alive() else "dead"
                self._answer(200 if status == "ok" else 503, json.dumps({"status": status}).encode())
            elif path == "/readyz":
                answer = readiness(checks)
                self._answer(answer.http_status, answer.body().encode())
            else:
                self._answer(404, b'{"status":"not found","paths":["/metrics","/livez","/readyz"]}')

        def log_message(self, *_: object) -> None:
            """Scrapes are not worth a line each."""

        def _answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
