"""The schema, as SQLAlchemy sees it. The constraints repeat the invariants of the state machine.

Migrations create it; a test compares the two.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from holdfast.domain.state import CLAIMABLE, FINISHED, OPEN, State
from holdfast.storage import upkeep
from holdfast.storage.feature_tables import (
    CancelRequest,
    DataKey,
    ErasureJob,
    EventGroup,
    EventGroupMember,
    EventIdentity,
    EventStep,
    EventWindow,
    FlowVersion,
    HandlerRoute,
    Pause,
    RateStart,
    RetentionRow,
    RetentionWalk,
    ScheduleRow,
    Tenant,
)
from holdfast.storage.node_tables import Node, NodeWorker
from holdfast.storage.operator_tables import ApiKey, AuditEntry, ReplayItem, ReplayJob, TokenRevocation
from holdfast.storage.statements import state_list
from holdfast.storage.statistics_tables import (
    EventStatistics,
    HandlerStatistics,
    StateCount,
    StatisticsCursor,
    StatisticsName,
)
from holdfast.storage.table_base import Base, event_reference

__all__ = [
    "ErasureJob",
    "ApiKey",
    "AttemptErrorRow",
    "AuditEntry",
    "Base",
    "DataKey",
    "CancelRequest",
    "Event",
    "EventGroup",
    "EventGroupMember",
    "EventIdentity",
    "EventStatistics",
    "EventStep",
    "EventUpdate",
    "EventWindow",
    "FlowVersion",
    "HandlerRoute",
    "HandlerStatistics",
    "Node",
    "NodeWorker",
    "OutboxCursor",
    "Pause",
    "ProcessedEvent",
    "ProcessingState",
    "RateStart",
    "ReplayItem",
    "ReplayJob",
    "RetentionRow",
    "RetentionWalk",
    "ScheduleRow",
    "ServedType",
    "StateCount",
    "StatisticsCursor",
    "StatisticsName",
    "Tenant",
    "TokenRevocation",
]

_ALL = "({})".format(", ".join(f"'{state}'" for state in State))
_CLAIMABLE = text(f"state IN {state_list(CLAIMABLE)}")
_GIVEN_UP = text(f"state IN {state_list(FINISHED - {State.PROCESSED})}")
_PROCESSING = f"state = '{State.PROCESSING}'"


class Event(Base):
    """What was accepted. Immutable."""

    __tablename__ = "event"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    source: Mapped[str]
    ce_id: Mapped[str]
    type: Mapped[str]
    subject: Mapped[str | None]
    time: Mapped[datetime | None]
    audience: Mapped[str | None]
    datacontenttype: Mapped[str | None]
    dataschema: Mapped[str | None]
    extensions: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    data: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    """JSON of events that were recorded before revision 0008. Nothing is written here any more."""
    data_bytes: Mapped[bytes | None]
    """The data as it was sent."""
    data_digest: Mapped[bytes | None]
    """Of events that were recorded before revision 0008: what a repetition is recognised by."""
    traceparent: Mapped[str | None]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    parent_id: Mapped[UUID | None]
    """The event whose handler emitted this one."""
    replay_of: Mapped[UUID | None]
    is_json: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether ``data_bytes`` is JSON."""
    request_id: Mapped[str | None]
    """Of the POST that brought it."""
    trace_id: Mapped[UUID | None]
    """Of the trace that it belongs to: 16 bytes, as a UUID has."""
    span_id: Mapped[str | None]
    """The span that its first attempt is a child of, in hexadecimal; NULL where nobody keeps the trace."""
    data_key_id: Mapped[UUID | None]
    """The key that ``data_bytes`` is sealed with; NULL where it is plain. No reference: a key that is dropped shreds them."""

    __table_args__ = (
        # CloudEvents 1.0: source + id is unique for each distinct event. In this order it also finds an id of any source.
        UniqueConstraint("tenant", "ce_id", "source", name="uq_event_identity"),
        CheckConstraint("data IS NULL OR data_bytes IS NULL", name="one_kind_of_data"),
        CheckConstraint("octet_length(data_digest) = 32", name="digest_is_sha256"),
        # Lists of a tenant's events, newest first: ids are UUIDv7, so new entries go to the right edge.
        Index("ix_event_tenant_id", "tenant", "id"),
        # What a page shows before its first update: the newest events of a user, who may be one of millions.
        Index("ix_event_audience", "tenant", "audience", "id", postgresql_where=text("audience IS NOT NULL")),
        # One for each other filter of the lists, with the order of the lists (ADR 0024 has what they cost).
        Index("ix_event_source", "tenant", "source", "id"),
        Index("ix_event_type", "tenant", "type", "id"),
        Index("ix_event_subject", "tenant", "subject", "id", postgresql_where=text("subject IS NOT NULL")),
        # One event of a request, or a batch. Ids that ingest makes begin with the time, so they go to the right edge.
        Index("ix_event_request_id", "tenant", "request_id", "id", postgresql_where=text("request_id IS NOT NULL")),
        # What an event's handler emitted.
        Index("ix_event_parent_id", "parent_id", "id", postgresql_where=text("parent_id IS NOT NULL")),
        Index("ix_event_trace_id", "tenant", "trace_id", "id", postgresql_where=text("trace_id IS NOT NULL")),
        {"postgresql_with": upkeep.EVENTS},
    )


class ProcessingState(Base):
    """Where the event stands: hot and narrow, one row an event, with some room in the page for a next version."""

    __tablename__ = "processing_state"

    event_id: Mapped[UUID] = mapped_column(ForeignKey("event.id", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str]
    version: Mapped[int]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    dispatches: Mapped[int] = mapped_column(server_default=text("0"))
    available_at: Mapped[datetime]
    next_dispatch_at: Mapped[datetime]
    lease_token: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    last_error: Mapped[dict[str, Any] | None]
    finished_at: Mapped[datetime | None]
    lane: Mapped[int | None] = mapped_column(BigInteger)
    """64-bit hash of (tenant, source, subject): finds the events of a subject. Nothing waits because of it."""
    lane_at: Mapped[datetime | None]
    """When the event arrived in its lane."""
    held_lane: Mapped[int | None] = mapped_column(BigInteger)
    """Written by the release before, whose processors hold lanes with it."""
    lane_key: Mapped[UUID | None]
    """The lane (``storage.lanes``) of an event whose type is ordered."""
    held_lane_key: Mapped[UUID | None]
    """The lane, while the event is ``processing`` in it."""
    waiting_since: Mapped[datetime | None]
    """When it became due, of an event that waits aside; ``available_at`` is then the next look at it."""
    unserved_type: Mapped[str | None]
    """The type, of an event that waits for a handler; empty, of one that waits in a line (``waits_in``)."""
    group_id: Mapped[UUID | None]
    """The group that it is a member of."""
    tenant_name: Mapped[str] = mapped_column(server_default=text("''"))
    """The event's tenant; empty of events that were recorded before revision 0019. Not ``tenant``: statements of the release
    before join ``event`` and name its column alone."""
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("5"))
    """0 to 9; the higher one runs first."""
    pool: Mapped[str] = mapped_column(server_default=text("''"))
    """The pool of its handler; empty: the one that every handler is in that names none."""
    waits_in: Mapped[str | None]
    """The line (``storage.aside``) that it waits in, while ``unserved_type`` is empty and not ``NULL``."""
    held_limit: Mapped[str | None]
    """The limit that it counts for, while it is ``processing``."""

    __table_args__ = (
        CheckConstraint(
            f"state IN {_ALL}", name="state_is_known"
        ),
        CheckConstraint(f"({_PROCESSING}) = (lease_token IS NOT NULL)", name="lease_iff_processing"),
        CheckConstraint("(lease_token IS NULL) = (lease_expires_at IS NULL)", name="lease_expires"),
        CheckConstraint(
            f"(state IN {state_list(FINISHED)}) = (finished_at IS NOT NULL)", name="finished_iff_settled"
        ),
        CheckConstraint("version >= 1 AND attempt >= 0 AND crashes >= 0 AND dispatches >= 0", name="counts"),
        Index("ix_processing_state_due", "next_dispatch_at", postgresql_where=_CLAIMABLE),
        Index("ix_processing_state_lease", "lease_expires_at", postgresql_where=text(_PROCESSING)),
        Index("ix_processing_state_dead", "finished_at", postgresql_where=text(f"state = '{State.DEAD}'")),
        Index("ix_processing_state_available", "available_at", postgresql_where=_CLAIMABLE),
        # Events that were with a lost worker, for the process that tries those: few, behind any backlog.
        Index("ix_processing_state_suspect", "available_at", postgresql_where=text(f"crashes > 0 AND {_CLAIMABLE}")),
        Index(
            "ix_processing_state_lane", "lane", "lane_at", "event_id",
            postgresql_where=text(f"lane IS NOT NULL AND state IN {state_list(OPEN)}"),
        ),
        # What makes "one at a time" true, whatever two claims saw of each other.
        Index("uq_processing_state_held_lane", "held_lane", unique=True, postgresql_where=text("held_lane IS NOT NULL")),
        Index(
            "ix_processing_state_lane_key", "lane_key", "lane_at", "event_id",
            postgresql_where=text(f"lane_key IS NOT NULL AND state IN {state_list(OPEN)}"),
        ),
        Index(
            "uq_processing_state_held_lane_key", "held_lane_key", unique=True,
            postgresql_where=text(f"held_lane_key IS NOT NULL AND {_PROCESSING}"),
        ),
        Index(
            "ix_processing_state_waiting_turn", "lane_key",
            postgresql_where=text(f"waiting_since IS NOT NULL AND unserved_type IS NULL AND {_CLAIMABLE}"),
        ),
        Index(
            "ix_processing_state_unserved", "unserved_type", "waiting_since",
            postgresql_where=text(f"unserved_type IS NOT NULL AND {_CLAIMABLE}"),
        ),
        # Where claims look: pools, tenants and priorities in turn, and of each the oldest.
        Index(
            "ix_processing_state_turn", "pool", "tenant_name", "priority", "available_at",
            postgresql_where=text(f"waiting_since IS NULL AND {_CLAIMABLE}"),
        ),
        Index(
            "ix_processing_state_waits_in", "waits_in", "waiting_since", "event_id",
            postgresql_where=text(f"waits_in IS NOT NULL AND unserved_type IS NOT NULL AND {_CLAIMABLE}"),
        ),
        Index(
            "ix_processing_state_held_limit", "held_limit",
            postgresql_where=text(f"held_limit IS NOT NULL AND {_PROCESSING}"),
        ),
        CheckConstraint(f"held_lane IS NULL OR {_PROCESSING}", name="lane_held_while_processing"),
        CheckConstraint("(lane IS NULL) = (lane_at IS NULL)", name="lane_has_an_order"),
        # Lists and replays of what was given up, and of one kind of error. Events that succeed are never in them.
        Index("ix_processing_state_given_up", "state", "event_id", postgresql_where=_GIVEN_UP),
        Index(
            "ix_processing_state_error_type", text("(last_error ->> 'type')"), "event_id",
            postgresql_where=text("last_error IS NOT NULL"),
        ),
        Index(
            "ix_processing_state_error_handler", text("(last_error ->> 'handler')"), "event_id",
            postgresql_where=text("(last_error ->> 'handler') IS NOT NULL"),
        ),
        Index(
            "ix_processing_state_error_fingerprint", text("(last_error ->> 'fingerprint')"), "event_id",
            postgresql_where=text("(last_error ->> 'fingerprint') IS NOT NULL"),
        ),
        # A failed event is an exception; one that is queued or processing is so for a moment, and its index would cost
        # every event two entries. Those two states are few, and are reached through ix_processing_state_available.
        Index("ix_processing_state_failed", "event_id", postgresql_where=text("state = 'failed'")),
        {"postgresql_with": upkeep.STATES},
    )  # fmt: skip


upkeep.add_statistics(ProcessingState.__table__)


class ServedType(Base):
    """A type that processors serve: ordered ones, and those for which events wait because another processor lacks them."""

    __tablename__ = "served_type"

    type: Mapped[str] = mapped_column(primary_key=True)
    is_ordered: Mapped[bool]
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When a processor said last that it serves the type."""


class ProcessedEvent(Base):
    """The processed-event log: its primary key is what makes a second effect impossible."""

    __tablename__ = "processed_event_log"

    event_id: Mapped[UUID] = mapped_column(ForeignKey("event.id", ondelete="CASCADE"), primary_key=True)
    handler: Mapped[str]
    attempt: Mapped[int]
    lease_token: Mapped[UUID]
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    duration_ms: Mapped[int]
    processed_at: Mapped[datetime]

    __table_args__ = ({"postgresql_with": upkeep.APPENDED},)


class EventUpdate(Base):
    """Append-only history of every transition. With ``OutboxCursor`` it is the outbox too."""

    __tablename__ = "event_update"

    event_id: Mapped[UUID] = event_reference()
    version: Mapped[int]
    state: Mapped[str]
    attempt: Mapped[int]
    at: Mapped[datetime]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    published_at: Mapped[datetime | None]
    """Of the release before, which marks its updates here and relays unmarked ones. Those of this release are born marked."""
    transaction_id: Mapped[int | None] = mapped_column(
        BigInteger, server_default=text("((pg_current_xact_id())::text)::bigint")
    )
    """Who wrote it; ``NULL`` in rows that were published before this column was there."""

    __table_args__ = (
        PrimaryKeyConstraint("event_id", "version"),
        Index("ix_event_update_unpublished", "at", postgresql_where=text("published_at IS NULL")),
        Index("ix_event_update_transaction_id", "transaction_id", postgresql_where=text("transaction_id IS NOT NULL")),
        {"postgresql_with": upkeep.UPDATES},
    )


class OutboxCursor(Base):
    """How far the relay has come: one row. ``storage.outbox`` says what the two snapshots are."""

    __tablename__ = "outbox_cursor"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    confirmed: Mapped[str]
    until: Mapped[str]
    until_at: Mapped[datetime]
    since: Mapped[datetime] = mapped_column(server_default=text("'-infinity'::timestamptz"))
    """Updates that are older are taken for published. Moves only when the outbox starts over, after a restore."""

    __table_args__ = (CheckConstraint("id = 1", name="is_one"),)


class AttemptErrorRow(Base):
    """Why an attempt failed, with the traceback. Operators see it, live clients do not."""

    __tablename__ = "attempt_error"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    event_id: Mapped[UUID] = event_reference()
    attempt: Mapped[int]
    handler: Mapped[str | None]
    error_type: Mapped[str]
    message: Mapped[str]
    traceback: Mapped[str | None]
    fingerprint: Mapped[str | None]
    worker: Mapped[str | None]
    duration_ms: Mapped[int | None]
    at: Mapped[datetime]

    __table_args__ = (Index("ix_attempt_error_event_id", "event_id"),)
