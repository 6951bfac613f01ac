"""Reading answers: what Holdfast says, and what is said by somebody else at its address."""

from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from holdfast.client.errors import ApiProblem

__all__ = ["problem", "read"]

Value = TypeVar("Value")


def read(answer: httpx.Response, read: Callable[[Any], Value]) -> Value:
    """The value in a successful answer.

    Raises:
        ApiProblem: it is not Holdfast's.
    """
    try:
        return read(answer.json())
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise _stranger(answer) from exc


def problem(answer: httpx.Response) -> ApiProblem:
    """The problem that an error answer tells of."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and "code" in body:
        return ApiProblem(answer.status_code, body)
    return _stranger(answer)


def _stranger(answer: httpx.Response) -> ApiProblem:
    """Not what Holdfast answers: a proxy in front of it, or another server."""
    moved = f", which redirects to {answer.headers['Location']}" if "Location" in answer.headers else ""
    detail = f"this is no answer of Holdfast; check the address {answer.request.url}{moved}"
    return ApiProblem(answer.status_code, {"code": "not_holdfast", "detail": detail})
