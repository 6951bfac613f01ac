"""What the events of a random walk must be, and what they are."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from holdfast.domain.state import FINISHED, State
from holdfast.domain.transitions import Snapshot, Transition, after
from holdfast.storage import Session

__all__ = ["Model", "clock", "is_between", "look", "rows_of"]


@dataclass(slots=True)
class Model:
    """An event as it must be. ``history`` and ``errors`` are what was appended, in order.

    ``line`` is where it waits, and ``due_at`` then when it became due; ``limit`` is what it holds.
    """

    row: Snapshot
    rings_at: datetime
    history: list[tuple[int, str, int, dict[str, Any]]] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)
    completions: list[tuple[str, int, UUID]] = field(default_factory=list)
    dispatches: int = 0
    owner: str | None = None
    last_error: str | None = None
    line: str | None = None
    due_at: datetime | None = None
    limit: str | None = None

    def after(self, transition: Transition, *, now: datetime) -> Snapshot | None:
        """As the pure rule, to which an event that waits is due since it was, whenever it is looked at next."""
        row = after(replace(self.row, available_at=self.due_at or self.row.available_at), transition, now=now)
        if row is None or transition.delay_seconds is not None:
            return row
        return replace(row, available_at=self.row.available_at)

    def waits(self, line: str, next_look: datetime) -> None:
        """Note that it was set aside."""
        self.line, self.due_at, self.dispatches = line, self.due_at or self.row.available_at, 0
        self.row, self.rings_at = replace(self.row, available_at=next_look), next_look

    def is_called(self, rings_at: datetime) -> None:
        """Note that it was promoted."""
        assert self.due_at is not None
        self.row, self.rings_at = replace(self.row, available_at=self.due_at), rings_at
        self.line = self.due_at = None

    def moves(self, transition: Transition, row: Snapshot) -> None:
        """Note the transition to ``row``."""
        self.history.append((row.version, str(row.state), row.attempt, dict(transition.detail)))
        if transition.error is not None:
            self.errors.append((row.attempt, transition.error.type))
            self.last_error = transition.error.type
        if transition.is_reset or row.state is State.PROCESSED:
            self.last_error = None
        if transition.completion is not None:
            assert transition.expected_token is not None
            self.completions.append((transition.completion.handler, row.attempt, transition.expected_token))
        if not transition.keeps_waiting:
            self.line = self.due_at = None
        self.limit = transition.grant.limit if transition.grant else None
        self.owner = transition.grant.owner if transition.grant else None
        self.dispatches = 0
        if transition.delay_seconds is not None:
            self.rings_at = row.available_at
        self.row = row

    @property
    def found(self) -> Any:
        """What :func:`look` must find."""
        return (
            self.row, self.history, self.errors, self.completions, self.rings_at, self.dispatches, self.owner,
            self.last_error, self.row.state in FINISHED, self.line, self.due_at, None if self.line is None else "",
            self.limit,
        )  # fmt: skip


def clock(session: Session) -> datetime:
    """PostgreSQL's clock now; within a transaction ``now()`` stands still."""
    return session.execute(text("SELECT clock_timestamp()")).scalar_one()  # type: ignore[no-any-return]


def is_between(found: Snapshot, earliest: Snapshot, latest: Snapshot) -> bool:
    """Whether the row is what the pure rule says for some moment between two, between which the statement ran."""
    expiry = (earliest.lease_expires_at, found.lease_expires_at, latest.lease_expires_at)
    return (
        found == replace(earliest, available_at=found.available_at, lease_expires_at=found.lease_expires_at)
        and earliest.available_at <= found.available_at <= latest.available_at
        and (expiry == (None, None, None) or (None not in expiry and expiry[0] <= expiry[1] <= expiry[2]))  # type: ignore[operator]
    )


def rows_of(session: Session) -> dict[UUID, Snapshot]:
    """Every row, as the pure rules see it."""
    return {event_id: found[0] for event_id, found in look(session).items()}


def look(session: Session) -> dict[UUID, Any]:
    """Every event with all that hangs on it, in the shape of the model."""
    statement = text("""
        SELECT s.*,
            ARRAY(SELECT jsonb_build_array(version, state, attempt, detail) FROM event_update u
                  WHERE u.event_id = s.event_id ORDER BY version) AS history,
            ARRAY(SELECT jsonb_build_array(attempt, error_type) FROM attempt_error a
                  WHERE a.event_id = s.event_id ORDER BY id) AS errors,
            ARRAY(SELECT jsonb_build_array(handler, attempt, lease_token) FROM processed_event_log l
                  WHERE l.event_id = s.event_id) AS completions
        FROM processing_state s
    """)
    return {row.event_id: _shaped(row) for row in session.execute(statement)}


def _shaped(row: Any) -> Any:
    snapshot = Snapshot(
        event_id=row.event_id, state=State(row.state), version=row.version, attempt=row.attempt, crashes=row.crashes,
        available_at=row.available_at, lease_token=row.lease_token, lease_expires_at=row.lease_expires_at,
    )  # fmt: skip
    completions = [(handler, attempt, UUID(token)) for handler, attempt, token in row.completions]
    last_error = row.last_error["type"] if row.last_error else None
    return (
        snapshot, [tuple(each) for each in row.history], [tuple(each) for each in row.errors], completions,
        row.next_dispatch_at, row.dispatches, row.lease_owner, last_error, row.finished_at is not None,
        row.waits_in, row.waiting_since, row.unserved_type, row.held_limit,
    )  # fmt: skip
