"""Two million events go while others come: POSTs are not held up, nothing open or dead goes, and the space comes back."""

import os
import sys

import pytest
from bench.retention import TENANT, await_vacuum, lived_stack, measure, refill, size

pytestmark = [pytest.mark.soak, pytest.mark.timeout(4 * 3600)]

EVENTS = int(os.environ.get("HOLDFAST_RETAINED", "2300000"))
"""Nine tenths are of the tenant whose rule counts."""

MOST_SLOWER = 1.5

MOST_GROWTH = 1.1
"""Of all tables but that of identities, once half as many events came as went."""

KEPT = f"""
SELECT string_agg(state || ' ' || count, ', ' ORDER BY state) FROM (
    SELECT s.state, count(*) FROM event e JOIN processing_state s ON s.event_id = e.id
    WHERE e.received_at < '{{until}}' AND (e.tenant <> '{TENANT}' OR s.state <> 'processed')
    GROUP BY s.state) AS counted
"""  # noqa: S608


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
        after = size(stack)
        say(f"{before >> 20:,} MiB before, {after >> 20:,} MiB with half as many new events as went; kept: {is_kept}")

    assert is_kept == kept
    assert figures.dropped > EVENTS * 0.8
    assert after < before * MOST_GROWTH
    assert figures.p99_ratio <= MOST_SLOWER
