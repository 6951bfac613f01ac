"""Frames as bytes."""

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter
from websockets.frames import Frame as ReferenceFrame
from websockets.frames import Opcode

from holdfast.domain.state import State
from holdfast.domain.update import Update as DomainUpdate
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.codec import Closing, Frame, parse_client_frame, update_frame, update_prefix
from holdfast.gateway.protocol.frames import (
    CLIENT_FRAMES,
    LIMITS,
    SERVER_FRAMES,
    Error,
    Hello,
    Subscribe,
    Subscribed,
    Update,
)
from holdfast.messaging.contracts import UpdateV1, encode_update


def parse(text: str | None) -> object:
    return parse_client_frame(text, limit_bytes=LIMITS.frame_bytes)


def closing(text: str | None) -> Closing:
    with pytest.raises(Closing) as caught:
        parse(text)
    assert len(caught.value.reason.encode()) <= 123
    return caught.value


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_the_websocket_header_is_the_standards(length: int) -> None:
    payload = b"x" * length

    reference = ReferenceFrame(Opcode.TEXT, payload).serialize(mask=False)

    assert Frame(payload).websocket == reference


def test_an_update_around_an_unparsed_body_is_the_models_update() -> None:
    body = encode_update(
        DomainUpdate(
            event_id=uuid4(),
            tenant="acme",
            type='com.acme."quoted"',
            audience=None,
            state=State.PROCESSED,
            version=3,
            attempt=1,
            at=datetime.now(UTC),
            detail={"result": {"text": "日本"}},
        )
    )

    frame = update_frame(update_prefix('audience:"a\\b" ü'), "run-1", 42, body.encode())

    update = Update.model_validate_json(frame.payload)
    assert (update.topic, update.pos) == ('audience:"a\\b" ü', "run-1:42")
    assert update.event == UpdateV1.model_validate_json(body)
    assert list(json.loads(frame.payload)) == list(Update.model_fields)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", CloseCode.PROTOCOL),
        ("[]", CloseCode.PROTOCOL),
        ("[" * 5000, CloseCode.PROTOCOL),
        (None, CloseCode.PROTOCOL),
        ('{"type":"publish"}', CloseCode.PROTOCOL),
        ('{"id":1}', CloseCode.PROTOCOL),
        ('{"type":["pong"]}', CloseCode.PROTOCOL),
        ('{"type":"subscribe","id":1,"topics":[]}', CloseCode.PROTOCOL),
        ('{"type":"subscribe","id":1,"topics":[{"topic":"audience:a","since":"nowhere"}]}', CloseCode.PROTOCOL),
        ('{"type":"subscribe","topics":[{"topic":"audience:a"}]}', CloseCode.PROTOCOL),
        ('{"type":"hello","v":1,"token":"t","topics":"audience:a"}', CloseCode.PROTOCOL),
        ('{"type":"hello","v":2,"token":"t"}', CloseCode.VERSION),
        ('{"type":"hello","v":true,"token":"t"}', CloseCode.VERSION),
        ('{"type":"hello","token":"t"}', CloseCode.VERSION),
        ('{"type":"hello","v":1}', CloseCode.BAD_TOKEN),
        ('{"type":"hello","v":1,"token":null}', CloseCode.BAD_TOKEN),
        ('{"type":"pong","pad":"' + "x" * 8192 + '"}', CloseCode.PROTOCOL),
        ('{"type":"pong","pad":"' + "日" * 4000 + '"}', CloseCode.PROTOCOL),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_understood_ends_the_connection(text: str | None, code: CloseCode) -> None:
    assert closing(text).code is code


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    assert "hush" not in closing('{"type":"token","id":1,"token":["hush"]}').reason


def test_unknown_fields_are_ignored() -> None:
    assert parse('{"type":"hello","v":1,"token":"t","color":"blue"}') == Hello(v=1, token="t")
    subscribe = parse('{"type":"subscribe","id":"a","topics":[{"topic":"audience:a","since":"e-1:0","x":1}]}')
    assert isinstance(subscribe, Subscribe)


def test_only_optional_fields_are_left_out() -> None:
    subscribed = json.loads(Subscribed(topic="audience:a", pos="e:0", recovered=None).encode())
    error = json.loads(Error(id=0, code="forbidden", message="m", temporary=False).encode())

    assert subscribed == {"type": "subscribed", "topic": "audience:a", "pos": "e:0", "recovered": None}
    assert error["id"] == 0


@pytest.mark.parametrize(("kind", "model"), [*CLIENT_FRAMES.items(), *SERVER_FRAMES.items()])
def test_every_frame_has_a_schema_and_goes_by_its_name(kind: str, model: type) -> None:
    schema = TypeAdapter(model).json_schema()

    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["type"]["const"] == kind


def test_terminal_codes_begin_at_4500() -> None:
    assert {code for code in CloseCode if code.is_terminal} == {code for code in CloseCode if code >= 4500}
    assert not CloseCode.UNAVAILABLE.is_terminal
    assert CloseCode.PROTOCOL.is_terminal
    assert len(CloseCode) == 16
