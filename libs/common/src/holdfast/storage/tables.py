"""The schema, as SQLAlchemy sees it. The constraints repeat the invariants of the state machine.

Migrations create it; a test compares the two.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from holdfast.domain.state import CLAIMABLE, FINISHED, OPEN, State
from holdfast.storage.statements import state_list

__all__ = [
    "ApiKey",
    "AttemptErrorRow",
    "AuditEntry",
    "Base",
    "Event",
    "EventUpdate",
    "ProcessedEvent",
    "ProcessingState",
    "ReplayItem",
    "ReplayJob",
    "TokenRevocation",
    "ServedType",
]

_ALL = "({})".format(", ".join(f"'{state}'" for state in State))
_CLAIMABLE = text(f"state IN {state_list(CLAIMABLE)}")
_GIVEN_UP = text(f"state IN {state_list(FINISHED - {State.PROCESSED})}")
_PROCESSING = f"state = '{State.PROCESSING}'"


class Base(DeclarativeBase):
    """Names every constraint, so that errors can be translated by name."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        str: Text,
        bytes: LargeBinary,
        float: Double,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
    }


def _event_reference() -> Any:
    return mapped_column(ForeignKey("event.id", ondelete="CASCADE"))


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
    """Unused. The release before this one reads it in lists, so it is dropped by the one after."""
    replay_of: Mapped[UUID | None]
    is_json: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether ``data_bytes`` is JSON."""

    __table_args__ = (
        # CloudEvents 1.0: source + id is unique for each distinct event.
        UniqueConstraint("tenant", "source", "ce_id", name="uq_event_identity"),
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
        Index("ix_event_ce_id", "tenant", "ce_id", "id"),
    )


class ProcessingState(Base):
    """Where the event stands: hot and narrow, one row an event, with room in the page for its next version."""

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
    """When it became due, of an event that waits for its turn or a handler; ``available_at`` is then the next look at it."""
    unserved_type: Mapped[str | None]
    """The type, of an event that waits for a handler."""

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
        Index(
            "ix_processing_state_due", "next_dispatch_at", postgresql_where=_CLAIMABLE
        ),
        Index(
            "ix_processing_state_lease", "lease_expires_at", postgresql_where=text(_PROCESSING)
        ),
        Index("ix_processing_state_dead", "finished_at", postgresql_where=text(f"state = '{State.DEAD}'")),
        Index(
            "ix_processing_state_available", "available_at", postgresql_where=_CLAIMABLE
        ),
        Index(
            "ix_processing_state_lane", "lane", "lane_at", "event_id",
            postgresql_where=text(f"lane IS NOT NULL AND state IN {state_list(OPEN)}"),
        ),
        # What makes "one at a time" true, whatever two claims saw of each other.
        Index(
            "uq_processing_state_held_lane", "held_lane", unique=True, postgresql_where=text("held_lane IS NOT NULL")
        ),
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
        CheckConstraint(f"held_lane IS NULL OR {_PROCESSING}", name="lane_held_while_processing"),
        CheckConstraint("(lane IS NULL) = (lane_at IS NULL)", name="lane_has_an_order"),
        # Lists and replays of what was given up, and of one kind of error. Events that succeed are never in them.
        Index(
            "ix_processing_state_given_up", "state", "event_id", postgresql_where=_GIVEN_UP
        ),
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
        {"postgresql_with": {"fillfactor": 70}},
    )  # fmt: skip


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


class EventUpdate(Base):
    """Append-only history of every transition, and the outbox of updates not yet published."""

    __tablename__ = "event_update"

    event_id: Mapped[UUID] = _event_reference()
    version: Mapped[int]
    state: Mapped[str]
    attempt: Mapped[int]
    at: Mapped[datetime]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    published_at: Mapped[datetime | None]

    __table_args__ = (
        PrimaryKeyConstraint("event_id", "version"),
        Index("ix_event_update_unpublished", "at", postgresql_where=text("published_at IS NULL")),
    )


class AttemptErrorRow(Base):
    """Why an attempt failed, with the traceback. Operators see it, live clients do not."""

    __tablename__ = "attempt_error"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    event_id: Mapped[UUID] = _event_reference()
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


class ApiKey(Base):
    """A producer's or operator's key. Only a hash of the secret is stored."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    name: Mapped[str]
    scopes: Mapped[list[str]]
    secret_hash: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """Up to a minute behind, so that a busy key costs a write a minute and not one a request."""


class AuditEntry(Base):
    """What an operator did: who (a key's id), what, when, and to which event or replay. Outlives the events it names."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_event", "event_id", postgresql_where=text("event_id IS NOT NULL")),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    tenant: Mapped[str]
    actor: Mapped[str]
    action: Mapped[str]
    event_id: Mapped[UUID | None]
    replay_id: Mapped[UUID | None]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))


class ReplayJob(Base):
    """A replay by filter. The process with its row locked takes its next items; ``next_at`` is when the next one is due."""

    __tablename__ = "replay_job"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    idempotency_key: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    filter: Mapped[dict[str, Any]]
    rate_per_s: Mapped[float]
    total: Mapped[int]
    replayed: Mapped[int] = mapped_column(server_default=text("0"))
    skipped: Mapped[int] = mapped_column(server_default=text("0"))
    state: Mapped[str]
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    """Turns in a row that ended with an exception, each followed by a longer wait."""
    last_error: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key", name="uq_replay_job_request"),
        CheckConstraint("state IN ('running', 'done', 'cancelled')", name="state_is_known"),
        CheckConstraint("(state = 'running') = (finished_at IS NULL)", name="finished_iff_over"),
        CheckConstraint("rate_per_s > 0", name="rate_is_positive"),
        CheckConstraint("replayed >= 0 AND skipped >= 0 AND replayed + skipped <= total", name="counts"),
        Index("ix_replay_job_running", "next_at", postgresql_where=text("state = 'running'")),
    )


class ReplayItem(Base):
    """One event of a replay, at the version it had when the set was frozen. No reference: pruned events are skipped."""

    __tablename__ = "replay_item"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("replay_job.id", ondelete="CASCADE"))
    event_id: Mapped[UUID]
    version: Mapped[int]
    outcome: Mapped[str | None]
    new_event_id: Mapped[UUID | None]
    done_at: Mapped[datetime | None]

    __table_args__ = (
        PrimaryKeyConstraint("job_id", "event_id"),
        CheckConstraint("outcome IN ('replayed', 'skipped')", name="outcome_is_known"),
        CheckConstraint("(outcome IS NULL) = (done_at IS NULL)", name="outcome_iff_done"),
        Index("ix_replay_item_pending", "job_id", "event_id", postgresql_where=text("done_at IS NULL")),
    )


class TokenRevocation(Base):
    """A live token, or a subject's tokens up to a moment, that count no more. ``seq`` grows with every revocation."""

    __tablename__ = "token_revocation"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=False), unique=True)
    revoked_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("kind IN ('token', 'subject')", name="kind_is_known"),
        CheckConstraint("octet_length(name) BETWEEN 1 AND 255", name="name_is_bounded"),
        Index("ix_token_revocation_revoked_at", "revoked_at"),
    )
