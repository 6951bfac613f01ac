"""Reads answers: those of Holdfast, and those of another server at its address."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import httpx

from holdfast.client.errors import ApiProblem

__all__ = ["optional_time", "problem", "read", "time_of"]

Value = TypeVar("Value")


def read(answer: httpx.Response, read: Callable[[Any], Value]) -> Value:
    """The value in a successful answer.

    Raises:
        ApiProblem: the answer is not one of Holdfast's.
    """
    try:
        return read(answer.json())
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise _stranger(answer) from exc


def time_of(text: str) -> datetime:
    """The time in RFC 3339 text, with its time zone.

    Raises:
        ValueError, TypeError: it is not a time, or has no time zone.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return time


def optional_time(text: str | None) -> datetime | None:
    """As :func:`time_of`; ``None`` stays ``None``."""
    return None if text is None else time_of(text)


def problem(answer: httpx.Response) -> ApiProblem:
    """The problem in an error answer."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and "code" in body:
        return ApiProblem(answer.status_code, body)
    return _stranger(answer)


def _stranger(answer: httpx.Response) -> ApiProblem:
    """The problem for an answer that is not Holdfast's: that of a proxy in front of it, or of another server."""
    moved = f", which redirects to {answer.headers['Location']}" if "Location" in answer.headers else ""
    detail = f"this is not an answer of Holdfast; check the address {answer.request.url}{moved}"
    return ApiProblem(answer.status_code, {"code": "not_holdfast", "detail": detail})
