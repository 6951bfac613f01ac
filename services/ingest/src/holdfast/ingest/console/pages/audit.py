"""The audit log: who did what, when, and from where."""

import re
from typing import Any
from urllib.parse import quote
from uuid import UUID

from flask import Blueprint, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.ingest.console import reading
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.http.problems import Problem
from holdfast.storage.audit import AuditFilter, AuditRecord

__all__ = ["add"]

SHOWN = 50

MAX_ID = 2**63 - 1
"""Of a bigint."""

MAX_CHARACTERS = 200
"""Of an action or an actor that is looked for."""

KEY_ADDRESS = "/console/keys/{}"

_KEY_ID = re.compile(r"[a-z0-9]{12}", re.ASCII)
"""Others act too: commands, and maintenance."""


def add(room: Blueprint) -> None:
    """Add the address."""
    room.add_url_rule("/audit", "audit", _audit)


def _audit() -> AnyResponse:
    """The entries, the newest first."""
    current = require_role(Role.OPERATOR)
    action, actor = (request.args.get(name, "").strip()[:MAX_CHARACTERS] for name in ("action", "actor"))
    event_id, replay_id = _id("event_id", "an event"), _id("replay_id", "a replay or discard")
    wanted = AuditFilter(action=action or None, actor=actor or None, event_id=event_id, replay_id=replay_id)
    found = reading.audit_page(wanted, current.tenant, limit=SHOWN, after_id=_cursor())
    return page(
        "audit.html", entries=[(each, _about(each)) for each in found.items], next_id=found.next_id, action=action,
        actor=actor, event_id=event_id, replay_id=replay_id, is_key_id=_KEY_ID.fullmatch,
    )  # fmt: skip


def _about(entry: AuditRecord) -> list[tuple[str, str, str]]:
    """``(what, id, address)`` of all that an entry names. A node's may be gone by now; its link leads to the others."""
    job = "discard" if "discard" in entry.action else "replay"
    named: list[tuple[str, Any, str]] = [
        ("event", entry.event_id, "/console/events/{}"),
        (job, entry.replay_id, f"/console/{job}s/{{}}"),
        ("schedule", entry.detail.get("schedule"), "/console/schedules#s-{}"),
        (
            "paused",
            entry.detail.get("name") if entry.action in ("pause", "resume") else None,
            "/console/handlers#pauses",
        ),
        ("node", entry.detail.get("node"), "/console/workers#n-{}"),
        ("key", entry.detail.get("key_id"), KEY_ADDRESS),
        ("in place of", entry.detail.get("replaces"), KEY_ADDRESS),
    ]
    return [(what, str(id_), address.format(quote(str(id_), safe=""))) for what, id_, address in named if id_]


def _id(name: str, what: str) -> UUID | None:
    text = request.args.get(name, "").strip()
    try:
        return UUID(text) if text else None
    except ValueError:
        raise Problem(400, "invalid_request", f"{name} is the UUID of {what}") from None


def _cursor() -> int | None:
    text = request.args.get("cursor", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= MAX_ID:
        raise Problem(400, "invalid_request", "there is no such page; go back to the newest entries")
    return int(text)
