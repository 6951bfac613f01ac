"""The one Dramatiq actor. It serves all types, and always acknowledges: a doorbell is a hint."""

from uuid import UUID

import dramatiq

from holdfast.messaging import doorbell
from holdfast.messaging.broker import DoorbellBroker
from holdfast.processor.attempt.execute import Executor
from holdfast.processor.worker.slots import Slots

__all__ = ["declare"]


def declare(broker: DoorbellBroker, *, queue: str, executor: Executor, slots: Slots) -> None:
    """Let the broker's worker answer doorbells of a queue."""

    @dramatiq.actor(broker=broker, actor_name=doorbell.ACTOR, queue_name=queue)
    def process_event(event_id: str, version: int) -> None:
        """Answer one doorbell. Arguments are the contract ``doorbell.v1``."""
        with slots.one() as is_taken:
            # Without a slot the process is stopping. A poll, of another process or the next one, finds the event.
            if is_taken:
                executor.execute(UUID(event_id), version)
