"""The live token: minted by ingest, verified by the gateway."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from holdfast.client import ApiProblem, Client
from holdfast.gateway.clients.tokens import TokenVerifier, is_allowed
from holdfast.gateway.protocol.codec import Closing
from holdfast.messaging.contracts import MAX_TOKEN_BYTES, LiveTokenV1

pytestmark = pytest.mark.xdist_group("contract")

Golden = Callable[[str], dict[str, Any]]


def test_the_gateway_takes_what_ingest_mints(edges: Any, client: Client, golden: Golden) -> None:
    wanted = golden("live-token.v1")

    minted = client.token(wanted["topics"], sub=wanted["sub"], ttl_seconds=900)

    claims = TokenVerifier(edges.secret).verify(minted.token)
    assert (claims.sub, claims.tenant, claims.topics) == (wanted["sub"], wanted["tenant"], wanted["topics"])
    assert claims.exp - claims.iat == wanted["exp"] - wanted["iat"]
    assert claims.exp == minted.expires_at


def test_what_ingest_mints_is_the_contract(edges: Any, client: Client, golden: Golden) -> None:
    token = client.token(["event:*"]).token

    claims = jwt.decode(token, edges.secret, algorithms=["HS256"], audience=golden("live-token.v1")["aud"])

    assert set(claims) == set(golden("live-token.v1")) - {"nbf"} == set(LiveTokenV1.model_fields) - {"nbf"}
    assert {name: type(value) for name, value in claims.items()} == {
        name: type(value) for name, value in golden("live-token.v1").items() if name in claims
    }
    assert jwt.get_unverified_header(token)["alg"] == "HS256"


def test_the_gateway_takes_the_golden_token(golden: Golden) -> None:
    secret, now = "s" * 32, int(time.time())
    example = golden("live-token.v1") | {"iat": now, "nbf": now, "exp": now + 900}

    claims = TokenVerifier(secret).verify(jwt.encode(example, secret, algorithm="HS256"))

    assert claims.model_dump() == example


@pytest.mark.parametrize("name", [name for name in LiveTokenV1.model_fields if name != "nbf"])
def test_the_gateway_needs_every_claim_but_nbf(golden: Golden, name: str) -> None:
    secret, now = "s" * 32, int(time.time())
    example = golden("live-token.v1") | {"iat": now, "nbf": now, "exp": now + 900}
    del example[name]

    with pytest.raises(Closing):
        TokenVerifier(secret).verify(jwt.encode(example, secret, algorithm="HS256"))


def test_both_sides_read_grants_alike(edges: Any, client: Client) -> None:
    token = client.token(["event:*", "audience:user-*", "tenant:acme"]).token
    claims = TokenVerifier(edges.secret).verify(token)

    seen = [
        topic
        for topic in ("event:1", "audience:user-1", "audience:other", "tenant:acme", "tenant:b")
        if is_allowed(topic, claims)
    ]

    assert seen == ["event:1", "audience:user-1", "tenant:acme"]


@settings(
    max_examples=12, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="*"), min_size=1, max_size=60)
    ),
    sub=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60),
    spare=st.integers(0, 8),
)
def test_the_longest_token_that_is_minted_opens_a_websocket_a_stream_and_a_ticket(
    edges: Any, client: Client, names: list[str], sub: str, spare: int
) -> None:
    minted = longest(client, [f"audience:{name}" for name in names[:6]], sub, spare)

    assert MAX_TOKEN_BYTES - 28 <= len(minted) <= MAX_TOKEN_BYTES
    assert greet(edges, minted) == "welcome"
    bearer = {"Authorization": f"Bearer {minted}"}
    with httpx.stream(
        "GET", f"{edges.gateway_url}/v1/live/sse", params={"topic": "audience:a"}, headers=bearer
    ) as stream:
        assert stream.status_code == 200
    ticket = httpx.post(f"{edges.gateway_url}/v1/live/tickets", headers=bearer).json()
    named = {"topic": "audience:a", "ticket": ticket["ticket"]}
    with httpx.stream("GET", f"{edges.gateway_url}/v1/live/sse", params=named) as stream:
        assert stream.status_code == 200


def test_a_byte_more_is_not_minted(client: Client) -> None:
    exact = longest(client, [], "u", 0)
    topics = jwt.decode(exact, options={"verify_signature": False})["topics"]

    with pytest.raises(ApiProblem, match="at most 6144 bytes") as refused:
        client.token([*topics, "audience:" + "x" * 12], sub="u")

    assert (refused.value.status, refused.value.code) == (422, "token_too_long")


def longest(client: Client, topics: list[str], sub: str, spare: int) -> str:
    """A token of about the most bytes, ``spare`` less: filled up with grants, the last one as long as still fits."""
    topics = topics or ["audience:a"]
    token = client.token(topics, sub=sub).token
    while (room := (MAX_TOKEN_BYTES - spare - len(token)) * 3 // 4 - len('"audience:",')) > 0:
        topics = [*topics, "audience:" + "x" * min(200, room)]
        token = client.token(topics, sub=sub).token
    return token


def greet(edges: Any, token: str) -> str:
    """The type of the first frame that comes of a hello."""
    with connect(edges.live_url, compression=None) as websocket:
        websocket.send(json.dumps({"type": "hello", "v": 1, "token": token}))
        return str(json.loads(websocket.recv(timeout=10))["type"])


@pytest.mark.parametrize("name", ["👩\u200d👩\u200d👧", "é" * 127, "a" * 255, "a,tenant:b \u2028"], ids=ascii)
def test_an_audience_of_any_name_is_seen_live(edges: Any, client: Client, name: str) -> None:
    topic = f"audience:{name}"
    token = client.token([topic], sub=name).token
    with connect(edges.live_url, compression=None) as websocket:
        websocket.send(json.dumps({"type": "hello", "v": 1, "token": token, "topics": [topic]}))
        assert [json.loads(websocket.recv(timeout=10))["type"] for _ in range(2)] == ["welcome", "subscribed"]

        sent = client.send({"type": "com.acme.test", "source": "/test", "audience": name, "data": {}})

        update = json.loads(websocket.recv(timeout=10))
    assert (update["topic"], update["event"]["id"]) == (topic, sent.event_id)
    assert [event.event_id for event in client.events(audience=name)] == [sent.event_id]
