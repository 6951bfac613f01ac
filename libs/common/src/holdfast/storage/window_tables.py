"""The table of windows."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.domain.window import Kind
from holdfast.storage.table_base import Base

__all__ = ["EventWindow"]


class EventWindow(Base):
    """A key in whose window an event is: the one that waits (debounce), or the first one (unique).

    ``id`` is made of tenant, kind, type and key. ``event_id`` refers to no row, so that deleting events costs nothing here;
    it is ``NULL`` where a transaction locked the key and recorded nothing. ``since``: when the first of the events came.
    """

    __tablename__ = "event_window"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    kind: Mapped[str]
    event_id: Mapped[UUID | None]
    since: Mapped[datetime | None]
    until: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(f"kind IN ({', '.join(repr(str(each)) for each in Kind)})", name="kind_is_known"),
        Index("ix_event_window_until", "until"),
    )
