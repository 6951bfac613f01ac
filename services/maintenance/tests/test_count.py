"""Counting: statistics of what happened, by whichever process comes first."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import text

from holdfast.local.fixtures import Eventually
from holdfast.maintenance.count import count
from holdfast.storage.database import Database


def ripen(database: Database) -> None:
    """As if the last turn had been a while ago."""
    with database.transaction() as session:
        session.execute(text("UPDATE statistics_cursor SET counted_at = counted_at - interval '1 min'"))


def accepted(database: Database) -> int:
    with database.transaction() as session:
        sums = text("SELECT coalesce(sum(accepted), 0) FROM event_statistics WHERE step_seconds = 60")
        return int(session.scalars(sums).one())


def test_a_turn_counts_page_after_page(database: Database, events: Any) -> None:
    for _ in range(5):
        events.record()
    ripen(database)

    assert count(database, limit=2) == 5

    assert accepted(database) == 5
    assert count(database, limit=2) == 0


def test_two_processes_count_each_update_once(database: Database, events: Any) -> None:
    events.record(200)
    ripen(database)

    with ThreadPoolExecutor(2) as pool:
        counted = list(pool.map(lambda _: count(database), range(2)))

    assert sum(counted) == 200
    assert accepted(database) == 200


def test_a_worker_counts_by_itself(start: Any, database: Database, events: Any, eventually: Eventually) -> None:
    start("worker")
    events.record(3)

    eventually(lambda: accepted(database) == 3)
