"""Retention: rules of tenants, and walks that carry them out (ADR 0052).

Each walk goes through the events of a tenant in a state, in the order of their ids, a page in a transaction, and begins anew
some minutes after it has ended. It has two places: up to ``marked`` identities are written down, up to ``passed`` events are
dropped, see ``storage.forgetting``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from holdfast.domain.retention import BY_DEFAULT, RetentionRule, days_in_force
from holdfast.domain.state import State
from holdfast.runtime.ids import first_uuid7
from holdfast.storage.audit import Actor, note
from holdfast.storage.forgetting import LOOK_UP, SETTLE_SECONDS, Ripe, drop, mark
from holdfast.storage.statements import statement

__all__ = [
    "IS_RETENTION_DUE",
    "REST_SECONDS",
    "Retention",
    "Walk",
    "Walked",
    "due_walks",
    "list_retention",
    "plan_walks",
    "put_rule",
    "remove_rule",
    "walk_page",
]

REST_SECONDS = 600.0
"""Between two walks. Each meets again what an earlier one has left."""

DAY_SECONDS = 86_400.0

IS_RETENTION_DUE = "next_at <= now()"

_PUT = text("""
INSERT INTO retention AS r (tenant, state, days, changed_by) VALUES (:tenant, :state, :days, :actor)
ON CONFLICT (tenant, state) DO UPDATE SET days = excluded.days, changed_by = excluded.changed_by, changed_at = now()
WHERE r.days IS DISTINCT FROM excluded.days
RETURNING tenant
""")

_REMOVE = text("DELETE FROM retention WHERE tenant = :tenant AND state = :state RETURNING days")

_BEGIN_ANEW = text("""
-- Waits for a page under way: once this is committed nothing goes by the rule of before.
INSERT INTO retention_walk (tenant, state) VALUES (:tenant, :state)
ON CONFLICT (tenant, state) DO UPDATE SET marked = NULL, passed = NULL, next_at = now()
""")

_LIST = text("""
-- Parameters: tenant; states, all that a rule can be made for, in order.
SELECT s.state, r.tenant IS NOT NULL AS has_rule, r.days, r.changed_by, r.changed_at, w.tenant IS NOT NULL AS is_walked,
       w.days AS days_in_force, coalesce(w.dropped, 0) AS dropped, w.ended_at
FROM unnest(CAST(:states AS text[])) WITH ORDINALITY AS s(state, place)
LEFT JOIN retention r ON r.tenant = :tenant AND r.state = s.state
LEFT JOIN retention_walk w ON w.tenant = :tenant AND w.state = s.state
ORDER BY s.place
""")

_PLAN = text("""
-- One look-up for each tenant, however many events there are. Parameter: states.
WITH RECURSIVE tenants AS (
    (SELECT tenant FROM event ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT e.tenant FROM event e WHERE e.tenant > t.tenant ORDER BY e.tenant LIMIT 1)
    FROM tenants t WHERE t.tenant IS NOT NULL
)
INSERT INTO retention_walk (tenant, state)
SELECT tenant, state FROM tenants CROSS JOIN unnest(CAST(:states AS text[])) AS s(state) WHERE tenant IS NOT NULL
ON CONFLICT (tenant, state) DO NOTHING
""")

_DUE = statement("""
SELECT tenant, state FROM retention_walk WHERE {due} ORDER BY next_at LIMIT :limit
""", due=IS_RETENTION_DUE)  # fmt: skip

_TAKE = statement("""
SELECT w.*, now() AS now, r.tenant IS NOT NULL AS has_rule, r.days AS rule_days
FROM retention_walk w LEFT JOIN retention r USING (tenant, state)
WHERE tenant = :tenant AND state = :state AND {due}
FOR NO KEY UPDATE OF w SKIP LOCKED
""", due=IS_RETENTION_DUE)  # fmt: skip

_PAGES = {
    State.PROCESSED: text("""
SELECT id FROM event WHERE tenant = :tenant AND id > :after AND id < :before ORDER BY id LIMIT :limit
"""),
    # Those few have an index of their own, behind any number of events that succeeded.
    State.DEAD: statement("""
SELECT event_id FROM processing_state
WHERE state = {DEAD} AND event_id > :after AND event_id < :before ORDER BY event_id LIMIT :limit
"""),
    State.DISCARDED: statement("""
SELECT event_id FROM processing_state
WHERE state = {DISCARDED} AND event_id > :after AND event_id < :before ORDER BY event_id LIMIT :limit
"""),
}
"""The ids of a state's walk, in order; those of others among them. Parameters: tenant, after, before, limit."""

_MOVE = text("""
UPDATE retention_walk SET marked = :marked, passed = :passed, days = :days, dropped = dropped + :dropped,
       next_at = now() + make_interval(secs => :rest_seconds), ended_at = CASE WHEN :is_over THEN now() ELSE ended_at END
WHERE tenant = :tenant AND state = :state
""")

_REST = text("""
-- Nothing is in force: until a rule is made, or the deployment has a default, there is nothing to do.
DELETE FROM retention_walk WHERE tenant = :tenant AND state = :state
""")

_NIL = UUID(int=0)

_ORDER = (State.PROCESSED, State.DISCARDED, State.DEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is in force for a state. ``rule``: the tenant's own, if it has one, with who changed it and when.

    ``days`` is what maintenance went by at its last turn, ``dropped`` how many events went by it until now, and
    ``ended_at`` when its last whole walk ended.
    """

    state: State
    rule: RetentionRule | None
    changed_by: str | None
    changed_at: datetime | None
    days: int | None
    dropped: int
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Walk:
    """Of a tenant and a state."""

    tenant: str
    state: State


@dataclass(frozen=True, slots=True)
class Walked:
    """What a page did. ``is_full``: there is more to do at once."""

    dropped: int = 0
    is_full: bool = False


def put_rule(session: Session, actor: Actor, rule: RetentionRule) -> None:
    """Make a tenant's rule for a state, or change it; audited. In force once this is committed."""
    keys = {"tenant": actor.tenant, "state": rule.state}
    changed = session.execute(_PUT, keys | {"days": rule.days, "actor": actor.key_id}).one_or_none()
    if changed is not None:
        session.execute(_BEGIN_ANEW, keys)
        note(session, actor, "set_retention", detail={"state": rule.state, "days": rule.days})


def remove_rule(session: Session, actor: Actor, state: State) -> bool:
    """Go by the deployment's default again; audited. Returns whether there was a rule."""
    keys = {"tenant": actor.tenant, "state": state}
    removed = session.execute(_REMOVE, keys).one_or_none()
    if removed is None:
        return False
    session.execute(_BEGIN_ANEW, keys)
    note(session, actor, "remove_retention", detail={"state": state, "days": removed.days})
    return True


def list_retention(session: Session, *, tenant: str) -> list[Retention]:
    """What is in force for a tenant, for each state that a rule can be made for."""
    rows = session.execute(_LIST, {"tenant": tenant, "states": list(_ORDER)})
    return [
        Retention(
            state=State(row.state), rule=RetentionRule(State(row.state), row.days) if row.has_rule else None,
            changed_by=row.changed_by, changed_at=row.changed_at, days=row.days_in_force, dropped=row.dropped,
            ended_at=row.ended_at,
        )
        for row in rows
    ]  # fmt: skip


def plan_walks(session: Session, *, default_days: int) -> None:
    """See that the default is carried out for every tenant that has events; 0: there is none."""
    if default_days > 0:
        session.execute(LOOK_UP)
        session.execute(_PLAN, {"states": sorted(BY_DEFAULT)})


def due_walks(session: Session, *, limit: int) -> list[Walk]:
    """Those that have something to do by now, the longest waiting first."""
    return [Walk(row.tenant, State(row.state)) for row in session.execute(_DUE, {"limit": limit})]


def walk_page(
    session: Session, walk: Walk, *, default_days: int, dedupe_seconds: float, limit: int,
    settle_seconds: float = SETTLE_SECONDS,
) -> Walked:  # fmt: skip
    """Mark a page of up to ``limit`` events, and drop one; nothing where another process has the walk."""
    taken = session.execute(_TAKE, {"tenant": walk.tenant, "state": walk.state}).one_or_none()
    if taken is None:
        return Walked()
    rule = RetentionRule(walk.state, taken.rule_days) if taken.has_rule else None
    days = days_in_force(walk.state, rule, default_days=default_days)
    if days is None:
        session.execute(_REST, {"tenant": walk.tenant, "state": walk.state})
        return Walked()
    session.execute(LOOK_UP)
    ripe = Ripe(
        tenant=walk.tenant, states=frozenset({walk.state}), ended_for_seconds=days * DAY_SECONDS,
        dedupe_seconds=dedupe_seconds,
    )  # fmt: skip
    return _walk_on(session, walk, taken, ripe, days, limit, settle_seconds)


def _walk_on(
    session: Session, walk: Walk, taken: Row[Any], ripe: Ripe, days: int, limit: int, settle_seconds: float
) -> Walked:
    before = first_uuid7(taken.now - timedelta(days=days))
    marked, passed = taken.marked or _NIL, taken.passed or _NIL
    ahead = _page(session, walk, after=marked, before=before, limit=limit)
    if ahead:
        mark(session, ahead, ripe)
        marked = ahead[-1]
    # Up to the last that is marked, itself included.
    page = _page(session, walk, after=passed, before=UUID(int=marked.int + 1), limit=limit)
    done = drop(session, page, ripe, settle_seconds=settle_seconds)
    if not done.settling:
        passed = page[-1] if len(page) == limit else marked  # one that was marked may have left the state since
    is_over = passed == marked and len(ahead) < limit
    is_full = len(ahead) == limit or (passed < marked and not done.settling)
    rest = REST_SECONDS if is_over else 0.0 if is_full else settle_seconds / 10
    session.execute(_MOVE, {
        "tenant": walk.tenant, "state": walk.state, "days": days, "dropped": len(done.event_ids), "is_over": is_over,
        "marked": None if is_over else marked, "passed": None if is_over else passed, "rest_seconds": rest,
    })  # fmt: skip
    return Walked(len(done.event_ids), is_full)


def _page(session: Session, walk: Walk, *, after: UUID, before: UUID, limit: int) -> Sequence[UUID]:
    parameters = {"tenant": walk.tenant, "after": after, "before": before, "limit": limit}
    return session.scalars(_PAGES[walk.state], parameters).all()
