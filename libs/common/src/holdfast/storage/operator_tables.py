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


class AuditEntry(Base):
    """What an operator did: who (a key's id), what, when, and to which event or replay. Outlives the events it names."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_event", "event_id", postgresql_where=text("event_id IS NOT NULL")),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    tenant: Mapped[str]
    actor: Mapped[str]
    action: Mapped[str]
    event_id: Mapped[UUID | None]
    replay_id: Mapped[UUID | None]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))


class ReplayJob(Base):
    """A replay by filter. The process with its row locked takes its next items; ``next_at`` is when the next one is due."""

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

    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key", name="uq_replay_job_request"),
        CheckConstraint("state IN ('running', 'done', 'cancelled')", name="state_is_known"),
        CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="finished_iff_over"),
        CheckConstraint("rate_per_s > 0", name="rate_is_positive"),
        CheckConstraint("replayed >= 0 AND skipped >= 0 AND replayed + skipped <= total", name="counts"),
        Index("ix_replay_job_running", "next_at", postgresql_where=text("state = 'running'")),
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
        CheckConstraint("outcome IN ('replayed', 'skipped')", name="outcome_is_known"),
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
