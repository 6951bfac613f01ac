"""The use cases of an operator: replay, discard or cancel an event, and announce it once that is committed."""

from dataclasses import dataclass
from uuid import UUID

from holdfast.domain.event import Doorbell
from holdfast.domain.state import State
from holdfast.ingest.connection import reconnecting
from holdfast.messaging.announce import Announcer
from holdfast.storage import operate
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.operate import Acted, Outcome

__all__ = ["Done", "Operator"]


@dataclass(frozen=True, slots=True)
class Done:
    """What to answer. ``is_enqueued``: this call rang the doorbell."""

    acted: Acted
    is_enqueued: bool = False


class Operator:
    """Acts on single events, for holders of keys with the scope ``operate``."""

    def __init__(self, database: Database, announcer: Announcer, *, grace_seconds: float) -> None:
        self._database = database
        self._announcer = announcer
        self._grace_seconds = grace_seconds

    def replay(self, actor: Actor, event_id: UUID, *, idempotency_key: str, data_json: str | None) -> Done | None:
        """See ``storage.operate.replay_event``; ``None``: there is no such event."""
        return self._announce(reconnecting(lambda: self._replay(actor, event_id, idempotency_key, data_json)))

    def discard(self, actor: Actor, event_id: UUID, *, idempotency_key: str) -> Done | None:
        """See ``storage.operate.discard_event``; ``None``: there is no such event."""
        return self._announce(reconnecting(lambda: self._discard(actor, event_id, idempotency_key)))

    def cancel(self, actor: Actor, event_id: UUID, *, idempotency_key: str) -> Done | None:
        """See ``storage.operate.cancel_event``; ``None``: there is no such event."""
        return self._announce(reconnecting(lambda: self._cancel(actor, event_id, idempotency_key)))

    def _replay(self, actor: Actor, event_id: UUID, idempotency_key: str, data_json: str | None) -> Acted | None:
        with self._database.transaction() as session:
            return operate.replay_event(
                session,
                actor,
                event_id,
                idempotency_key=idempotency_key,
                grace_seconds=self._grace_seconds,
                data_json=data_json,
            )

    def _discard(self, actor: Actor, event_id: UUID, idempotency_key: str) -> Acted | None:
        with self._database.transaction() as session:
            return operate.discard_event(session, actor, event_id, idempotency_key=idempotency_key)

    def _cancel(self, actor: Actor, event_id: UUID, idempotency_key: str) -> Acted | None:
        with self._database.transaction() as session:
            return operate.cancel_event(session, actor, event_id, idempotency_key=idempotency_key)

    def _announce(self, acted: Acted | None) -> Done | None:
        if acted is None:
            return None
        if acted.update is None or acted.outcome not in (Outcome.MOVED, Outcome.COPIED):
            return Done(acted)
        update = acted.update
        self._announcer.publish([update])
        is_due = update.state is State.QUEUED
        return Done(acted, is_due and self._announcer.ring([Doorbell.of(update)]))
