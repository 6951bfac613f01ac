"""Reading a CloudEvent 1.0 from an HTTP request, in structured or binary mode. Pure: headers and body in, event out.

Follows the CloudEvents specification 1.0.2, its JSON event format and its HTTP protocol binding, and is as lenient as
the SDKs need: a binary event without Content-Type is JSON if it can be read as JSON, and header values may be
percent-encoded or raw.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes
from uuid import UUID

from holdfast.domain.errors import InvalidTopic
from holdfast.domain.event import NewEvent, canonical_json
from holdfast.domain.topics import check_topic

__all__ = ["MAX_ATTRIBUTE_LENGTH", "MAX_DEPTH", "Fault", "InvalidEvent", "is_structured", "read_event"]

MAX_ATTRIBUTE_LENGTH = 1024
"""Characters of one attribute's value. Identities are indexed, and an index entry has to fit a third of a page."""

MAX_EXTENSIONS = 50
MAX_DEPTH = 100
"""Nesting of data. Deeper JSON is an attack on parsers more often than it is data."""

STRUCTURED = "application/cloudevents+json"

_NAMES = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
_REQUIRED = ("specversion", "id", "source", "type")
_EXTENSION = re.compile(r"[a-z0-9]{1,64}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the input. ``where`` is a JSON pointer or a header's name."""

    where: str
    code: str
    detail: str

    def as_dict(self) -> dict[str, str]:
        """As an entry of a problem's ``errors``."""
        kind = "pointer" if self.where.startswith("/") or not self.where else "header"
        return {kind: self.where, "code": self.code, "detail": self.detail}


class InvalidEvent(ValueError):
    """The request is not a CloudEvent; ``faults`` says everything that is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(fault.detail for fault in faults))
        self.faults = faults


def is_structured(content_type: str) -> bool:
    """Whether a Content-Type announces one event as a JSON document."""
    return _media_type(content_type) == STRUCTURED


def read_event(headers: Mapping[str, str], body: bytes, *, event_id: UUID, tenant: str) -> NewEvent:
    """The event in a request, to be recorded under ``event_id``.

    Raises:
        InvalidEvent: with every fault found.
    """
    content_type = headers.get("Content-Type", "")
    if is_structured(content_type):
        attributes, data = _structured(body)
        where = "/{}"
    else:
        attributes, data = _binary(headers.items(), content_type, body)
        where = "ce-{}"
    return _event(attributes, data, where=where, event_id=event_id, tenant=tenant)


def _structured(body: bytes) -> tuple[dict[str, Any], str | bytes | None]:
    envelope = _parse_json(body, where="")
    if not isinstance(envelope, dict):
        _fail("", "not_an_object", "a structured CloudEvent is one JSON object")
    attributes = {name: value for name, value in envelope.items() if name not in ("data", "data_base64")}
    if "data" in envelope and "data_base64" in envelope:
        _fail("/data_base64", "two_kinds_of_data", "an event has data or data_base64, not both")
    if "data_base64" in envelope:
        return attributes, _decode_base64(envelope["data_base64"])
    if "data" not in envelope:
        return attributes, None
    attributes.setdefault("datacontenttype", "application/json")
    return attributes, _storable(envelope["data"], where="/data")


def _binary(
    headers: Iterable[tuple[str, str]], content_type: str, body: bytes
) -> tuple[dict[str, Any], str | bytes | None]:
    attributes: dict[str, Any] = {}
    for name, value in headers:
        if name.lower().startswith("ce-"):
            attributes[name[3:].lower()] = _header_value(name.lower(), value)
    if not attributes:
        _fail(
            "Content-Type", "not_a_cloudevent",
            f"send a CloudEvent: ce-* headers (binary mode) or Content-Type {STRUCTURED} (structured mode)",
        )  # fmt: skip
    media_type = _media_type(content_type)
    if content_type:
        attributes["datacontenttype"] = content_type
    if not body:
        return attributes, None
    if media_type == "application/json" or media_type.endswith("+json"):
        return attributes, _storable(_parse_json(body, where="/data"), where="/data")
    return attributes, body if media_type else _json_or_bytes(body)


def _json_or_bytes(body: bytes) -> str | bytes:
    # The Python SDK sends a dict in binary mode without saying that it is JSON.
    try:
        return _storable(_parse_json(body, where="/data"), where="/data")
    except InvalidEvent:
        return body


def _event(
    attributes: dict[str, Any], data: str | bytes | None, *, where: str, event_id: UUID, tenant: str
) -> NewEvent:
    # A JSON null is an absent attribute (JSON event format 2.2).
    present = {name: value for name, value in attributes.items() if value is not None}
    faults = [*_missing(present, where), *_bad_values(present, where)]
    if faults:
        raise InvalidEvent(faults)
    time = present.get("time")
    known = {"specversion", *_NAMES, "audience", "traceparent"}
    return NewEvent(
        id=event_id,
        tenant=tenant,
        source=present["source"],
        ce_id=present["id"],
        type=present["type"],
        subject=present.get("subject"),
        time=datetime.fromisoformat(time.upper()).astimezone(UTC) if time else None,
        audience=present.get("audience"),
        datacontenttype=present.get("datacontenttype"),
        dataschema=present.get("dataschema"),
        extensions={name: value for name, value in present.items() if name not in known},
        data_json=data if isinstance(data, str) else None,
        data_bytes=data if isinstance(data, bytes) else None,
        traceparent=present.get("traceparent"),
    )


def _missing(present: Mapping[str, Any], where: str) -> list[Fault]:
    return [
        Fault(where.format(name), "missing", f"the attribute {name} is required and not empty")
        for name in _REQUIRED
        if present.get(name) in (None, "")
    ]


def _bad_values(present: Mapping[str, Any], where: str) -> list[Fault]:
    faults = []
    if len(present) > MAX_EXTENSIONS + len(_NAMES):
        faults.append(Fault(where.format(""), "too_many_attributes", f"at most {MAX_EXTENSIONS} extension attributes"))
    for name, value in present.items():
        if fault := _fault(name, value):
            code, detail = fault
            faults.append(Fault(where.format(name), code, detail))
    return faults


def _fault(name: str, value: Any) -> tuple[str, str] | None:
    """``(code, detail)`` of what is wrong with one attribute."""
    is_extension = name not in (*_NAMES, "specversion", "audience", "traceparent")
    if is_extension and _EXTENSION.fullmatch(name) is None:
        return "invalid_name", "an extension attribute's name is 1 to 64 lower-case letters and digits"
    if is_extension and isinstance(value, int):  # booleans are integers here
        return None if -(2**31) <= value < 2**31 else ("invalid_value", "an integer attribute has 32 bits")
    if not isinstance(value, str):
        return "invalid_type", f"the attribute {name} must be a string"
    if len(value) > MAX_ATTRIBUTE_LENGTH:
        return "too_long", f"the attribute {name} has at most {MAX_ATTRIBUTE_LENGTH} characters"
    if not _is_text(value):
        return "invalid_value", f"the attribute {name} has control characters or half a surrogate pair"
    return _semantic_fault(name, value)


def _semantic_fault(name: str, value: str) -> tuple[str, str] | None:
    if name == "specversion" and value not in ("1.0", ""):
        return "unsupported_version", "specversion must be 1.0"
    if name == "time" and not _is_time(value):
        return "invalid_value", "time is an RFC 3339 timestamp with an offset, such as 2026-11-24T09:30:00Z"
    if name == "traceparent" and _TRACEPARENT.fullmatch(value) is None:
        return "invalid_value", "traceparent is a W3C trace context header"
    if name == "audience":
        try:
            check_topic(f"audience:{value}")
        except InvalidTopic as exc:
            return "invalid_value", f"audience becomes the topic audience:<value>: {exc}"
    return None


def _is_text(value: str) -> bool:
    # Cc: controls, which CloudEvents forbids; Cs: lone surrogates, which have no UTF-8.
    return not any(char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in value)


def _is_time(value: str) -> bool:
    if _TIME.fullmatch(value) is None:
        return False
    try:
        datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


def _header_value(name: str, value: str) -> str:
    """Undo the binding's encoding: optional double quotes, then percent-encoded UTF-8, once. WSGI hands over Latin-1."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeError:
        _fail(name, "invalid_encoding", f"the header {name} is not percent-encoded UTF-8")


def _decode_base64(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        _fail("/data_base64", "invalid_value", "data_base64 is a string in base64")


def _parse_json(body: bytes, *, where: str) -> Any:
    try:
        return json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_reject_constant)
    except UnicodeDecodeError:
        _fail(where, "invalid_encoding", "JSON is UTF-8")
    except RecursionError:
        _fail(where, "too_deep", f"JSON is nested at most {MAX_DEPTH} levels deep")
    except ValueError as exc:
        _fail(where, "invalid_json", f"not JSON: {_without_document(exc)}")


def _without_document(exc: ValueError) -> str:
    if isinstance(exc, json.JSONDecodeError):
        return f"{exc.msg} at line {exc.lineno} column {exc.colno}"
    return str(exc)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # Two parsers in a row may each take another one: better no event than two readings of it.
        raise ValueError("an object has a name twice")
    return members


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _storable(value: Any, *, where: str) -> str:
    """Canonical JSON text that PostgreSQL's jsonb takes."""
    if _depth_exceeds(value, MAX_DEPTH):
        _fail(where, "too_deep", f"data is nested at most {MAX_DEPTH} levels deep")
    try:
        text = canonical_json(value)
        text.encode()
    except UnicodeEncodeError:
        _fail(where, "invalid_text", "data has half a surrogate pair, which is no character")
    except ValueError:
        _fail(where, "number_out_of_range", "data has a number beyond the range of a double")
    if "\\u0000" in text and "\x00" in "".join(_strings(value)):
        _fail(where, "invalid_text", r"data has a \u0000, which PostgreSQL can not store; send it as data_base64")
    return text


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [member for member in members if isinstance(member, dict | list)]


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for member in value.values():
            yield from _strings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _strings(member)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _fail(where: str, code: str, detail: str) -> NoReturn:
    raise InvalidEvent([Fault(where, code, detail)])
