"""Exceptions; the package's docstring draws the tree."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ApiProblem", "ClientError", "LiveClosed", "TEMPORARY", "Unreachable", "WaitTimedOut"]

TEMPORARY = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may well succeed."""


class ClientError(Exception):
    """Root of the tree."""


class ApiProblem(ClientError):
    """An error answer: an RFC 9457 problem, or code ``not_holdfast`` if another server than Holdfast answered.

    ``code`` is for programs (``id_conflict``), ``detail`` is for people and names the remedy. ``errors`` has an entry per
    fault in the request: ``{"pointer", "header" or "parameter", "code", "detail"}``. Quote ``request_id`` in a bug report.
    """

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(body.get("code", "unknown"))
        self.detail = str(body.get("detail", ""))
        self.request_id = body.get("request_id")
        self.errors: Sequence[Mapping[str, Any]] = body.get("errors") or []
        super().__init__(f"{status} {self.code}: {self.detail}" + (f" [{self.request_id}]" if self.request_id else ""))

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in TEMPORARY


class Unreachable(ClientError):
    """No answer in any attempt; or the address or the key is malformed."""


class WaitTimedOut(ClientError):
    """The event is still queued, processing or failed."""


class LiveClosed(ClientError):
    """The gateway closed the connection for good: reconnecting with the same token would end the same way."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"live updates closed ({code}): {reason}")
