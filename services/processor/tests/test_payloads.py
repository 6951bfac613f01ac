"""What a handler's annotation makes of an event's data."""

import dataclasses
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from holdfast.domain.event import StoredEvent
from holdfast.processor.handlers.outcomes import InvalidData
from holdfast.processor.handlers.payloads import valid_payload
from holdfast.runtime.ids import utc_now


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime


class Order(BaseModel):
    price: Decimal
    at: datetime
    parts: tuple[int, ...]


def event(content: bytes | None, *, is_json: bool = True) -> StoredEvent:
    return StoredEvent(
        id=uuid4(), tenant="t", source="/s", ce_id="1", type="x", subject=None, time=None, audience=None,
        datacontenttype=None, dataschema=None, extensions={}, content=content, is_json=is_json, traceparent=None,
        received_at=utc_now(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("annotation", "stored", "payload"),
    [
        (dict, event(b'{"b": 1.10, "a": "\\u0000"}'), {"b": 1.1, "a": "\0"}),
        (Any, event(b"null"), None),
        (Any, event(None, is_json=False), None),
        (bytes, event(b"\x00\xff", is_json=False), b"\x00\xff"),
        (str, event("ü".encode(), is_json=False), "ü"),
        (bytes, event(b'"text"'), b"text"),
        (datetime | str, event(b'"2026-11-24T09:30:00Z"'), "2026-11-24T09:30:00Z"),
        (bytes | str, event(b'"text"'), "text"),
    ],
)
def test_an_annotation_gets_what_it_always_got(annotation: Any, stored: StoredEvent, payload: Any) -> None:
    assert valid_payload(TypeAdapter(annotation), stored) == payload


def test_a_model_reads_times_decimals_and_tuples_from_json() -> None:
    order = valid_payload(
        TypeAdapter(Order), event(b'{"price": 19.99, "at": "2026-11-24T09:30:00Z", "parts": [1, 2]}')
    )  # fmt: skip

    assert (order.price, order.at.year, order.parts) == (Decimal("19.99"), 2026, (1, 2))


def test_a_strict_model_takes_no_text_for_a_time() -> None:
    with pytest.raises(InvalidData):
        valid_payload(TypeAdapter(Strict), event(b'{"at": "2026-11-24T09:30:00Z"}'))


def test_bytes_are_no_model() -> None:
    with pytest.raises(InvalidData):
        valid_payload(TypeAdapter(Order), event(b'{"price": 1}', is_json=False))


def test_data_is_parsed_once_and_only_when_it_is_asked_for() -> None:
    stored = event(b'{"a": 1}')

    assert "data" not in vars(stored)
    assert stored.data is stored.data
    assert dataclasses.replace(stored, content=b"2").data == 2
