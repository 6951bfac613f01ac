"""The tenant: how it stands, what happened to its events, and which limits hold for it."""

from flask import Blueprint
from werkzeug.wrappers import Response as AnyResponse

from holdfast.domain.state import State
from holdfast.ingest.console import reading, summaries
from holdfast.ingest.console.pages.handlers import WINDOWS
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.console.words import bytes_text, count_text, span
from holdfast.ingest.http.parts import parts
from holdfast.ingest.intake.batch import MAX_EVENTS
from holdfast.storage.replays import MAX_ITEMS

__all__ = ["add"]

MOST_KEYS = 200
"""That are counted; of more it is said that there are more."""

STATES = (State.QUEUED, State.PROCESSING, State.FAILED, State.DEAD)
"""That somebody may have to do something about."""


def add(room: Blueprint) -> None:
    """Add the address."""
    room.add_url_rule("/tenant", "tenant", _tenant)


def _tenant() -> AnyResponse:
    """One tenant, the visitor's."""
    current = require_role(Role.VIEWER)
    found = summaries.tenant_summary(current.tenant)
    keys = reading.key_page(current.tenant, limit=MOST_KEYS, after_id=None) if current.may(Role.ADMIN) else None
    return page(
        "tenant.html",
        overview=found.overview,
        happened=found.happened,
        windows=WINDOWS,
        tenant_states=STATES,
        limits=_limits(found.settings.backlog_seconds),
        weight=found.settings.weight,
        active_keys=sum(key.is_active for key in keys.items) if keys else 0,
        is_more_keys=keys is not None and keys.next_id is not None,
    )


def _limits(own_backlog: float | None) -> list[tuple[str, str, str]]:
    """``(what, how much, what happens beyond)`` of what this service was started with, and what is set for the tenant."""
    settings = parts().settings
    usual = settings.backlog_limit_seconds
    backlog = own_backlog if usual and own_backlog is not None else usual
    return [
        ("One event", bytes_text(settings.max_event_bytes), "longer ones are refused with 413"),
        ("A batch", f"{bytes_text(settings.max_batch_bytes)}, {MAX_EVENTS} events", "longer ones are refused with 413"),
        (
            "Backlog",
            span(backlog) if backlog else "none",
            "while the oldest due event waits for longer, new ones are turned away with 503"
            if backlog
            else "nothing is turned away",
        ),
        ("A request", span(settings.ingest_request_seconds), "to arrive whole within, else 408"),
        ("A replay or discard", f"{count_text(MAX_ITEMS)} events", "a larger set is refused; narrow the filter"),
        ("A live token", span(settings.live_token_max_seconds), "at most, then another one is asked for"),
        ("A revoked key", span(settings.key_cache_seconds), "until every process has noticed"),
    ]
