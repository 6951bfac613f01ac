"""API keys at the door: expired ones, and the note of the last use."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import text

from holdfast.local.fixtures import Eventually
from holdfast.storage.keys import create_key

Api = Callable[..., httpx.Response]


def test_only_who_has_the_secret_learns_that_a_key_has_expired(ingest: Any, api: Api) -> None:
    with ingest.database.transaction() as session:
        key = create_key(session, tenant="acme", name="short", scopes=["events:read"], life=timedelta(hours=1))
    guessed = key[:-1] + ("A" if key[-1] != "A" else "B")

    before = api("GET", "/v1/events", key=key)
    with ingest.database.transaction() as session:
        session.execute(text("UPDATE api_key SET expires_at = now() WHERE name = 'short'"))

    assert before.status_code == 200
    answer = poll(lambda: api("GET", "/v1/events", key=key))
    assert (answer.status_code, answer.json()["code"]) == (401, "key_expired")
    assert api("GET", "/v1/events", key=guessed).json()["code"] == "unauthorized"


def poll(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask until the key is looked up again, a tenth of a second later; a bounded number of times."""
    for _ in range(1000):
        answer = ask()
        if answer.status_code != 200:
            break
    return answer


def test_a_use_is_noted_soon_and_not_of_a_wrong_secret(ingest: Any, api: Api, eventually: Eventually) -> None:
    used, guessed = ingest.key("events:read", tenant="used"), ingest.key("events:read", tenant="guessed")

    def last_used(tenant: str) -> Any:
        with ingest.database.transaction() as session:
            return session.scalar(text("SELECT last_used_at FROM api_key WHERE tenant = :tenant"), {"tenant": tenant})

    api("GET", "/v1/events", key=guessed[:-1] + ("A" if guessed[-1] != "A" else "B"))
    api("GET", "/v1/events", key=used)

    eventually(lambda: last_used("used") is not None, message="the use is noted")
    assert last_used("guessed") is None
