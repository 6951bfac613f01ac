"""The table of schedules."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.storage.table_base import Base

__all__ = ["ScheduleRow"]


class ScheduleRow(Base):
    """A schedule, and how far it is. The process with its row locked records its next ticks."""

    __tablename__ = "schedule"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    name: Mapped[str]
    cron: Mapped[str]
    timezone: Mapped[str]
    type: Mapped[str]
    source: Mapped[str | None]
    """``NULL``: ``/holdfast/schedules/<name>``."""
    subject: Mapped[str | None]
    audience: Mapped[str | None]
    data: Mapped[bytes | None]
    """JSON text."""
    extensions: Mapped[Any] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    """Of the events: attributes of a window."""
    missed: Mapped[str] = mapped_column(server_default=text("'latest'"))
    overlap: Mapped[str] = mapped_column(server_default=text("'allow'"))
    is_paused: Mapped[bool] = mapped_column(server_default=text("false"))
    is_declared: Mapped[bool] = mapped_column(server_default=text("false"))
    """By handlers, which a processor brings along; otherwise it was made with the API."""
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_at: Mapped[datetime | None]
    """The first tick that is not decided yet; ``NULL`` where none comes any more."""
    last_at: Mapped[datetime | None]
    """The tick of ``last_event_id``."""
    last_event_id: Mapped[UUID | None]
    """No reference: events are pruned and schedules stay."""
    skipped: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Ticks without an event: missed, or while the event of the tick before was open."""
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    """Turns in a row that ended with an exception, each followed by a longer wait."""
    last_error: Mapped[str | None]
    retry_at: Mapped[datetime | None]
    """Until then nobody looks again, after a failure."""

    __table_args__ = (
        UniqueConstraint("tenant", "name", name="uq_schedule_name"),
        CheckConstraint("name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'", name="name_is_known"),
        CheckConstraint("missed IN ('latest', 'all', 'skip')", name="missed_is_known"),
        CheckConstraint("overlap IN ('allow', 'skip')", name="overlap_is_known"),
        CheckConstraint("(last_at IS NULL) = (last_event_id IS NULL)", name="last_tick_is_whole"),
        CheckConstraint("skipped >= 0 AND failures >= 0", name="counts"),
        Index("ix_schedule_next_at", "next_at", postgresql_where=text("NOT is_paused")),
    )
