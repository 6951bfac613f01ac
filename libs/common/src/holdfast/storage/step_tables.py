"""The table of steps that handlers have done."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.storage.table_base import Base

__all__ = ["EventStep"]


class EventStep(Base):
    """A step of a handler that is done for good, or a sleep. Written under the lease of the attempt that did it."""

    __tablename__ = "event_step"

    event_id: Mapped[UUID] = mapped_column(ForeignKey("event.id", ondelete="CASCADE"), primary_key=True)
    handler: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    lease_token: Mapped[UUID]
    """Of the attempt that stored it."""
    attempt: Mapped[int]
    result: Mapped[str | None]
    """JSON text, exactly as the handler got it; none for a sleep."""
    wake_at: Mapped[datetime | None]
    """Until when a sleep lasts."""
    duration_ms: Mapped[int]
    stored_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (CheckConstraint("(result IS NULL) = (wake_at IS NOT NULL)", name="result_or_sleep"),)
