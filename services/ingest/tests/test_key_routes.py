"""``/v1/keys``: keys made, rotated and revoked over HTTP, each secret answered once, and never another tenant's key."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from holdfast.local.fixtures import Eventually

pytestmark = pytest.mark.xdist_group("ingest-keys")

Api = Callable[..., httpx.Response]


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own."""
    return f"t{uuid4().hex}"


@pytest.fixture
def admin(ingest: Any, tenant: str) -> str:
    return str(ingest.key("admin", tenant=tenant))


@pytest.fixture
def api(ingest: Any, admin: str) -> Iterator[Api]:
    """A request as the administrator of the test's tenant, or with another key."""
    with httpx.Client(base_url=ingest.url, timeout=10) as client:

        def ask(method: str, path: str, *, key: str = admin, **options: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"} | options.pop("headers", {})
            return client.request(method, path, headers=headers, **options)

        yield ask


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def id_of(key: str) -> str:
    return key.split("_")[1]


def make(api: Api, **body: Any) -> dict[str, Any]:
    answer = api("POST", "/v1/keys", json={"name": "shop"} | body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def opens(api: Api, key: str) -> bool:
    return api("GET", "/v1/events", key=key).status_code == 200


def audited(api: Api, action: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = api("GET", "/v1/audit", params={"action": action}).json()["items"]
    return entries


def test_a_key_is_made_works_and_is_shown_without_its_secret(api: Api, admin: str) -> None:
    body = {"name": "shop", "scopes": ["events:read"], "expires_in_seconds": 3600}
    answer = api("POST", "/v1/keys", json=body)

    made = answer.json()
    key, secret = made.pop("key"), answer.json()["key"].split("_", 2)[2]
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v1/keys/{made['key_id']}")
    assert key.startswith(made["prefix"])
    assert (made["name"], made["scopes"], made["state"]) == ("shop", ["events:read"], "active")
    assert made["expires_at"] > made["created_at"]
    assert opens(api, key)
    assert code(api("POST", "/v1/events", key=key, json={})) == (403, "forbidden")
    shown = api("GET", answer.headers["Location"])
    assert {**shown.json(), "last_used_at": None} == made
    everything = shown.text + api("GET", "/v1/keys").text + api("GET", "/v1/audit").text
    assert secret not in everything
    [entry] = [each for each in audited(api, "create_key") if each["detail"]["key_id"] == made["key_id"]]
    assert entry["actor"] == {"kind": "key", "id": id_of(admin), "name": "test"}


def test_a_key_has_the_scopes_of_a_producer_unless_told_otherwise(api: Api) -> None:
    made = make(api)

    assert (made["scopes"], made["expires_at"]) == (["events:read", "events:write"], None)


def test_the_same_request_makes_one_key_and_says_how_to_get_a_secret(api: Api) -> None:
    headers = {"Idempotency-Key": uuid4().hex}

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: api("POST", "/v1/keys", json={"name": "once"}, headers=headers), range(4)))

    [made] = [each.json() for each in answers if each.status_code == 201]
    refused = [each for each in answers if each.status_code != 201]
    assert [code(each) for each in refused] == [(409, "key_made_before")] * 3
    assert made["key_id"] in refused[0].json()["detail"]
    assert [each["name"] for each in api("GET", "/v1/keys").json()["items"]].count("once") == 1


def test_a_rotated_key_works_beside_its_successor_until_the_overlap_is_over(ingest: Any, api: Api) -> None:
    old = make(api, scopes=["events:read", "operate"], expires_in_seconds=7 * 86_400)

    answer = api("POST", f"/v1/keys/{old['key_id']}/rotate", json={"overlap_seconds": 3600})

    new = answer.json()
    assert answer.status_code == 201
    assert (new["name"], new["scopes"]) == (old["name"], old["scopes"])
    assert (opens(api, old["key"]), opens(api, new["key"])) == (True, True)
    with ingest.database.transaction() as session:
        lives = session.execute(
            text(
                "SELECT id, CAST(extract(epoch FROM expires_at - created_at) AS int) FROM api_key WHERE id IN (:a, :b)"
            ),
            {"a": old["key_id"], "b": new["key_id"]},
        ).all()
    assert dict(map(tuple, lives))[new["key_id"]] == 7 * 86_400
    assert 3600 <= dict(map(tuple, lives))[old["key_id"]] <= 3700
    assert api("GET", f"/v1/keys/{old['key_id']}").json()["replaced_by"] == new["key_id"]
    [entry] = audited(api, "rotate_key")
    assert (entry["detail"]["replaces"], entry["detail"]["key_id"]) == (old["key_id"], new["key_id"])


def test_a_rotation_gives_no_key_a_longer_life(api: Api) -> None:
    old = make(api, expires_in_seconds=60)

    api("POST", f"/v1/keys/{old['key_id']}/rotate")

    assert api("GET", f"/v1/keys/{old['key_id']}").json()["expires_at"] == old["expires_at"]


def test_a_day_is_the_overlap_of_a_key_that_does_not_expire(ingest: Any, api: Api) -> None:
    old = make(api)
    new = api("POST", f"/v1/keys/{old['key_id']}/rotate").json()

    assert new["expires_at"] is None
    with ingest.database.transaction() as session:
        left = session.scalar(
            text("SELECT extract(epoch FROM expires_at - now()) FROM api_key WHERE id = :id"), {"id": old["key_id"]}
        )
    assert 86_300 < left <= 86_400


def test_without_an_overlap_the_old_key_ends_now(api: Api, eventually: Eventually) -> None:
    old = make(api)
    assert opens(api, old["key"])

    api("POST", f"/v1/keys/{old['key_id']}/rotate", json={"overlap_seconds": 0})

    assert api("GET", f"/v1/keys/{old['key_id']}").json()["state"] == "expired"
    eventually(lambda: not opens(api, old["key"]), message="the old key has ended")


def test_what_cannot_be_rotated_is_told_with_what_to_do(api: Api) -> None:
    replaced, revoked = make(api), make(api)
    new = api("POST", f"/v1/keys/{replaced['key_id']}/rotate", headers={"Idempotency-Key": "k"}).json()
    api("POST", f"/v1/keys/{revoked['key_id']}/revoke")

    def rotate(key_id: str, **headers: str) -> httpx.Response:
        return api("POST", f"/v1/keys/{key_id}/rotate", headers=headers)

    assert code(rotate(replaced["key_id"])) == (409, "key_replaced")
    assert new["key_id"] in rotate(replaced["key_id"]).json()["detail"]
    assert code(rotate(replaced["key_id"], **{"Idempotency-Key": "k"})) == (409, "key_made_before")
    assert code(rotate(revoked["key_id"])) == (409, "key_revoked")
    assert code(rotate("nosuchkeyid1")) == (404, "not_found")
    assert code(rotate("NO-KEY-ID")) == (404, "not_found")


def test_an_expired_key_is_not_brought_back(ingest: Any, api: Api) -> None:
    made = make(api, expires_in_seconds=60)
    with ingest.database.transaction() as session:
        session.execute(text("UPDATE api_key SET expires_at = now() WHERE id = :id"), {"id": made["key_id"]})

    assert code(api("POST", f"/v1/keys/{made['key_id']}/rotate")) == (409, "key_expired")


def test_a_revoked_key_stops_and_revoking_it_again_changes_nothing(api: Api, eventually: Eventually) -> None:
    made = make(api)

    first, second = (api("POST", f"/v1/keys/{made['key_id']}/revoke") for _ in range(2))

    assert (first.status_code, first.json()["state"]) == (200, "revoked")
    assert second.json()["revoked_at"] == first.json()["revoked_at"]
    eventually(lambda: not opens(api, made["key"]), message="the key has ended")
    [entry] = audited(api, "revoke_key")
    assert entry["detail"] == {"key_id": made["key_id"], "name": "shop", "is_forced": False}


def test_the_last_key_of_an_administrator_is_revoked_with_force_alone(api: Api, admin: str) -> None:
    make(api, scopes=["operate"])
    address = f"/v1/keys/{id_of(admin)}/revoke"

    refused = api("POST", address)
    assert code(refused) == (409, "last_admin_key")
    assert "force" in refused.json()["detail"]
    other = make(api, scopes=["admin"])
    assert api("POST", f"/v1/keys/{other['key_id']}/revoke").status_code == 200, "another one is left"
    assert api("POST", address, json={"force": True}).json()["state"] == "revoked"


def test_a_key_in_its_overlap_is_no_administrator_to_rely_on(api: Api, admin: str) -> None:
    successor = api("POST", f"/v1/keys/{id_of(admin)}/rotate").json()

    assert code(api("POST", f"/v1/keys/{successor['key_id']}/revoke")) == (409, "last_admin_key")
    assert api("POST", f"/v1/keys/{id_of(admin)}/revoke").status_code == 200


def test_two_administrators_who_revoke_each_other_leave_one(api: Api, admin: str) -> None:
    other = make(api, scopes=["admin"])
    revocations = [(admin, other["key_id"]), (other["key"], id_of(admin))]

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda each: api("POST", f"/v1/keys/{each[1]}/revoke", key=each[0]), revocations))

    assert sorted(each.status_code for each in answers) in ([200, 401], [200, 409])


def test_keys_are_listed_page_by_page_the_newest_first(api: Api) -> None:
    made = [make(api, name=f"key {number}")["name"] for number in range(4)]

    pages, cursor = [], ""
    while cursor is not None:
        page = api("GET", "/v1/keys", params={"limit": 2, "cursor": cursor}).json()
        pages.append([entry["name"] for entry in page["items"]])
        cursor = page["next_cursor"]

    assert pages == [made[:1:-1], made[1::-1], ["test"]]


def test_another_tenants_keys_are_not_there(ingest: Any, api: Api, admin: str) -> None:
    stranger = ingest.key("admin", tenant=f"t{uuid4().hex}")
    key_id = id_of(admin)

    assert [entry["key_id"] for entry in api("GET", "/v1/keys", key=stranger).json()["items"]] == [id_of(stranger)]
    assert api("GET", "/v1/keys", key=stranger, params={"cursor": key_id}).json()["items"] == []
    for method, path in (("GET", ""), ("POST", "/rotate"), ("POST", "/revoke")):
        assert code(api(method, f"/v1/keys/{key_id}{path}", key=stranger)) == (404, "not_found"), path


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("POST", ""), ("GET", "/abcdefghijkl"), ("POST", "/abcdefghijkl/rotate"), ("POST", "/abcdefghijkl/revoke")],
)  # fmt: skip
def test_keys_are_for_administrators(ingest: Any, api: Api, method: str, path: str) -> None:
    others = ingest.key("operate", "events:read", "events:write")

    assert code(api(method, f"/v1/keys{path}", key=others, json={"name": "n"})) == (403, "forbidden")


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("", b"{", [""]), ("", b"{}", ["/name"]), ("", b'{"name": ""}', ["/name"]), ("", b'{"name": " "}', ["/name"]),
        ("", b'{"name": "a\\u0000"}', ["/name"]), ("", b'{"name": "a\\nb"}', ["/name"]),
        ("", b'{"name": "' + b"a" * 101 + b'"}', ["/name"]), ("", b'{"name": "n", "scopes": []}', ["/scopes"]),
        ("", b'{"name": "n", "scopes": ["root"]}', ["/scopes/0"]), ("", b'{"name": "n", "tenant": "other"}', ["/tenant"]),
        ("", b'{"name": "n", "expires_in_seconds": 0}', ["/expires_in_seconds"]),
        ("", b'{"name": "n", "expires_in_seconds": 315360001}', ["/expires_in_seconds"]),
        ("", b'{"name": "n", "expires_in_seconds": 1e400}', ["/expires_in_seconds"]),
        ("/abcdefghijkl/rotate", b'{"overlap_seconds": -1}', ["/overlap_seconds"]),
        ("/abcdefghijkl/rotate", b'{"overlap_seconds": 2592001}', ["/overlap_seconds"]),
        ("/abcdefghijkl/revoke", b'{"force": "perhaps"}', ["/force"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(api: Api, path: str, body: bytes, pointers: list[str]) -> None:
    answer = api("POST", f"/v1/keys{path}", content=body)

    assert code(answer) == (400, "invalid_request")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == pointers
