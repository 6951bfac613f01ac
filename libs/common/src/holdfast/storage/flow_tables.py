"""Tables of who runs first, how many at once, and what is paused."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Float, Index, PrimaryKeyConstraint, SmallInteger, func, text
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.storage.table_base import Base

__all__ = ["FlowVersion", "HandlerRoute", "Pause", "RateStart", "Tenant"]


class Tenant(Base):
    """What an operator has set for a tenant. One without a row has the defaults."""

    __tablename__ = "tenant"

    name: Mapped[str] = mapped_column(primary_key=True)
    weight: Mapped[int] = mapped_column(server_default=text("1"))
    """Its share of the turns."""
    backlog_seconds: Mapped[float | None] = mapped_column(Float)
    """How old its oldest due event may be before its events are turned away; ``NULL``: as the setting says."""
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("weight BETWEEN 1 AND 100", name="weight"),
        CheckConstraint("backlog_seconds >= 0", name="backlog_seconds"),
    )


class HandlerRoute(Base):
    """What the handler of a type or pattern has declared and recording has to know."""

    __tablename__ = "handler_route"

    pattern: Mapped[str] = mapped_column(primary_key=True)
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("5"))
    pool: Mapped[str] = mapped_column(server_default=text("''"))

    __table_args__ = (CheckConstraint("priority BETWEEN 0 AND 9", name="priority"),)


class Pause(Base):
    """What is not to be claimed until somebody resumes it. ``tenant``: whose events, of a type or a tenant."""

    __tablename__ = "pause"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    tenant: Mapped[str | None]
    paused_by: Mapped[str]
    note: Mapped[str | None]
    paused_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("kind IN ('handler', 'type', 'tenant', 'pool')", name="kind"),
        CheckConstraint("(kind IN ('type', 'tenant')) = (tenant IS NOT NULL)", name="tenant"),
        Index("uq_pause_what", "kind", "name", text("coalesce(tenant, '')"), unique=True),
    )


class FlowVersion(Base):
    """Rises with every pause and resumption: one row, which every claim reads."""

    __tablename__ = "flow_version"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))

    __table_args__ = (CheckConstraint("id = 1", name="is_one"),)


class RateStart(Base):
    """A start that a rate limit allows: taken until ``free_at``. A key has as many as may start within its window."""

    __tablename__ = "rate_start"

    key: Mapped[str]
    slot: Mapped[int]
    free_at: Mapped[datetime]

    __table_args__ = (
        PrimaryKeyConstraint("key", "slot", name="pk_rate_start"),
        Index("ix_rate_start_free_at", "free_at"),
    )
