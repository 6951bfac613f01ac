"""Errors as pages of the console, with what to do about them."""

from http import HTTPStatus

from flask import Response, g, request
from werkzeug.exceptions import HTTPException

from holdfast.domain.errors import DatabaseUnavailable, DataUnreadable, KeyMissing, StatementTooSlow
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import visit
from holdfast.ingest.http.problems import Problem
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = [
    "come_again_from_here",
    "http_page",
    "problem_page",
    "sealed_page",
    "slow_page",
    "unavailable_page",
    "unexpected_page",
]

log = logging.get(__name__)

_TITLES = {
    400: "That request makes no sense here",
    403: "You may not do that",
    404: "There is nothing here",
    413: "That form is too long",
    429: "Too many attempts",
    500: "Something went wrong",
    503: "The database is away",
}

_BUSY = "The answer took too long"


def come_again_from_here() -> Response | None:
    """A page that loads itself again, for somebody who follows a link from elsewhere.

    Browsers keep a SameSite=Strict cookie back from a request that another site began, so somebody who is signed in would
    be sent to the sign-in by a link in a chat. Coming from this page they bring it.
    """
    is_foreign = request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method == "GET"
    return (
        page("come_again.html", address=request.full_path.rstrip("?"))
        if is_foreign and not visit().had_session
        else None
    )


def problem_page(problem: Problem) -> Response:
    """What the API would say, as a page. Logged as the API does."""
    route = request.url_rule.rule if request.url_rule else None
    log.info(Log.REQUEST_REJECTED, status=problem.status, code=problem.code, method=request.method, route=route)
    return _error(problem.status, problem.detail, dict(problem.headers))


def http_page(exc: HTTPException) -> Response:
    """Errors of Flask itself."""
    status = exc.code or 500
    return problem_page(Problem(status, f"http_{status}", exc.description or HTTPStatus(status).phrase))


def unavailable_page(exc: DatabaseUnavailable) -> Response:
    """PostgreSQL does not answer."""
    log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
    detail = "PostgreSQL does not answer. Accepted events are safe in it; this page works again as soon as it does."
    return _error(503, detail, {"Retry-After": "5"})


def slow_page(exc: StatementTooSlow) -> Response:
    """A statement reached its time limit."""
    log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
    detail = "PostgreSQL did not answer in time. Try again, a list with more filters."
    return _error(503, detail, {"Retry-After": "10"}, title=_BUSY)


def sealed_page(exc: KeyMissing | DataUnreadable) -> Response:
    """The data of an event is sealed and does not open here."""
    log.error(Log.KEY_MISSING if isinstance(exc, KeyMissing) else Log.DATA_UNREADABLE, reason=str(exc))
    return _error(503, f"The data of this event does not open: {exc}.", {})


def unexpected_page(exc: Exception) -> Response:
    """A mistake of ours."""
    log.error(Log.REQUEST_FAILED, exc_info=exc)
    return _error(500, "This is a mistake of Holdfast's. Quote the request id when you report it.", {})


def _error(status: int, detail: str, headers: dict[str, str], *, title: str | None = None) -> Response:
    title = title or _TITLES.get(status) or HTTPStatus(status).phrase
    detail = detail[:1].upper() + detail[1:]
    response = page("error.html", status=status, title=title, detail=detail, request_id=g.get("request_id"))
    response.status_code = status
    response.headers.update(headers)
    return response
