"""Reading a CloudEvent 1.0 from an HTTP request, in structured or binary mode. Pure: headers and body in, event out.

Follows the CloudEvents specification 1.0.2, its JSON event format and its HTTP protocol binding, and is as lenient as
the SDKs need: a binary event without Content-Type is JSON if it can be read as JSON, and header values may be
percent-encoded or raw.
"""

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID

from holdfast.domain.attributes import DELIVER_AT, attribute_faults, extensions_of
from holdfast.domain.data import is_json_type, media_type
from holdfast.domain.event import NewEvent
from holdfast.domain.moment import read_moment
from holdfast.domain.window import window_of
from holdfast.ingest.intake.faults import Fault, InvalidEvent, fail, pointer
from holdfast.ingest.intake.strict_json import Parsed, check_data, parse
from holdfast.ingest.intake.verbatim import data_text

__all__ = [
    "BATCH", "STRUCTURED", "UNREAD", "media_type", "read_event", "structured_event",
]  # fmt: skip

STRUCTURED = "application/cloudevents+json"

BATCH = "application/cloudevents-batch+json"

_ABSENT: Any = object()

Data = str | bytes | None
"""JSON text, bytes, or no data; as in :class:`~holdfast.domain.event.NewEvent`."""

UNREAD = ""
"""Stands for JSON whose text is not known; no JSON text is empty."""


def read_event(headers: Mapping[str, str], body: bytes, *, event_id: UUID, tenant: str) -> NewEvent:
    """The event in a request, to be recorded under ``event_id``.

    Raises:
        InvalidEvent: with every fault found.
    """
    content_type = headers.get("Content-Type", "")
    if media_type(content_type) == STRUCTURED:
        parsed = parse(body, where="")
        event = structured_event(parsed, parsed.value, data_text(body), event_id=event_id, tenant=tenant)
        if event.data_json == UNREAD:
            fail("/data", "invalid_json", "the text of data cannot be told apart")
        return event
    attributes, data = _binary(headers.items(), content_type, body)
    return _checked(attributes, data, _header, event_id=event_id, tenant=tenant)


def structured_event(
    parsed: Parsed, envelope: Any, content: bytes | None, *, event_id: UUID, tenant: str
) -> NewEvent:  # fmt: skip
    """The event in the JSON value of a structured one, in what was parsed. ``content``: the text of its ``data``.

    Without it the event is checked all the same, and has :data:`UNREAD` for data.

    Raises:
        InvalidEvent: with every fault found.
    """
    attributes, data = _structured(parsed, envelope, content)
    return _checked(attributes, data, pointer, event_id=event_id, tenant=tenant)


def _checked(
    attributes: dict[str, Any], data: Data, place_of: Callable[[str], str], *, event_id: UUID, tenant: str
) -> NewEvent:
    # A JSON null is an absent attribute (JSON event format 2.2).
    present = {name: value for name, value in attributes.items() if value is not None}
    faults = [Fault(place_of(name), code, detail) for name, code, detail in attribute_faults(present)]
    if faults:
        raise InvalidEvent(faults)
    return _event(present, data, event_id=event_id, tenant=tenant)


def _structured(parsed: Parsed, envelope: Any, content: bytes | None) -> tuple[dict[str, Any], Data]:
    if not isinstance(envelope, dict):
        fail("", "not_an_object", "a structured CloudEvent is one JSON object")
    attributes = envelope.copy()
    encoded, value = attributes.pop("data_base64", _ABSENT), attributes.pop("data", _ABSENT)
    if encoded is not _ABSENT and value is not _ABSENT:
        fail("/data_base64", "two_kinds_of_data", "an event has data or data_base64, not both")
    if encoded is not _ABSENT:
        return attributes, _decode_base64(encoded)
    if value is _ABSENT:
        return attributes, None
    attributes.setdefault("datacontenttype", "application/json")
    check_data(parsed, value, content, where="/data")
    return attributes, UNREAD if content is None else content.decode()


def _decode_base64(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        fail("/data_base64", "invalid_value", "data_base64 is a string in base64")


def _binary(headers: Iterable[tuple[str, str]], content_type: str, body: bytes) -> tuple[dict[str, Any], Data]:
    named = {name.lower(): value for name, value in headers if name.lower().startswith("ce-")}
    if not named:
        fail(
            "Content-Type", "not_a_cloudevent",
            f"send a CloudEvent: ce-* headers (binary mode) or Content-Type {STRUCTURED} (structured mode)",
        )  # fmt: skip
    attributes: dict[str, Any] = {name.removeprefix("ce-"): _header_value(name, value) for name, value in named.items()}
    if content_type:
        attributes["datacontenttype"] = content_type
    return attributes, _binary_data(media_type(content_type), body)


def _binary_data(kind: str, body: bytes) -> Data:
    if not body:
        return None
    if is_json_type(kind):
        return _json_body(body)
    if kind:
        return body
    # The Python SDK sends a dict in binary mode without saying that it is JSON.
    try:
        return _json_body(body)
    except InvalidEvent:
        return body


def _json_body(body: bytes) -> str:
    parsed = parse(body, where="")
    check_data(parsed, parsed.value, body, where="")
    return body.decode()


def _header_value(name: str, value: str) -> str:
    """Undo the binding's encoding: optional double quotes, then percent-encoded UTF-8, once. WSGI hands over Latin-1."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeError:
        fail(name, "invalid_encoding", f"the header {name} is not percent-encoded UTF-8")


def _header(name: str) -> str:
    """The header that carries an attribute in binary mode."""
    return "Content-Type" if name == "datacontenttype" else f"ce-{name}"


def _event(present: Mapping[str, Any], data: Data, *, event_id: UUID, tenant: str) -> NewEvent:
    time, deliver_at = present.get("time"), present.get(DELIVER_AT)
    return NewEvent(
        id=event_id,
        tenant=tenant,
        source=present["source"],
        ce_id=present["id"],
        type=present["type"],
        subject=present.get("subject"),
        time=read_moment(time) if time else None,
        audience=present.get("audience"),
        datacontenttype=present.get("datacontenttype"),
        dataschema=present.get("dataschema"),
        extensions=extensions_of(present),
        data_json=data if isinstance(data, str) else None,
        data_bytes=data if isinstance(data, bytes) else None,
        traceparent=present.get("traceparent"),
        deliver_at=read_moment(deliver_at) if deliver_at else None,
        window=window_of(present),
    )
