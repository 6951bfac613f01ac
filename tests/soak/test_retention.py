"""Two million events go while others come: recording is not held up, and their space comes back."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.history import make_history
from bench.retention import COUNTED, TABLES, measure, refill
from sqlalchemy import text

from holdfast.local.servers import Postgres
from holdfast.storage.database import Database
from holdfast.storage.migrate import upgrade

pytestmark = [pytest.mark.soak, pytest.mark.timeout(4 * 3600)]

EVENTS = int(os.environ.get("HOLDFAST_RETAINED", "2300000"))
"""Nine tenths are of the tenant whose rule counts."""

MOST_SLOWER = 1.5

MOST_GROWTH = 1.1
"""Of all tables, once half as many events came as went."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    server = Postgres(tmp_path / "postgres", is_durable=True)
    server.start()
    upgrade(server.url())
    make_history(lambda sql: server.execute(sql), EVENTS)
    server.execute(COUNTED)
    made = Database(server.url(), application_name="test", pool_size=8)
    yield made
    made.close()
    server.stop()


def size(database: Database) -> int:
    asked = text(
        "SELECT sum(pg_total_relation_size(CAST(name AS regclass))) FROM unnest(CAST(:tables AS text[])) AS t(name)"
    )
    with database.transaction() as session:
        return int(session.scalar(asked, {"tables": list(TABLES)}) or 0)


def test_two_million_events_go_beside_the_load(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    before = size(database)

    figures = measure(database, seconds=60)
    refill(database, figures.dropped // 2)

    after = size(database)
    with capsys.disabled():
        print(figures, f"{before >> 20} → {after >> 20} MiB", file=sys.stderr)  # noqa: T201
    with database.transaction() as session:
        left = session.scalar(
            text("""
            SELECT count(*) FROM event e JOIN processing_state s ON s.event_id = e.id
            WHERE e.tenant = 'acme' AND s.state = 'processed' AND s.finished_at < now() - interval '1 day 1 hour'""")
        )
    assert left == 0
    assert figures.dropped > EVENTS * 0.8
    assert after < before * MOST_GROWTH
    assert figures.beside_p99 <= MOST_SLOWER * figures.alone_p99
