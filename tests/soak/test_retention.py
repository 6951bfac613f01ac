"""Two million events go while others come: POSTs are not held up, nothing open or dead goes, and the space comes back."""

import os
import sys

import pytest
from bench.retention import TENANT, await_vacuum, lived_stack, measure, refill, size

from holdfast.local.stack import Stack
from holdfast.storage.database import Database
from holdfast.storage.migrate import upgrade

pytestmark = [pytest.mark.soak, pytest.mark.timeout(4 * 3600)]

EVENTS = int(os.environ.get("HOLDFAST_RETAINED", "2300000"))
"""Nine tenths are of the tenant whose rule counts."""

MOST_SLOWER = 1.5

LEAST_REUSED = 0.4
"""Of the space that half as many new events take as went: so much of it is where those were. Rows are; a page of an index is
when all of its events went, and a tenth stays here, spread over all pages (ADR 0052). Of fewer events than a million it is
less. Identities are left out: they stay."""

FRESH = 50_000
"""Events in an empty database, by which it is known what one takes."""

KEPT = f"""
SELECT string_agg(state || ' ' || count, ', ' ORDER BY state) FROM (
    SELECT s.state, count(*) FROM event e JOIN processing_state s ON s.event_id = e.id
    WHERE e.received_at < '{{until}}' AND (e.tenant <> '{TENANT}' OR s.state <> 'processed')
    GROUP BY s.state) AS counted
"""  # noqa: S608


def bytes_of_one(stack: Stack) -> int:
    """What an event takes where nothing went before."""
    stack.postgres.execute("CREATE DATABASE fresh")
    upgrade(stack.postgres.url("fresh"))
    database = Database(stack.postgres.url("fresh"), application_name="test", pool_size=1)
    empty = size(stack, "fresh")
    refill(database, FRESH)
    database.close()
    return (size(stack, "fresh") - empty) // FRESH


def test_two_million_events_go_beside_the_load(capsys: pytest.CaptureFixture[str]) -> None:
    def say(line: str) -> None:
        with capsys.disabled():
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    with lived_stack(EVENTS, say=say) as (stack, database):
        ask = KEPT.format(until=stack.postgres.execute("SELECT now()"))
        before, kept = size(stack), stack.postgres.execute(ask, database="holdfast")

        figures = measure(stack, database, phase_seconds=20, say=say)
        say(str(figures))
        is_kept = stack.postgres.execute(ask, database="holdfast")
        await_vacuum(stack)
        refill(database, figures.dropped // 2)
        growth, needed = size(stack) - before, bytes_of_one(stack) * (figures.dropped // 2)
        say(f"{before >> 20:,} MiB before, {growth >> 20:,} more after as many new events as take {needed >> 20:,}")

    assert is_kept == kept
    assert figures.dropped > EVENTS * 0.8
    assert growth <= (1 - LEAST_REUSED) * needed
    assert figures.p99_ratio <= MOST_SLOWER
