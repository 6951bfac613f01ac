"""The tables of retention and erasure: rules, how far they are carried out, and identities of events that are gone."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, PrimaryKeyConstraint, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.domain.retention import MAX_DAYS, RULED
from holdfast.storage import upkeep
from holdfast.storage.statements import state_list
from holdfast.storage.table_base import Base

__all__ = ["ErasureJob", "EventIdentity", "RetentionRow", "RetentionWalk"]

_RULED = f"state IN {state_list(RULED)}"


class EventIdentity(Base):
    """The identity of an event that is gone, or goes within minutes: a repetition is told by it until ``until``.

    ``identity`` is 16 bytes of a hash (``storage.identities``), so nothing of the event can be read from the row.
    """

    __tablename__ = "event_identity"

    identity: Mapped[bytes] = mapped_column(primary_key=True)
    event_id: Mapped[UUID]
    state: Mapped[str]
    """In which it ended."""
    version: Mapped[int]
    until: Mapped[datetime]
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """The event goes some time later: by then every statement sees this row."""

    __table_args__ = (
        CheckConstraint("octet_length(identity) = 16", name="identity_is_hashed"),
        CheckConstraint(_RULED, name="state_is_finished"),
        Index("ix_event_identity_until", "until"),
        {"postgresql_with": upkeep.IDENTITIES},
    )


class RetentionRow(Base):
    """A tenant's rule for a state. ``days`` after their end events go; ``NULL``: never."""

    __tablename__ = "retention"

    tenant: Mapped[str]
    state: Mapped[str]
    days: Mapped[int | None]
    changed_by: Mapped[str]
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "state"),
        CheckConstraint(_RULED, name="state_is_finished"),
        CheckConstraint(f"days BETWEEN 1 AND {MAX_DAYS}", name="days_are_bounded"),
    )


class RetentionWalk(Base):
    """How far maintenance has come with the events of a tenant in a state. The process with the row locked goes on.

    ``marked`` is the last event whose identity was written down, ``passed`` the last that was dropped or left; ``NULL`` where
    a walk through the events has yet to begin.
    """

    __tablename__ = "retention_walk"

    tenant: Mapped[str]
    state: Mapped[str]
    marked: Mapped[UUID | None]
    passed: Mapped[UUID | None]
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    days: Mapped[int | None]
    """In force at the last turn."""
    dropped: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Events, ever."""
    ended_at: Mapped[datetime | None]
    """When the last whole walk ended."""

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "state"),
        CheckConstraint(_RULED, name="state_is_finished"),
        CheckConstraint("dropped >= 0", name="counts"),
        Index("ix_retention_walk_next_at", "next_at"),
        {"postgresql_with": upkeep.COUNTERS},
    )


class ErasureJob(Base):
    """A request to erase what has a subject, or everything. ``subject`` is there while it runs; afterwards its hash is all
    that is left.
    """

    __tablename__ = "erasure_job"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    idempotency_key: Mapped[str]
    subject: Mapped[str | None]
    """Empty while everything is erased: no event has an empty subject."""
    subject_sha256: Mapped[str]
    """In hexadecimal, of the subject in UTF-8. Empty where everything is erased."""
    created_by: Mapped[str]
    created_by_name: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    state: Mapped[str] = mapped_column(server_default=text("'running'"))
    passed: Mapped[UUID | None]
    """The last event that the walk under way has looked at."""
    erased: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    waiting: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Events of the walk under way that cannot go yet."""
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    remains: Mapped[dict[str, Any] | None]
    """What an erasure does not reach, at its end."""
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key", name="uq_erasure_job_request"),
        CheckConstraint("state IN ('running', 'done')", name="state_is_known"),
        CheckConstraint("(state = 'done') = (finished_at IS NOT NULL)", name="finished_iff_done"),
        CheckConstraint("(state = 'done') = (subject IS NULL)", name="subject_goes_with_the_end"),
        CheckConstraint("erased >= 0 AND waiting >= 0 AND failures >= 0", name="counts"),
        Index("ix_erasure_job_running", "next_at", postgresql_where=text("state = 'running'")),
        Index("ix_erasure_job_tenant", "tenant", "id"),
    )
