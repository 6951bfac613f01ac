"""``POST /v1/tokens/revoke``: kept in PostgreSQL, told to the gateways at once, and copied again when Redis was emptied."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import text

from holdfast.local.fixtures import Eventually, clone_template
from holdfast.local.servers import Postgres, Valkey
from holdfast.messaging.live import REVOCATIONS_CHANNEL, revocation_keys
from holdfast.messaging.revocations import REVOCATIONS_KEY

pytestmark = pytest.mark.xdist_group("ingest-revocations")  # one process for all of them

Api = Callable[..., httpx.Response]


def rows(ingest: Any, table: str, columns: str) -> list[tuple[Any, ...]]:
    with ingest.database.transaction() as session:
        return [tuple(row) for row in session.execute(text(f"SELECT {columns} FROM {table} ORDER BY 1"))]  # noqa: S608


@pytest.mark.parametrize(
    ("body", "kind", "name"),
    [
        ({"sub": "user-42"}, "subject", "user-42"),
        ({"jti": "7d1f3c52"}, "token", "7d1f3c52"),
        ({"sub": "👩\u200d👧 " + "é" * 100}, "subject", "👩\u200d👧 " + "é" * 100),
    ],
    ids=["a subject", "a token", "any unicode"],
)
def test_a_revocation_is_kept_told_and_audited(
    ingest: Any, api: Api, operator_key: str, live: Any, body: dict[str, str], kind: str, name: str
) -> None:
    with live.pubsub() as listener:
        listener.subscribe(REVOCATIONS_CHANNEL)
        listener.get_message(timeout=5)
        answer = api("POST", "/v1/tokens/revoke", json=body)
        message = listener.get_message(timeout=5)

    token, subject = revocation_keys("acme", sub=name, jti=name)
    field = token if kind == "token" else subject
    assert answer.status_code == 200
    assert answer.json() == body | {"revoked_at": answer.json()["revoked_at"], "immediate": True}
    assert message["data"].decode() == field
    assert live.hget(REVOCATIONS_KEY, field) == str(answer.json()["revoked_at"]).encode()
    assert ("acme", kind, name) in rows(ingest, "token_revocation", "tenant, kind, name")
    logged = (operator_key.split("_")[1], f"revoke_{kind}", {next(iter(body)): name})
    assert logged in rows(ingest, "audit_log", "actor, action, detail")


def test_revoking_again_is_safe(api: Api) -> None:
    first, again = (api("POST", "/v1/tokens/revoke", json={"sub": "user-7"}) for _ in range(2))

    assert first.status_code == again.status_code == 200
    assert again.json()["revoked_at"] >= first.json()["revoked_at"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"jti": "a", "sub": "b"},
        {"jti": None, "sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\nb"},
        {"sub": "a" * 256},
        {"sub": "é" * 128},
        {"jti": "a" * 256},
        {"sub": "user-1", "tenant": "other"},
        ["user-1"],
    ],
    ids=str,
)
def test_what_names_nothing_that_can_be_revoked_is_told(ingest: Any, api: Api, body: Any) -> None:
    before = rows(ingest, "token_revocation", "seq")

    answer = api("POST", "/v1/tokens/revoke", json=body)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert '"sub"' in answer.json()["detail"]
    assert rows(ingest, "token_revocation", "seq") == before


def test_a_key_that_mints_does_not_revoke(api: Api, key: str) -> None:
    answer = api("POST", "/v1/tokens/revoke", key=key, json={"sub": "user-1"})

    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "operate" in answer.json()["detail"]


def test_without_redis_a_revocation_is_kept_and_comes_into_force_when_redis_is_back(
    postgres: Postgres, tmp_path: Any, start_ingest: Any, eventually: Eventually
) -> None:
    own = Valkey(tmp_path / "valkey")
    own.start()
    name = clone_template(postgres)
    made = start_ingest(postgres, own, database=name)
    eventually(made.is_ready, message="ready")
    headers = {"Authorization": f"Bearer {made.key('operate')}"}
    own.kill()

    answer = httpx.post(f"{made.url}/v1/tokens/revoke", json={"sub": "user-1"}, headers=headers, timeout=10)
    own.start()

    assert answer.json()["immediate"] is False
    with redis.Redis.from_url(made.redis_url) as client:
        field = revocation_keys("acme", sub="user-1", jti="")[1]
        eventually(lambda: client.hget(REVOCATIONS_KEY, field), message="copied without maintenance")
        eventually(lambda: client.hexists(REVOCATIONS_KEY, "copied"), message="complete")
    made.stop()
    own.stop()
