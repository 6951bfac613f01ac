"""The live token: minted by ingest, verified by the gateway."""

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from holdfast.client import Client
from holdfast.gateway.clients.tokens import TokenVerifier, is_allowed
from holdfast.gateway.protocol.codec import Closing
from holdfast.messaging.contracts import LiveTokenV1

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
