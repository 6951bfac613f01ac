"""The doorbell: a Dramatiq message that says "this event may be due". It carries an id and a version, never data.

The actor is named here once, so that ingest can ring without importing the processor. One permanent actor serves all
types: a message for an actor that a worker does not know goes straight to Dramatiq's dead queue.
"""

from dramatiq import Message

from holdfast.domain.event import Doorbell

__all__ = ["ACTOR", "QUEUE", "SUSPECT_QUEUE", "message_of"]

ACTOR = "process_event"
QUEUE = "events"

SUSPECT_QUEUE = "suspect"
"""For events whose worker was lost before: they are tried one at a time, where no neighbour is lost with them."""


def message_of(doorbell: Doorbell) -> Message[None]:
    """The message; its arguments are the contract ``doorbell.v1``."""
    return Message(
        queue_name=SUSPECT_QUEUE if doorbell.is_suspect else QUEUE,
        actor_name=ACTOR,
        args=(str(doorbell.event_id), doorbell.version),
        kwargs={},
        options={},
    )
