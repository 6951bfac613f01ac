"""The table of data keys."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.storage.table_base import Base

__all__ = ["DataKey"]


class DataKey(Base):
    """A key that seals a tenant's data, itself sealed by a key that only processes have. Empty where nothing is sealed."""

    __tablename__ = "data_key"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    wrapped: Mapped[bytes]
    kek_id: Mapped[str]
    """Names the key-encryption key that it is wrapped by."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    retired_at: Mapped[datetime | None]
    """Since when nothing new is sealed with it."""

    __table_args__ = (
        CheckConstraint("octet_length(wrapped) = 61", name="wrapped_is_a_key"),
        CheckConstraint("kek_id ~ '^[0-9a-f]{16}$'", name="kek_id_is_known"),
        Index("uq_data_key_tenant", "tenant", unique=True, postgresql_where=text("retired_at IS NULL")),
        Index("ix_data_key_kek_id", "kek_id", "id"),
    )
