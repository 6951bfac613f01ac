"""Dead letters by what killed them: how many, since when, one of them, and the way to all of them."""

from typing import Any
from urllib.parse import urlencode

from flask import Blueprint
from werkzeug.wrappers import Response as AnyResponse

from holdfast.domain.state import State
from holdfast.ingest.console import reading
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, require_role
from holdfast.storage.dead_letters import DeadGroup

__all__ = ["add", "query_of"]

SHOWN = 100


def add(room: Blueprint) -> None:
    """Add the address."""
    room.add_url_rule("/dead-letters", "dead_letters", _dead_letters)


def _dead_letters() -> AnyResponse:
    """The groups, the largest first."""
    current = require_role(Role.VIEWER)
    groups = reading.groups_of_dead(current.tenant, SHOWN)
    total = sum(group.events for group in groups)
    return page(
        "dead_letters.html", groups=groups, total=total, is_cut=len(groups) == SHOWN, query_of=query_of,
        is_operator=current.is_operator,
    )  # fmt: skip


def query_of(group: DeadGroup) -> str:
    """The filter that chooses this group's events, as the query string of lists and replays."""
    cause: dict[str, Any] = {
        "handler": group.handler, "error_type": group.error_type, "fingerprint": group.fingerprint,
        "type": group.event_type,
    }  # fmt: skip
    return urlencode({"state": State.DEAD, **{name: value for name, value in cause.items() if value is not None}})
