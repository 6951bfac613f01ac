"""What answers say of how handlers run, as JSON values."""

from dataclasses import dataclass
from typing import Any

from holdfast.domain.declared import DeclaredHandler
from holdfast.domain.pauses import Paused, PauseKind
from holdfast.ingest.http.views import rfc3339
from holdfast.storage import Session
from holdfast.storage.declared import Load, declared_handlers, loads
from holdfast.storage.pauses import list_pauses

__all__ = ["DEFAULT_POOL", "Standing", "standing_view", "standings"]

DEFAULT_POOL = "default"
"""What the pool of handlers that name none is called."""

NOTHING = Load()


@dataclass(frozen=True, slots=True)
class Standing:
    """A handler as live processors declare it. ``load``: of those with a limit or a rate. ``pause``: what stops it."""

    handler: DeclaredHandler
    load: Load | None
    pause: Paused | None

    @property
    def pool(self) -> str:
        """The name of its pool, as settings have it."""
        return self.handler.pool or DEFAULT_POOL


def standings(session: Session, tenant: str) -> tuple[list[Standing], list[Paused]]:
    """Handlers by name, and all pauses that concern the tenant. A handler that only a pause names is among them."""
    declared, paused = declared_handlers(session), list_pauses(session, tenant)
    by_what = {(each.kind, each.name): each for each in paused}
    has_limits = any(each.limit or each.rate for each in declared)
    found = loads(session) if has_limits else {}
    known = [
        Standing(
            each, found.get(each.name, NOTHING) if each.limit or each.rate else None,
            by_what.get((PauseKind.HANDLER, each.name)) or by_what.get((PauseKind.POOL, each.pool or DEFAULT_POOL)),
        )
        for each in declared
    ]  # fmt: skip
    names = {each.name for each in declared}
    gone = [each for each in paused if each.kind is PauseKind.HANDLER and each.name not in names]
    known += [Standing(DeclaredHandler(each.name), None, each) for each in gone]
    return sorted(known, key=lambda each: each.handler.name), paused


def standing_view(standing: Standing) -> dict[str, Any]:
    """One handler, for operators: how much runs and waits is of all tenants."""
    handler, load = standing.handler, standing.load
    return {
        "name": handler.name,
        "priority": handler.priority,
        "pool": standing.pool,
        "limit": handler.limit and {"count": handler.limit.count, "key": handler.limit.key},
        "rate": handler.rate and {"count": handler.rate.count, "per": handler.rate.per, "key": handler.rate.key},
        "running": None if load is None or handler.limit is None else load.running,
        "waiting": None if load is None else load.waiting,
        "is_at_least": load is not None and load.is_at_least,
        "pause": standing.pause and _pause_view(standing.pause),
    }


def _pause_view(paused: Paused) -> dict[str, Any]:
    return {
        "pause_id": str(paused.id), "kind": paused.kind, "name": paused.name, "note": paused.note,
        "paused_by": paused.paused_by, "paused_at": rfc3339(paused.paused_at),
    }  # fmt: skip
