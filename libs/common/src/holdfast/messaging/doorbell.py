"""The doorbell: a Dramatiq message that says "this event may be due". It carries an id and a version, never data.

The actor is named here once, so that ingest can ring without importing the processor. One permanent actor serves all
types: a message for an actor that a worker does not know goes straight to Dramatiq's dead queue.
"""

from collections.abc import Iterable
from uuid import UUID

from dramatiq import Message

from holdfast.domain.event import Doorbell
from holdfast.messaging.broker import DoorbellBroker

__all__ = ["ACTOR", "QUEUE", "SUSPECT_QUEUE", "doorbell", "ring"]

ACTOR = "process_event"
QUEUE = "events"

SUSPECT_QUEUE = "suspect"
"""For events whose worker was lost before: they are tried one at a time, where no neighbour is lost with them."""


def doorbell(
    event_id: UUID, version: int, is_suspect: bool = False, *, traceparent: str | None = None
) -> Message[None]:
    """The message; its arguments are the contract ``doorbell.v1``."""
    options = {"traceparent": traceparent} if traceparent else {}
    queue = SUSPECT_QUEUE if is_suspect else QUEUE
    return Message(queue_name=queue, actor_name=ACTOR, args=(str(event_id), version), kwargs={}, options=options)


def ring(
    broker: DoorbellBroker, doorbells: Iterable[Doorbell | tuple[UUID, int]], *, traceparent: str | None = None
) -> None:
    """Ring for each event, after the commit that made it due.

    Raises:
        redis.exceptions.RedisError: the broker is unreachable; the events are found again by other means.
    """
    broker.enqueue_many(doorbell(*each, traceparent=traceparent) for each in doorbells)
