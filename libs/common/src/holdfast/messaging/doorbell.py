"""The doorbell: a Dramatiq message that says "this event may be due". It carries an id and a version, never data.

The actor is named here once, so that ingest can ring without importing the processor. One permanent actor serves all
types: a message for an actor that a worker does not know goes straight to Dramatiq's dead queue.
"""

import os
import time
from collections.abc import Sequence

from dramatiq import Message

from holdfast.domain.event import Doorbell

__all__ = ["ACTOR", "QUEUE", "SUSPECT_QUEUE", "encoded", "message_of"]

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


def encoded(doorbells: Sequence[Doorbell]) -> list[tuple[str, str]]:
    """``(id in Redis, body)`` of each doorbell of one queue; the body is what Dramatiq makes of :func:`message_of`.

    Written out, since a message object with its two copies and its two UUIDs takes longer than all the rest of ringing.
    """
    moment, random = int(time.time() * 1000), os.urandom(16 * len(doorbells)).hex()
    messages = []
    for number, (event_id, version, is_suspect) in enumerate(doorbells):
        message_id = random[32 * number : 32 * number + 32]
        body = (
            f'{{"queue_name":"{SUSPECT_QUEUE if is_suspect else QUEUE}","actor_name":"{ACTOR}",'
            f'"args":["{event_id}",{version}],"kwargs":{{}},"options":{{"redis_message_id":"{message_id}"}},'
            f'"message_id":"{message_id}","message_timestamp":{moment}}}'
        )
        messages.append((message_id, body))
    return messages
