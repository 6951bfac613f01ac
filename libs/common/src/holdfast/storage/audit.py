"""The audit log: what was done, on whose behalf, and from where.

A function that changes something for somebody takes an :class:`Actor` and calls :func:`note` in the same transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, insert, select, tuple_, union
from sqlalchemy.orm import Session

from holdfast.storage.tables import AuditEntry

__all__ = [
    "COMMAND",
    "HANDLERS",
    "MAINTENANCE",
    "Actor",
    "ActorKind",
    "AuditFilter",
    "AuditPage",
    "AuditRecord",
    "actor_kind",
    "command_actor",
    "handlers_actor",
    "list_audit",
    "maintenance_actor",
    "note",
    "person_id",
    "statement",
]

COMMAND = "cli"
"""Origin of what a command did on the database itself."""

MAINTENANCE = "maintenance"
"""Origin, and actor, of what maintenance did on its own."""

HANDLERS = "handlers"
"""Actor of what a processor did because its handlers say so."""

PROCESSOR = "processor"
"""Origin of that."""


@dataclass(frozen=True, slots=True)
class Actor:
    """On whose behalf something is done, and where the request came from.

    ``key_id`` is an API key's id, or who else acts (``command:ann@host``, :func:`person_id`), and ``name`` the key's name, or
    the person's. ``origin`` is the IP address that sent the request, :data:`COMMAND` or :data:`MAINTENANCE`.
    """

    tenant: str
    key_id: str
    name: str | None = None
    origin: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """All that is given must hold. ``actor`` is a key's id or its name; ``since`` is inclusive and ``until`` is not."""

    action: str | None = None
    actor: str | None = None
    event_id: UUID | None = None
    replay_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One entry. ``actor_name``, ``origin`` and ``request_id`` are ``None`` where a release that did not note them wrote it.

    ``detail`` depends on the action, and has nothing of an event's data.
    """

    id: int
    at: datetime
    action: str
    actor: str
    actor_name: str | None
    origin: str | None
    request_id: str | None
    event_id: UUID | None
    replay_id: UUID | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first. ``next_id`` is what the next page comes after; ``None`` on the last one."""

    items: list[AuditRecord]
    next_id: int | None


class ActorKind(StrEnum):
    """What an actor's id is the id of."""

    KEY = "key"
    PERSON = "oidc"
    """The subject of an OpenID Connect provider, after the colon."""

    COMMAND = "command"
    MAINTENANCE = "maintenance"
    HANDLERS = "handlers"
    """What a processor brought along."""


def actor_kind(actor_id: str) -> ActorKind:
    """What the id of an entry's actor is the id of. Ids of keys have no colon."""
    if actor_id in (MAINTENANCE, HANDLERS):
        return ActorKind(actor_id)
    prefix, colon, _ = actor_id.partition(":")
    return ActorKind(prefix) if colon and prefix in (ActorKind.PERSON, ActorKind.COMMAND) else ActorKind.KEY


def person_id(subject: str) -> str:
    """The actor's id of somebody who signed in with OpenID Connect."""
    return f"{ActorKind.PERSON}:{subject}"


def command_actor(tenant: str, user: str) -> Actor:
    """Who works on the database itself, without a key; ``user`` such as ``command:ann@host``."""
    return Actor(tenant, user, origin=COMMAND)


def maintenance_actor(tenant: str) -> Actor:
    """Maintenance, which ends what somebody began."""
    return Actor(tenant, MAINTENANCE, origin=MAINTENANCE)


def handlers_actor(tenant: str) -> Actor:
    """Handlers, which declare something."""
    return Actor(tenant, HANDLERS, origin=PROCESSOR)


def note(
    session: Session,
    actor: Actor,
    action: str,
    *,
    event_id: UUID | None = None,
    replay_id: UUID | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write down an action, in the transaction that carries it out: neither is there without the other."""
    values = {
        "tenant": actor.tenant, "actor": actor.key_id, "actor_name": actor.name, "origin": actor.origin,
        "request_id": actor.request_id, "action": action, "event_id": event_id, "replay_id": replay_id,
        "detail": dict(detail or {}),
    }  # fmt: skip
    session.execute(insert(AuditEntry).values(values))


def list_audit(
    session: Session, wanted: AuditFilter, *, tenant: str, limit: int, after_id: int | None = None
) -> AuditPage:
    """Up to ``limit`` entries of a tenant that come after ``after_id``, the ``next_id`` of the page before; newest first.

    A page costs its length, however far back it is. After an id that the tenant does not have there is nothing.
    """
    place = None
    if after_id is not None:
        at = session.scalar(select(AuditEntry.at).where(AuditEntry.id == after_id, AuditEntry.tenant == tenant))
        if at is None:
            return AuditPage([], None)
        place = (at, after_id)
    rows = session.execute(statement(wanted, tenant=tenant, limit=limit + 1, place=place)).mappings()
    found = [AuditRecord(**row) for row in rows]
    return AuditPage(found[:limit], found[limit - 1].id if len(found) > limit else None)


def statement(
    wanted: AuditFilter, *, tenant: str, limit: int, place: tuple[datetime, int] | None = None
) -> Select[Any]:
    """What :func:`list_audit` asks; a test looks at its plans. ``place``: time and id of the entry before the page."""
    conditions = _conditions(wanted, tenant, place)
    if wanted.actor is None:
        return _newest(conditions, limit)
    # Two ordered reads of an index each. An OR over both columns would read and sort all entries of the actor.
    sides = [
        select(_newest([*conditions, column == wanted.actor], limit).subquery())
        for column in (AuditEntry.actor, AuditEntry.actor_name)
    ]
    ids = union(*(select(side.subquery().c.id) for side in sides))
    return _newest([AuditEntry.id.in_(ids)], limit)


def _newest(conditions: list[ColumnElement[bool]], limit: int) -> Select[Any]:
    columns = [getattr(AuditEntry, field.name) for field in fields(AuditRecord)]
    return select(*columns).where(*conditions).order_by(AuditEntry.at.desc(), AuditEntry.id.desc()).limit(limit)


def _conditions(wanted: AuditFilter, tenant: str, place: tuple[datetime, int] | None) -> list[ColumnElement[bool]]:
    asked = [
        (AuditEntry.action, wanted.action),
        (AuditEntry.event_id, wanted.event_id),
        (AuditEntry.replay_id, wanted.replay_id),
    ]
    found = [AuditEntry.tenant == tenant, *(column == value for column, value in asked if value is not None)]
    if wanted.since is not None:
        found.append(AuditEntry.at >= wanted.since)
    if wanted.until is not None:
        found.append(AuditEntry.at < wanted.until)
    if place is not None:
        found.append(tuple_(AuditEntry.at, AuditEntry.id) < place)
    return found
