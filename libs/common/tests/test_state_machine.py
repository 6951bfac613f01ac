"""The state machine, twice: as pure functions and as SQL. Every constructor from every state, guards right and wrong."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from holdfast.domain import transitions
from holdfast.domain.event import NewEvent
from holdfast.domain.state import FINISHED, State
from holdfast.domain.transitions import LEGAL_EDGES, AttemptError, Completion, Grant, Snapshot, Transition, after
from holdfast.runtime.ids import uuid7
from holdfast.storage import Session, events, lifecycle
from holdfast.storage.database import Database

TOKEN = UUID("11111111-1111-1111-1111-111111111111")
OTHER_TOKEN = UUID("22222222-2222-2222-2222-222222222222")
VERSION = 5
HOUR = timedelta(hours=1)

ERROR = AttemptError("ValueError", "no", handler="h", traceback="…", fingerprint="f", duration_ms=1)

CONSTRUCTORS: dict[str, Callable[[UUID], Transition]] = {
    "claim": lambda event_id: transitions.claim(event_id, VERSION, Grant(OTHER_TOKEN, "worker", 30)),
    "claim at a stale version": lambda event_id: transitions.claim(event_id, VERSION - 1, Grant(OTHER_TOKEN, "w", 30)),
    "settle": lambda event_id: transitions.settle(event_id, TOKEN, Completion("h", {"a": 1}, 3)),
    "settle with a lost token": lambda event_id: transitions.settle(event_id, OTHER_TOKEN, Completion("h", None, 3)),
    "resettle": lambda event_id: transitions.resettle(event_id, TOKEN),
    "fail": lambda event_id: transitions.fail(event_id, TOKEN, ERROR, delay_seconds=7),
    "fail with a lost token": lambda event_id: transitions.fail(event_id, OTHER_TOKEN, ERROR, delay_seconds=7),
    "bury": lambda event_id: transitions.bury(event_id, TOKEN, ERROR),
    "release": lambda event_id: transitions.release(event_id, TOKEN),
    "recover": lambda event_id: transitions.recover(event_id, TOKEN, crashes=0),
    "recover the third time": lambda event_id: transitions.recover(event_id, TOKEN, crashes=2),
    "recover with a lost token": lambda event_id: transitions.recover(event_id, OTHER_TOKEN, crashes=0),
    "replay": transitions.replay,
    "discard": transitions.discard,
}

AVAILABLE = {"due": -HOUR, "not yet due": HOUR}
LEASE = {"expired": -HOUR, "running": HOUR}


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    database = Database(database_url, application_name="test")
    with database.transaction() as session:
        yield session
    database.close()


def place(session: Session, state: State, *, available: timedelta, lease: timedelta) -> Snapshot:
    """An event put into a state by force, and the same row as the pure rules see it."""
    event = NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=uuid4().hex, type="x")
    events.record(session, [event], grace_seconds=0)
    is_processing = state is State.PROCESSING
    session.execute(
        text("""
            UPDATE processing_state SET state = :state, version = :version, attempt = 2, crashes = 1,
                available_at = now() + :available, lease_token = :token,
                lease_expires_at = CASE WHEN :is_processing THEN now() + :lease END,
                finished_at = CASE WHEN :is_finished THEN now() END
            WHERE event_id = :event_id
        """),
        {
            "event_id": event.id, "state": state, "version": VERSION, "available": available, "lease": lease,
            "token": TOKEN if is_processing else None, "is_processing": is_processing,
            "is_finished": state in FINISHED,
        },
    )  # fmt: skip
    return row_of(session, event.id)


def row_of(session: Session, event_id: UUID) -> Snapshot:
    statement = text("""
        SELECT state, version, attempt, crashes, available_at, lease_token, lease_expires_at
        FROM processing_state WHERE event_id = :event_id
    """)
    row = session.execute(statement, {"event_id": event_id}).one()
    return Snapshot(
        event_id=event_id, state=State(row.state), version=row.version, attempt=row.attempt, crashes=row.crashes,
        available_at=row.available_at, lease_token=row.lease_token, lease_expires_at=row.lease_expires_at,
    )  # fmt: skip


def without_times(row: Snapshot) -> Snapshot:
    """Times to the nearest ten minutes: the two sides read different clocks, and all times here are an hour apart."""

    def round_(moment: datetime | None) -> datetime | None:
        return moment and datetime.fromtimestamp(round(moment.timestamp() / 600) * 600, UTC)

    return replace(
        row, available_at=round_(row.available_at) or row.available_at, lease_expires_at=round_(row.lease_expires_at)
    )


@pytest.mark.parametrize("lease", LEASE)
@pytest.mark.parametrize("available", AVAILABLE)
@pytest.mark.parametrize("state", State)
def test_sql_and_pure_rules_agree_on_every_constructor(
    session: Session, state: State, available: str, lease: str
) -> None:
    for name, construct in CONSTRUCTORS.items():
        before = place(session, state, available=AVAILABLE[available], lease=LEASE[lease])
        transition = construct(before.event_id)
        expected = after(before, transition, now=session.scalar(text("SELECT now()")) or datetime.now(UTC))

        moved = lifecycle.apply(session, [transition], worker="test")

        found = row_of(session, before.event_id)
        assert bool(moved) == (expected is not None), name
        assert without_times(found) == without_times(expected or before), name


def test_every_legal_edge_and_no_other_is_reached_in_sql(session: Session) -> None:
    reached = set()
    for state in State:
        for construct in CONSTRUCTORS.values():
            before = place(session, state, available=-HOUR, lease=-HOUR)
            for update in lifecycle.apply(session, [construct(before.event_id)]):
                reached.add((state, update.state))

    assert reached == LEGAL_EDGES


@pytest.mark.parametrize("source", State)
@pytest.mark.parametrize("target", State)
def test_the_pure_rules_reach_exactly_the_legal_edges(source: State, target: State) -> None:
    now = datetime.now(UTC)
    is_processing = source is State.PROCESSING
    row = Snapshot(
        event_id=uuid4(), state=source, version=VERSION, attempt=1, crashes=0, available_at=now - HOUR,
        lease_token=TOKEN if is_processing else None, lease_expires_at=now - HOUR if is_processing else None,
    )  # fmt: skip

    results = [after(row, construct(row.event_id), now=now) for construct in CONSTRUCTORS.values()]

    assert any(result is not None and result.state is target for result in results) == ((source, target) in LEGAL_EDGES)


@pytest.mark.parametrize(
    ("damage", "constraint"),
    [
        ("state = 'processing'", "lease_iff_processing"),
        ("lease_token = gen_random_uuid(), lease_expires_at = now()", "lease_iff_processing"),
        ("state = 'processed'", "finished_iff_settled"),
        ("state = 'asleep'", "state_is_known"),
        ("version = 0", "counts"),
        ("attempt = -1", "counts"),
    ],
)
def test_the_schema_refuses_rows_that_no_transition_makes(session: Session, damage: str, constraint: str) -> None:
    event = place(session, State.QUEUED, available=-HOUR, lease=-HOUR)

    with pytest.raises(IntegrityError, match=constraint), session.begin_nested():
        session.execute(
            text(f"UPDATE processing_state SET {damage} WHERE event_id = :event_id"),  # noqa: S608
            {"event_id": event.event_id},
        )
