"""The use case: revoke live tokens, and only then tell the gateways; and keep the copy in Redis that those ask."""

from collections.abc import Sequence

from holdfast.domain.errors import DatabaseUnavailable, LiveWindowUnavailable
from holdfast.domain.revocation import Revocation, RevocationKind
from holdfast.ingest.connection import reconnecting
from holdfast.messaging.revocations import RevocationCopy
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log
from holdfast.storage import revocations
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database

__all__ = ["COPY_SECONDS", "Revoker"]

log = logging.get(__name__)

COPY_SECONDS = 5.0
"""Between two looks at the copy. Maintenance looks every second; this is for while it is away."""

BATCH = 500


class Revoker:
    """Revokes live tokens, for holders of keys with the scope ``operate``."""

    def __init__(self, database: Database, copy: RevocationCopy) -> None:
        self._database = database
        self._copy = copy

    def revoke(self, actor: Actor, kind: RevocationKind, name: str) -> tuple[Revocation, bool]:
        """Record a revocation, then tell the gateways; ``False``: they learn of it when Redis is back.

        Raises:
            DatabaseUnavailable: nothing was revoked, as far as is known; revoking again is safe.
        """
        revocation = reconnecting(lambda: self._record(actor, kind, name))
        is_told = self._copy.add(revocation)
        if not is_told:
            log.warning(Log.NOT_REVOKED_AT_ONCE, seq=revocation.seq)
        return revocation, is_told

    def refresh_copy(self) -> None:
        """Fill the copy in Redis when it is missing or behind. An outage is left to the next turn, and to maintenance."""
        try:
            with self._database.transaction() as session:
                newest = revocations.newest_seq(session)
            self._copy.bring_up_to(newest, self._after)
        except (DatabaseUnavailable, LiveWindowUnavailable) as exc:
            log.debug(Log.REVOCATIONS_NOT_COPIED, reason=type(exc).__name__)

    def _record(self, actor: Actor, kind: RevocationKind, name: str) -> Revocation:
        with self._database.transaction() as session:
            return revocations.record_revocation(session, actor, kind, name)

    def _after(self, seq: int) -> Sequence[Revocation]:
        with self._database.transaction() as session:
            return revocations.revocations_after(session, seq, limit=BATCH)
