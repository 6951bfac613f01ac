"""``GET /v1/events``, one event, its data and its attempts, and ``GET /v1/dead-letters``."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, json, request

from holdfast.domain.data import Data, unwrapped
from holdfast.domain.state import State
from holdfast.ingest.connection import reconnecting
from holdfast.ingest.http.auth import is_operator, require
from holdfast.ingest.http.bodies import FilterFields, Page, event_filter, read_arguments
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.views import (
    attempt_view,
    content_type_of,
    event_view,
    group_view,
    identifier,
    missing,
    rfc3339,
    step_view,
    timeline_view,
    waiting_view,
    with_data_spliced,
)
from holdfast.storage import Session, event_views, groups, listing, steps, waiting
from holdfast.storage.database import Database
from holdfast.storage.dead_letters import DeadGroup, dead_groups
from holdfast.storage.event_views import EventView, TimelineEntry
from holdfast.storage.keys import KeyHolder
from holdfast.storage.listing import Attempt

__all__ = ["DATA_HEADERS", "blueprint", "Found", "ListRequest"]

blueprint = Blueprint("lists", __name__)

INCLUDES = frozenset({"data", "attempts", "timeline"})

DATA_HEADERS = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Data is a stranger's, HTML perhaps: a browser is to save it, and to run nothing of it under this address."""


class ListRequest(FilterFields, Page):
    """Query string of ``GET /v1/events``."""

    state: State | None = None
    cursor: UUID | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One event with what was asked for beside it."""

    view: EventView
    attempts: list[Attempt] | None
    timeline: list[TimelineEntry] | None
    waiting: dict[str, Any] | None


@blueprint.get("/v1/events")
def list_() -> Response:
    """Events of the key's tenant, newest first."""
    holder = require("events:read")
    wanted = read_arguments(ListRequest)
    page = reconnecting(lambda: _list(wanted, holder.tenant))
    next_cursor = str(page.next_id) if page.next_id else None
    items = [event_view(view, is_operator=is_operator(holder)) for view in page.items]
    return _json({"items": items, "next_cursor": next_cursor})


@blueprint.get("/v1/events/<event_id>")
def show(event_id: str) -> Response:
    """One event: its attributes, where it stands, why it waits, and on request its data, attempts and timeline."""
    holder = require("events:read")
    wanted = _includes()
    found = _find(event_id, holder, wanted | {"waiting"})
    body = event_view(found.view, with_data="data" in wanted, is_operator=is_operator(holder))
    if found.waiting is not None:
        body["waiting"] = found.waiting
    if found.attempts is not None:
        body["attempts"] = _attempts(found, holder)
    if found.timeline is not None:
        body["timeline"] = [timeline_view(entry) for entry in found.timeline]
    if "data" not in wanted:
        return _json(body)
    return Response(with_data_spliced(body, found.view.event), content_type="application/json")


@blueprint.get("/v1/events/<event_id>/data")
def data(event_id: str) -> Response:
    """The data of one event, byte by byte as it was sent; 204 for an event without data."""
    event = _find(event_id, require("events:read"), set()).view.event
    if event.content is None:
        return Response(status=204)
    stored = unwrapped(Data(event.content, event.is_json, event.datacontenttype))
    return Response(stored.content, headers=DATA_HEADERS, content_type=content_type_of(stored))


@blueprint.get("/v1/events/<event_id>/attempts")
def attempts(event_id: str) -> Response:
    """The attempts of one event that have ended."""
    holder = require("events:read")
    return _json({"items": _attempts(_find(event_id, holder, {"attempts"}), holder)})


@blueprint.get("/v1/events/<event_id>/groups")
def list_groups(event_id: str) -> Response:
    """The groups of events that an event's handler made, and how far they are."""
    holder = require("events:read")
    parent_id = _find(event_id, holder, set()).view.event.id
    found = reconnecting(lambda: _database().call(groups.groups_of, parent_id))
    return _json({"items": [group_view(each) for each in found]})


@blueprint.get("/v1/events/<event_id>/steps")
def list_steps(event_id: str) -> Response:
    """The steps that handlers of an event have done, and their sleeps."""
    holder = require("events:read")
    wanted = _find(event_id, holder, set()).view.event.id
    found = reconnecting(lambda: _database().call(steps.steps_of, wanted))
    return _json({"items": [step_view(each, is_operator=is_operator(holder)) for each in found]})


@blueprint.get("/v1/dead-letters")
def dead_letters() -> Response:
    """Dead letters by what killed them, the largest group first."""
    holder = require("events:read")
    wanted = read_arguments(Page)
    groups = reconnecting(lambda: _groups(wanted.limit, holder.tenant))
    return _json({"items": [_group(group, is_operator=is_operator(holder)) for group in groups]})


def _list(wanted: ListRequest, tenant: str) -> listing.Page:
    with _database().transaction() as session:
        return listing.list_events(
            session, event_filter(wanted, wanted.state), tenant=tenant, limit=wanted.limit, before_id=wanted.cursor
        )


def _find(text: str, holder: KeyHolder, wanted: set[str]) -> Found:
    event_id = identifier(text)
    found = reconnecting(lambda: _read(event_id, holder, wanted))
    if found is None:
        raise missing()
    return found


def _read(event_id: UUID, holder: KeyHolder, wanted: set[str]) -> Found | None:
    with _database().transaction() as session:
        view = event_views.find(session, event_id=event_id, tenant=holder.tenant)
        if view is None:
            return None
        return Found(
            view,
            listing.attempts(session, event_id=event_id) if "attempts" in wanted else None,
            event_views.timeline(session, event_id=event_id) if "timeline" in wanted else None,
            _waiting(session, event_id, holder) if "waiting" in wanted else None,
        )


def _waiting(session: Session, event_id: UUID, holder: KeyHolder) -> dict[str, Any] | None:
    found = waiting.why(session, event_id)
    return None if found is None else waiting_view(found, is_operator=is_operator(holder))


def _groups(limit: int, tenant: str) -> list[DeadGroup]:
    with _database().transaction() as session:
        return dead_groups(session, tenant=tenant, limit=limit)


def _database() -> Database:
    database: Database = parts().database
    return database


def _includes() -> set[str]:
    wanted = {name for name in request.args.get("include", "").split(",") if name}
    if unknown := wanted - INCLUDES:
        raise Problem(
            400, "unknown_include", f"include takes {', '.join(sorted(INCLUDES))}, not {', '.join(sorted(unknown))}"
        )
    return wanted


def _attempts(found: Found, holder: KeyHolder) -> list[dict[str, Any]]:
    trace_id = found.view.event.origin.trace_id
    return [
        attempt_view(each, trace_id=trace_id, is_operator=is_operator(holder)) for each in found.attempts or ()
    ]  # fmt: skip


def _group(group: DeadGroup, *, is_operator: bool) -> dict[str, Any]:
    cause = {
        "handler": group.handler,
        "error_type": group.error_type,
        "fingerprint": group.fingerprint,
        "type": group.event_type,
    }
    return {
        **cause,
        "count": group.events,
        "count_last_hour": group.last_hour,
        "first_at": rfc3339(group.first_at),
        "last_at": rfc3339(group.last_at),
        "sample": {
            "event_id": str(group.sample_id),
            "type": group.sample_type,
            "message": group.sample_message if is_operator else group.sample_reason,
        },
        # As POST /v1/replays takes it: what was fixed can be sent round again without writing a filter.
        "filter": {"state": State.DEAD, **{name: value for name, value in cause.items() if value is not None}},
    }


def _json(body: Any) -> Response:
    return Response(json.dumps(body), content_type="application/json")
