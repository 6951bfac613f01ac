"""Lists of events: filters, pages, attempts, groups of dead letters, and the indexes that carry them."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Select, text

from holdfast.domain.event import NewEvent
from holdfast.domain.state import State
from holdfast.domain.trace import Origin
from holdfast.domain.transitions import AttemptError, Completion, Transition, bury, fail, settle
from holdfast.local.fixtures import clone_template
from holdfast.local.servers import Postgres
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, events, lifecycle, listing
from holdfast.storage.database import Database
from holdfast.storage.dead_letters import dead_groups
from holdfast.storage.filters import EventFilter
from holdfast.storage.listing import list_events


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test", pool_size=2)
    yield made
    made.close()


def record(database: Database, **attributes: Any) -> UUID:
    kept: dict[str, Any] = {"tenant": "acme", "source": "/s", "type": "x", "ce_id": uuid4().hex} | attributes
    event = NewEvent(id=uuid7(), **kept)
    with database.transaction() as session:
        events.record(session, [event], grace_seconds=0)
    return event.id


def end_attempt(database: Database, event_id: UUID, error: AttemptError | None, *, is_final: bool = True) -> None:
    with database.transaction() as session:
        version = session.scalar(text("SELECT version FROM processing_state WHERE event_id = :id"), {"id": event_id})
        [(lease, _)] = claims.claim_events(session, [(event_id, version)], owner="w", lease_seconds=30)
        end: Transition
        if error is None:
            end = settle(event_id, lease.token, Completion("h", None, 7))
        else:
            end = (
                bury(event_id, lease.token, error) if is_final else fail(event_id, lease.token, error, delay_seconds=0)
            )
        assert lifecycle.apply(session, [end], worker="w-1")


def error(type_: str = "KeyError", fingerprint: str | None = "f1", handler: str | None = "h") -> AttemptError:
    return AttemptError(type_, "no such key", handler=handler, traceback="Traceback …", fingerprint=fingerprint)


def found(database: Database, *, limit: int = 200, tenant: str = "acme", **wanted: Any) -> list[UUID]:
    with database.transaction() as session:
        page = list_events(session, EventFilter(**wanted), tenant=tenant, limit=limit)
    return [view.event.id for view in page.items]


@pytest.mark.parametrize(
    "wanted",
    [
        {"source": "/this"}, {"ce_id": "this"}, {"type": "this"}, {"subject": "this"}, {"audience": "this"},
        {"source": "/this", "type": "this", "state": State.QUEUED},
    ],
)  # fmt: skip
def test_a_filter_finds_what_has_all_of_it(database: Database, wanted: dict[str, Any]) -> None:
    this = record(database, source="/this", ce_id="this", type="this", subject="this", audience="this")
    record(database, source="/this", type="that")
    record(database, source="/that", subject="th", audience="this one")

    assert found(database, **wanted)[-1] == this
    assert found(database, **wanted | {"subject": "this"}) == [this]


def test_events_are_found_by_their_request_and_their_trace(database: Database) -> None:
    trace_id, other = uuid4().hex, uuid4().hex
    one = record(database, origin=Origin("request-1", trace_id, "00f067aa0ba902b7"))
    two = record(database, origin=Origin("request-1", other))
    record(database, origin=Origin("request-2"))
    record(database, origin=Origin("request-1", trace_id), tenant="other")

    assert set(found(database, request_id="request-1")) == {one, two}
    assert found(database, trace_id=trace_id) == [one]
    assert found(database, request_id="request-1", trace_id=other) == [two]
    assert found(database, trace_id=uuid4().hex) == []


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"state": State.DEAD}, ["dead", "other"]),
        ({"state": State.FAILED}, ["failed"]),
        ({"state": State.PROCESSED}, ["processed"]),
        ({"state": State.DISCARDED}, []),
        ({"error_type": "KeyError"}, ["dead", "failed"]),
        ({"error_type": "KeyError", "state": State.DEAD}, ["dead"]),
        ({"handler": "h", "fingerprint": "f2"}, ["other"]),
    ],
)
def test_states_and_errors_are_filters(database: Database, wanted: dict[str, Any], names: list[str]) -> None:
    made = {name: record(database) for name in ("queued", "dead", "failed", "processed", "other")}
    end_attempt(database, made["dead"], error())
    end_attempt(database, made["failed"], error(), is_final=False)
    end_attempt(database, made["processed"], None)
    end_attempt(database, made["other"], error("ValueError", "f2"))

    assert sorted(found(database, **wanted)) == sorted(made[name] for name in names)


def test_a_time_range_has_its_beginning_and_not_its_end(database: Database) -> None:
    event_id = record(database)
    with database.transaction() as session:
        moment = session.scalar(text("SELECT received_at FROM event"))
    assert moment is not None
    instant = timedelta(microseconds=1)

    assert found(database, received_after=moment, received_before=moment + instant) == [event_id]
    assert found(database, received_after=moment + instant) == []
    assert found(database, received_before=moment) == []


def test_a_clock_of_ingest_that_is_hours_off_hides_no_event(database: Database) -> None:
    event_id = record(database)
    for hours in (-23, 23):
        with database.transaction() as session:
            later = {"at": timedelta(hours=hours)}
            moment = session.scalar(text("UPDATE event SET received_at = now() + :at RETURNING received_at"), later)
        assert moment is not None

        assert found(database, received_after=moment, received_before=moment + timedelta(seconds=1)) == [event_id]


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_the_ends_of_the_calendar_are_no_problem(database: Database, moment: datetime) -> None:
    event_id = record(database)

    assert found(database, received_after=datetime.min.replace(tzinfo=UTC)) == [event_id]
    assert found(database, received_before=datetime.max.replace(tzinfo=UTC)) == [event_id]
    assert found(database, received_after=moment, received_before=moment) == []


def test_pages_follow_each_other_newest_first_whatever_comes_meanwhile(database: Database) -> None:
    made = [record(database) for _ in range(5)]
    seen: list[UUID] = []
    before: UUID | None = None
    for _ in range(3):
        with database.transaction() as session:
            page = list_events(session, EventFilter(), tenant="acme", limit=2, before_id=before)
        seen += [view.event.id for view in page.items]
        before = page.next_id
        record(database)

    assert before is None
    assert seen == sorted(made, reverse=True)


def test_a_list_has_no_data_and_no_other_tenants_events(database: Database) -> None:
    record(database, tenant="other")
    event_id = record(database, data_json='{"secret": 1}', extensions={"k": 1})

    with database.transaction() as session:
        [view] = list_events(session, EventFilter(), tenant="acme", limit=10).items

    assert (view.event.id, view.event.data, view.event.extensions) == (event_id, None, {"k": 1})


def test_attempts_keep_their_traceback_and_fingerprint_and_end_with_the_success(database: Database) -> None:
    event_id = record(database)
    end_attempt(database, event_id, error(), is_final=False)
    end_attempt(database, event_id, None)

    with database.transaction() as session:
        first, second = listing.attempts(session, event_id=event_id)

    assert (first.attempt, first.error_type, first.traceback, first.fingerprint, first.worker) == (
        1, "KeyError", "Traceback …", "f1", "w-1",
    )  # fmt: skip
    assert (second.attempt, second.error_type, second.handler, second.duration_ms) == (2, None, "h", 7)


def test_dead_letters_are_grouped_by_what_killed_them(database: Database) -> None:
    for killer in (error(), error(), error(), error("ValueError", "f2"), error("no_handler", None, None)):
        end_attempt(database, record(database), killer)
    newest = record(database, type="newest")
    end_attempt(database, newest, error())
    end_attempt(database, record(database, tenant="other"), error())

    with database.transaction() as session:
        long_ago = "UPDATE processing_state SET finished_at = now() - interval '61 min' WHERE event_id = :id"
        session.execute(text(long_ago), {"id": newest})
        groups = dead_groups(session, tenant="acme", limit=10)
        [largest] = dead_groups(session, tenant="acme", limit=1)

    assert (groups[0].handler, groups[0].error_type, groups[0].fingerprint, groups[0].events) == (
        "h",
        "KeyError",
        "f1",
        4,
    )
    assert [each.event_type for each in groups if each.handler is None] == ["x"]
    assert {each.event_type for each in groups if each.handler} == {None}
    assert {(each.handler, each.error_type, each.events) for each in groups[1:]} == {
        ("h", "ValueError", 1), (None, "no_handler", 1),
    }  # fmt: skip
    assert largest == groups[0]
    assert [each.last_hour for each in groups] == [3, 1, 1]
    assert (largest.sample_id, largest.sample_type, largest.sample_message) == (newest, "newest", "no such key")


def test_events_without_a_handler_are_grouped_by_their_type(database: Database) -> None:
    for type_ in ("a", "a", "b"):
        end_attempt(database, record(database, type=type_), error("no_handler", None, None))

    with database.transaction() as session:
        groups = dead_groups(session, tenant="acme", limit=10)

    assert [(each.event_type, each.events) for each in groups] == [("a", 2), ("b", 1)]


NEWEST = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
RECENTLY = NEWEST - timedelta(hours=1)

FILL = text("""
WITH made AS (
    INSERT INTO event (id, tenant, source, ce_id, type, subject, audience, data_digest, received_at,
                       request_id, trace_id)
    SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0') || '7' || substr(md5(n::text), 1, 19)
                AS uuid),
           CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'acme' END, '/s' || n % 20, n::text, 't' || n % 50,
           CASE WHEN n % 3 = 0 THEN 'subject-' || n % 3000 END, 'user-' || n % 3000, sha256(n::text::bytea), at,
           CASE WHEN n % 100 = 0 THEN 'fixed' ELSE 'request-' || n / 5 END,
           CASE WHEN n % 2 = 0 THEN CAST(md5((n / 10)::text) AS uuid) END
    FROM generate_series(1, 30000) n, LATERAL (SELECT CAST(:newest AS timestamptz) - make_interval(secs => n * 100) AS at) t
    RETURNING id, received_at, CAST(ce_id AS int) AS n
)
INSERT INTO processing_state (event_id, state, version, available_at, next_dispatch_at, finished_at, last_error)
SELECT id, CASE n % 200 WHEN 0 THEN 'dead' WHEN 1 THEN 'discarded' ELSE 'processed' END, 3, received_at,
       received_at, received_at,
       CASE WHEN n % 200 = 0 THEN CAST('{"type":"E' || n % 3 || '","handler":"h","fingerprint":"f"}' AS jsonb) END
FROM made
""")


@pytest.fixture(scope="module")
def filled(postgres: Postgres) -> Iterator[Database]:
    """30,000 events over a month, of which 150 are dead and as many discarded."""
    name = clone_template(postgres)
    made = Database(postgres.url(name), application_name="test", pool_size=1)
    with made.transaction() as session:
        session.execute(FILL, {"newest": NEWEST})
        session.execute(text("ANALYZE"))
    yield made
    made.close()
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def plan(database: Database, statement: Select[Any]) -> str:
    with database.transaction() as session:
        compiled = statement.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        return "\n".join(session.scalars(text(f"EXPLAIN {compiled}".replace(":", r"\:"))))


@pytest.mark.parametrize(
    ("wanted", "tenant", "index"),
    [
        ({}, "rare", "ix_event_tenant_id"),
        ({"state": State.DISCARDED}, "acme", "ix_processing_state_given_up"),
        ({"error_type": "E1"}, "acme", "ix_processing_state_error_type"),
        ({"state": State.DEAD, "handler": "h", "fingerprint": "f"}, "acme", "ix_processing_state_(dead|given_up)"),
        ({"source": "/s7", "ce_id": "7"}, "acme", "uq_event_identity|ix_event_ce_id"),
        ({"audience": "user-7"}, "acme", "ix_event_audience"),
        ({"request_id": "request-7"}, "acme", "ix_event_request_id"),
        ({"request_id": "fixed"}, "acme", "ix_event_request_id"),
        ({"trace_id": "0" * 32}, "acme", "ix_event_trace_id"),
        ({"received_after": RECENTLY}, "acme", r"Index Cond: .*id >= "),
    ],
    ids=[
        "tenant",
        "discarded",
        "error",
        "group",
        "identity",
        "audience",
        "request",
        "a request id of many",
        "trace",
        "time",
    ],
)
def test_lists_and_replays_are_carried_by_indexes(
    filled: Database, wanted: dict[str, Any], tenant: str, index: str
) -> None:
    page = listing.statement(EventFilter(**wanted), tenant=tenant, limit=50)
    whole = page.order_by(None).limit(None)  # as a replay takes it

    of_page, of_whole = plan(filled, page), plan(filled, whole)

    assert re.search(index, of_page), of_page
    assert "Seq Scan" not in of_page, of_page
    assert re.search(f"{index}|uq_event_identity", of_whole), of_whole


ROWS_BEYOND_THE_PAGE = 3000
"""Read at most for a page of 50 over 30,000 events, by each node of the plan: a filter that is applied on the way back
from the newest event reads them all where nothing matches."""


def most_rows(database: Database, statement: Select[Any]) -> tuple[int, str]:
    """Rows that the busiest node of a plan has read, those that its filter removed included; and the plan."""
    with database.transaction() as session:
        compiled = statement.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        explain = text(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {compiled}".replace(":", r"\:"))
        [top] = session.scalars(explain).one()
    nodes, most = [top["Plan"]], 0
    while nodes:
        node = nodes.pop()
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
        most = max(most, (node["Actual Rows"] + removed) * node["Actual Loops"])
        nodes += node.get("Plans", [])
    return int(most), json.dumps(top["Plan"], indent=1)


@pytest.mark.parametrize("state", [None, *State])
@pytest.mark.parametrize("value", ["common", "absent"])
@pytest.mark.parametrize(
    "name", ["source", "ce_id", "type", "subject", "audience", "error_type", "handler", "fingerprint"]
)
def test_no_filter_reads_more_than_it_needs(filled: Database, name: str, value: str, state: State | None) -> None:
    common = {
        "source": "/s7", "ce_id": "7", "type": "t7", "subject": "subject-9", "audience": "user-7", "error_type": "E1",
        "handler": "h", "fingerprint": "f",
    }[name]  # fmt: skip
    wanted: dict[str, Any] = {name: common if value == "common" else "absent", "state": state}

    most, read = most_rows(filled, listing.statement(EventFilter(**wanted), tenant="acme", limit=50))

    assert most <= ROWS_BEYOND_THE_PAGE, read
    assert "Seq Scan" not in read, read


@pytest.mark.parametrize("wanted", [{}, {"type": "t7"}, {"state": State.PROCESSED}, {"error_type": "E1"}], ids=str)
def test_a_page_far_back_begins_where_it_is(filled: Database, wanted: dict[str, Any]) -> None:
    with filled.transaction() as session:
        far_back = session.scalar(text("SELECT id FROM event ORDER BY id LIMIT 1 OFFSET 10000"))

    page = listing.statement(EventFilter(**wanted), tenant="acme", limit=50, before_id=far_back)
    most, read = most_rows(filled, page)

    assert most <= ROWS_BEYOND_THE_PAGE, read
    assert json.loads(read)["Shared Hit Blocks"] + json.loads(read)["Shared Read Blocks"] <= 700, read


@pytest.mark.parametrize("state", [state for state in State if state is not State.PROCESSED])
def test_a_state_that_is_rare_is_not_looked_for_from_the_newest_event_back(filled: Database, state: State) -> None:
    most, read = most_rows(filled, listing.statement(EventFilter(state=state), tenant="acme", limit=50))

    assert most <= ROWS_BEYOND_THE_PAGE, read
    assert "Seq Scan" not in read, read
