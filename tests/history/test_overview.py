"""The console's overview over a million events: what its statements read."""

import pytest
from tests.history.plans import explained

from holdfast.storage.database import Database
from holdfast.storage.overview import open_counts
from holdfast.storage.replays import list_replays

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

PAGES = 45_000
"""Buffers of 8 KiB that counting what is open may read: 5000 claimable events and as many that are running, with a few
pages each for their row and their event."""


@pytest.mark.parametrize("tenant", ["acme", "small", "nobody"])
def test_counting_what_is_open_reads_a_bounded_part_of_it(history: Database, tenant: str) -> None:
    with explained(history) as plans, history.transaction() as session:
        open_counts(session, tenant=tenant)

    assert len(plans) == 2
    for plan in plans:
        assert plan.buffers <= PAGES, plan.text
        assert plan.scanned == (), plan.text


def test_the_list_of_replays_reads_its_length(history: Database) -> None:
    with explained(history) as plans, history.transaction() as session:
        list_replays(session, tenant="acme", limit=50)

    [plan] = plans
    assert plan.buffers <= 100, plan.text
