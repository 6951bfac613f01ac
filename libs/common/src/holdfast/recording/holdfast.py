"""What an application records events with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from holdfast.domain.errors import IdentityTaken, InvalidName
from holdfast.domain.names import is_tenant
from holdfast.messaging.announce import Announcer
from holdfast.messaging.brokers import open_bell
from holdfast.messaging.live import open_publisher
from holdfast.recording.reading import new_event
from holdfast.storage import Session, events, sealing, windows
from holdfast.storage.after_commit import after_commit
from holdfast.storage.settling import Moved

__all__ = ["Holdfast", "Recorded"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an event. ``is_duplicate``: it was there already, with the same data; ``event_id`` is that one's."""

    event_id: UUID
    is_duplicate: bool


class Holdfast:
    """Records events in transactions of the application. One for the application's life, from any number of threads.

    Args:
        tenant: whose events these are.
        redis_url: Holdfast's Redis. With it clients and processors are told right after the commit; without it, or while it
            is away, processors and maintenance find the events within seconds.
        broker_url: where doorbells are rung, if that is another one.
        timeout_seconds: the longest that telling may take; it happens in the thread that commits.
        live_window_seconds, live_window_updates: as ``HOLDFAST_LIVE_WINDOW_SECONDS`` and ``HOLDFAST_LIVE_WINDOW_UPDATES`` of
            the services, if they are set: who publishes also cuts the window.
        encryption_keys: as ``HOLDFAST_ENCRYPTION_KEYS`` of the services. With them data of events is sealed; without them it
            is stored plain, whatever the services do.

    Raises:
        InvalidName: a tenant that none can have.
        ConfigurationError: an address that is none of Redis, or keys that are none.
    """

    def __init__(
        self, *, tenant: str, redis_url: str | None = None, broker_url: str | None = None, timeout_seconds: float = 1.0,
        live_window_seconds: int = 600, live_window_updates: int = 1000, encryption_keys: str | None = None,
    ) -> None:  # fmt: skip
        if not is_tenant(tenant):
            raise InvalidName(
                f"a tenant has 1 to 63 ASCII letters, digits, dots, dashes and underscores; not {tenant!r}"
            )
        self._tenant = tenant
        self._sealing = sealing.open_sealing(encryption_keys)
        self._announcer: Announcer | None = None
        if redis_url is not None:
            self._publisher = open_publisher(
                redis_url, timeout_seconds=timeout_seconds, window_seconds=live_window_seconds,
                window_updates=live_window_updates,
            )  # fmt: skip
            self._bell = open_bell(broker_url or redis_url, timeout_seconds=timeout_seconds, is_consumer=False)
            self._announcer = Announcer(self._publisher, self._bell)

    def record(self, session: Session, event: Mapping[str, Any]) -> Recorded:
        """Record an event in the session's transaction: it exists exactly if that is committed.

        Args:
            session: a session of SQLAlchemy on Holdfast's database (``AsyncSession``: ``await session.run_sync(…)``).
            event: CloudEvents attributes. ``type`` and ``source`` are required, ``id`` is made unless given. ``data`` is what
                JSON can carry, or a pydantic model. ``deliver_at`` is a datetime before which it is not due.
                ``debounce`` is a ``Debounce``: of the key's events only the last runs; ``unique`` a ``Unique``: only the
                first. Their attributes are taken too. Others with the key wait until the transaction ends.

        Raises:
            ValueError, TypeError: an attribute or the data is none; the message names each and says what to pass.
            KeyMissing: the tenant's data is sealed under a key that is not in ``encryption_keys``.
            IdentityTaken: the source has sent the id with other data or another type.
            sqlalchemy.exc.SQLAlchemyError: as any statement of the session.
        """
        new = new_event(event, self._tenant)
        with sealing.with_sealing(session, self._sealing):
            kept = windows.record(session, [new], grace_seconds=events.GRACE_SECONDS)
        [recorded] = kept.recorded
        if recorded.is_conflict:
            raise IdentityTaken(
                f"source {new.source!r} has sent the id {new.ce_id!r} with other data or another type; use a new id"
            )
        told = [each for each in (recorded, *windows.supersede(session, kept.superseding)) if each.is_new]
        if self._announcer is not None:
            for each in told:
                after_commit(session, self._announce, each)
        return Recorded(recorded.update.event_id, recorded.is_duplicate)

    def close(self) -> None:
        """Close the connections to Redis."""
        if self._announcer is not None:
            self._publisher.close()
            self._bell.close()

    def _announce(self, recorded: Sequence[events.Recorded]) -> None:
        if self._announcer is not None:
            moved = Moved((), recorded)
            self._announcer.publish(moved.all_updates)
            self._announcer.ring(moved.doorbells)
