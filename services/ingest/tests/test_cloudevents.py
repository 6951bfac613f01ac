"""The parser alone: whatever comes in, it answers with an event or with faults, and what it takes PostgreSQL can store."""

import json
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.domain.data import Data, is_same_data
from holdfast.domain.event import NewEvent
from holdfast.ingest.intake.cloudevents import read_event
from holdfast.ingest.intake.faults import InvalidEvent

STRUCTURED = {"Content-Type": "application/cloudevents+json"}

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def data_of(event: NewEvent) -> Data:
    return Data(event.content, event.data_json is not None, event.datacontenttype)


def read(headers: dict[str, str], body: bytes) -> NewEvent:
    return read_event(headers, body, event_id=uuid4(), tenant="t")


@given(st.binary(max_size=300))
def test_no_body_gets_past_as_anything_but_an_event_or_faults(body: bytes) -> None:
    with pytest.raises(InvalidEvent) as caught:
        read(STRUCTURED, body)

    assert all(fault.code and fault.detail for fault in caught.value.faults)


@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=6))
def test_no_envelope_is_more_than_an_event_or_faults(envelope: dict[str, Any]) -> None:
    required = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}
    body = json.dumps(required | envelope).encode()

    try:
        event = read(STRUCTURED, body)
    except InvalidEvent as exc:
        assert exc.faults  # noqa: PT017
    else:
        assert event.source


@given(VALUES)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_equal_data_is_the_same_and_comes_back_equal(value: Any) -> None:
    envelope = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "data": value}

    def attempt(**options: Any) -> NewEvent | None:
        try:
            return read(STRUCTURED, json.dumps(envelope, **options).encode())
        except InvalidEvent:
            return None

    plain, indented = attempt(), attempt(indent=2, sort_keys=True)

    assert (plain is None) == (indented is None)
    if plain is not None and indented is not None:
        assert is_same_data(data_of(plain), data_of(indented))
        assert json.loads(plain.data_json or "") == value


@given(st.dictionaries(st.sampled_from(["ce-id", "ce-type", "ce-subject", "ce-time", "ce-x"]), st.text(max_size=20)))
def test_no_header_is_more_than_an_event_or_faults(headers: dict[str, str]) -> None:
    required = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/a", "ce-type": "t"}

    try:
        event = read(required | headers, b"")
    except InvalidEvent as exc:
        assert all(fault.as_dict().keys() == {"header", "code", "detail"} for fault in exc.faults)  # noqa: PT017
    else:
        assert event.ce_id


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="*"), min_size=1, max_size=90))
def test_any_unicode_without_controls_names_an_audience_in_both_modes(name: str) -> None:
    name = name.encode()[:255].decode(errors="ignore")
    envelope = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "audience": name}
    headers = {f"ce-{attribute}": quote(value, safe="") for attribute, value in envelope.items()}

    assert read(STRUCTURED, json.dumps(envelope).encode()).audience == name
    assert read(headers, b"").audience == name


@pytest.mark.parametrize("name", ["a" * 256, "é" * 128], ids=["ascii", "two bytes each"])
def test_an_audience_of_more_than_255_bytes_is_too_long(name: str) -> None:
    envelope = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "audience": name}

    with pytest.raises(InvalidEvent) as caught:
        read(STRUCTURED, json.dumps(envelope).encode())

    assert [(fault.where, fault.code) for fault in caught.value.faults] == [("/audience", "too_long")]
    assert "255 bytes" in caught.value.faults[0].detail
