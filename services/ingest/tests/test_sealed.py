"""What ingest answers about sealed data: with the key, when it is changed, and when it is under a key that ingest lacks."""

import os
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from tests.contract.console import seen

from holdfast.domain.encryption_keys import key_text
from holdfast.storage.sealing import open_sealing

MARKER = "planted-5ec4e7"

KEY = key_text(os.urandom(32))


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {
        "HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough",
        "HOLDFAST_ENCRYPTION_KEYS": KEY,
    }


Post = Callable[..., httpx.Response]


def change(ingest: Any, statement: str, **parameters: Any) -> None:
    with ingest.database.transaction() as session:
        session.execute(text(statement), parameters)


def test_what_was_sealed_is_answered_as_it_was_sent(
    ingest: Any, post: Post, api: Any, make_event: Any, visitor: Any
) -> None:
    sent = make_event(data={"secret": MARKER})
    event_id = post(sent).json()["event_id"]

    assert post(sent).json()["duplicate"] is True
    assert post(sent | {"data": {"secret": "other"}}).status_code == 422
    assert api("GET", f"/v1/events/{event_id}/data").json() == {"secret": MARKER}
    assert api("GET", f"/v1/events/{event_id}?include=data").json()["event"]["data"] == {"secret": MARKER}
    assert MARKER in seen(visitor("events:read", "operate").get(f"/console/events/{event_id}"))
    with ingest.database.transaction() as session:
        assert session.scalar(
            text("SELECT data_key_id IS NOT NULL AND position(:m IN encode(data_bytes, 'escape')) = 0 FROM event"
                 " WHERE id = :id"), {"m": MARKER, "id": event_id},
        )  # fmt: skip


def test_changed_data_is_said_to_be_so_and_the_rest_is_shown(
    ingest: Any, post: Post, get: Any, api: Any, make_event: Any, visitor: Any
) -> None:
    sent = make_event(data={"secret": MARKER})
    event_id = post(sent).json()["event_id"]
    change(ingest, "UPDATE event SET data_bytes = substr(data_bytes, 1, 30) WHERE id = :id", id=event_id)

    for answer in (
        api("GET", f"/v1/events/{event_id}/data"),
        api("GET", f"/v1/events/{event_id}?include=data"),
        post(sent),
    ):
        assert (answer.status_code, answer.json()["code"]) == (500, "data_unreadable")
    assert get(event_id).json()["state"] == "queued"
    browser = visitor("events:read", "operate")
    assert "does not open" in seen(browser.get(f"/console/events/{event_id}"))
    assert browser.get(f"/console/events/{event_id}/payload").status_code == 503


def test_without_the_key_ingest_is_not_ready_and_says_what_it_needs(
    ingest: Any, post: Post, get: Any, api: Any, make_event: Any, visitor: Any
) -> None:
    event_id = post(make_event(data={"secret": MARKER})).json()["event_id"]
    other = open_sealing(key_text(os.urandom(32)))
    assert other is not None
    # As if the other services had another key.
    wrapped = other.ring.wrap(os.urandom(32), b"")
    change(
        ingest, "INSERT INTO data_key (id, tenant, wrapped, kek_id) VALUES (gen_random_uuid(), 'globex', :w, :k)",
        w=wrapped, k=other.ring.current_id,
    )  # fmt: skip
    ready = httpx.get(f"{ingest.url}/readyz")
    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "KeyMissing")

    change(
        ingest,
        "UPDATE event SET data_key_id = (SELECT id FROM data_key WHERE tenant = 'globex') WHERE id = :id",
        id=event_id,
    )
    answer = api("GET", f"/v1/events/{event_id}/data")
    assert (answer.status_code, answer.json()["code"]) == (503, "key_missing")
    assert "HOLDFAST_ENCRYPTION_KEYS" in answer.json()["detail"]
    assert "Retry-After" in answer.headers
    assert get(event_id).status_code == 200
    assert "sealed" in seen(visitor("events:read", "operate").get(f"/console/events/{event_id}"))
