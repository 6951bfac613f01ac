"""Keep Redis's copy of the revoked live tokens complete, and forget revocations of tokens that have long expired."""

from collections.abc import Sequence

from holdfast.domain.revocation import Revocation
from holdfast.messaging.revocations import RevocationCopy
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log
from holdfast.storage import revocations, sweeps
from holdfast.storage.database import Database

__all__ = ["copy_revocations", "prune_revocations"]

log = logging.get(__name__)


def copy_revocations(database: Database, copy: RevocationCopy, *, limit: int) -> int:
    """Fill the copy when it is missing or behind, in batches of ``limit``; returns how many were copied.

    Raises:
        DatabaseUnavailable: as the copy was before, or with some more in it.
        LiveWindowUnavailable: the same.
    """

    def after(seq: int) -> Sequence[Revocation]:
        return database.call(revocations.revocations_after, seq, limit=limit)

    copied = copy.bring_up_to(sweeps.newest_revocation(database), after)
    if copied:
        log.info(Log.REVOCATIONS_COPIED, count=copied)
    return copied


def prune_revocations(database: Database, copy: RevocationCopy, *, limit: int) -> int:
    """Forget up to ``limit`` revocations that are older than any token can be; returns how many.

    Raises:
        DatabaseUnavailable: they are still in the table, and the next turn forgets them.
        LiveWindowUnavailable: the same.
    """
    with database.transaction() as session:
        expired = revocations.expired_revocations(session, limit=limit)
        # Before the commit: once the rows are gone nobody knows any more what to take out of the copy.
        copy.forget(expired)
        revocations.delete_revocations(session, expired)
    return len(expired)
