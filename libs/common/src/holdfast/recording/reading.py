"""The event in the attributes that an application hands over."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from holdfast.domain.attributes import DELIVER_AT, attribute_faults, extensions_of
from holdfast.domain.data import json_text
from holdfast.domain.event import NewEvent
from holdfast.domain.moment import moment_text, read_moment
from holdfast.domain.window import window_of
from holdfast.domain.window_options import window_attributes
from holdfast.runtime.ids import uuid7

__all__ = ["new_event"]


def new_event(event: Mapping[str, Any], tenant: str) -> NewEvent:
    """The tenant's event with these attributes.

    Raises:
        ValueError, TypeError: an attribute or the data is none; the message names each.
    """
    given = dict(event)
    data, deliver_at, debounce, unique = (
        given.pop(name, None) for name in ("data", "deliver_at", "debounce", "unique")
    )
    given |= window_attributes(debounce, unique, given)
    if isinstance(deliver_at, datetime):
        given[DELIVER_AT] = moment_text(deliver_at)
    elif deliver_at is not None:
        raise ValueError(f"deliver_at is a datetime with a time zone, not {deliver_at!r}")
    if isinstance(given.get("time"), datetime):
        given["time"] = moment_text(given["time"])
    text = json_text(data)
    present = {name: value for name, value in given.items() if value is not None}
    present = {"specversion": "1.0", "id": uuid4().hex, **present}
    if faults := [detail for _, _, detail in attribute_faults(present)]:
        raise ValueError("; ".join(faults))
    due, time = present.get(DELIVER_AT), present.get("time")
    return NewEvent(
        id=uuid7(),
        tenant=tenant,
        source=present["source"],
        ce_id=present["id"],
        type=present["type"],
        subject=present.get("subject"),
        time=read_moment(time) if time else None,
        audience=present.get("audience"),
        datacontenttype=present.get("datacontenttype", None if text is None else "application/json"),
        dataschema=present.get("dataschema"),
        extensions=extensions_of(present),
        data_json=text,
        traceparent=present.get("traceparent"),
        deliver_at=read_moment(due) if due else None,
        window=window_of(present),
    )
