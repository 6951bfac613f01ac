"""Counting before a replay: exactly, up to where it would take longer than a page may."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from holdfast.ingest.console.reading import COUNTED

CROWD = text("""
WITH made AS (
    INSERT INTO event (id, tenant, source, ce_id, type)
    SELECT gen_random_uuid(), :tenant, '/crowd', CAST(n AS text), 'test.crowd' FROM generate_series(1, :events) AS n
    RETURNING id
)
INSERT INTO processing_state (event_id, state, version, attempt, available_at, next_dispatch_at, finished_at)
SELECT id, 'processed', 3, 1, now(), now(), now() FROM made
""")


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


@pytest.mark.parametrize(
    ("events", "said"), [(COUNTED, "Replay 10 000 events?"), (COUNTED + 1, "Replay more than 10 000 events?")]
)
def test_more_events_than_are_counted_are_called_more(
    ingest: Any, visitor: Callable[..., Any], events: int, said: str
) -> None:
    tenant = f"crowd-{events}"
    with ingest.database.transaction() as session:
        session.execute(CROWD, {"tenant": tenant, "events": events})

    page = visitor("events:read", "operate", tenant=tenant).get("/console/replays/new?state=processed&type=test.crowd")

    assert said in page.text.replace("\u202f", " "), page.text
    assert "disabled" not in page.text.partition("Start the replay")[0].rpartition("<button")[2]
