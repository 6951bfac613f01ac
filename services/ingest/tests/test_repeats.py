"""Requests of an operator whose answers were lost: asked for again with their key, they do nothing more."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from holdfast.domain.transitions import Completion, settle
from holdfast.local.fixtures import Eventually
from holdfast.storage import claims, lifecycle

pytestmark = pytest.mark.xdist_group("ingest-repeats")  # one process for all of them

WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")

Api = Callable[..., httpx.Response]
Put = Callable[..., str]


def audited(ingest: Any, event_id: str) -> list[str]:
    with ingest.database.transaction() as session:
        rows = session.execute(text("SELECT action FROM audit_log WHERE event_id = :id ORDER BY id"), {"id": event_id})
        return [row.action for row in rows]


def waiting(ingest: Any) -> int:
    """Statements that wait for a lock."""
    with ingest.database.transaction() as session:
        return int(session.scalar(WAITING))


def process(ingest: Any, event_id: str, version: int) -> None:
    with ingest.database.transaction() as session:
        [(lease, _)] = claims.claim_events(session, [(UUID(event_id), version)], owner="w", lease_seconds=300)
        lifecycle.apply(session, [settle(lease.event.id, lease.token, Completion("h", None, 7))])


def test_a_replay_whose_answer_was_lost_can_be_asked_for_again_also_once_it_is_processed(
    ingest: Any, api: Api, put: Put
) -> None:
    event_id = put("dead")
    path, headers = f"/v1/events/{event_id}/replay", {"Idempotency-Key": uuid4().hex}

    first, while_queued = (api("POST", path, headers=headers).json() for _ in range(2))
    process(ingest, event_id, first["version"])
    afterwards = api("POST", path, headers=headers)

    assert while_queued == first | {"duplicate": True, "enqueued": False}
    assert (afterwards.status_code, afterwards.json()["duplicate"]) == (202, True)
    assert (afterwards.json()["event_id"], afterwards.json()["state"]) == (event_id, "processed"), "and no copy of it"
    assert api("POST", path, headers=headers, json={"data": "other"}).json()["code"] == "id_conflict"
    assert audited(ingest, event_id) == ["replay"]


def test_a_discard_whose_answer_was_lost_can_be_asked_for_again(ingest: Any, api: Api, put: Put) -> None:
    event_id = put("dead")
    path, headers = f"/v1/events/{event_id}/discard", {"Idempotency-Key": uuid4().hex}

    first, again = (api("POST", path, headers=headers).json() for _ in range(2))

    assert (first["state"], first["duplicate"]) == ("discarded", False)
    assert again == first | {"duplicate": True}
    assert audited(ingest, event_id) == ["discard"]


def test_two_requests_with_one_key_at_once_are_one(ingest: Any, api: Api, put: Put, eventually: Eventually) -> None:
    event_id = put("dead")
    headers = {"Idempotency-Key": uuid4().hex}

    with ThreadPoolExecutor(2) as pool, ingest.database.transaction() as session:
        session.execute(text("SELECT FROM processing_state WHERE event_id = :id FOR UPDATE"), {"id": event_id})
        asked = [pool.submit(api, "POST", f"/v1/events/{event_id}/replay", headers=headers) for _ in range(2)]
        # Both have seen a dead event that nobody has replayed, and wait for its row.
        eventually(lambda: waiting(ingest) == 2, message="both wait")
        session.commit()
        answers = [each.result().json() for each in asked]

    assert sorted(answer["duplicate"] for answer in answers) == [False, True]
    assert audited(ingest, event_id) == ["replay"]
