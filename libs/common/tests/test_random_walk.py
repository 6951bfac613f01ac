"""The state machine on a random walk: the SQL against the pure rules, whatever comes after whatever.

``test_state_machine`` tries every transition from every state that was made by force; here states come about by the
transitions themselves, several events share the tables, and every step is committed. Before each step the pure rule says what
must become of every row; afterwards all rows and their histories are compared with it. The choices are derandomized: each run
walks the same ways.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from holdfast.domain import transitions
from holdfast.domain.errors import LeaseLost
from holdfast.domain.event import Doorbell, Lease, NewEvent
from holdfast.domain.state import CLAIMABLE, FINISHED, State
from holdfast.domain.transitions import LEGAL_EDGES, AttemptError, Completion, Grant, Snapshot, Transition, after
from holdfast.runtime.ids import uuid7
from holdfast.storage import Session, claims, dispatch, events, leases, lifecycle
from holdfast.storage.database import Database

WALKS = settings(
    max_examples=150, stateful_step_count=30, deadline=None, derandomize=True, database=None, print_blob=False,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

ERROR = AttemptError("ValueError", "no", handler="h", traceback="…", fingerprint="f", duration_ms=1)

HELD: dict[str, Callable[[UUID, UUID], Transition]] = {
    "settle": lambda event_id, token: transitions.settle(event_id, token, Completion("h", {"a": 1}, 3)),
    "resettle": transitions.resettle,
    "fail": lambda event_id, token: transitions.fail(event_id, token, ERROR, delay_seconds=0),
    "fail for an hour": lambda event_id, token: transitions.fail(event_id, token, ERROR, delay_seconds=3600),
    "bury": lambda event_id, token: transitions.bury(event_id, token, ERROR),
    "release": transitions.release,
    "recover": lambda event_id, token: transitions.recover(event_id, token, crashes=0),
    "recover for the last time": lambda event_id, token: transitions.recover(event_id, token, crashes=2),
    "cancel": lambda event_id, token: transitions.cancel(event_id, token, by="ann"),
}
"""What the holder of a token may do."""

OPERATORS: dict[str, Callable[[UUID], Transition]] = {"replay": transitions.replay, "discard": transitions.discard}

EVENTS: Bundle[UUID] = Bundle("events")
LEASES = st.just(0) | st.integers(0, 9)
"""Which lease: 0 is the newest one, and most others have been lost."""
VERSIONS = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])
SECONDS = st.sampled_from([0.0, 3600.0])
MARGINS = st.sampled_from([0.0, 60.0])
"""How long ago a time must have come: a minute is over only for events for which time has passed."""


@dataclass(slots=True)
class Model:
    """An event as it must be. ``history`` and ``errors`` are what was appended, in order."""

    row: Snapshot
    rings_at: datetime
    history: list[tuple[int, str, int, dict[str, Any]]] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)
    completions: list[tuple[str, int, UUID]] = field(default_factory=list)
    dispatches: int = 0
    owner: str | None = None
    last_error: str | None = None

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
        self.owner = transition.grant.owner if transition.grant else None
        self.dispatches = 0
        if transition.delay_seconds is not None:
            self.rings_at = row.available_at
        self.row = row


class Walk(RuleBasedStateMachine):
    """Transitions in any order, by holders, late holders, sweeps and operators."""

    database: ClassVar[Database]
    reached: ClassVar[set[tuple[State, State]]] = set()

    @initialize(target=EVENTS)
    def record(self) -> MultipleResults[UUID]:
        """Few events, so that a walk takes each of them far. Two have failed, which few walks would come to."""
        recorded = [NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=uuid4().hex, type="x") for _ in range(3)]
        with self.database.transaction() as session:
            session.execute(text("DELETE FROM event"))
        for event in recorded:  # each at a time of its own: which is older must be known
            with self.database.transaction() as session:
                events.record(session, [event], grace_seconds=0)
                rows = rows_of(session)
        self.leases: list[Lease] = []
        self.events = {
            event_id: Model(row, row.available_at, history=[(1, "queued", 0, {})]) for event_id, row in rows.items()
        }
        for event, kind in zip(recorded[1:], ("fail", "bury"), strict=True):
            self._claim(event.id, 1, 0.0)
            self._apply(HELD[kind](event.id, self.leases[-1].token))
        return multiple(*(event.id for event in recorded))

    @rule(event_id=EVENTS, behind=VERSIONS, seconds=SECONDS)
    def claim(self, event_id: UUID, behind: int, seconds: float) -> None:
        self._claim(event_id, self._version(event_id) - behind, seconds)

    def _claim(self, event_id: UUID, version: int, seconds: float) -> None:
        def run(session: Session) -> dict[UUID, Transition]:
            doorbells = [Doorbell(event_id, version), Doorbell(uuid4(), version)]
            claimed = claims.claim_events(session, doorbells, owner="w", lease_seconds=seconds)
            return {event_id: self._claims(event_id, version, [lease for lease, _ in claimed], seconds)}

        self._step(run)

    @rule(limit=st.integers(1, 3), is_suspect=st.booleans(), seconds=SECONDS, overdue_seconds=MARGINS)
    def claim_due(self, limit: int, is_suspect: bool, seconds: float, overdue_seconds: float) -> None:
        def run(session: Session) -> dict[UUID, Transition]:
            claimed = claims.claim_due(
                session, owner="w", lease_seconds=seconds, limit=limit, is_suspect=is_suspect,
                overdue_seconds=overdue_seconds,
            )  # fmt: skip
            leases = [lease for lease, _ in claimed]
            due = self._oldest(
                session, limit, overdue_seconds, lambda row: row.available_at,
                lambda row: row.state in CLAIMABLE and (row.crashes > 0) == is_suspect,
            )  # fmt: skip
            assert {lease.event.id for lease in leases} == set(due)
            return {event_id: self._claims(event_id, self._version(event_id), leases, seconds) for event_id in due}

        self._step(run)

    @rule(number=LEASES, kind=st.sampled_from(sorted(HELD)))
    def move(self, number: int, kind: str) -> None:
        lease = self._lease(number)
        self._apply(HELD[kind](lease.event.id, lease.token))

    @rule(event_id=EVENTS, kind=st.sampled_from(list(OPERATORS)))
    def operate(self, event_id: UUID, kind: str) -> None:
        self._apply(OPERATORS[kind](event_id))

    @rule(event_id=EVENTS, behind=VERSIONS)
    def await_handler(self, event_id: UUID, behind: int) -> None:
        self._apply(transitions.await_handler(event_id, self._version(event_id) - behind, delay_seconds=0))

    @rule(number=LEASES, seconds=SECONDS)
    def keep(self, number: int, seconds: float) -> None:
        lease = replace(self._lease(number), seconds=seconds)
        event_id, model = lease.event.id, self.events[lease.event.id]
        is_held = model.row.lease_token == lease.token
        with self.database.transaction() as session, nullcontext() if is_held else pytest.raises(LeaseLost):
            lifecycle.hold(session, lease)
        with self.database.transaction() as session:
            before = clock(session)
            extended = leases.extend(session, [lease])
            found, now = rows_of(session)[event_id], clock(session)
        assert extended == ({event_id: True} if is_held else {})
        if found.lease_expires_at is not None and is_held:
            assert before <= found.lease_expires_at - timedelta(seconds=seconds) <= now
            model.row = replace(model.row, lease_expires_at=found.lease_expires_at)

    @rule(
        duty=st.sampled_from(["recover", "redispatch", "pass_time"]), event_id=EVENTS, limit=st.integers(1, 3),
        margin=MARGINS,
    )  # fmt: skip
    def maintain(self, duty: str, event_id: UUID, limit: int, margin: float) -> None:
        if duty == "recover":
            self._recover(limit, margin)
        elif duty == "redispatch":
            self._redispatch()
        else:
            self._pass_time(event_id)

    def _recover(self, limit: int, margin: float) -> None:
        def run(session: Session) -> dict[UUID, Transition]:
            expired = self._oldest(
                session, limit, margin, lambda row: row.lease_expires_at, lambda row: row.state is State.PROCESSING
            )
            updates = leases.recover_expired(session, limit=limit, expired_for_seconds=margin)
            assert {update.event_id for update in updates} == set(expired)
            rows = {event_id: self.events[event_id].row for event_id in expired}
            return {
                event_id: transitions.recover(event_id, row.lease_token or uuid4(), crashes=row.crashes)
                for event_id, row in rows.items()
            }

        self._step(run)

    def _redispatch(self) -> None:
        with self.database.transaction() as session:
            now: datetime = session.execute(text("SELECT now()")).scalar_one()
            rung = dispatch.redispatch_due(session, limit=100)
        due = [each for each in self.events.values() if each.row.state in CLAIMABLE and each.rings_at <= now]
        assert sorted(rung) == sorted(
            Doorbell(each.row.event_id, each.row.version, each.row.crashes > 0, "t") for each in due
        )
        for each in due:
            each.rings_at = now + timedelta(seconds=min(30 * 2**each.dispatches, 1800))
            each.dispatches += 1

    def _pass_time(self, event_id: UUID) -> None:
        """Two hours pass for one event."""
        earlier = text("""
            UPDATE processing_state SET available_at = available_at - interval '2 h',
                next_dispatch_at = next_dispatch_at - interval '2 h', lease_expires_at = lease_expires_at - interval '2 h'
            WHERE event_id = :event_id
        """)
        with self.database.transaction() as session:
            session.execute(earlier, {"event_id": event_id})
        model, passed = self.events[event_id], timedelta(hours=2)
        expiry = model.row.lease_expires_at
        model.rings_at -= passed
        model.row = replace(
            model.row, available_at=model.row.available_at - passed, lease_expires_at=expiry and expiry - passed
        )

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        with self.database.transaction() as session:
            found = look(session)
        assert found == {
            event_id: (
                model.row, model.history, model.errors, model.completions, model.rings_at, model.dispatches,
                model.owner, model.last_error, model.row.state in FINISHED,
            )
            for event_id, model in self.events.items()
        }  # fmt: skip

    def _apply(self, transition: Transition) -> None:
        def run(session: Session) -> dict[UUID, Transition]:
            lifecycle.apply(session, [transition], worker="w")
            return {transition.event_id: transition}

        self._step(run)

    def _step(self, run: Callable[[Session], dict[UUID, Transition]]) -> None:
        """Run a statement, and let the model make the moves that it should have made."""
        with self.database.transaction() as session:
            before = clock(session)
            wanted = run(session)
            found, now = rows_of(session), clock(session)
        for event_id, transition in wanted.items():
            model = self.events[event_id]
            earliest, latest = (after(model.row, transition, now=moment) for moment in (before, now))
            row = found[event_id]
            if latest is not None and (earliest is not None or row.version > model.row.version):
                assert is_between(row, earliest or latest, latest)
                self.reached.add((model.row.state, row.state))
                model.moves(transition, row)

    def _claims(self, event_id: UUID, version: int, leases: list[Lease], seconds: float) -> Transition:
        own = [lease for lease in leases if lease.event.id == event_id]
        self.leases += own
        return transitions.claim(event_id, version, Grant(own[0].token if own else uuid4(), "w", seconds))

    def _oldest(
        self,
        session: Session,
        limit: int,
        margin: float,
        time: Callable[[Snapshot], datetime | None],
        fits: Callable[[Snapshot], bool],
    ) -> list[UUID]:
        """The events of a kind whose time has come, oldest first. ``now()`` stands still within a transaction."""
        now: datetime = session.execute(text("SELECT now()")).scalar_one()
        latest = now - timedelta(seconds=margin)
        come = [(when, row.event_id) for row in self._rows() if fits(row) and (when := time(row)) and when <= latest]
        return [event_id for _, event_id in sorted(come)[:limit]]

    def _rows(self) -> list[Snapshot]:
        return [model.row for model in self.events.values()]

    def _version(self, event_id: UUID) -> int:
        return self.events[event_id].row.version

    def _lease(self, number: int) -> Lease:
        return self.leases[-1 - number % len(self.leases)]


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
    )  # fmt: skip


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, application_name="test")
    yield database
    database.close()


@pytest.mark.timeout(600)  # some 20 s on a machine of its own
def test_the_sql_follows_the_pure_rules_on_every_walk(database: Database) -> None:
    Walk.database, Walk.reached = database, set()

    run_state_machine_as_test(Walk, settings=WALKS)

    assert Walk.reached == LEGAL_EDGES, "the walks are too short to say much"
