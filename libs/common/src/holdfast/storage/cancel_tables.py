"""The table of requests to cancel events that run."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.storage.table_base import Base

__all__ = ["CancelRequest"]


class CancelRequest(Base):
    """An event that an operator wants ended although it runs. See ``storage.cancels``."""

    __tablename__ = "cancel_request"

    event_id: Mapped[UUID] = mapped_column(ForeignKey("event.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int]
    """The event's when it was asked for: the request is void once the event has ended at a later one."""
    actor: Mapped[str]
    """Who asked, as people call them."""
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
