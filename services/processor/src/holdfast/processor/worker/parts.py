"""What a worker process is made of."""

import os
from dataclasses import dataclass

from holdfast.messaging.announce import Announcer
from holdfast.messaging.bell import Bell, Listener
from holdfast.messaging.brokers import open_bell
from holdfast.messaging.live import Publisher, open_publisher
from holdfast.processor.attempt.execute import Executor
from holdfast.processor.handlers.registry import Handlers
from holdfast.processor.worker import databases, declaring, roles
from holdfast.processor.worker.board import Board
from holdfast.processor.worker.broker_watch import BrokerWatch
from holdfast.processor.worker.canary import Canary
from holdfast.processor.worker.crew import Crew
from holdfast.processor.worker.poller import Poller
from holdfast.processor.worker.presence import Presence, async_places, identity
from holdfast.processor.worker.recovery import Recovery
from holdfast.runtime.settings import ProcessorSettings
from holdfast.storage.database import Database

__all__ = ["Parts", "parts"]

MOST_AHEAD = 64
"""Events that wait for a thread, at most. A claim of a few dozen costs each of them as little as one of hundreds."""

BATCHES_AHEAD = 4
"""…or enough for that many full batches of the largest kind: each thread that ends one finds the next one full."""

LEAST_LEASE_SECONDS = 5.0
"""For events to wait for a thread at all: about twice the longest that one waits before it is given back (the crew's patience
and the time between two polls)."""

REDIS_TIMEOUT_SECONDS = 1.0
"""For publishing after a commit; the relay does it when Redis does not answer in time."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Connections, and what works with them.

    Attributes:
        claims: whose commits need not be durable.
        effects: in which handlers' effects and settling commit together.
        crew: runs what ``listeners`` have claimed by doorbells and ``poller`` without them.
    """

    claims: Database
    effects: Database
    bell: Bell
    publisher: Publisher
    executor: Executor
    crew: Crew
    poller: Poller
    broker_watch: BrokerWatch
    recovery: Recovery
    listeners: tuple[Listener, ...]
    presence: Presence

    def start(self) -> None:
        """Begin."""
        self.presence.begin()
        for part in (self.executor, self.broker_watch, self.crew):
            part.start()
        for listener in self.listeners:
            listener.start()
        self.poller.start()
        self.recovery.start()

    def are_alive(self) -> bool:
        """Whether every thread that takes part in the work runs, and the last poll is recent."""
        beside = (self.crew, self.executor, self.broker_watch, self.recovery)
        is_listening = all(listener.is_alive for listener in self.listeners)
        return is_listening and self.poller.is_alive() and all(part.is_alive for part in beside)

    def close(self) -> None:
        """End the threads, and let go of the servers."""
        self.executor.stop()
        self.recovery.stop()
        self.broker_watch.stop()
        self.presence.end()
        for connection in (self.bell, self.publisher, self.claims, self.effects):
            connection.close()


def parts(settings: ProcessorSettings, role: roles.Role, handlers: Handlers, canary: Canary, board: Board) -> Parts:
    """Put a worker process together; nothing runs yet."""
    claims, effects = databases.open_databases(settings, role)
    broker_url = settings.broker_url.get_secret_value()
    bell = open_bell(broker_url, timeout_seconds=REDIS_TIMEOUT_SECONDS, is_consumer=True)
    publisher = _publisher(settings)
    announcer = Announcer(publisher, bell)
    pools = settings.pools or handlers.pools()
    executor = Executor(
        handlers, claims=claims, effects=effects, announcer=announcer, owner=f"{settings.node_name}:{os.getpid()}",
        lease_seconds=settings.lease_seconds, no_handler_seconds=settings.no_handler_seconds, is_spoiled=canary.is_dead,
        is_logging_texts=settings.log_error_texts, pools=pools, is_async_full=lambda: crew.is_async_full(),
        # Without a broker whose turn it is has to be looked for.
        wake=lambda due: None if announcer.ring([due]) else poller.nudge(),
    )  # fmt: skip
    # A suspect may take its neighbours along; and nobody extends the lease of an event that waits.
    is_alone = role.is_suspect or settings.lease_seconds < LEAST_LEASE_SECONDS
    crew = Crew(
        executor, threads=role.threads, most_ahead=0 if is_alone else _most_ahead(handlers),
        async_places=async_places(settings, role, handlers), on_room=lambda: poller.nudge(), reserved=role.reserved,
    )  # fmt: skip
    poller = Poller(
        executor, crew, is_suspect=role.is_suspect, is_broker_answering=lambda: broker_watch.is_answering,
        is_any_due=lambda seconds: executor.is_any_due(is_suspect=role.is_suspect, overdue_seconds=seconds),
        next_wake=executor.next_wake, urgent_priority=settings.reserved_priority,
    )  # fmt: skip
    broker_watch = BrokerWatch(broker_url, on_loss=poller.nudge)
    presence = Presence(
        claims, identity(settings, role, handlers, board), board=board, crew=crew, running=executor.running,
        is_broker_answering=lambda: broker_watch.is_answering, seconds_since_poll=poller.seconds_since_poll,
    )  # fmt: skip
    return Parts(
        claims=claims, effects=effects, bell=bell, publisher=publisher, executor=executor, crew=crew, poller=poller,
        broker_watch=broker_watch, presence=presence,
        recovery=Recovery(
            effects, announcer, node_id=board.node_id, note_served=executor.note_served, hear=presence.turn,
            # One worker does it for the service; of those for suspects there is one.
            declare=declaring.Declaring(effects, handlers.schedules if role.is_suspect else ()).turn,
        ),
        listeners=tuple(bell.consume(each, room=crew.slots, answer=crew.answer) for each in roles.queues(role, pools)),
    )  # fmt: skip


def _publisher(settings: ProcessorSettings) -> Publisher:
    return open_publisher(
        settings.redis_url.get_secret_value(), timeout_seconds=REDIS_TIMEOUT_SECONDS,
        window_seconds=settings.live_window_seconds, window_updates=settings.live_window_updates,
    )  # fmt: skip


def _most_ahead(handlers: Handlers) -> int:
    return max(MOST_AHEAD, BATCHES_AHEAD * max((each.batch for each in handlers), default=1))
