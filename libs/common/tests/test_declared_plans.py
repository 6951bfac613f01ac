"""However many events wait, what runs and waits under limits is counted by indexes that have nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import TextClause, text

from holdfast.storage import declared
from holdfast.storage.database import Database

_FILL = """
INSERT INTO event (id, tenant, source, ce_id, type)
SELECT gen_random_uuid(), 'acme', '/t', CAST(n AS text), 't' FROM generate_series(1, 20000) n;
INSERT INTO processing_state (event_id, state, version, attempt, available_at, next_dispatch_at, tenant_name)
SELECT id, 'queued', 1, 0, now(), now(), 'acme' FROM event;
UPDATE processing_state SET waits_in = 'limit:a:' || (random() * 10)::int, unserved_type = '', waiting_since = now()
WHERE event_id IN (SELECT id FROM event LIMIT 500);
"""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, application_name="test")
    yield made
    made.close()


def plan(database: Database, statement: TextClause, **parameters: Any) -> str:
    with database.transaction() as session:
        return "\n".join(session.scalars(text(f"EXPLAIN {statement.text}"), parameters))


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_no_count_reads_the_events_that_wait_for_a_thread(database: Database, is_analyzed: bool) -> None:
    with database.transaction() as session:
        session.execute(text(_FILL))
    if is_analyzed:
        with database.transaction() as session:
            session.execute(text("ANALYZE processing_state"))

    running = plan(database, declared._RUNNING, limit=10)
    waiting = plan(database, declared._WAITING, lines=10, events=10)

    assert "Seq Scan on processing_state" not in running + waiting
    assert waiting.count("using ix_processing_state_waits_in") >= 2, waiting
    assert "ix_processing_state_held_limit" in running, running
