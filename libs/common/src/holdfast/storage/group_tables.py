"""Tables of groups of events."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.storage.table_base import Base

__all__ = ["EventGroup", "EventGroupMember"]


class EventGroup(Base):
    """Events that a handler made together, how many of them are open, and the event that follows the last."""

    __tablename__ = "event_group"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    parent_id: Mapped[UUID] = mapped_column(ForeignKey("event.id", ondelete="CASCADE"))
    size: Mapped[int]
    open: Mapped[int]
    processed: Mapped[int] = mapped_column(server_default=text("0"))
    dead: Mapped[int] = mapped_column(server_default=text("0"))
    discarded: Mapped[int] = mapped_column(server_default=text("0"))
    type: Mapped[str]
    subject: Mapped[str | None]
    audience: Mapped[str | None]
    data: Mapped[str | None]
    """JSON text, which becomes part of the event's data; sealed bytes in base64 where there is a ``data_key_id``."""
    data_key_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("open >= 0 AND size = open + processed + dead + discarded", name="members_add_up"),
        CheckConstraint("completed_at IS NULL OR open = 0", name="completed_when_none_is_open"),
        Index("ix_event_group_parent_id", "parent_id"),
        Index("ix_event_group_open", "id", postgresql_where=text("completed_at IS NULL")),
        # For erasing: a group may have another subject than its events.
        Index("ix_event_group_subject", "tenant", "subject", postgresql_where=text("subject IS NOT NULL")),
    )


class EventGroupMember(Base):
    """One event of a group. ``outcome``: the state in which it first ended."""

    __tablename__ = "event_group_member"

    event_id: Mapped[UUID] = mapped_column(ForeignKey("event.id", ondelete="CASCADE"), primary_key=True)
    group_id: Mapped[UUID] = mapped_column(ForeignKey("event_group.id", ondelete="CASCADE"))
    outcome: Mapped[str | None]

    __table_args__ = (Index("ix_event_group_member_group_id", "group_id"),)
