"""What can go wrong; the tree is drawn in the package's docstring."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ApiProblem", "ClientError", "LiveClosed", "Unreachable", "WaitTimedOut"]

TEMPORARY = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may well succeed."""


class ClientError(Exception):
    """Root of the tree."""


class ApiProblem(ClientError):
    """An error answer: an RFC 9457 problem, or what another server than Holdfast said at that address.

    ``code`` is for programs (``id_conflict``), ``detail`` for people and names the remedy. ``errors`` has an entry per fault
    in what was sent: ``{"pointer" or "header", "code", "detail"}``. Quote ``request_id`` when you report a fault of ours.
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
    """No answer, however often it was asked; or there can be none, because the address or the key is malformed."""


class WaitTimedOut(ClientError):
    """The event is still open."""


class LiveClosed(ClientError):
    """Closed for good: reconnecting with the same token would end the same way."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"live updates closed ({code}): {reason}")
