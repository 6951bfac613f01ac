"""The whole path through real processes: POST, record, doorbell, claim, handler, settle, publish, live update.

Also run against the containers (``make compose-test``).
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import pytest

from holdfast.client import Client, Subscribed, UpdateReceived, watch

pytestmark = pytest.mark.xdist_group("shared-stack")

MakeEvent = Callable[..., dict[str, Any]]


async def see(stack: dict[str, Any], client: Client, topic: str, event: dict[str, Any]) -> list[UpdateReceived]:
    """Subscribe, then send, then collect updates until the event is settled."""
    received: list[UpdateReceived] = []
    watching = watch(stack["live_url"], client.token([topic]).token, topics=[topic])
    async with asyncio.timeout(30), aclosing(watching) as frames:
        async for frame in frames:
            if isinstance(frame, Subscribed):
                await asyncio.to_thread(client.send, event)
            elif isinstance(frame, UpdateReceived):
                received.append(frame)
                if frame.event["state"] in ("processed", "dead"):
                    break
    return received


def test_a_client_sees_its_event_queued_processing_and_processed(
    e2e_stack: dict[str, Any], client: Client, push_event: MakeEvent
) -> None:
    topic = f"audience:user-{uuid4().hex}"
    event = push_event(audience=topic.partition(":")[2])

    received = asyncio.run(see(e2e_stack, client, topic, event))

    transitions = [frame.event for frame in received if frame.event["step"] == 0]
    assert [event["state"] for event in transitions] == ["queued", "processing", "processed"]
    assert [event["version"] for event in transitions] == [1, 2, 3]


def test_positions_are_contiguous_within_one_epoch(
    e2e_stack: dict[str, Any], client: Client, push_event: MakeEvent
) -> None:
    topic = f"audience:user-{uuid4().hex}"

    received = asyncio.run(see(e2e_stack, client, topic, push_event(audience=topic.partition(":")[2])))

    epochs, offsets = zip(*(frame.pos.rsplit(":", 1) for frame in received), strict=True)
    assert len(set(epochs)) == 1
    assert list(map(int, offsets)) == list(range(1, len(received) + 1))


def test_progress_is_told_while_the_handler_runs(
    e2e_stack: dict[str, Any], client: Client, push_event: MakeEvent
) -> None:
    topic = f"audience:user-{uuid4().hex}"

    received = asyncio.run(see(e2e_stack, client, topic, push_event(audience=topic.partition(":")[2])))

    progress = [frame.event for frame in received if frame.event["step"] == 1]
    assert [event["detail"]["progress"]["fraction"] for event in progress] == [0.5]
    assert [event["version"] for event in progress] == [2]


def test_an_event_ends_processed_with_data_and_timeline(client: Client, push_event: MakeEvent) -> None:
    event = push_event()
    event_id = client.send(event).event_id

    client.wait(event_id, timeout_seconds=30)

    view = client.get(event_id, include=["data", "timeline"])
    assert view.cloudevent["data"] == event["data"]
    assert [entry.state for entry in view.timeline or ()] == ["queued", "processing", "processed"]


def test_the_same_event_again_is_a_duplicate_of_the_first(client: Client, push_event: MakeEvent) -> None:
    event = push_event()
    first = client.send(event)
    client.wait(first.event_id, timeout_seconds=30)

    again = client.send(event)

    assert again.is_duplicate
    assert (again.event_id, again.state) == (first.event_id, "processed")


def test_a_type_without_handler_is_a_dead_letter_that_says_so(client: Client, push_event: MakeEvent) -> None:
    event_id = client.send(push_event(type="com.acme.unheard-of")).event_id

    view = client.wait(event_id, timeout_seconds=30)

    assert view.state == "dead"
    assert view.last_error is not None
    assert view.last_error.type == "no_handler"


def test_data_that_does_not_fit_the_model_is_a_dead_letter_without_the_data(
    client: Client, push_event: MakeEvent
) -> None:
    event_id = client.send(push_event(data={"repository": {"full_name": {"secret": "s3cret"}}})).event_id

    view = client.wait(event_id, timeout_seconds=30)

    assert view.state == "dead"
    assert view.last_error is not None
    assert view.last_error.type == "invalid_data"
    assert "s3cret" not in str(view.raw["last_error"])
