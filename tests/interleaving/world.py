"""The database under exploration: put into a state, looked at, and judged."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import text
from tests.interleaving.actors import Violation, write_effect

from holdfast.domain.event import Doorbell, NewEvent
from holdfast.domain.state import FINISHED, OPEN, State
from holdfast.domain.transitions import LEGAL_EDGES, Completion, settle
from holdfast.runtime.ids import uuid7
from holdfast.storage import aside, cancels, claims, dispatch, events, lanes, leases, lifecycle, served
from holdfast.storage.database import Database

__all__ = ["TYPE", "Rows", "Seen", "World", "state_key"]

_PREPARE = """
CREATE TABLE IF NOT EXISTS effect (event_id uuid NOT NULL REFERENCES event ON DELETE CASCADE);

-- Waits do not end by themselves, however slow the machine: whatever is due later is due in years. The clock ends them.
CREATE OR REPLACE FUNCTION wait_for_the_clock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.available_at > statement_timestamp() THEN NEW.available_at := '2999-01-01'; END IF;
    IF NEW.next_dispatch_at > statement_timestamp() THEN NEW.next_dispatch_at := '2999-01-01'; END IF;
    IF NEW.lease_expires_at > statement_timestamp() THEN NEW.lease_expires_at := '2999-01-01'; END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER wait_for_the_clock BEFORE UPDATE ON processing_state
    FOR EACH ROW EXECUTE FUNCTION wait_for_the_clock();

CREATE OR REPLACE FUNCTION look() RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object(
        'processing_state', (SELECT coalesce(jsonb_agg(s ORDER BY event_id), '[]') FROM processing_state s),
        'event_update', (SELECT coalesce(jsonb_agg(u ORDER BY event_id, version), '[]') FROM event_update u),
        'processed_event_log', (SELECT coalesce(jsonb_agg(l), '[]') FROM processed_event_log l),
        'attempt_error', (SELECT coalesce(jsonb_agg(a ORDER BY id), '[]') FROM attempt_error a),
        'cancel_request', (SELECT coalesce(jsonb_agg(c ORDER BY event_id), '[]') FROM cancel_request c),
        'effect', (SELECT coalesce(jsonb_agg(f), '[]') FROM effect f));
END $$;

CREATE OR REPLACE FUNCTION put_back(seen jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM processing_state; DELETE FROM event_update; DELETE FROM processed_event_log;
    DELETE FROM attempt_error; DELETE FROM effect; DELETE FROM cancel_request;
    INSERT INTO processing_state SELECT * FROM jsonb_populate_recordset(NULL::processing_state, seen->'processing_state');
    INSERT INTO event_update SELECT * FROM jsonb_populate_recordset(NULL::event_update, seen->'event_update');
    INSERT INTO processed_event_log
        SELECT * FROM jsonb_populate_recordset(NULL::processed_event_log, seen->'processed_event_log');
    INSERT INTO attempt_error OVERRIDING SYSTEM VALUE
        SELECT * FROM jsonb_populate_recordset(NULL::attempt_error, seen->'attempt_error');
    INSERT INTO effect SELECT * FROM jsonb_populate_recordset(NULL::effect, seen->'effect');
    INSERT INTO cancel_request SELECT * FROM jsonb_populate_recordset(NULL::cancel_request, seen->'cancel_request');
END $$;

DELETE FROM event;
"""

_FURTHER = """
CREATE OR REPLACE FUNCTION look_further() RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object(
        'event', (SELECT coalesce(jsonb_agg(e ORDER BY id), '[]') FROM event e WHERE starts_with(source, '{made}')){looks});
END $$;

CREATE OR REPLACE FUNCTION put_back_further(seen jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM event WHERE starts_with(source, '{made}');
    {deletes}
    INSERT INTO event SELECT * FROM jsonb_populate_recordset(NULL::event, seen->'event');
    {inserts}
END $$;
"""

_LOOK_AT = ", '{}', (SELECT coalesce(jsonb_agg(t ORDER BY t), '[]') FROM {} t)"

_PUT_BACK = "INSERT INTO {} SELECT * FROM jsonb_populate_recordset(NULL::{}, seen->'{}');"

MADE = "/holdfast/"
"""What the sources begin with of events that are made on the way, which go when they were not there yet."""

_PASS_TIME = text("""
WITH free AS (SELECT event_id FROM processing_state FOR NO KEY UPDATE SKIP LOCKED)
UPDATE processing_state s SET
    available_at = least(available_at, now() - interval '1 s'),
    next_dispatch_at = least(next_dispatch_at, now() - interval '1 s'),
    lease_expires_at = CASE WHEN lease_expires_at IS NOT NULL THEN least(lease_expires_at, now() - interval '1 s') END
FROM free WHERE s.event_id = free.event_id
""")

TYPE = "x"
"""Of every event, and of those that are taken in order where they have a subject."""

FUTURE = "2999-01-01"

ROUNDS = 10
"""Sweeps after which every event must be finished: three crashes at most, and a worker that succeeds."""


Rows = dict[str, list[dict[str, Any]]]
"""By table."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything committed, as rows; ``key`` is what of it can matter to a later step."""

    rows: Rows
    key: tuple[Any, ...]

    def token_of(self, event_id: UUID) -> str | None:
        """The token of the event's lease."""
        [token] = [row["lease_token"] for row in self.rows["processing_state"] if row["event_id"] == str(event_id)]
        return None if token is None else str(token)

    @property
    def is_waiting(self) -> bool:
        """Whether something would become due, or a lease expire, if time passed."""
        return any(is_future(time) for row in self.rows["processing_state"] for time in _times(row))


class World:
    """A database with some events in it, and a connection that looks on from outside."""

    further: ClassVar[Sequence[str]] = ()
    """Tables that belong to the state as well, in an order in which they can be filled. Only where there are some, events
    from :data:`MADE` belong to it too: looking and putting back take their time.
    """

    def __init__(self, database: Database, *, event_count: int = 1, subject: str | None = None) -> None:
        self.database = database
        self._connection = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._connection.exec_driver_sql(_PREPARE)
        if self.further:
            self._connection.exec_driver_sql(_further(self.further))
        if subject is not None:
            with database.transaction() as session:
                served.declare_ordered(session, [TYPE])
        self.event_ids = self.fill(event_count, subject)

    def fill(self, event_count: int, subject: str | None) -> list[UUID]:
        """Record what there is at first; returns the events that actors are rung for, oldest first."""
        return [self._record(subject) for _ in range(event_count)]

    def close(self) -> None:
        self._connection.close()

    def execute(self, statement: str) -> None:
        """Change the schema, say."""
        self._connection.exec_driver_sql(statement)

    def look(self) -> Seen:
        """What is committed now."""
        looking = "SELECT look() || look_further()" if self.further else "SELECT look()"
        rows = self._connection.exec_driver_sql(looking).scalar_one()
        return Seen(rows, self.key(rows))

    def key(self, rows: Rows) -> tuple[Any, ...]:
        """What of the rows can matter to a later step."""
        return _key(rows)

    def check(self, seen: Seen) -> None:
        """The invariant that holds after every commit.

        Raises:
            Violation: naming what is wrong.
        """
        check(seen)

    def is_time_awaited(self, seen: Seen) -> bool:
        """Whether it would make a difference if time passed."""
        return seen.is_waiting

    def number(self, event_id: UUID) -> int:
        """An event's name that is the same whenever it was made."""
        return self.event_ids.index(event_id)

    def named(self, doorbells: tuple[Doorbell, ...]) -> tuple[Doorbell, ...]:
        """The doorbells, so that they are equal for events that are, whenever those were made."""
        return doorbells

    def put_back(self, seen: Seen) -> None:
        """Make the database what it was."""
        if self.further:
            self._connection.exec_driver_sql("SELECT put_back_further(%s::jsonb)", (json.dumps(seen.rows),))
        self._connection.exec_driver_sql("SELECT put_back(%s::jsonb)", (json.dumps(seen.rows),))

    def pass_time(self) -> None:
        """Let every wait end and every lease expire, but of rows that are locked: see ``explorer``."""
        self._connection.execute(_PASS_TIME)

    def is_waiting(self, pid: int, others: set[int]) -> bool:
        """Whether PostgreSQL lets this process wait for locks of those others, and of nobody else."""
        blockers = self._connection.exec_driver_sql("SELECT pg_blocking_pids(%s)", (pid,)).scalar_one()
        return bool(blockers) and others.issuperset(blockers)

    def cancel(self, pid: int) -> None:
        """Cancel the process's statement."""
        self._connection.exec_driver_sql("SELECT pg_cancel_backend(%s)", (pid,))

    def recover(self) -> Seen:
        """Time, maintenance and a worker that succeeds, until nothing is open."""
        for _ in range(ROUNDS):
            self.pass_time()
            with self.database.transaction() as session:
                leases.recover_expired(session, limit=10)
            with self.database.transaction() as session:
                cancels.carry_out(session, limit=10)
            self.pass_time()
            with self.database.transaction() as session:
                lanes.promote_forgotten(session, limit=10)
                aside.promote(session, dict.fromkeys(aside.lines(session, limit=10), 10))
            self.pass_time()
            with self.database.transaction() as session:
                doorbells = dispatch.redispatch_due(session, limit=10)
            if not doorbells:
                break
            for doorbell in doorbells:
                self._process(doorbell)
        seen = self.look()
        for row in seen.rows["processing_state"]:
            if State(row["state"]) not in FINISHED:
                raise Violation(f"stuck in {row['state']} after {ROUNDS} rounds of maintenance")
        if seen.rows["cancel_request"]:
            raise Violation("a request to cancel is left of an event that has ended")
        return seen

    def _record(self, subject: str | None) -> UUID:
        event = NewEvent(id=uuid7(), tenant="t", source="/s", ce_id=uuid4().hex, type=TYPE, subject=subject)
        with self.database.transaction() as session:
            events.record(session, [event], grace_seconds=0)
        return event.id

    def _process(self, doorbell: Doorbell) -> None:
        with self.database.transaction() as session:
            claimed = claims.claim_events(session, [doorbell], owner="last", lease_seconds=30)
        for lease, _ in claimed:
            with self.database.transaction() as session:
                lifecycle.hold(session, lease)
                write_effect(session, lease)
                lifecycle.apply(session, [settle(lease.event.id, lease.token, Completion("h", None, 0))])


def check(seen: Seen) -> None:
    """The invariant that holds after every commit.

    Raises:
        Violation: naming what is wrong.
    """
    for row in seen.rows["processing_state"]:
        counts = len(_of(seen, "processed_event_log", row)), len(_of(seen, "effect", row))
        if counts != ((1, 1) if row["state"] == State.PROCESSED else (0, 0)):
            raise Violation(f"{row['state']} with {counts[0]} rows in the log and {counts[1]} sets of effects")
        history = _of(seen, "event_update", row)
        _check_history(row, history)
        errors = sum("error" in update["detail"] for update in history)
        if len(_of(seen, "attempt_error", row)) != errors:
            raise Violation(f"{errors} failures in the history, not as many recorded errors")
    _check_lane(seen.rows["processing_state"])
    _check_limit(seen.rows["processing_state"])


def _check_lane(rows: list[dict[str, Any]]) -> None:
    """Of one subject nothing has begun while an older one is open. Rows are in order of arrival."""
    laned = [row for row in rows if row["lane_key"] is not None]
    for older, younger in pairwise(laned):
        if State(older["state"]) in OPEN and younger["attempt"] > 0:
            raise Violation(f"the younger event is {younger['state']} while the older one is {older['state']}")


def _check_limit(rows: list[dict[str, Any]]) -> None:
    """Of those that hold a limit of one, one runs; and nobody holds one that does not run."""
    holding = [row for row in rows if row["held_limit"] is not None]
    if len(holding) > 1:
        raise Violation(f"{len(holding)} events hold a limit of one")
    if holding and holding[0]["state"] != State.PROCESSING:
        raise Violation(f"an event that is {holding[0]['state']} holds a limit")


def _check_history(row: dict[str, Any], history: list[dict[str, Any]]) -> None:
    versions = [update["version"] for update in history]
    # A discard of what waits skips a version (ADR 0015); a cancel of what runs does not.
    skips = [
        after["state"] == State.DISCARDED and before["state"] != State.PROCESSING for before, after in pairwise(history)
    ]
    if versions != [1, *accumulate((1 + skip for skip in skips), initial=1)][1:] or versions[-1] != row["version"]:
        raise Violation(f"version {row['version']} with the history {versions}")
    if (history[-1]["state"], history[-1]["attempt"]) != (row["state"], row["attempt"]):
        raise Violation(f"{row['state']} in attempt {row['attempt']}, but the last update says {history[-1]}")
    for before, after in pairwise(State(update["state"]) for update in history):
        if (before, after) not in LEGAL_EDGES:
            raise Violation(f"from {before} to {after}")


def _of(seen: Seen, table: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in seen.rows[table] if each["event_id"] == row["event_id"]]


def _further(tables: Sequence[str]) -> str:
    """How to look at these tables and to put them back."""
    return _FURTHER.format(
        made=MADE,
        looks="".join(map(_LOOK_AT.format, tables, tables)),
        deletes="".join(map("DELETE FROM {};".format, reversed(tables))),
        inserts="".join(map(_PUT_BACK.format, tables, tables, tables)),
    )


def _key(rows: Rows) -> tuple[Any, ...]:
    states = rows["processing_state"]
    # Which is due first decides whom the poller takes.
    order = sorted(range(len(states)), key=lambda index: (str(states[index]["available_at"]), index))
    done = [sum(row["event_id"] == state["event_id"] for row in rows["effect"]) for state in states]
    requests = [(row["event_id"], row["version"]) for row in rows["cancel_request"]]
    return (*map(state_key, states), *order, *done, *requests)


def state_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["state"],
        row["version"],
        row["attempt"],
        row["crashes"],
        row["waiting_since"] is None,
        row["waits_in"],
        row["held_limit"],
        *map(is_future, _times(row)),
    )


def _times(row: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    return row["available_at"], row["next_dispatch_at"], row["lease_expires_at"]


def is_future(time: str | None) -> bool:
    """Whether only the clock ends this wait."""
    return time is not None and time.startswith(FUTURE)
