"""Pauses: what is not begun until somebody resumes it; and how a tenant stands in the turns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

from holdfast.client.answers import read, time_of
from holdfast.client.requests import JSON, Requests

__all__ = ["Pause", "Pausing", "Tenant"]


@dataclass(frozen=True, slots=True)
class Pause:
    """One pause."""

    pause_id: str
    kind: str
    """``handler``, ``type``, ``tenant`` or ``pool``."""
    name: str
    tenant: str | None
    """Whose events, of a type or a tenant; ``None``: those of all."""
    note: str | None
    paused_by: str
    paused_at: datetime
    """With a time zone."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The pause as the API sent it, with any fields that this client does not know."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            pause_id=body["pause_id"], kind=body["kind"], name=body["name"], tenant=body["tenant"], note=body["note"],
            paused_by=body["paused_by"], paused_at=time_of(body["paused_at"]), raw=body,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tenant:
    """What holds for the key's tenant, and how much of its waits."""

    name: str
    weight: int
    """Its share of the turns."""
    backlog_limit_seconds: float
    """Events are turned away while the oldest due one waits for longer; 0: never."""
    is_own_limit: bool
    """The limit was set for this tenant."""
    waiting: int
    """Events that are queued or will be tried again."""
    oldest_due_seconds: float
    """For how long the oldest due one has been waiting for a processor; 0: none is."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The answer as the API sent it."""

    @classmethod
    def read(cls, body: Any) -> Self:
        """Read it from a JSON answer."""
        return cls(
            body["name"], body["weight"], body["backlog"]["limit_seconds"], body["backlog"]["is_own"], body["waiting"],
            body["backlog"]["oldest_due_seconds"], body,
        )  # fmt: skip


class Pausing(Requests):
    """The part of :class:`~holdfast.client.Client` that pauses and resumes. Needs the scope ``operate``; handlers and pools,
    which work for all tenants, need ``admin``.

    All methods raise ``ApiProblem`` and ``Unreachable``.
    """

    def pauses(self) -> list[Pause]:
        """Those that concern the key's tenant, the newest first."""
        return read(self._request("GET", "/v1/pauses"), lambda body: list(map(Pause.read, body["items"])))

    def pause(self, kind: str, name: str, *, note: str | None = None) -> Pause:
        """Begin nothing more of a ``handler``, a ``type``, the own ``tenant`` or a ``pool``; what runs finishes.

        What is paused already stays as it is.
        """
        body = {"kind": str(kind), "name": name} | ({} if note is None else {"note": note})
        return read(self._request("POST", "/v1/pauses", body=body, content_type=JSON), Pause.read)

    def resume(self, pause_id: str) -> Pause:
        """Let it go on; what the pause was. 404 if there is none such any more."""
        return read(self._request("DELETE", f"/v1/pauses/{quote(pause_id, safe='')}"), Pause.read)

    def tenant(self) -> Tenant:
        """How the key's tenant stands in the turns."""
        return read(self._request("GET", "/v1/tenant"), Tenant.read)
