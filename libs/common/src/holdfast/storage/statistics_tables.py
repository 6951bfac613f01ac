"""The tables of counters: what happened, by tenant and by handler, in steps of time. ``storage.counting`` fills them."""

from datetime import datetime

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, PrimaryKeyConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.storage import upkeep
from holdfast.storage.table_base import Base

__all__ = ["EventStatistics", "HandlerStatistics", "StateCount", "StatisticsCursor", "StatisticsName"]


def _count() -> Mapped[int]:
    return mapped_column(BigInteger, server_default=text("0"))


def _histogram() -> Mapped[list[int]]:
    """One count for each bucket of ``domain.histogram``."""
    return mapped_column(ARRAY(BigInteger))


class EventStatistics(Base):
    """How many events of a tenant went which way, within ``step_seconds`` from ``at``."""

    __tablename__ = "event_statistics"

    tenant: Mapped[str]
    step_seconds: Mapped[int]
    """60, 3600 or 86400; each update is counted in all three."""
    at: Mapped[datetime]
    accepted: Mapped[int] = _count()
    processed: Mapped[int] = _count()
    failed: Mapped[int] = _count()
    """Attempts that failed, those that made a dead letter included."""
    retried: Mapped[int] = _count()
    """Attempts that began after an earlier one of the event."""
    dead: Mapped[int] = _count()
    discarded: Mapped[int] = _count()
    replayed: Mapped[int] = _count()
    lost: Mapped[int] = _count()
    """Attempts whose worker was lost."""

    __table_args__ = (PrimaryKeyConstraint("tenant", "step_seconds", "at"), {"postgresql_with": upkeep.COUNTERS})


class HandlerStatistics(Base):
    """Attempts by handler, or by event type where none ran, within ``step_seconds`` from ``at``. Times in milliseconds."""

    __tablename__ = "handler_statistics"

    tenant: Mapped[str]
    step_seconds: Mapped[int]
    at: Mapped[datetime]
    kind: Mapped[str]
    """``handler``, ``type``, or ``other``: all that found no place among a tenant's names."""
    name: Mapped[str]
    processed: Mapped[int] = _count()
    failed: Mapped[int] = _count()
    """Attempts that failed and will be followed by another."""
    dead: Mapped[int] = _count()
    lost: Mapped[int] = _count()
    run: Mapped[list[int]] = _histogram()
    """How long handlers ran, whatever came of it."""
    wait: Mapped[list[int]] = _histogram()
    """From when the event was due to its claim."""
    end_to_end: Mapped[list[int]] = _histogram()
    """From acceptance to ``processed``."""

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "step_seconds", "at", "kind", "name"),
        CheckConstraint("kind IN ('handler', 'type', 'other')", name="kind_is_known"),
        {"postgresql_with": upkeep.COUNTERS},
    )


class StatisticsName(Base):
    """A handler or type that is counted by its name: a bounded number for each tenant."""

    __tablename__ = "statistics_name"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime]


class StateCount(Base):
    """How many events of a tenant are in a state that is open, or dead: kept by the same updates as the counters."""

    __tablename__ = "state_count"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    events: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = ({"postgresql_with": upkeep.COUNTERS},)


class StatisticsCursor(Base):
    """How far counting has come: one row. ``storage.counting`` says what the snapshot is."""

    __tablename__ = "statistics_cursor"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    counted: Mapped[str]
    counted_at: Mapped[datetime] = mapped_column(server_default=func.now())
    since: Mapped[datetime] = mapped_column(server_default=text("'-infinity'::timestamptz"))
    """Updates that are older are taken for counted. Moves only when counting starts over, after a restore."""

    __table_args__ = (CheckConstraint("id = 1", name="is_one"),)
