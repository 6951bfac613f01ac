"""Pauses over HTTP: who may pause what, and every refusal."""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from holdfast.domain.pauses import PauseKind
from holdfast.local.fixtures import Eventually
from holdfast.storage import pauses
from holdfast.storage.audit import Actor

Api = Callable[..., httpx.Response]

TYPE = {"kind": "type", "name": "com.acme.order.placed"}


@pytest.fixture
def admin_key(ingest: Any) -> str:
    return str(ingest.key("admin"))


@pytest.fixture(autouse=True)
def _nothing_is_paused(ingest: Any) -> Iterator[None]:
    yield
    with ingest.database.transaction() as session:
        session.execute(text("DELETE FROM pause"))


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def test_an_operator_pauses_a_type_of_its_tenant_and_resumes_it(ingest: Any, api: Api) -> None:
    made = api("POST", "/v1/pauses", json=TYPE | {"note": "the bank is away"})

    assert made.status_code == 201, made.text
    pause = made.json()
    assert made.headers["Location"] == f"/v1/pauses/{pause['pause_id']}" == pause["links"]["self"]
    assert [pause[name] for name in ("kind", "name", "tenant", "note", "paused_by")] == [
        "type", "com.acme.order.placed", "acme", "the bank is away", "test"
    ]  # fmt: skip
    assert pause["paused_at"].endswith("Z")
    again = api("POST", "/v1/pauses", json=TYPE | {"note": "another reason"})
    assert (again.status_code, again.json()) == (200, pause), "what is paused already stays as it is"
    assert api("GET", "/v1/pauses").json() == {"items": [pause]}
    assert api("GET", made.headers["Location"]).json() == pause

    ended = api("DELETE", made.headers["Location"])

    assert (ended.status_code, ended.json()) == (200, pause)
    assert code(api("DELETE", made.headers["Location"])) == (404, "not_found")
    assert api("GET", "/v1/pauses").json() == {"items": []}
    with ingest.database.transaction() as session:
        rows = session.execute(
            text("SELECT action, origin FROM audit_log WHERE action IN ('pause', 'resume') ORDER BY id")
        )
        assert [tuple(row) for row in rows] == [("pause", "127.0.0.1"), ("resume", "127.0.0.1")]


@pytest.mark.parametrize(("kind", "name"), [("handler", "charge-order"), ("pool", "gpu"), ("pool", "default")])
def test_what_works_for_all_tenants_is_paused_and_resumed_by_administrators_alone(
    api: Api, ingest: Any, admin_key: str, kind: str, name: str
) -> None:
    body = {"kind": kind, "name": name}
    refused = api("POST", "/v1/pauses", json=body)
    assert code(refused) == (403, "forbidden")
    assert "admin" in refused.json()["detail"]

    pause = api("POST", "/v1/pauses", json=body, key=admin_key).json()

    assert pause["tenant"] is None
    there = pause["links"]["self"]
    assert code(api("DELETE", there)) == (403, "forbidden")
    other = ingest.key("operate", tenant="other")
    assert [each["name"] for each in api("GET", "/v1/pauses", key=other).json()["items"]] == [name]
    assert code(api("DELETE", there, key=other)) == (403, "forbidden")
    assert api("DELETE", there, key=ingest.key("admin", tenant="other")).status_code == 200


def test_who_may_only_read_events_pauses_nothing(ingest: Any, api: Api) -> None:
    viewer = ingest.key("events:read", "events:write")

    for method, path in (("GET", "/v1/pauses"), ("POST", "/v1/pauses"), ("DELETE", f"/v1/pauses/{uuid4()}")):
        assert code(api(method, path, key=viewer, json=TYPE if method == "POST" else None)) == (403, "forbidden")


def test_another_tenants_pause_is_not_found(ingest: Any, api: Api) -> None:
    there = api("POST", "/v1/pauses", json=TYPE).json()["links"]["self"]
    stranger, its_admin = ingest.key("operate", tenant="other"), ingest.key("admin", tenant="other")

    for method in ("GET", "DELETE"):
        assert code(api(method, there, key=stranger)) == (404, "not_found")
        assert code(api(method, there, key=its_admin)) == (404, "not_found")
    assert api("GET", "/v1/pauses", key=stranger).json() == {"items": []}
    mine = api("POST", "/v1/pauses", json=TYPE, key=stranger)
    assert mine.status_code == 201, "each tenant pauses its own events of a type"


@pytest.mark.parametrize("name", ["x", "%00", "0" * 5000])
def test_what_is_no_id_is_not_found(api: Api, name: str) -> None:
    assert code(api("DELETE", f"/v1/pauses/{name}")) == (404, "not_found")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"kind": "node"}, "/kind"),
        ({"kind": "handler", "name": "charge order"}, "/name"),
        ({"kind": "handler", "name": "x" * 101}, "/name"),
        ({"kind": "handler", "name": ""}, "/name"),
        ({"kind": "pool", "name": "GPU"}, "/name"),
        ({"name": "x" * 1025}, "/name"),
        ({"name": "a\x00b"}, "/name"),
        ({"kind": "tenant", "name": "other"}, "/name"),
        ({"note": "x" * 201}, "/note"),
        ({"note": "a\nb"}, "/note"),
        ({"node": "x"}, "/node"),
    ],
)
def test_what_cannot_be_paused_is_told_with_what_was_sent(
    api: Api, admin_key: str, changes: dict[str, Any], pointer: str
) -> None:
    answer = api("POST", "/v1/pauses", json=TYPE | changes, key=admin_key)

    assert code(answer) == (400, "invalid_request")
    [error] = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert error["received"][:9] in repr(next(iter(changes.values()))) or pointer == "/name"
    assert "/v1/pauses" not in answer.headers.get("Location", "")


def test_a_tenant_has_a_bounded_number_of_pauses(ingest: Any, api: Api, admin_key: str) -> None:
    actor = Actor("acme", "k")
    with ingest.database.transaction() as session:
        for number in range(pauses.MOST_OF_TENANT):
            pauses.pause(session, actor, PauseKind.TYPE, f"t.{number}")

    refused = api("POST", "/v1/pauses", json=TYPE)

    assert code(refused) == (409, "too_many_pauses")
    assert "resume one" in refused.json()["detail"]
    assert api("POST", "/v1/pauses", json={"kind": "type", "name": "t.1"}).status_code == 200
    assert api("POST", "/v1/pauses", json=TYPE, key=ingest.key("operate", tenant="other")).status_code == 201
    shared = {"kind": "handler", "name": "charge-order"}
    assert api("POST", "/v1/pauses", json=shared, key=admin_key).status_code == 201


def test_two_who_pause_the_same_thing_at_once_get_the_same_pause(ingest: Any, api: Api, eventually: Eventually) -> None:
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(api("POST", "/v1/pauses", json=TYPE)))
    with ingest.database.transaction() as session:
        first, _ = pauses.pause(session, Actor("acme", "k"), PauseKind.TYPE, TYPE["name"])
        asking.start()
        with ingest.database.transaction() as watching:
            waits = text(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            eventually(lambda: watching.execute(waits).scalar_one() == 1)
    asking.join(10)

    assert [(each.status_code, each.json()["pause_id"]) for each in answers] == [(200, str(first.id))]
