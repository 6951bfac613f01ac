"""The tables of what operators do: keys, replays, revocations, and who did what."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    PrimaryKeyConstraint,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.storage.table_base import Base

__all__ = ["ApiKey", "AuditEntry", "ReplayItem", "ReplayJob", "TokenRevocation"]


class ApiKey(Base):
    """A producer's or operator's key. Only a hash of the secret is stored."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    name: Mapped[str]
    scopes: Mapped[list[str]]
    secret_hash: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """Up to a minute behind, so that a busy key costs a write a minute and not one a request."""
    replaced_by: Mapped[str | None]
    """The key that a rotation made for this one, which ends after an overlap."""
    request: Mapped[str | None]
    """What the request that made it is known again by; see ``storage.key_changes``."""

    __table_args__ = (
        UniqueConstraint("tenant", "request", name="uq_api_key_request"),
        Index("ix_api_key_tenant", "tenant", "created_at", "id"),
    )


class AuditEntry(Base):
    """What was done on somebody's behalf: who, what, when, from where, and to what. Outlives the events it names.

    ``actor`` is a key's id, ``actor_name`` its name at the time; ``origin`` and ``request_id`` as ``audit.Actor`` says.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_event", "event_id", postgresql_where=text("event_id IS NOT NULL")),
        Index("ix_audit_log_replay", "replay_id", postgresql_where=text("replay_id IS NOT NULL")),
        Index("ix_audit_log_tenant", "tenant", "at", "id"),
        Index("ix_audit_log_action", "tenant", "action", "at", "id"),
        Index("ix_audit_log_actor", "tenant", "actor", "at", "id"),
        Index("ix_audit_log_actor_name", "tenant", "actor_name", "at", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    tenant: Mapped[str]
    actor: Mapped[str]
    action: Mapped[str]
    event_id: Mapped[UUID | None]
    replay_id: Mapped[UUID | None]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    actor_name: Mapped[str | None]
    origin: Mapped[str | None]
    request_id: Mapped[str | None]


class ReplayJob(Base):
    """A replay, or a discard, by filter. The process with its row locked takes its next items; ``next_at`` is when the next
    one is due.

    A discard that runs has a state of its own, ``discarding``: maintenance of the release before takes all that is
    ``running`` for a replay, and must not replay what is to be discarded.
    """

    __tablename__ = "replay_job"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    idempotency_key: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    filter: Mapped[dict[str, Any]]
    rate_per_s: Mapped[float]
    total: Mapped[int]
    replayed: Mapped[int] = mapped_column(server_default=text("0"))
    skipped: Mapped[int] = mapped_column(server_default=text("0"))
    state: Mapped[str]
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    """Turns in a row that ended with an exception, each followed by a longer wait."""
    last_error: Mapped[str | None]
    action: Mapped[str] = mapped_column(server_default=text("'replay'"))
    created_by_name: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key", name="uq_replay_job_request"),
        CheckConstraint("state IN ('running', 'discarding', 'done', 'cancelled')", name="state_is_known"),
        CheckConstraint("(state IN ('running', 'discarding')) = (finished_at IS NULL)", name="finished_iff_over"),
        CheckConstraint("action IN ('replay', 'discard')", name="action_is_known"),
        CheckConstraint("state <> 'discarding' OR action = 'discard'", name="discarding_discards"),
        CheckConstraint("rate_per_s > 0", name="rate_is_positive"),
        CheckConstraint("replayed >= 0 AND skipped >= 0 AND replayed + skipped <= total", name="counts"),
        Index("ix_replay_job_running", "next_at", postgresql_where=text("state IN ('running', 'discarding')")),
        Index("ix_replay_job_tenant", "tenant", "id"),
    )


class ReplayItem(Base):
    """One event of a replay, at the version it had when the set was frozen. No reference: pruned events are skipped."""

    __tablename__ = "replay_item"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("replay_job.id", ondelete="CASCADE"))
    event_id: Mapped[UUID]
    version: Mapped[int]
    outcome: Mapped[str | None]
    new_event_id: Mapped[UUID | None]
    done_at: Mapped[datetime | None]

    __table_args__ = (
        PrimaryKeyConstraint("job_id", "event_id"),
        CheckConstraint("outcome IN ('replayed', 'discarded', 'skipped')", name="outcome_is_known"),
        CheckConstraint("(outcome IS NULL) = (done_at IS NULL)", name="outcome_iff_done"),
        Index("ix_replay_item_pending", "job_id", "event_id", postgresql_where=text("done_at IS NULL")),
    )


class TokenRevocation(Base):
    """A live token, or a subject's tokens up to a moment, that count no more. ``seq`` grows with every revocation."""

    __tablename__ = "token_revocation"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=False), unique=True)
    revoked_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("kind IN ('token', 'subject')", name="kind_is_known"),
        CheckConstraint("octet_length(name) BETWEEN 1 AND 255", name="name_is_bounded"),
        Index("ix_token_revocation_revoked_at", "revoked_at"),
    )
