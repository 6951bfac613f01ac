"""Lists over a million events: every filter and pair of filters, the first page and one far back.

What is asserted is what a plan reads, not how long it takes: pages and rows are the same on every machine.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from tests.history.plans import Plan, explained

from holdfast.domain.state import State
from holdfast.storage.database import Database
from holdfast.storage.filters import EventFilter
from holdfast.storage.listing import Page, list_events

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

PAGES = 6_000
"""Buffers of 8 KiB that a page of 50 may read. States do not know their tenant: five times the dead letters of all tenants
(500), or a small tenant's events (98) times the discarded ones of all (44), are the most expensive cases."""

PAGES_OF_NEIGHBOURS = 20_000
"""For two attributes that are never seen together, such as a type and another type's source: the events of the rarer one
are read in vain. It has 18,000 here."""

PAGES_OF_AN_ID = 20_000
"""For an id that 4,000 devices have given to an event of theirs: five pages each, since they are sorted for the list."""

PAGES_OF_A_DAY = 40_000
"""For a range of time: the clock in an id may be a day off, so up to a day of events is read, 33,000 here."""

VALUES: dict[str, list[str]] = {
    "source": ["/source-0", "/source-19", "/never"],
    "ce_id": ["3", "never"],
    "type": ["com.example.type-0", "com.example.type-7", "com.example.never"],
    "subject": ["catalogue", "subject-77", "never"],
    "audience": ["everybody", "user-7", "never"],
    "error_type": ["KeyError", "crash_loop", "never"],
    "handler": ["book-order", "count", "never"],
    "fingerprint": ["f1a7c2d9", "never"],
    "parent_id": ["01a20ce1-a999-7253-85bb-3c3e269307a2"],
}
"""Common (half of all events, or of all errors), rare, and never seen."""

ATTRIBUTES = {"source", "type", "subject", "audience", "parent_id"}

TENANTS = ("acme", "devices", "small", "tiny", "nobody")


@pytest.fixture(scope="module")
def far_back(history: Database) -> UUID:
    """Where a page begins that is 700,000 events back."""
    with history.transaction() as session:
        found: UUID = session.execute(text("SELECT id FROM event ORDER BY id LIMIT 1 OFFSET 300000")).scalar_one()
    return found


def ask(database: Database, tenant: str, before_id: UUID | None, **wanted: Any) -> tuple[Plan, Page]:
    with explained(database) as plans, database.transaction() as session:
        page = list_events(session, EventFilter(**wanted), tenant=tenant, limit=50, before_id=before_id)
    [plan] = plans
    return plan, page


def check(database: Database, far_back: UUID, most: int, **wanted: Any) -> None:
    """Every tenant's first page, and one far back of the largest."""
    for tenant, before_id in [*((tenant, None) for tenant in TENANTS), ("acme", far_back)]:
        plan, _ = ask(database, tenant, before_id, **wanted)
        where = f"{wanted} of {tenant}, before {before_id}:\n{plan.text}"

        assert plan.buffers <= most, where
        assert plan.scanned == (), where


def values_of(*names: str) -> Iterator[dict[str, str]]:
    return (dict(zip(names, values, strict=True)) for values in product(*(VALUES[name] for name in names)))


@pytest.mark.parametrize("state", [None, *State])
def test_a_list_of_everything_or_of_one_state(history: Database, far_back: UUID, state: State | None) -> None:
    check(history, far_back, PAGES, state=state)


@pytest.mark.parametrize("name", VALUES)
def test_every_filter_with_every_state(history: Database, far_back: UUID, name: str) -> None:
    most = PAGES_OF_AN_ID if name == "ce_id" else PAGES
    for wanted, state in product(values_of(name), [None, *State]):
        check(history, far_back, most, **wanted, state=state)


@pytest.mark.parametrize("names", list(combinations(VALUES, 2)), ids=" ".join)
def test_every_pair_of_filters(history: Database, far_back: UUID, names: tuple[str, str]) -> None:
    most = PAGES_OF_AN_ID if "ce_id" in names else PAGES_OF_NEIGHBOURS if set(names) <= ATTRIBUTES else PAGES
    for wanted in values_of(*names):
        check(history, far_back, most, **wanted)


@pytest.mark.parametrize("name", ["nothing", *VALUES])
def test_a_range_of_time_reads_its_own_events(history: Database, far_back: UUID, name: str) -> None:
    noon = datetime.now(UTC) - timedelta(days=15)
    for wanted in [dict[str, str]()] if name == "nothing" else values_of(name):
        check(
            history, far_back, PAGES_OF_A_DAY, **wanted, received_after=noon, received_before=noon + timedelta(hours=1)
        )
        check(history, far_back, PAGES_OF_A_DAY, **wanted, received_before=noon)


def test_page_after_page_costs_the_same(history: Database, far_back: UUID) -> None:
    before_id: UUID | None = far_back
    read = []
    for _ in range(10):
        plan, page = ask(history, "acme", before_id, type="com.example.type-7")
        read.append(plan.buffers)
        before_id = page.next_id

    assert before_id is not None
    assert max(read) <= 50 * 10, read
