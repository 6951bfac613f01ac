"""Errors as RFC 9457 ``application/problem+json``, for every answer that is not a success, Flask's own included."""

import random
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, json, request
from werkzeug.exceptions import HTTPException

from holdfast.domain.errors import DatabaseUnavailable, DataUnreadable, KeyMissing, StatementTooSlow
from holdfast.ingest.intake.backpressure import BacklogTooOld
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["Problem", "install"]

log = logging.get(__name__)


class Problem(Exception):
    """An answer other than success.

    Args:
        status: HTTP status.
        code: stable, for programs (``id_conflict``).
        detail: for people; names the remedy.
        errors: one entry per fault in the input: ``{"pointer" or "header", "code", "detail"}``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})


def install(app: Flask) -> None:
    """Answer every exception of the application with a problem."""
    app.register_error_handler(Problem, _problem)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(DatabaseUnavailable, _unavailable)
    app.register_error_handler(StatementTooSlow, _too_slow)
    app.register_error_handler(KeyMissing, _key_missing)
    app.register_error_handler(DataUnreadable, _unreadable)
    app.register_error_handler(BacklogTooOld, _backlog)
    app.register_error_handler(Exception, _unexpected)


def _problem(problem: Problem) -> Response:
    # The rule, not the path: what a client puts there is not for the log.
    route = request.url_rule.rule if request.url_rule else None
    log.info(Log.REQUEST_REJECTED, status=problem.status, code=problem.code, method=request.method, route=route)
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "request_id": g.get("request_id"),
    }
    if problem.errors:
        body["errors"] = problem.errors
    g.outcome = problem.code
    return Response(json.dumps(body), problem.status, problem.headers, content_type="application/problem+json")


def _http(exc: HTTPException) -> Response:
    status = exc.code or 500
    headers = {}
    if valid := getattr(exc, "valid_methods", None):
        headers["Allow"] = ", ".join(sorted(valid))
    code = "too_large" if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else _slug(HTTPStatus(status).phrase)
    return _problem(Problem(status, code, _REMEDIES.get(status) or exc.description or code, headers=headers))


def _unavailable(exc: DatabaseUnavailable) -> Response:
    # Without the traceback: it is the same for every request of an outage.
    log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
    # Jittered, so that producers which were turned away together do not come back together.
    headers = {"Retry-After": str(random.randint(1, 5))}  # noqa: S311
    detail = (
        "the database is unavailable; send the request again after Retry-After, an event is recorded once all the same"
    )
    return _problem(Problem(503, "database_unavailable", detail, headers=headers))


def _too_slow(exc: StatementTooSlow) -> Response:
    log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
    headers = {"Retry-After": str(random.randint(5, 15))}  # noqa: S311
    detail = "the database did not answer in time; send the request again after Retry-After, a list with more filters"
    return _problem(Problem(503, "database_slow", detail, headers=headers))


def _key_missing(exc: KeyMissing) -> Response:
    log.error(Log.KEY_MISSING, reason=str(exc))
    detail = (
        "this data is sealed under a key that ingest does not have; its operator has to add it to"
        " HOLDFAST_ENCRYPTION_KEYS. An event that was sent has not been recorded: send it again later"
    )
    return _problem(Problem(503, "key_missing", detail, headers={"Retry-After": "60"}))


def _unreadable(exc: DataUnreadable) -> Response:
    log.error(Log.DATA_UNREADABLE, reason=str(exc))
    detail = "the stored data of this event was changed, or its key dropped, and does not open; an operator restores it"
    return _problem(Problem(500, "data_unreadable", detail))


def _backlog(exc: BacklogTooOld) -> Response:
    return _problem(Problem(503, "backlog", str(exc), headers={"Retry-After": str(exc.retry_after_seconds)}))


def _unexpected(exc: Exception) -> Response:
    log.error(Log.REQUEST_FAILED, exc_info=exc)
    detail = "something went wrong here; sending the same event again is safe. Quote request_id when you report it"
    return _problem(Problem(500, "internal", detail))


def _slug(phrase: str) -> str:
    return phrase.lower().replace(" ", "_").replace("-", "_")


_REMEDIES = {
    404: "there is nothing at this address; events are at /v1/events and /v1/events/{id}, live tokens at /v1/tokens",
    405: "this address does not take that method; see Allow",
    413: "the body is too large; put large data elsewhere and send a reference to it",
}
