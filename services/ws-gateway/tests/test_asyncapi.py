"""``docs/asyncapi.yaml`` says what the gateway's own models say: frames, fields, codes, limits."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from holdfast.domain.state import State
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.frames import CLIENT_FRAMES, LIMITS, SERVER_FRAMES, SSE_FRAMES
from holdfast.messaging.contracts import UpdateV1
from holdfast.messaging.live import MAX_UPDATE_BYTES

MODELS: dict[str, type[BaseModel]] = {**CLIENT_FRAMES, **SSE_FRAMES}
INTERNAL_LIMITS = {"session_refresh_s"}
"""How often the gateway writes a session down is no concern of a client's."""


def messages(document: dict[str, Any], channel: str, operation: str) -> set[str]:
    """The messages that an operation names, each of which its channel has to have."""
    named = {message["$ref"].rpartition("/")[2] for message in document["operations"][operation]["messages"]}
    assert named <= set(document["channels"][channel]["messages"])
    return named


def test_every_frame_is_described_where_it_may_travel(asyncapi: Any) -> None:
    document = asyncapi.document

    assert set(document["components"]["messages"]) == set(MODELS)
    assert messages(document, "live", "command") == set(CLIENT_FRAMES)
    assert messages(document, "live", "inform") == set(SERVER_FRAMES)
    assert messages(document, "events", "stream") == set(SSE_FRAMES) - {"ping"}
    assert set(document["channels"]["live"]["messages"]) == set(CLIENT_FRAMES) | set(SERVER_FRAMES)


def test_it_can_be_written_as_json(asyncapi: Any) -> None:
    """Tools refuse keys that are numbers, which YAML allows."""
    assert json.loads(json.dumps(asyncapi.document)) == asyncapi.document


def test_every_reference_leads_somewhere(asyncapi: Any) -> None:
    references = list(refs(asyncapi.document))

    assert references
    for reference in references:
        assert asyncapi.at(reference) is not None, reference


@pytest.mark.parametrize("kind", MODELS)
def test_fields_are_those_of_the_model(asyncapi: Any, kind: str) -> None:
    payload, model = asyncapi.payload(kind), MODELS[kind]

    assert set(payload["properties"]) == set(model.model_fields)
    assert set(payload["required"]) == required(model)
    assert payload.get("additionalProperties", True) is (kind not in {**SERVER_FRAMES, **SSE_FRAMES})


def test_an_event_s_fields_are_those_of_the_contract(asyncapi: Any) -> None:
    event = asyncapi.document["components"]["schemas"]["event"]

    assert set(event["properties"]) == set(UpdateV1.model_fields) == set(event["required"])
    assert set(event["properties"]["state"]["enum"]) == set(map(str, State))


@pytest.mark.parametrize("kind", MODELS)
def test_examples_are_valid_for_both(asyncapi: Any, kind: str) -> None:
    examples = asyncapi.document["components"]["messages"][kind]["examples"]

    assert examples
    for example in examples:
        asyncapi.validate(example["payload"])
        MODELS[kind].model_validate_json(json.dumps(example["payload"]))


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "hello", "v": 2, "token": "t"},
        {"type": "hello", "v": 1},
        {"type": "hello", "v": 1, "token": "t", "positions": {"tenant:a": "0"}},
        {"type": "hello", "v": 1, "token": "t", "session": "no spaces"},
        {"type": "subscribe", "id": -1, "topics": [{"topic": "tenant:a"}]},
        {"type": "subscribe", "id": 1, "topics": []},
        {"type": "subscribe", "id": 1, "topics": ["tenant:a"]},
        {"type": "unsubscribe", "id": "", "topics": ["tenant:a"]},
        {"type": "token", "id": 1.5, "token": "t"},
        {"type": "gap", "topic": "tenant:a", "reason": "why", "pos": "a:1", "refetch": True, "jitter_ms": 1},
        {"type": "subscribed", "topic": "tenant:a", "pos": "a:01", "recovered": None},
        {"type": "error", "code": "else", "message": "", "temporary": True, "retry_ms": None},
    ],
)
def test_both_refuse_the_same(asyncapi: Any, frame: dict[str, Any]) -> None:
    assert not asyncapi.is_valid(frame)
    with pytest.raises(ValidationError):
        MODELS[frame["type"]].model_validate_json(json.dumps(frame))


@pytest.mark.parametrize("channel", ["live", "events"])
def test_codes_and_limits_are_those_of_the_gateway(asyncapi: Any, channel: str) -> None:
    described = asyncapi.document["channels"][channel]

    assert {code: each["reconnect"] for code, each in described["x-close-codes"].items()} == {
        str(int(code)): not code.is_terminal for code in CloseCode
    }
    assert {each["name"] for each in described["x-close-codes"].values()} == {code.name.lower() for code in CloseCode}
    limits = {name: value for name, value in asdict(LIMITS).items() if name not in INTERNAL_LIMITS}
    assert described["x-limits"] == limits | {"update_bytes": MAX_UPDATE_BYTES}


def required(model: type[BaseModel]) -> set[str]:
    """What a sender has to give: clients what has no default, the gateway all that is not optional."""
    optional: frozenset[str] | None = getattr(model, "OPTIONAL", None)
    if optional is not None:
        return set(model.model_fields) - optional
    return {"type"} | {name for name, field in model.model_fields.items() if field.is_required()}


def refs(node: Any) -> Any:
    """Every reference in the document."""
    if isinstance(node, dict):
        yield from [node["$ref"]] if "$ref" in node else []
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from refs(each)
