"""The doorbell: a Dramatiq message that says "this event may be due". It carries an id and a version, never data.

The actor is named here once, so that ingest can ring without importing the processor. One permanent actor serves all
types: a message for an actor that a worker does not know goes straight to Dramatiq's dead queue.
"""

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from dramatiq import Message

from holdfast.domain.event import Doorbell
from holdfast.domain.turns import DEFAULT_PRIORITY

__all__ = ["ACTOR", "QUEUE", "SUSPECT_QUEUE", "Encoded", "encoded", "message_of", "pool_queue", "queue_of"]

ACTOR = "process_event"
QUEUE = "events"

SUSPECT_QUEUE = "suspect"
"""For events whose worker was lost before: they are tried one at a time, where no neighbour is lost with them."""

PRIORITY_TURNS = 1000
"""What a step of priority is worth on a queue: a doorbell of one lower is heard after a thousand turns of others, at most."""


def message_of(doorbell: Doorbell) -> Message[None]:
    """The message; its arguments are the contract ``doorbell.v1``."""
    return Message(
        queue_name=queue_of(doorbell),
        actor_name=ACTOR,
        args=(str(doorbell.event_id), doorbell.version),
        kwargs={},
        options={},
    )


class Encoded(NamedTuple):
    """A message for ``ring.lua``. ``share``: whose turn it takes; ``step``, how much of one; ``bonus``, in turns."""

    id: str
    body: str
    share: str = "5:"
    step: float = 1.0
    bonus: int = 0


def queue_of(doorbell: Doorbell) -> str:
    """The queue that it is rung on: that of its pool, if it is no suspect."""
    if doorbell.is_suspect:
        return SUSPECT_QUEUE
    return pool_queue(doorbell.pool)


def pool_queue(pool: str) -> str:
    """The queue of a pool, or of all handlers that name none."""
    return f"{QUEUE}.{pool}" if pool else QUEUE


def encoded(queue: str, doorbells: Sequence[Doorbell]) -> list[Encoded]:
    """The messages of one queue's doorbells; the body is what Dramatiq makes of :func:`message_of`.

    Written out, since a message object with its two copies and its two UUIDs takes longer than all the rest of ringing.
    """
    moment, random = int(time.time() * 1000), os.urandom(16 * len(doorbells)).hex()
    messages = []
    for number, (event_id, version, _, tenant, priority, _, weight) in enumerate(doorbells):
        message_id = random[32 * number : 32 * number + 32]
        body = (
            f'{{"queue_name":"{queue}","actor_name":"{ACTOR}",'
            f'"args":["{event_id}",{version}],"kwargs":{{}},"options":{{"redis_message_id":"{message_id}"}},'
            f'"message_id":"{message_id}","message_timestamp":{moment}}}'
        )
        bonus = (priority - DEFAULT_PRIORITY) * PRIORITY_TURNS
        messages.append(Encoded(message_id, body, f"{priority}:{tenant}", 1 / weight, bonus))
    return messages
