"""The bell on Redis: Dramatiq's messages and worker, on a :class:`DoorbellBroker`."""

from collections.abc import Sequence
from uuid import UUID

import dramatiq
from dramatiq import Worker

from holdfast.domain.errors import BrokerUnavailable
from holdfast.domain.event import Doorbell
from holdfast.messaging.bell import Answer
from holdfast.messaging.broker import DoorbellBroker
from holdfast.messaging.connect import translated
from holdfast.messaging.doorbell import ACTOR, QUEUE, SUSPECT_QUEUE, encoded

__all__ = ["RedisBell"]


class RedisBell:
    """See :class:`holdfast.messaging.bell.Bell`.

    Args:
        broker: made for consumers where :meth:`consume` is called.
    """

    def __init__(self, broker: DoorbellBroker) -> None:
        self._broker = broker

    def ring(self, doorbells: Sequence[Doorbell]) -> None:
        """Ring in one round trip for each 500 doorbells.

        Raises:
            BrokerUnavailable: Redis did not take all of them.
        """
        with translated(BrokerUnavailable):
            for queue, is_suspect in ((QUEUE, False), (SUSPECT_QUEUE, True)):
                self._broker.enqueue_encoded(
                    queue, encoded([each for each in doorbells if each.is_suspect is is_suspect])
                )

    def consume(self, queue: str, *, threads: int, answer: Answer) -> "_WorkerListener":
        """A Dramatiq worker for one queue; a bell has one for each queue at most."""
        return _WorkerListener(self._broker, queue, threads=threads, answer=answer)

    def ping(self) -> None:
        """Put a message on a queue that nobody consumes, and take it away again.

        Raises:
            BrokerUnavailable: Redis does not answer, is a read-only replica, or does not let this user ring.
        """
        with translated(BrokerUnavailable):
            self._broker.rehearse()

    def close(self) -> None:
        """Let go of Redis."""
        self._broker.client.close()


class _WorkerListener:
    def __init__(self, broker: DoorbellBroker, queue: str, *, threads: int, answer: Answer) -> None:
        @dramatiq.actor(broker=broker, actor_name=ACTOR, queue_name=queue)
        def process_event(event_id: str, version: int) -> None:
            """Answer one doorbell. Arguments are the contract ``doorbell.v1``."""
            answer(UUID(event_id), version)

        self._worker = Worker(broker, queues={queue}, worker_threads=threads)
        # More than the threads can take would keep doorbells from other replicas that are idle.
        self._worker.queue_prefetch = threads

    @property
    def is_alive(self) -> bool:
        threads = [*self._worker.workers, *self._worker.consumers.values()]
        return all(thread.is_alive() for thread in threads)

    def start(self) -> None:
        self._worker.start()

    def stop(self, *, timeout_seconds: float) -> None:
        for consumer in self._worker.consumers.values():
            consumer.stop()  # now: one that sleeps because Redis is down takes three seconds to notice
        self._worker.stop(timeout=int(timeout_seconds * 1000))
