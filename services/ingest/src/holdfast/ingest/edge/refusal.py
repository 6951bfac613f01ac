"""What the server refuses before the application sees it: the same problem documents, few log lines."""

import json
from http import HTTPStatus
from uuid import uuid4

from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log, Metrics

__all__ = ["Refusal", "note", "problem_response"]

log = logging.get(__name__)


class Refusal(Exception):
    """A request is not passed on. ``detail`` names the remedy."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


_LINES: dict[str, logging.Rarely] = {}


def note(code: str) -> None:
    """Count a refusal. One log line per code and ten seconds: strangers must not fill the disk."""
    Metrics.refused.labels(code).inc()
    if _LINES.setdefault(code, logging.Rarely(seconds=10)).is_due():
        log.info(Log.REQUEST_REFUSED, code=code)


def problem_response(refusal: Refusal) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of RFC 9457 for a refusal; the connection is closed behind it."""
    request_id = uuid4().hex
    body = json.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(refusal.status).phrase,
            "status": refusal.status,
            "code": refusal.code,
            "detail": refusal.detail,
            "request_id": request_id,
        }
    ).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"2"))
    return headers, body
