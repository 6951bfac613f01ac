"""Erasing all that a small tenant has, beside a hundred thousand events of others: what its pages read."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from bench.history import make_history
from sqlalchemy import text
from tests.history.plans import explained

from holdfast.domain.event import NewEvent
from holdfast.local.fixtures import clone_template
from holdfast.local.servers import Postgres
from holdfast.runtime.ids import uuid7
from holdfast.storage import erasures, events
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database
from holdfast.storage.erasures import Erasure

OTHERS, OWN = 100_000, 40

PAGE = 10

EACH = 150
"""Pages of 8 KiB for an event, at most: its row, its indexes, its history and its identity, several times each."""

AROUND = 400
"""Pages for what an erasure reads beside its events."""


@pytest.fixture(scope="module")
def crowd(postgres: Postgres) -> Iterator[Database]:
    """Events of others, and statistics that know them."""
    name = clone_template(postgres)
    make_history(lambda sql: postgres.execute(sql, database=name), OTHERS)
    made = Database(postgres.url(name), application_name="test", pool_size=1)
    yield made
    made.close()
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def begun(database: Database, subject: str | None) -> Erasure:
    """An erasure of everything of a tenant that is new, or of its only subject."""
    tenant = f"t-{uuid4().hex[:12]}"
    made = [
        NewEvent(id=uuid7(), tenant=tenant, source="/s", ce_id=uuid4().hex, type="t", subject="s") for _ in range(OWN)
    ]
    database.call(events.record, made, grace_seconds=60)
    found = database.call(erasures.begin_erasure, Actor(tenant, "k", "k"), subject, idempotency_key="k")
    assert isinstance(found, Erasure)
    return found


@pytest.mark.parametrize("subject", [None, "s"])
@pytest.mark.parametrize("is_generic", [False, True])
def test_no_page_reads_the_events_of_others(crowd: Database, is_generic: bool, subject: str | None) -> None:
    erasure = begun(crowd, subject)
    erased, turns, scanned, most = 0, 0, set(), 0

    while erased < OWN and turns < 20:
        with explained(crowd, is_generic=is_generic) as plans, crowd.transaction() as session:
            page = erasures.erase_page(session, erasure.id, dedupe_seconds=30 * 86_400, limit=PAGE, settle_seconds=0)
        erased, turns = erased + page.erased, turns + 1
        scanned |= {table for plan in plans for table in plan.scanned}
        most = max(most, sum(plan.buffers for plan in plans))
        with crowd.transaction() as session:  # the updates are published and counted, and the erasure is due
            session.execute(text("UPDATE outbox_cursor SET confirmed = CAST(pg_current_snapshot() AS text)"))
            session.execute(text("UPDATE statistics_cursor SET counted = CAST(pg_current_snapshot() AS text)"))
            session.execute(text("UPDATE erasure_job SET next_at = now() WHERE state = 'running'"))

    assert erased == OWN
    assert scanned == set()
    assert most < EACH * PAGE + AROUND, "pages of all statements of a turn"
