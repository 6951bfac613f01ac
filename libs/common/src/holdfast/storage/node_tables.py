"""The tables of what runs: the processes of each service and their workers, as they said last. Nothing depends on them."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, PrimaryKeyConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.storage.table_base import Base

__all__ = ["Node", "NodeWorker"]


class Node(Base):
    """One running service on one host, from its start to its end; a restarted one is another node."""

    __tablename__ = "node"

    id: Mapped[str] = mapped_column(primary_key=True)
    service: Mapped[str]
    host: Mapped[str]
    """``HOLDFAST_NODE_NAME``."""
    pid: Mapped[int]
    """Of the first process."""
    version: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    types: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    """What its handlers serve: types, and patterns with ``*``."""
    handlers: Mapped[Any] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    """What they declare: a ``domain.declared.DeclaredHandler`` each, as it is told."""
    drain_since: Mapped[datetime | None]
    drained_by: Mapped[str | None]
    """The id of the key that asked for it."""

    __table_args__ = (
        CheckConstraint("octet_length(id) BETWEEN 1 AND 64", name="id_is_bounded"),
        CheckConstraint("drain_since IS NULL OR service = 'processor'", name="only_processors_drain"),
    )


class NodeWorker(Base):
    """One worker process of a node, by its name: a replaced one takes the row over."""

    __tablename__ = "node_worker"

    node_id: Mapped[str] = mapped_column(ForeignKey("node.id", ondelete="CASCADE"))
    name: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    beat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    polled_seconds: Mapped[float | None]
    """Before ``beat_at``, when it looked for due events last; ``NULL`` for one that never does."""
    slots: Mapped[int] = mapped_column(server_default=text("0"))
    busy: Mapped[int] = mapped_column(server_default=text("0"))
    is_suspect: Mapped[bool] = mapped_column(server_default=text("false"))
    """It takes events that were with a lost worker, and no others."""
    is_draining: Mapped[bool] = mapped_column(server_default=text("false"))
    """It has heard that its node is drained, and takes nothing new."""
    is_broker_away: Mapped[bool] = mapped_column(server_default=text("false"))
    running: Mapped[Any] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    """What its handlers run: ``[{"event_id", "tenant", "handler", "attempt", "since"}]``, the oldest first."""

    __table_args__ = (
        PrimaryKeyConstraint("node_id", "name"),
        CheckConstraint("slots >= 0 AND busy >= 0", name="counts"),
        # A beat changes no indexed column: with room in the page each one is a HOT update, which leaves nothing behind.
        {"postgresql_with": {"fillfactor": 50}},
    )
