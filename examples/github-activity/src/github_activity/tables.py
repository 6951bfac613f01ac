"""The tables of this package. Its own ``MetaData``: it shares a database with Holdfast, not a schema definition."""

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, PrimaryKeyConstraint, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["ActivityCount", "Base", "Repository"]


class Base(DeclarativeBase):
    type_annotation_map = {str: Text, datetime: DateTime(timezone=True)}  # noqa: RUF012


class Repository(Base):
    """One row a repository, or an organization where an event names no repository."""

    __tablename__ = "github_repository"

    name: Mapped[str] = mapped_column(primary_key=True)
    last_activity_at: Mapped[datetime]
    open_pull_requests: Mapped[int]
    open_issues: Mapped[int]


class ActivityCount(Base):
    """How many events of each type a repository has had."""

    __tablename__ = "github_activity_count"

    repository: Mapped[str] = mapped_column(ForeignKey("github_repository.name"))
    type: Mapped[str]
    count: Mapped[int]

    __table_args__ = (PrimaryKeyConstraint("repository", "type"), CheckConstraint("count > 0"))
