"""Live tokens: what is in them, and what is not granted."""

import time
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest

from holdfast.messaging.contracts import LIVE_AUDIENCE, MAX_TOKEN_BYTES, LiveTokenV1

pytestmark = pytest.mark.xdist_group("ingest-tokens")  # one process for all of them

SECRET = "a secret of the tests alone, long enough"


def ask(ingest: Any, key: str, body: Any) -> httpx.Response:
    return httpx.post(f"{ingest.url}/v1/tokens", json=body, headers={"Authorization": f"Bearer {key}"})


def test_a_token_says_who_may_see_what_and_for_how_long(ingest: Any, key: str) -> None:
    topics = ["audience:user-42", "event:*", "tenant:acme"]

    answer = ask(ingest, key, {"topics": topics, "sub": "user-42", "ttl_seconds": 60})

    body = answer.json()
    claims = jwt.decode(body["token"], SECRET, algorithms=["HS256"], audience=LIVE_AUDIENCE)
    contract = LiveTokenV1.model_validate(claims)
    assert answer.status_code == 201
    assert (contract.sub, contract.tenant, contract.topics) == ("user-42", "acme", topics)
    assert contract.exp == body["expires_at"] == contract.iat + 60
    assert abs(contract.iat - time.time()) < 30
    assert body["live_url"] == "wss://live.example.com/v1/live"


def test_an_event_is_granted_however_its_id_is_spelt(ingest: Any, key: str) -> None:
    granted = ask(ingest, key, {"topics": ["event:01A20CE1-A999-7253-85BB-3C3E269307A2"]}).json()["topics"]

    assert granted == ["event:01a20ce1-a999-7253-85bb-3c3e269307a2"]


def test_without_a_subject_it_is_the_keys_own(ingest: Any, key: str) -> None:
    token = ask(ingest, key, {"topics": ["event:*"]}).json()["token"]

    assert jwt.decode(token, options={"verify_signature": False})["sub"] == f"key:{key.split('_')[1]}"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"topics": []}, 400, "invalid_request"),
        ({"topics": "event:*"}, 400, "invalid_request"),
        ({"topics": ["event:*"], "admin": True}, 400, "invalid_request"),
        ({"topics": ["event:*"] * 65}, 400, "invalid_request"),
        ({"topics": ["event:*"], "ttl_seconds": 1}, 400, "invalid_request"),
        ({"topics": ["event:*"], "ttl_seconds": 100_000}, 400, "ttl_too_long"),
        ({"topics": ["*"]}, 400, "invalid_topic"),
        ({"topics": ["event:not-a-uuid"]}, 400, "invalid_topic"),
        ({"topics": ["audience:*-1"]}, 400, "invalid_topic"),
        ({"topics": ["audience:" + "a" * 256]}, 400, "invalid_topic"),
        ({"topics": ["event:*"], "sub": "a" * 256}, 400, "invalid_request"),
        ({"topics": ["event:*"], "sub": "a\tb"}, 400, "invalid_request"),
        ({"topics": ["tenant:other"]}, 403, "forbidden"),
        ({"topics": ["tenant:*"]}, 403, "forbidden"),
    ],
)
def test_what_is_not_granted(ingest: Any, key: str, body: Any, status: int, code: str) -> None:
    answer = ask(ingest, key, body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_request_full_of_faults_is_answered_briefly(ingest: Any, key: str) -> None:
    names = {"n/" + "x" * 5000: 1} | {f"n{n}": 1 for n in range(500)}

    answer = ask(ingest, key, {"topics": ["event:*"]} | names)

    assert answer.status_code == 400
    assert len(answer.json()["errors"]) == 20
    assert answer.json()["errors"][0]["pointer"] == "/n~1" + "x" * 62


def test_a_key_that_may_not_read_gets_no_token(ingest: Any) -> None:
    assert ask(ingest, ingest.key("events:write"), {"topics": ["event:*"]}).status_code == 403


def grants(count: int, length: int) -> list[str]:
    return [f"audience:{n:03}{'x' * (length - 3)}" for n in range(count)]


def test_a_token_of_64_events_is_minted(ingest: Any, key: str) -> None:
    answer = ask(ingest, key, {"topics": [f"event:{uuid4()}" for _ in range(64)]})

    assert answer.status_code == 201
    assert len(answer.json()["token"]) <= MAX_TOKEN_BYTES


def test_a_token_that_is_too_long_to_use_is_not_minted(ingest: Any, key: str) -> None:
    answer = ask(ingest, key, {"topics": grants(64, 200)})

    assert (answer.status_code, answer.json()["code"]) == (422, "token_too_long")
    assert "at most 6144 bytes and this one would have 18" in answer.json()["detail"]
    assert "final '*'" in answer.json()["detail"]


def test_any_unicode_without_controls_is_granted_and_is_a_subject(ingest: Any, key: str) -> None:
    names = ["👩\u200d👩\u200d👧", "é" * 127, "\u2028", "a,tenant:b", "100 %"]

    answer = ask(ingest, key, {"topics": [f"audience:{name}" for name in names], "sub": names[0]})

    claims = jwt.decode(answer.json()["token"], options={"verify_signature": False})
    assert claims["topics"] == [f"audience:{name}" for name in names]
    assert claims["sub"] == names[0]
