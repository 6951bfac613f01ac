"""The doorbell: ingest rings it, maintenance rings it again, the processor answers."""

import base64
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from dramatiq import Message

from holdfast.client import Client
from holdfast.domain.event import Doorbell
from holdfast.local.fixtures import Eventually
from holdfast.messaging.brokers import open_bell
from holdfast.messaging.contracts import DoorbellV1
from holdfast.messaging.doorbell import QUEUE, SUSPECT_QUEUE, encoded, message_of

pytestmark = pytest.mark.xdist_group("contract")

Golden = Callable[[str], dict[str, Any]]

ANSWER = """
import base64, inspect, json
from dramatiq import Message
from holdfast.processor.handlers.discovery import discover
from holdfast.processor.worker.board import Board
from holdfast.processor.worker.canary import Canary
from holdfast.processor.worker.parts import parts
from holdfast.processor.worker.roles import roles
from holdfast.runtime.settings import ProcessorSettings, load
settings = load(ProcessorSettings).model_copy(update={{"no_handler_seconds": 0}})
made = parts(settings, roles(settings)[-1], discover(settings.handlers), Canary(), Board([]))
broker = made.bell._broker
message = Message.decode(base64.b64decode({body!r}))
actor = broker.get_actor(message.actor_name)
bound = inspect.signature(actor.fn).bind(*message.args, **message.kwargs)
for lease in made.executor.claim([actor.fn(*message.args, **message.kwargs)]):
    made.executor.run(lease)
print(json.dumps({{"queue": actor.queue_name, "declared": sorted(broker.actors), "arguments": dict(bound.arguments)}}))
"""
"""The processor's side: decode the bytes, let the actor read them, claim and run what they name."""


def answered_by_the_processor(edges: Any, body: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = edges.run(ANSWER.format(body=base64.b64encode(body).decode()))
    return answer


def rung(edges: Any, event_id: str) -> bytes:
    """The bytes in Redis that name this event; empty while there are none."""
    bodies: list[bytes] = edges.redis.hvals(f"dramatiq:{QUEUE}.msgs")
    return next((body for body in bodies if event_id.encode() in body), b"")


def test_the_golden_doorbell_is_what_ringing_makes(golden: Golden) -> None:
    example = golden("doorbell.v1")

    doorbell = Doorbell(UUID(example["event_id"]), example["version"])
    [(redis_id, body, *_)] = encoded(QUEUE, [doorbell])

    message: Message[None] = Message.decode(body.encode())
    assert dict(zip(DoorbellV1.model_fields, message.args, strict=True)) == example
    assert message.kwargs == {}
    made = message_of(doorbell).copy(
        message_id=message.message_id, message_timestamp=message.message_timestamp, options={"redis_message_id": redis_id}
    )  # fmt: skip
    assert body.encode() == made.encode(), "byte by byte what Dramatiq writes"


def test_every_doorbell_has_an_id_of_its_own_and_suspects_their_queue() -> None:
    doorbells = [Doorbell(uuid4(), version, is_suspect=True) for version in range(1, 600)]

    messages = [Message.decode(each.body.encode()) for each in encoded(SUSPECT_QUEUE, doorbells)]

    assert len({message.message_id for message in messages}) == len(doorbells)
    assert [message.args for message in messages] == [(str(each.event_id), each.version) for each in doorbells]
    assert {message.queue_name for message in messages} == {SUSPECT_QUEUE}


def test_the_processor_answers_the_doorbell_that_ingest_rings(
    edges: Any, client: Client, eventually: Eventually
) -> None:
    sent = client.send({"type": "com.acme.test", "data": {}})
    body = eventually(lambda: rung(edges, sent.event_id), message="ingest rang")

    answer = answered_by_the_processor(edges, body)

    assert answer["arguments"] == {"event_id": sent.event_id, "version": 1}
    assert DoorbellV1.model_validate(answer["arguments"]).version == sent.version
    assert (answer["queue"], answer["declared"]) == (QUEUE, ["process_event"])
    last_error = client.get(sent.event_id).last_error
    assert last_error is not None
    assert last_error.type == "no_handler", "it was claimed, and nobody handles its type"


def test_the_processor_answers_the_golden_doorbell(edges: Any, golden: Golden) -> None:
    example = golden("doorbell.v1")
    body = message_of(Doorbell(UUID(example["event_id"]), example["version"])).encode()

    assert answered_by_the_processor(edges, body)["arguments"] == example


def test_maintenance_and_ingest_ring_the_same_way(edges: Any, client: Client, eventually: Eventually) -> None:
    sent = client.send({"type": "com.acme.test", "data": {}})
    first = json.loads(eventually(lambda: rung(edges, sent.event_id)))
    other_id = uuid4()
    bell = open_bell(edges.redis_url, timeout_seconds=2, is_consumer=False)

    bell.ring([Doorbell(other_id, 1)])

    again = json.loads(eventually(lambda: rung(edges, str(other_id))))
    bell.close()
    assert set(first) == set(again)
    assert [first[name] for name in ("queue_name", "actor_name")] == [
        again[name] for name in ("queue_name", "actor_name")
    ]
    assert set(again["options"]) <= set(first["options"])
