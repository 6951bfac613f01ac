"""Histories that are made at once look as if they had been lived: the same rows, indexes and promises."""

from functools import partial

import pytest
from bench import bloat, disk
from bench.curves import KINDS
from bench.history import CAUSES, block, fall_due, make_history

from holdfast.local.fixtures import clone_template
from holdfast.local.servers import Postgres
from holdfast.storage import claims, lanes
from holdfast.storage.database import Database

EVENTS = 20_000

INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexdef"

UNLIKE = """
SELECT count(*) FROM processing_state s JOIN event e ON e.id = s.event_id
LEFT JOIN processed_event_log l USING (event_id)
LEFT JOIN (SELECT event_id, max(version) AS version, count(*) AS updates FROM event_update GROUP BY 1) u USING (event_id)
LEFT JOIN attempt_error a USING (event_id)
WHERE (s.state = 'processed') <> (l.event_id IS NOT NULL) OR u.version <> s.version OR u.updates <> s.version
   OR (s.last_error IS NOT NULL) <> (a.event_id IS NOT NULL) OR substr(e.id::text, 15, 1) <> '7'
"""
"""Events whose rows do not fit each other."""


@pytest.fixture
def name(postgres: Postgres) -> str:
    return clone_template(postgres)


def test_a_history_has_all_rows_and_indexes(postgres: Postgres, name: str) -> None:
    run = partial(postgres.execute, database=name)
    before = run(INDEXES)

    make_history(run, EVENTS)

    assert run(INDEXES) == before
    assert run(UNLIKE) == "0"
    assert run("SELECT count(*), count(DISTINCT tenant) > 3 FROM event") == f"{EVENTS}\tt"
    assert (
        run(
            "SELECT count(*) FROM (SELECT id, lag(id) OVER (ORDER BY received_at) AS last FROM event) e WHERE id < last"
        )
        == "0"
    )
    killers = run("SELECT count(DISTINCT (error_type)) FROM attempt_error")
    assert 1 < int(killers) <= len(CAUSES)
    assert (
        run("SELECT count(*) > 0 FROM replay_item i JOIN event e ON e.id = new_event_id AND e.replay_of = i.event_id")
        == "t"
    )


def test_blocked_events_wait_and_due_ones_are_found(postgres: Postgres, name: str) -> None:
    run = partial(postgres.execute, database=name)
    make_history(run, 1_000, is_analyzed=False)
    block(run, 200, lanes=10)
    fall_due(run, 50)
    database = Database(postgres.url(name), application_name="test", pool_size=1)

    found = database.call(claims.claim_due, owner="w", lease_seconds=30, limit=500)
    promoted = database.call(lanes.promote_forgotten, limit=500)

    database.close()
    assert len(found) == 50
    assert promoted == 0, "the first of each lane has failed and is not due"
    assert run("SELECT count(*) FROM processing_state WHERE waiting_since IS NOT NULL") == "190"


def test_events_are_worked_off_for_the_watch_the_curves_and_the_disk(postgres: Postgres, name: str) -> None:
    disk.fill(postgres, name, 40)
    assert {"event", "pk_event"} <= {each.name for each in disk.sizes(postgres, name, least=0)}
    database = Database(postgres.url(name), application_name="test", pool_size=1)

    assert bloat.work(database, 0) > 0
    assert [measure(database, 0.05) > 0 for measure in KINDS.values()] == [True] * 3

    database.close()
    assert postgres.execute("SELECT count(*) >= 50 FROM processed_event_log", database=name) == "t"


def test_the_server_s_own_autovacuum_can_be_compared_with(postgres: Postgres, name: str) -> None:
    bloat.plain(postgres, name)

    left = postgres.execute("SELECT string_agg(array_to_string(reloptions, ','), ' ') FROM pg_class", database=name)
    assert "fillfactor=90" in left
    assert "autovacuum" not in left
