"""The bell on Redis: Dramatiq's messages and worker, on a :class:`DoorbellBroker`."""

import contextlib
import threading
from collections.abc import Sequence
from queue import Empty, PriorityQueue
from typing import Any
from uuid import UUID

import dramatiq
from dramatiq import Worker
from dramatiq.broker import MessageProxy
from dramatiq.worker import WorkerThread

from holdfast.domain.errors import BrokerUnavailable
from holdfast.domain.event import Doorbell
from holdfast.messaging.bell import Answer, Room, Rung
from holdfast.messaging.broker import DoorbellBroker, SleepingConsumer
from holdfast.messaging.connect import translated
from holdfast.messaging.doorbell import ACTOR, encoded, queue_of
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log

__all__ = ["RedisBell"]

log = logging.get(__name__)

MOST_AT_ONCE = 100
"""Doorbells of one answer: what is claimed in one statement."""

LOOK_MS = 3000
"""How long a listener sleeps that no bell wakes; then it looks whether one was lost, and shows that it lives. The processor's
poll finds a due event about as soon, and well within ``broker.HEARTBEAT_TIMEOUT_MS`` is enough for the other."""


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
            by_queue: dict[str, list[Doorbell]] = {}
            for each in doorbells:
                by_queue.setdefault(queue_of(each), []).append(each)
            for queue, rung in by_queue.items():
                self._broker.enqueue_encoded(queue, encoded(queue, rung))

    def consume(self, queue: str, *, room: Room, answer: Answer) -> "_WorkerListener":
        """A Dramatiq worker for one queue; a bell has one for each queue at most."""
        return _WorkerListener(self._broker, queue, room=room, answer=answer)

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


def _process_event(event_id: str, version: int) -> Doorbell:
    """Read one doorbell. Arguments are the contract ``doorbell.v1``."""
    return Doorbell(UUID(event_id), version)


class _WorkerListener:
    def __init__(self, broker: DoorbellBroker, queue: str, *, room: Room, answer: Answer) -> None:
        if ACTOR in broker.actors:  # one for all queues of this bell
            broker.declare_queue(queue)
        else:
            dramatiq.actor(broker=broker, actor_name=ACTOR, queue_name=queue)(_process_event)
        broker.limit(queue, room)
        self._worker = _ListWorker(broker, queue, room=room, answer=answer)

    @property
    def is_alive(self) -> bool:
        threads = [*self._worker.workers, *self._worker.consumers.values()]
        return all(thread.is_alive() for thread in threads)

    def start(self) -> None:
        self._worker.start()

    def stop(self, *, timeout_seconds: float) -> None:
        for consumer in self._worker.consumers.values():
            consumer.stop()  # now: one that sleeps because Redis is down takes three seconds to notice
            if isinstance(consumer.consumer, SleepingConsumer):
                consumer.consumer.interrupt()
        self._worker.stop(timeout=int(timeout_seconds * 1000))


class _ListWorker(Worker):
    """Dramatiq's worker with one thread, which answers all messages of a moment at once."""

    def __init__(self, broker: DoorbellBroker, queue: str, *, room: Room, answer: Answer) -> None:
        super().__init__(broker, queues={queue}, worker_threads=1, worker_timeout=LOOK_MS)
        self.work_queue = _WorkQueue()
        self._room = room
        self._answer = answer

    def _add_worker(self) -> None:
        thread = _Answering(
            broker=self.broker, consumers=self.consumers, work_queue=self.work_queue,
            worker_timeout=self.worker_timeout,
        )  # fmt: skip
        thread.room, thread.answer = self._room, self._answer
        thread.start()
        self.workers.append(thread)


class _WorkQueue(PriorityQueue[Any]):
    """A queue that nobody waits for any more once it is closed: then what is left in it is all there is."""

    def __init__(self) -> None:
        super().__init__()
        self._is_closed = False

    def close(self) -> None:
        with self.mutex:
            self._is_closed = True
            self.not_empty.notify_all()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        with self.not_empty:
            self.not_empty.wait_for(lambda: self._qsize() or self._is_closed, timeout if block else 0)
            if not self._qsize():
                raise Empty
            return self._get()


class _Answering(WorkerThread):
    """Messages are acknowledged when their doorbells are done, which other threads say."""

    room: Room
    answer: Answer
    work_queue: _WorkQueue

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._left = 0
        self._changed = threading.Condition()

    def run(self) -> None:
        """Until it is stopped, and then until what was answered is done."""
        super().run()
        with self._changed:
            self._changed.wait_for(lambda: self._left == 0)

    def stop(self) -> None:
        """Begin to stop, at once if there is nothing to do."""
        super().stop()
        self.work_queue.close()

    def process_message(self, message: MessageProxy) -> None:
        """Answer this message and those that wait behind it."""
        messages = [message]
        with contextlib.suppress(Empty):
            while len(messages) < MOST_AT_ONCE:
                messages.append(self.work_queue.get_nowait().message)
        rung = [each for each in map(self._rung, messages) if each is not None]
        try:
            if rung:
                self.answer(rung)
        except Exception:
            log.exception(Log.EXECUTION_BROKE)
            for each in rung:
                each.done()

    def _rung(self, message: MessageProxy) -> Rung | None:
        done = _Once(self, message)
        try:
            doorbell: Doorbell = self.broker.get_actor(message.actor_name)(*message.args, **message.kwargs)
        except (TypeError, ValueError):
            log.exception(Log.EXECUTION_BROKE)
            done()
            return None
        return Rung(doorbell.event_id, doorbell.version, done)

    def note_begun(self) -> None:
        with self._changed:
            self._left += 1

    def note_done(self, message: MessageProxy) -> None:
        consumer = self.consumers[message.queue_name].consumer
        if consumer is not None:
            consumer.ack(message)
        else:
            self.room.give_back(1)
        with self._changed:
            self._left -= 1
            if self._left == 0:
                self._changed.notify_all()


class _Once:
    """``done()`` of one message: what fails half-way may say it again."""

    __slots__ = ("_message", "_thread")

    def __init__(self, thread: _Answering, message: MessageProxy) -> None:
        thread.note_begun()
        self._thread = thread
        self._message: list[MessageProxy] = [message]

    def __call__(self) -> None:
        with contextlib.suppress(IndexError):
            self._thread.note_done(self._message.pop())
