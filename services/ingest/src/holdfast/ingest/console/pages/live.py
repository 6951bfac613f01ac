"""A live token for the pages, so that they learn of changes from the gateway and need not ask every few seconds."""

from hashlib import sha256

from flask import Blueprint, Response, json

from holdfast.domain.names import MAX_NAME_BYTES
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.routes.tokens import TokenRequest, issue

__all__ = ["add"]

TOKEN_SECONDS = 300
"""The script asks for another one in time. A session that has ended sees no updates after as long."""


def add(room: Blueprint) -> None:
    """Add the address."""
    room.add_url_rule("/live-token", "live_token", _live_token, methods=["POST"])


def _live_token() -> Response:
    """A token for what the tenant's pages show. ``live_url`` is ``null`` where no gateway is configured."""
    current = require_role(Role.VIEWER)
    wanted = TokenRequest(topics=[f"tenant:{current.tenant}", "event:*"], ttl_seconds=TOKEN_SECONDS)
    issued = issue(current.tenant, wanted, parts().settings, subject=_subject(current.actor.key_id))
    return Response(json.dumps(issued), 200, content_type="application/json")


def _subject(actor_id: str) -> str:
    """What a token's subject may be: the id of a person may be as long as that alone."""
    subject = f"console:{actor_id}"
    return subject if len(subject.encode()) <= MAX_NAME_BYTES else f"console:{sha256(actor_id.encode()).hexdigest()}"
