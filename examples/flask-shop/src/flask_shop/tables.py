"""The shop's table."""

from sqlalchemy import Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["Base", "Order"]


class Base(DeclarativeBase):
    type_annotation_map = {str: Text}  # noqa: RUF012


class Order(Base):
    __tablename__ = "flask_shop_order"

    id: Mapped[str] = mapped_column(primary_key=True)
    item: Mapped[str]
    is_packed: Mapped[bool] = mapped_column(default=False)
    is_receipt_sent: Mapped[bool] = mapped_column(default=False)
