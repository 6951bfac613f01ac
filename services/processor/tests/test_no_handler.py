"""Not to know a type is no verdict on its events: they wait for a processor that serves it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.local.fixtures import Eventually
from holdfast.processor.attempt.claiming import Verdict, without_handler
from holdfast.runtime.ids import uuid7
from holdfast.storage import dispatch
from holdfast.storage.candidates import Candidate

Start = Callable[..., Any]

OTHERS = {"HANDLERS": "other_handlers:handlers"}


def ring_again(stored: Any, live: Any) -> None:
    """What maintenance does for events that wait."""
    stored.run("UPDATE processing_state SET next_dispatch_at = now() WHERE state = 'queued'")
    with stored.database.transaction() as session:
        live.ring(*((each.event_id, each.version) for each in dispatch.redispatch_due(session, limit=500)))


def test_pools_with_different_handlers_work_side_by_side(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    start()
    start(**OTHERS)
    event_ids = [stored.record("other.order") for _ in range(200)]

    live.ring(*((event_id, 1) for event_id in event_ids))

    eventually(lambda: stored.count("processed") + stored.count("dead") == 200, timeout_seconds=60)
    assert stored.count("dead") == 0
    assert stored.scalar("SELECT max(version) FROM processing_state") == 3, "no history but of their processing"
    assert stored.scalar("SELECT max(attempt) + max(crashes) FROM processing_state") == 1
    assert stored.scalar("SELECT count(*) FROM effect") == 200


def test_an_event_without_handler_says_so_and_is_processed_once_one_starts(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    start()
    event_id = stored.record("other.order")
    live.ring((event_id, 1))
    eventually(lambda: stored.row(event_id).unserved_type == "other.order")
    stored.run("UPDATE processing_state SET waiting_since = now() - interval '10 s'")
    ring_again(stored, live)
    eventually(lambda: stored.row(event_id).version == 2)
    assert stored.rows("SELECT detail FROM event_update WHERE event_id = :id AND version = 2", event_id)[0].detail == {
        "reason": "no_handler"
    }
    eventually(lambda: ("queued", 2, 0) in live.told(event_id), message="live clients read it too")

    start(**OTHERS)

    eventually(lambda: stored.state(event_id) == "processed", timeout_seconds=30)
    assert (stored.row(event_id).attempt, stored.row(event_id).crashes) == (1, 0)


def test_after_its_time_an_event_without_handler_is_dead(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    start(NO_HANDLER_SECONDS="60")
    event_id = stored.record("other.order")
    live.ring((event_id, 1))
    eventually(lambda: stored.row(event_id).unserved_type == "other.order")
    stored.run("UPDATE processing_state SET waiting_since = now() - interval '61 s'")

    ring_again(stored, live)

    eventually(lambda: stored.state(event_id) == "dead")
    assert stored.row(event_id).last_error["type"] == "no_handler"


def candidate(waited_seconds: float, *, is_unserved: bool = True, is_reported: bool = False) -> Candidate:
    return Candidate(
        uuid7(), 1, "x", "acme", None, has_lane=False, priority=5, pool="", waits_in=None, due_at=datetime.now(UTC),
        waited_seconds=waited_seconds, is_unserved=is_unserved, is_reported=is_reported,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("met", "limit_seconds", "verdict"),
    [
        (candidate(0, is_unserved=False), 3600, Verdict.WAIT),
        (candidate(7200, is_unserved=False), 3600, Verdict.WAIT),
        (candidate(1), 3600, Verdict.WAIT),
        (candidate(6), 3600, Verdict.REPORT),
        (candidate(6, is_reported=True), 3600, Verdict.WAIT),
        (candidate(3600, is_reported=True), 3600, Verdict.GIVE_UP),
        (candidate(3), 2, Verdict.GIVE_UP),
        (candidate(0, is_unserved=False), 0, Verdict.GIVE_UP),
    ],
)
def test_what_becomes_of_an_event_without_handler(met: Candidate, limit_seconds: float, verdict: Verdict) -> None:
    assert without_handler(met, limit_seconds=limit_seconds) is verdict
