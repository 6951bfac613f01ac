"""One event: all that happened to it, its payload, and what an operator does to it."""

from uuid import UUID

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.domain.data import Data, unwrapped
from holdfast.domain.state import FINISHED, State
from holdfast.ingest.console import reading
from holdfast.ingest.console.pages.forms import key_of, new_key, path_id
from holdfast.ingest.console.payload import shown
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, Visit, require_role
from holdfast.ingest.console.words import REASONS, REMEDIES
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.http.routes.lists import DATA_HEADERS
from holdfast.ingest.http.views import content_type_of, waiting_facts
from holdfast.ingest.operate.operator import Done
from holdfast.storage.event_views import EventView
from holdfast.storage.operate import Outcome

__all__ = ["add", "after", "present"]

MOST_SHOWN = 100
"""Steps, the latest, and groups, the first, of one event."""

RESULT_CHARACTERS = 2000
"""Of the result of a step: all of them together may have 4 MiB."""

DISCARDABLE = frozenset({State.QUEUED, State.FAILED, State.DEAD})

_NOTICES = {
    Outcome.MOVED: None,
    Outcome.COPIED: "copied",
    Outcome.REQUESTED: "cancel_asked",
    Outcome.REPEATED: "repeated",
    Outcome.KEY_REUSED: "repeated",
    Outcome.NOT_EDITABLE: "not_allowed",
    Outcome.NOT_ALLOWED: "not_allowed",
    Outcome.CHANGING: "changing",
}


def add(room: Blueprint) -> None:
    """Add the addresses."""
    room.add_url_rule("/events/<event_id>", "event", _show)
    room.add_url_rule("/events/<event_id>/payload", "payload", _payload)
    room.add_url_rule("/events/<event_id>/replay", "replay_event", _replay, methods=["POST"])
    room.add_url_rule("/events/<event_id>/discard", "discard_event", _discard, methods=["POST"])
    room.add_url_rule("/events/<event_id>/cancel", "cancel_event", _cancel, methods=["POST"])


def _show(event_id: str) -> AnyResponse:
    """One event."""
    current = require_role(Role.VIEWER)
    story = reading.event_story(path_id(event_id, "event"), current.tenant)
    if story is None:
        raise _missing()
    event = story.view.event
    return page(
        "event.html",
        story=story,
        view=story.view,
        event=event,
        is_operator=current.is_operator,
        facts=waiting_facts(story.waiting, is_operator=current.is_operator) if story.waiting else {},
        reasons=REASONS,
        remedy=REMEDIES.get(story.waiting.reason) if story.waiting else None,
        payload=shown(event, is_raw=request.args.get("payload") == "raw"),
        steps=story.steps[-MOST_SHOWN:],
        groups=story.groups[:MOST_SHOWN],
        result_characters=RESULT_CHARACTERS,
        is_open=story.view.state not in FINISHED,
        can_replay=story.view.state in FINISHED,
        can_edit=story.view.state is State.PROCESSED,
        can_cancel=story.view.state is State.PROCESSING,
        can_discard=story.view.state in DISCARDABLE,
        request_key=new_key(),
        trace_address=parts().settings.trace_address(event.origin.trace_id),
    )


def _payload(event_id: str) -> AnyResponse:
    """The event's data as a file, byte by byte as it was sent."""
    event = present(event_id, require_role(Role.VIEWER)).event
    if event.content is None:
        return Response(status=204)
    stored = unwrapped(Data(event.content, event.is_json, event.datacontenttype))
    ending = "json" if stored.is_json else "bin"
    headers = DATA_HEADERS | {"Content-Disposition": f'attachment; filename="{event.id}.{ending}"'}
    return Response(stored.content, headers=headers, content_type=content_type_of(stored))


def _replay(event_id: str) -> AnyResponse:
    """Queue the event again, or record a new one like it."""
    current = require_role(Role.OPERATOR)
    wanted = path_id(event_id, "event")
    done = parts().operator.replay(current.actor, wanted, idempotency_key=key_of(request.form), data_json=None)
    return after(wanted, done, "replayed")


def _discard(event_id: str) -> AnyResponse:
    """Give the event up."""
    current = require_role(Role.OPERATOR)
    wanted = path_id(event_id, "event")
    done = parts().operator.discard(current.actor, wanted, idempotency_key=key_of(request.form))
    return after(wanted, done, "discarded")


def _cancel(event_id: str) -> AnyResponse:
    """Have the event ended, which runs."""
    current = require_role(Role.OPERATOR)
    wanted = path_id(event_id, "event")
    done = parts().operator.cancel(current.actor, wanted, idempotency_key=key_of(request.form))
    return after(wanted, done, "discarded")


def after(event_id: UUID, done: Done | None, notice: str) -> AnyResponse:
    """To the event that it was about, or to the one that came of it."""
    if done is None:
        raise _missing()
    acted = done.acted
    target = acted.update.event_id if acted.update is not None else event_id
    return redirect(f"/console/events/{target}?notice={_NOTICES[acted.outcome] or notice}", 303)


def present(event_id: str, current: Visit) -> EventView:
    """An event that a visitor may see.

    Raises:
        Problem: 404.
    """
    view = reading.event_view(path_id(event_id, "event"), current.tenant)
    if view is None:
        raise _missing()
    return view


def _missing() -> Problem:
    return Problem(404, "not_found", "there is no such event; it may be another tenant's, or pruned by now")
