"""The doorbell: a Dramatiq message that says "this event may be due". It carries an id and a version, never data.

The actor is named here once, so that ingest can ring without importing the processor. One permanent actor serves all
types: a message for an actor that a worker does not know goes straight to Dramatiq's dead queue.
"""

from collections.abc import Iterable
from uuid import UUID

from dramatiq import Message

from holdfast.messaging.broker import DoorbellBroker

__all__ = ["ACTOR", "QUEUE", "doorbell", "ring"]

ACTOR = "process_event"
QUEUE = "events"


def doorbell(event_id: UUID, version: int, *, traceparent: str | None = None) -> Message[None]:
    """The message; its arguments are the contract ``doorbell.v1``."""
    options = {"traceparent": traceparent} if traceparent else {}
    return Message(queue_name=QUEUE, actor_name=ACTOR, args=(str(event_id), version), kwargs={}, options=options)


def ring(broker: DoorbellBroker, doorbells: Iterable[tuple[UUID, int]], *, traceparent: str | None = None) -> None:
    """Ring for each ``(event_id, version)``, after the commit that made it due.

    Raises:
        redis.exceptions.RedisError: the broker is unreachable; the events are found again by other means.
    """
    broker.enqueue_many(doorbell(event_id, version, traceparent=traceparent) for event_id, version in doorbells)
