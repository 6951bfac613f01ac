"""What the demo answers: JSON, and problems (RFC 9457) as ingest has them."""

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse, Response

__all__ = ["Refusal", "answer"]

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Refusal(Exception):
    """A request that is not fulfilled. ``code`` is for programs, ``detail`` names the remedy.

    Args:
        status: of the answer.
        retry_after: seconds, if the same request may succeed later.
    """

    def __init__(self, status: int, code: str, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self._retry_after = retry_after

    def response(self) -> Response:
        """The problem."""
        body = {
            "type": "about:blank", "title": HTTPStatus(self.status).phrase, "status": self.status, "code": self.code,
            "detail": str(self),
        }  # fmt: skip
        headers = _HEADERS if self._retry_after is None else _HEADERS | {"Retry-After": str(self._retry_after)}
        return JSONResponse(body, self.status, headers, media_type="application/problem+json")


def answer(body: Any, status: int = 200) -> Response:
    """JSON that nobody caches."""
    return JSONResponse(body, status, _HEADERS)
