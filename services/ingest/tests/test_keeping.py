"""Retention and erasure over HTTP, with every refusal."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

pytestmark = pytest.mark.xdist_group("ingest-keeping")  # one process for all of them

Api = Callable[..., httpx.Response]


@pytest.fixture
def api(ingest: Any) -> Iterator[Api]:
    """A request as the administrator of a tenant of the test's own, or with another key."""
    admin = ingest.key("admin", "operate", tenant=f"t-{uuid4().hex[:12]}")
    with httpx.Client(base_url=ingest.url, timeout=10) as client:

        def ask(method: str, path: str, *, key: str = admin, **options: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"} | options.pop("headers", {})
            return client.request(method, path, headers=headers, **options)

        yield ask


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def in_force(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {each["state"]: each["rule"] for each in answer.json()["items"]}


def test_a_rule_is_made_shown_changed_and_removed(api: Api) -> None:
    assert in_force(api("PUT", "/v1/retention/dead", json={"days": 90}))["dead"] == {"days": 90}
    assert in_force(api("PUT", "/v1/retention/dead", json={"days": None}))["dead"] == {"days": None}
    assert in_force(api("GET", "/v1/retention")) == {"processed": None, "discarded": None, "dead": {"days": None}}
    assert in_force(api("DELETE", "/v1/retention/dead"))["dead"] is None

    assert refused(api("DELETE", "/v1/retention/dead")) == (404, "not_found")


@pytest.mark.parametrize("body", [{"days": 0}, {"days": 36_501}, {"days": "x"}, {}, {"days": 1, "hours": 2}, 7])
def test_a_wrong_rule_is_refused(api: Api, body: Any) -> None:
    assert refused(api("PUT", "/v1/retention/processed", json=body)) == (400, "invalid_request")


@pytest.mark.parametrize("state", ["queued", "processing", "failed", "nonsense", "x" * 500])
def test_there_is_no_rule_for_an_open_event(api: Api, state: str) -> None:
    answer = api("PUT", f"/v1/retention/{state}", json={"days": 1})

    assert refused(answer) == (400, "invalid_state")
    assert "processed" in answer.json()["detail"]


def test_an_erasure_is_begun_once_and_shown_without_its_subject(api: Api) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    begun = api("POST", "/v1/erasures", json={"subject": "user-42"}, headers=key)
    assert begun.status_code == 202, begun.text

    again = api("POST", "/v1/erasures", json={"subject": "user-42"}, headers=key)
    other = api("POST", "/v1/erasures", json={"subject": "user-43"}, headers=key)
    shown = api("GET", begun.headers["Location"])
    listed = api("GET", "/v1/erasures")

    assert again.json() == begun.json() == shown.json()
    assert refused(other) == (422, "id_conflict")
    assert (begun.json()["state"], begun.json()["erased"]) == ("running", 0)
    assert begun.json() in listed.json()["items"]
    assert "user-42" not in begun.text + listed.text


def test_an_erasure_of_everything_is_begun_once(api: Api) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    begun = api("POST", "/v1/erasures", json={"everything": True}, headers=key)
    assert begun.status_code == 202, begun.text

    again = api("POST", "/v1/erasures", json={"everything": True}, headers=key)
    other = api("POST", "/v1/erasures", json={"subject": "user-42"}, headers=key)
    one = api("POST", "/v1/erasures", json={"subject": "user-42"})
    listed = api("GET", "/v1/erasures").json()["items"]

    assert again.json() == begun.json() == api("GET", begun.headers["Location"]).json()
    assert refused(other) == (422, "id_conflict")
    assert [each["everything"] for each in listed] == [False, True]
    assert (begun.json()["subject_sha256"], begun.json()["state"]) == (None, "running")
    assert listed == [one.json(), begun.json()]


@pytest.mark.parametrize(
    "body",
    [
        {"subject": ""}, {"subject": "x" * 1025}, {"subject": 7}, {"subject": "a\x00"}, {"subject": None},
        {"everything": None}, {"everything": 1}, {"everything": "true"}, {"subject": None, "everything": True}, 7,
    ],
)  # fmt: skip
def test_a_wrong_erasure_is_refused(api: Api, body: Any) -> None:
    assert refused(api("POST", "/v1/erasures", json=body)) == (400, "invalid_request")
    assert api("GET", "/v1/erasures").json()["items"] == []


@pytest.mark.parametrize(
    ("body", "received"),
    [
        ({}, "received neither"), ({"everything": False}, "received everything: false"),
        ({"subject": "user-42", "everything": True}, "received both"),
        ({"subject": "user-42", "everything": False}, "received both"),
    ],
)  # fmt: skip
def test_an_erasure_that_does_not_say_which_is_told_what_came_and_what_to_send(
    api: Api, body: Any, received: str
) -> None:
    answer = api("POST", "/v1/erasures", json=body)

    assert refused(answer) == (400, "invalid_request")
    [error] = answer.json()["errors"]
    assert received in error["detail"]
    assert "send either subject, or everything with the value true" in error["detail"]
    assert '{"everything": true}' in answer.json()["detail"]


def test_an_unknown_erasure_is_not_found(api: Api) -> None:
    assert refused(api("GET", f"/v1/erasures/{uuid4()}")) == (404, "not_found")


def test_only_an_administrator_decides(api: Api, operator_key: str) -> None:
    assert refused(api("PUT", "/v1/retention/dead", json={"days": 9}, key=operator_key)) == (403, "forbidden")
    assert refused(api("POST", "/v1/erasures", json={"subject": "s"}, key=operator_key)) == (403, "forbidden")
    assert refused(api("POST", "/v1/erasures", json={"everything": True}, key=operator_key)) == (403, "forbidden")
    assert api("GET", "/v1/retention", key=operator_key).status_code == 200
