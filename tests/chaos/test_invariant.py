"""The checker of the fault tests sees what it is there to see."""

from collections.abc import Callable
from uuid import uuid4

import psycopg2
import pytest
from tests.chaos.invariant import violations
from tests.chaos.stacks import EFFECT, fill

LEASE_SECONDS = 2

PROCESSED = """
UPDATE processing_state SET state = 'processed', version = 3, attempt = 1, finished_at = now() WHERE event_id = %(id)s;
INSERT INTO event_update (event_id, version, state, attempt, at)
    VALUES (%(id)s, 2, 'processing', 1, now()), (%(id)s, 3, 'processed', 1, now());
INSERT INTO processed_event_log (event_id, handler, attempt, lease_token, duration_ms, processed_at)
    VALUES (%(id)s, 'plain', 1, %(id)s, 1, now());
INSERT INTO effect VALUES (%(id)s, 1);
"""

LEASED = """
UPDATE processing_state SET state = 'processing', lease_token = %(id)s,
    lease_expires_at = now() - make_interval(secs => {seconds}) WHERE event_id = %(id)s
"""

Run = Callable[[str], None]


@pytest.fixture
def event_id(database_url: str) -> str:
    return fill(database_url, 1, "chaos.plain")[0]


@pytest.fixture
def run(database_url: str, event_id: str) -> Run:
    """Run statements about the event ``%(id)s``."""

    def execute(statements: str) -> None:
        connection = psycopg2.connect(database_url)
        with connection, connection.cursor() as cursor:
            cursor.execute(statements, {"id": event_id})
        connection.close()

    execute(EFFECT)
    return execute


def test_open_and_processed_events_and_a_fresh_lease_are_fine(database_url: str, event_id: str, run: Run) -> None:
    run(PROCESSED)
    fill(database_url, 2, "chaos.plain")

    assert violations(database_url, accepted=[event_id], lease_seconds=LEASE_SECONDS) == {}


def test_a_lease_that_ran_out_a_moment_ago_is_fine(database_url: str, run: Run) -> None:
    run(LEASED.format(seconds=1))

    assert violations(database_url, lease_seconds=LEASE_SECONDS) == {}


def test_an_accepted_event_that_is_not_there_is_seen(database_url: str, run: Run) -> None:
    run(PROCESSED)
    lost = uuid4()

    found = violations(database_url, accepted=[lost], lease_seconds=LEASE_SECONDS)

    assert found == {"events that were accepted and are not there": [str(lost)]}


@pytest.mark.parametrize(
    ("begins", "harm"),
    [
        ("accepted events that are neither", "DELETE FROM processing_state"),
        ("processed events without a row", "DELETE FROM processed_event_log; DELETE FROM effect"),
        ("processed events without a row", "UPDATE processing_state SET state = 'dead'"),
        ("processed events with other than one", "DELETE FROM effect"),
        ("processed events with other than one", "INSERT INTO effect VALUES (%(id)s, 2)"),
        ("effects of events that are not", "INSERT INTO effect VALUES (gen_random_uuid(), 1)"),
        ("events settled twice", "UPDATE event_update SET state = 'processed' WHERE version = 2"),
        ("histories with a gap", "DELETE FROM event_update WHERE version = 2"),
        ("histories with a gap", "DELETE FROM event_update WHERE version = 3"),
        ("histories with a gap", "INSERT INTO event_update VALUES (%(id)s, 4, 'queued', 1, now())"),
        ("leases older", LEASED.format(seconds=3)),
    ],
    ids=[
        "no state",
        "not logged",
        "logged and dead",
        "no effect",
        "two effects",
        "effect of nothing",
        "settled twice",
        "gap",
        "early end",
        "late end",
        "old lease",
    ],
)
def test_harm_is_seen(database_url: str, run: Run, begins: str, harm: str) -> None:
    run(PROCESSED if "lease" not in begins else "SELECT 1")

    run(harm)

    assert any(name.startswith(begins) for name in violations(database_url, lease_seconds=LEASE_SECONDS))
