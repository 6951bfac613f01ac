"""The use cases of retention and erasure, each in a transaction of its own."""

from uuid import UUID

from holdfast.domain.retention import RetentionRule
from holdfast.domain.state import State
from holdfast.ingest.connection import reconnecting
from holdfast.storage import erasures, retention
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.erasures import Erasure, ErasurePage
from holdfast.storage.retention import Retention

__all__ = ["Keeper"]


class Keeper:
    """How long events are kept, and erasing them, for holders of keys with the scope ``admin``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def retention(self, *, tenant: str) -> list[Retention]:
        """See ``storage.retention.list_retention``."""
        return reconnecting(lambda: self._database.call(retention.list_retention, tenant=tenant))

    def put_rule(self, actor: Actor, rule: RetentionRule) -> list[Retention]:
        """Make or change a rule; returns what is in force then."""
        reconnecting(lambda: self._database.call(retention.put_rule, actor, rule))
        return self.retention(tenant=actor.tenant)

    def remove_rule(self, actor: Actor, state: State) -> list[Retention] | None:
        """Go by the deployment's default again; ``None``: there was no rule."""
        was_there = reconnecting(lambda: self._database.call(retention.remove_rule, actor, state))
        return self.retention(tenant=actor.tenant) if was_there else None

    def erase(self, actor: Actor, subject: str | None, *, idempotency_key: str) -> Erasure | str:
        """See ``storage.erasures.begin_erasure``."""
        return reconnecting(
            lambda: self._database.call(
                erasures.begin_erasure, actor, subject, idempotency_key=idempotency_key
            )
        )  # fmt: skip

    def find_erasure(self, erasure_id: UUID, *, tenant: str) -> Erasure | None:
        """One erasure, or ``None``."""
        return reconnecting(lambda: self._database.call(erasures.find_erasure, erasure_id, tenant=tenant))

    def erasures(self, *, tenant: str, limit: int, before_id: UUID | None) -> ErasurePage:
        """See ``storage.erasures.list_erasures``."""
        return reconnecting(
            lambda: self._database.call(
                erasures.list_erasures, tenant=tenant, limit=limit, before_id=before_id
            )
        )  # fmt: skip
