"""``GET /v1/audit``: who did what, when, and from where."""

from typing import Annotated, Any
from uuid import UUID

from flask import Blueprint, Response, json
from pydantic import Field

from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import Moment, Page, Text, read_arguments
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.views import rfc3339
from holdfast.storage import audit
from holdfast.storage.audit import AuditFilter, AuditPage, AuditRecord, actor_kind

__all__ = ["blueprint", "AuditRequest", "audit_view"]

blueprint = Blueprint("audit", __name__)

MAX_ID = 2**63 - 1
"""Of a bigint."""


class AuditRequest(Page):
    """Query string of ``GET /v1/audit``. Unknown names are refused: a mistyped filter is not "everything"."""

    action: Text | None = None
    actor: Text | None = None
    event_id: UUID | None = None
    replay_id: UUID | None = None
    since: Moment | None = None
    until: Moment | None = None
    cursor: Annotated[int, Field(ge=1, le=MAX_ID, description="the next_cursor of the page before")] | None = None


@blueprint.get("/v1/audit")
def list_() -> Response:
    """Entries of the key's tenant, newest first."""
    holder = require("operate")
    wanted = read_arguments(AuditRequest)
    page = reconnecting(lambda: _list(wanted, holder.tenant))
    next_cursor = None if page.next_id is None else str(page.next_id)
    body = {"items": [audit_view(each) for each in page.items], "next_cursor": next_cursor}
    return Response(json.dumps(body), content_type="application/json")


def audit_view(entry: AuditRecord) -> dict[str, Any]:
    """One entry as a JSON value."""
    return {
        "id": str(entry.id),
        "at": rfc3339(entry.at),
        "action": entry.action,
        "actor": {"kind": actor_kind(entry.actor), "id": entry.actor, "name": entry.actor_name},
        "origin": entry.origin,
        "request_id": entry.request_id,
        "event_id": str(entry.event_id) if entry.event_id else None,
        "replay_id": str(entry.replay_id) if entry.replay_id else None,
        "detail": entry.detail,
    }


def _list(wanted: AuditRequest, tenant: str) -> AuditPage:
    fields = wanted.model_dump(exclude={"limit", "cursor"})
    with parts().database.transaction() as session:
        return audit.list_audit(
            session, AuditFilter(**fields), tenant=tenant, limit=wanted.limit, after_id=wanted.cursor
        )
