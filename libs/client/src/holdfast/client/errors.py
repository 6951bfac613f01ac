"""What can go wrong; the tree is drawn in the package's docstring."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ApiProblem", "ClientError", "LiveClosed", "Unreachable", "WaitTimedOut"]


class ClientError(Exception):
    """Root of the tree."""


class ApiProblem(ClientError):
    """An error answer. ``errors`` has an entry per fault in what was sent."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(body.get("code", "unknown"))
        self.detail = str(body.get("detail", ""))
        self.request_id = body.get("request_id")
        self.errors: Sequence[Mapping[str, Any]] = body.get("errors", [])
        super().__init__(f"{status} {self.code}: {self.detail}" + (f" [{self.request_id}]" if self.request_id else ""))


class Unreachable(ClientError):
    """No answer, however often it was asked."""


class WaitTimedOut(ClientError):
    """The event is still open."""


class LiveClosed(ClientError):
    """Closed for good: reconnecting with the same token would end the same way."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"live updates closed ({code}): {reason}")
