"""The use cases of pauses: what is not to be begun until somebody resumes it, each in a transaction of its own."""

from uuid import UUID

from holdfast.domain.pauses import SHARED, Paused, PauseKind
from holdfast.ingest.connection import reconnecting
from holdfast.storage import Session, pauses
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database

__all__ = ["ForAdministrators", "find_pause", "list_pauses", "pause", "resume"]


class ForAdministrators(Exception):
    """Handlers and pools work for all tenants, as nodes do."""


def list_pauses(database: Database, tenant: str) -> list[Paused]:
    """Those that concern a tenant, newest first."""
    return reconnecting(lambda: database.call(pauses.list_pauses, tenant))


def find_pause(database: Database, pause_id: UUID, tenant: str) -> Paused | None:
    """One that concerns a tenant, or ``None``."""
    return reconnecting(lambda: database.call(pauses.find, pause_id, tenant=tenant))


def pause(
    database: Database, actor: Actor, kind: PauseKind, name: str, *, note: str | None, is_admin: bool
) -> tuple[Paused, bool]:
    """The pause, and whether it is new. The name has been checked (``domain.pauses.is_pausable``).

    Raises:
        ForAdministrators: a handler or a pool, and the actor is none.
        TooManyPauses: one has to be resumed first.
    """
    if kind in SHARED and not is_admin:
        raise ForAdministrators
    return reconnecting(lambda: database.call(pauses.pause, actor, kind, name, note_text=note))


def resume(database: Database, actor: Actor, pause_id: UUID, *, is_admin: bool) -> Paused | None:
    """End a pause; what it was, or ``None``: the actor's tenant has no such pause.

    Raises:
        ForAdministrators: it holds for every tenant, and the actor is none.
    """

    def end(session: Session) -> Paused | None:
        found = pauses.find(session, pause_id, tenant=actor.tenant)
        if found is not None and found.kind in SHARED and not is_admin:
            raise ForAdministrators
        return pauses.resume(session, actor, pause_id)

    return reconnecting(lambda: database.call(end))
