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
    "claim of another event": lambda _: transitions.claim(uuid4(), VERSION, Grant(OTHER_TOKEN, "worker", 30)),
    "resettle": lambda event_id: transitions.resettle(event_id, TOKEN),
    "resettle with a lost token": lambda event_id: transitions.resettle(event_id, OTHER_TOKEN),
    "fail": lambda event_id: transitions.fail(event_id, TOKEN, ERROR, delay_seconds=7),
    "fail with a lost token": lambda event_id: transitions.fail(event_id, OTHER_TOKEN, ERROR, delay_seconds=7),
    "bury": lambda event_id: transitions.bury(event_id, TOKEN, ERROR),
    "bury with a lost token": lambda event_id: transitions.bury(event_id, OTHER_TOKEN, ERROR),
    "release": lambda event_id: transitions.release(event_id, TOKEN),
    "release with a lost token": lambda event_id: transitions.release(event_id, OTHER_TOKEN),
    "sleep": lambda event_id: transitions.sleep(event_id, TOKEN, delay_seconds=7),
    "sleep with a lost token": lambda event_id: transitions.sleep(event_id, OTHER_TOKEN, delay_seconds=7),
    "snooze": lambda event_id: transitions.snooze(event_id, TOKEN, delay_seconds=7),
    "await key": lambda event_id: transitions.await_key(event_id, TOKEN, delay_seconds=7),
    "snooze with a lost token": lambda event_id: transitions.snooze(event_id, OTHER_TOKEN, delay_seconds=7),
    "recover": lambda event_id: transitions.recover(event_id, TOKEN, crashes=0),
    "recover the third time": lambda event_id: transitions.recover(event_id, TOKEN, crashes=2),
    "recover with a lost token": lambda event_id: transitions.recover(event_id, OTHER_TOKEN, crashes=0),
    "await a handler": lambda event_id: transitions.await_handler(event_id, VERSION, delay_seconds=7),
    "await a handler at a stale version": lambda event_id: transitions.await_handler(
        event_id, VERSION - 1, delay_seconds=7
    ),
    "cancel": lambda event_id: transitions.cancel(event_id, TOKEN, by="ann", handler="h", duration_ms=1),
    "cancel with a lost token": lambda event_id: transitions.cancel(event_id, OTHER_TOKEN, by="ann"),
    "cancel of a lost worker": lambda event_id: transitions.cancel(event_id, TOKEN, by="ann", is_worker_lost=True),
    "replay": transitions.replay,
    "discard": transitions.discard,
    "supersede": lambda event_id: transitions.supersede(event_id, OTHER_TOKEN),
    "supersede one that was never claimed": lambda event_id: replace(
        transitions.supersede(event_id, OTHER_TOKEN), expected_version=VERSION
    ),
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


def clock(session: Session) -> datetime:
    """PostgreSQL's clock now; within a transaction ``now()`` stands still."""
    return session.execute(text("SELECT clock_timestamp()")).scalar_one()  # type: ignore[no-any-return]


def lies_between(found: Snapshot, earliest: Snapshot, latest: Snapshot) -> bool:
    """Whether the row is what the pure rule says for some moment between two, between which the statement ran."""
    held = (found.lease_expires_at, earliest.lease_expires_at, latest.lease_expires_at)
    return (
        found == replace(earliest, available_at=found.available_at, lease_expires_at=found.lease_expires_at)
        and earliest.available_at <= found.available_at <= latest.available_at
        and (held == (None, None, None) or (None not in held and held[1] <= held[0] <= held[2]))  # type: ignore[operator]
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
        earliest = after(before, transition, now=clock(session))

        moved = lifecycle.apply(session, [transition], worker="test")

        latest = after(before, transition, now=clock(session))
        found = row_of(session, before.event_id)
        assert bool(moved) == (earliest is not None), name
        assert lies_between(found, earliest or before, latest or before), name


@pytest.mark.parametrize("state", State)
def test_whatever_moves_leaves_a_row_and_a_history_that_fit(session: Session, state: State) -> None:
    for name, construct in CONSTRUCTORS.items():
        before = place(session, state, available=-HOUR, lease=-HOUR)
        session.execute(text("UPDATE processing_state SET dispatches = 4"))
        transition = construct(before.event_id)
        version = VERSION + transition.version_delta
        for update in lifecycle.apply(session, [transition], worker="test"):
            row = session.execute(
                text("SELECT * FROM processing_state WHERE event_id = :id"), {"id": before.event_id}
            ).one()
            history = session.execute(
                text("SELECT * FROM event_update WHERE event_id = :id AND version = :version"),
                {"id": before.event_id, "version": version},
            ).one()
            assert (update.state, update.version, update.attempt) == (row.state, version, row.attempt), name
            assert (history.state, history.attempt, history.at) == (row.state, row.attempt, update.at), name
            assert history.detail == update.detail == transition.detail, name
            assert (row.dispatches, row.finished_at is not None) == (0, row.state in FINISHED), name
            assert row.lease_owner == (transition.grant.owner if transition.grant else None), name
            assert transition.delay_seconds is None or row.next_dispatch_at == row.available_at, name


def test_a_completion_and_an_error_are_recorded_with_the_move_and_only_then(session: Session) -> None:
    done, lost, failed = (place(session, State.PROCESSING, available=-HOUR, lease=HOUR).event_id for _ in range(3))

    lifecycle.apply(
        session,
        [
            transitions.settle(done, TOKEN, Completion("h", {"a": 1}, 3)),
            transitions.settle(lost, OTHER_TOKEN, Completion("h", None, 3)),
            transitions.fail(lost, OTHER_TOKEN, ERROR, delay_seconds=7),
            transitions.fail(failed, TOKEN, ERROR, delay_seconds=7),
        ],
        worker="test",
    )

    [completed] = session.execute(text("SELECT * FROM processed_event_log")).all()
    assert (completed.event_id, completed.lease_token, completed.attempt, completed.result) == (
        done,
        TOKEN,
        2,
        {"a": 1},
    )
    [recorded] = session.execute(text("SELECT * FROM attempt_error")).all()
    assert (recorded.event_id, recorded.error_type, recorded.traceback, recorded.worker) == (
        failed,
        "ValueError",
        "…",
        "test",
    )
    [last_error] = session.scalars(text("SELECT last_error FROM processing_state WHERE last_error IS NOT NULL"))
    assert last_error == {
        "type": "ValueError", "message": "no", "reason": None, "handler": "h", "fingerprint": "f", "duration_ms": 1,
    }  # fmt: skip


@pytest.mark.parametrize("state", [State.DEAD, State.DISCARDED])
def test_a_replayed_event_starts_over(session: Session, state: State) -> None:
    event_id = place(session, state, available=-HOUR, lease=-HOUR).event_id
    session.execute(text("UPDATE processing_state SET last_error = '{}'"))

    lifecycle.apply(session, [transitions.replay(event_id)])

    row = session.execute(text("SELECT * FROM processing_state")).one()
    assert (row.state, row.attempt, row.crashes, row.last_error, row.finished_at) == ("queued", 0, 0, None, None)


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
        ("crashes = -1", "counts"),
        ("dispatches = -1", "counts"),
        ("finished_at = now()", "finished_iff_settled"),
        ("lease_expires_at = now()", "lease_expires"),
    ],
)
def test_the_schema_refuses_rows_that_no_transition_makes(session: Session, damage: str, constraint: str) -> None:
    event = place(session, State.QUEUED, available=-HOUR, lease=-HOUR)

    with pytest.raises(IntegrityError, match=constraint), session.begin_nested():
        session.execute(
            text(f"UPDATE processing_state SET {damage} WHERE event_id = :event_id"),  # noqa: S608
            {"event_id": event.event_id},
        )


@pytest.mark.parametrize(
    ("damage", "constraint"),
    [
        ("UPDATE event SET data = '1', data_bytes = 'x'", "one_kind_of_data"),
        ("UPDATE event SET data_digest = 'short'", "digest_is_sha256"),
        (
            "INSERT INTO event SELECT (jsonb_populate_record(e, jsonb_build_object('id', gen_random_uuid()))).* FROM event e",
            "uq_event_identity",
        ),
        ("INSERT INTO event_update SELECT * FROM event_update", "pk_event_update"),
    ],
)
def test_the_schema_refuses_events_and_histories_that_can_not_be(
    session: Session, damage: str, constraint: str
) -> None:
    place(session, State.QUEUED, available=-HOUR, lease=-HOUR)

    with pytest.raises(IntegrityError, match=constraint), session.begin_nested():
        session.execute(text(damage))
