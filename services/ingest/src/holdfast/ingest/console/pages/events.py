"""The list of events with its filters, and finding one by its id."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.ingest.console import reading
from holdfast.ingest.console.export import FORMATS, MAX_BYTES, MAX_EVENTS
from holdfast.ingest.console.pages.forms import FIELDS, EventsQuery, given, read_query, search_query
from holdfast.ingest.console.pages.overview import first_run
from holdfast.ingest.console.preferences import (
    COLUMNS,
    COLUMNS_COOKIE,
    MAX_NAME_CHARACTERS,
    SEARCHES_COOKIE,
    columns_in,
    searches_in,
)
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, require_role
from holdfast.ingest.http.bodies import event_filter
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.routes.lists import DATA_HEADERS
from holdfast.storage.listing import Page

__all__ = ["add"]


def add(room: Blueprint) -> None:
    """Add the addresses."""
    room.add_url_rule("/events", "events", _list)
    room.add_url_rule("/events.<format_name>", "export", _export)
    room.add_url_rule("/find", "find", _find)


def _list() -> AnyResponse:
    """A page of events; its address has the whole filter, so it can be kept and passed on."""
    tenant = require_role(Role.VIEWER).tenant
    if "" in request.args.values():  # a form sends its empty fields too; an address is better without
        kept = given(request.args)
        return redirect(f"/console/events{_joined(kept)}", 303)
    wanted = read_query(EventsQuery)
    if isinstance(wanted, list):
        response = page("events.html", faults=wanted, found=Page([], None), is_head=False, **_form_values())
        response.status_code = 400
        return response
    found = reading.list_events(
        event_filter(wanted, wanted.state), tenant=tenant, limit=wanted.limit, before_id=wanted.cursor
    )
    if not found.items and not given(request.args):
        return first_run()
    return page(
        "events.html", faults=[], found=found, is_head=wanted.cursor is None, most=MAX_EVENTS, most_bytes=MAX_BYTES,
        **_form_values(),
    )  # fmt: skip


def _form_values() -> dict[str, Any]:
    query, searches = search_query(request.args), searches_in(request.cookies.get(SEARCHES_COOKIE))
    return {
        "all_columns": COLUMNS,
        "columns": columns_in(request.cookies.get(COLUMNS_COOKIE)),
        "fields": FIELDS,
        "kept_name": next((each.name for each in searches if each.query == query), None),
        "longest_name": MAX_NAME_CHARACTERS,
        "search": query,
        "searches": searches,
    }


def _export(format_name: str) -> AnyResponse:
    """What the filter matches as a file, the newest events first."""
    visitor = require_role(Role.VIEWER)
    if format_name not in FORMATS:
        raise Problem(404, "not_found", f"events can be had as {' or '.join(FORMATS)}")
    wanted = read_query(EventsQuery)
    if isinstance(wanted, list):
        raise Problem(400, "invalid_request", f"these filters cannot be used: {'; '.join(wanted)}")
    content_type, write = FORMATS[format_name]
    chosen = event_filter(wanted, wanted.state)
    content = write(reading.all_events(chosen, visitor.tenant, MAX_EVENTS), is_operator=visitor.is_operator)
    headers = DATA_HEADERS | {"Content-Disposition": f'attachment; filename="events.{format_name}"'}
    return Response(content, headers=headers, content_type=content_type)


def _find() -> AnyResponse:
    """To an event by its event id, or else to the list of events with this CloudEvents id."""
    tenant = require_role(Role.VIEWER).tenant
    text = request.args.get("q", "").strip()
    try:
        event_id = UUID(text)
    except ValueError:
        return redirect(f"/console/events{_joined({'id': text} if text else {})}", 303)
    is_there = reading.event_view(event_id, tenant) is not None
    return redirect(f"/console/events/{event_id}" if is_there else f"/console/events{_joined({'id': text})}", 303)


def _joined(query: dict[str, str]) -> str:
    return f"?{urlencode(query)}" if query else ""
