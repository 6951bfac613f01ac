"""Replaying a processed event with other data."""

from flask import Blueprint, Response, request
from werkzeug.wrappers import Response as AnyResponse

from holdfast.domain.event import StoredEvent
from holdfast.domain.state import State
from holdfast.ingest.console.pages.event import after, present
from holdfast.ingest.console.pages.forms import key_of, new_key
from holdfast.ingest.console.payload import MAX_SHOWN_CHARACTERS, Payload, shown
from holdfast.ingest.console.rendering import page
from holdfast.ingest.console.visit import Role, Visit, require_role
from holdfast.ingest.http.bodies import replacement
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.ingest.intake.faults import InvalidEvent

__all__ = ["EDITED", "add"]

FORM_BYTES = 1000
"""Of the form beside the data."""

EDITED = "console.edited_event"
"""The endpoint of the form with an event's data, the longest form here."""


def add(room: Blueprint) -> None:
    """Add the addresses."""
    room.add_url_rule("/events/<event_id>/edit", "edit_event", _edit)
    room.add_url_rule("/events/<event_id>/edit", EDITED.partition(".")[2], _replay_edited, methods=["POST"])


def _edit(event_id: str) -> AnyResponse:
    """The form for other data."""
    event, payload = _editable(event_id, require_role(Role.OPERATOR))
    return _edit_form(event, payload.text or "", [])


def _replay_edited(event_id: str) -> AnyResponse:
    """Record a new event like this one, with other data. What is wrong with the data is said beside it, in the form."""
    current = require_role(Role.OPERATOR)
    event, _ = _editable(event_id, current)
    text = request.form.get("data", "").replace("\r\n", "\n")  # which is how browsers send the end of a line
    try:
        data_json = replacement(text)
    except InvalidEvent as exc:
        response = _edit_form(event, text, [f"{fault.where or 'the data'}: {fault.detail}" for fault in exc.faults])
        response.status_code = 400
        return response
    done = parts().operator.replay(current.actor, event.id, idempotency_key=key_of(request.form), data_json=data_json)
    return after(event.id, done, "copied")


def _editable(event_id: str, current: Visit) -> tuple[StoredEvent, Payload]:
    """An event whose data can be changed in a form, and the data."""
    view = present(event_id, current)
    payload = shown(view.event, is_raw=False)
    if view.state is not State.PROCESSED:
        detail = "only a processed event is replayed with other data: discard this one and send another with a new id"
        raise Problem(409, "not_editable", detail)
    if payload.kind != "json" or payload.is_cut or not _fits(payload.text or ""):
        detail = f"this form takes JSON of up to {_most()} bytes; use holdfast replay {event_id} --data @file"
        raise Problem(409, "not_editable", detail)
    return view.event, payload


def _fits(text: str) -> bool:
    """Whether a browser can send this text back: the form is bounded like an event, and an end of line is two bytes there."""
    return len(text.replace("\n", "\r\n").encode()) <= _most()


def _most() -> int:
    """Bytes of data in the form. Beyond them the edge answers with 413."""
    return min(MAX_SHOWN_CHARACTERS, parts().settings.max_event_bytes - FORM_BYTES)


def _edit_form(event: StoredEvent, text: str, faults: list[str]) -> Response:
    return page(
        "edit_event.html", event=event, text=text, faults=faults, most=_most(), request_key=new_key(),
        path=f"/console/events/{event.id}",
    )  # fmt: skip
