"""Revoked tokens, and a Redis that has forgotten which they are."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from holdfast.domain.revocation import Revocation, RevocationKind
from holdfast.local.servers import Valkey
from holdfast.messaging.revocations import RevocationCopy

NONE: list[Revocation] = []


@pytest.fixture
def own(own_valkey: Valkey, tenant: Any) -> Iterator[Any]:
    """A tenant in a Redis that the test may empty."""
    made = type(tenant)(own_valkey.url())
    yield made
    made.redis.close()


@pytest.fixture
def untended(own_valkey: Valkey, serve: Callable[..., Any]) -> Any:
    """A gateway whose Redis nobody fills but the test."""
    return serve(redis_url=SecretStr(own_valkey.url()), is_tended=False)


def fill(tenant: Any, *revoked: str) -> None:
    """Copy a database's revocations, of these subjects, as maintenance does."""
    now = tenant.redis.time()[0]
    rows = [
        Revocation(seq=seq, tenant=tenant.name, kind=RevocationKind.SUBJECT, name=sub, second=now)
        for seq, sub in enumerate(revoked, 1)
    ]
    RevocationCopy(tenant.redis).bring_up_to(len(rows), lambda seq: rows[seq:])


def close_code(open_live: Any, address: Any, token: str) -> int:
    client = open_live(address)
    client.send(type="hello", v=1, token=token)
    return int(client.close_code())


def readiness(address: Any) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"{address.http}/readyz", timeout=5) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.loads(exc.read())


def test_nobody_is_let_in_until_redis_has_the_revocations_once(
    untended: Any, own: Any, open_live: Any, open_stream: Any, join: Any, eventually: Callable[..., Any]
) -> None:
    unknown = {"redis": "RevocationsUnknown"}
    eventually(lambda: readiness(untended)[1]["checks"] == unknown, message="Redis is there, and knows nothing")

    assert close_code(open_live, untended, own.token()) == 4008
    stream = open_stream(untended, own.topic, token=own.token())
    assert stream.response.status == 503
    assert int(stream.response.headers["Retry-After"]) >= 1
    assert json.loads(stream.response.read())["reconnect"] is True
    assert readiness(untended) == (
        503,
        {"status": "unavailable", "checks": {"redis": "RevocationsUnknown"}},
    )

    fill(own)

    assert join(untended, own.token())
    eventually(lambda: readiness(untended)[0] == 200, message="ready")


def test_after_redis_was_emptied_no_revoked_token_gets_in_and_open_connections_stay(
    untended: Any, own: Any, own_valkey: Valkey, open_live: Any, join: Any, eventually: Callable[..., Any]
) -> None:
    revoked = own.token()  # one that is signed in a later second is not
    fill(own, "user-1")
    bystander = join(untended, own.token(sub="user-2"), own.topic)
    bystander.take("subscribed")
    assert close_code(open_live, untended, revoked) == 4506

    own_valkey.execute("FLUSHALL")

    bystander.send(type="subscribe", id=1, topics=[{"topic": "audience:a"}])
    session = f"live:session:{bystander.session}"
    eventually(lambda: b"audience:a" in (own.redis.hget(session, "topics") or b""), message="the session is written")
    assert close_code(open_live, untended, own.token()) == 4008
    fill(own, "user-1")
    assert close_code(open_live, untended, revoked) == 4506
    assert join(untended, own.token(sub="user-3"))
    bystander.send(type="subscribe", id=2, topics=[{"topic": "audience:b"}])
    assert bystander.take_until(lambda frame: frame.get("topic") == "audience:b")


def test_a_newer_token_that_cannot_be_looked_up_is_not_taken(
    untended: Any, own: Any, own_valkey: Valkey, join: Any
) -> None:
    fill(own)
    client = join(untended, own.token())
    own_valkey.execute("FLUSHALL")

    client.send(type="token", id=1, token=own.token("tenant:*"))

    assert client.close_code() == 4008


def test_a_revocation_that_comes_with_a_new_copy_ends_connections_at_once(untended: Any, own: Any, join: Any) -> None:
    fill(own)
    client = join(untended, own.token())
    own.redis.delete("live:revocations")

    fill(own, "user-1")

    # The next refresh of the session, which would find it too, is 14 seconds away at least.
    assert client.close_code(timeout_seconds=8) == 4506


def test_a_ticket_of_a_revoked_token_opens_nothing(gateway: Any, open_stream: Any, tenant: Any) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"{gateway.http}/v1/live/tickets", method="POST", headers={"Authorization": f"Bearer {tenant.token()}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        ticket = json.loads(answer.read())["ticket"]
    tenant.revoke(sub="user-1")

    refused = open_stream(gateway, tenant.topic, query={"ticket": ticket})

    assert (refused.response.status, json.loads(refused.response.read())["code"]) == (403, "revoked")


def test_a_revocation_by_the_release_before_still_counts(gateway: Any, open_live: Any, tenant: Any) -> None:
    revoked = tenant.token()  # one that is signed in a later second is not
    tenant.redis.set(f"live:revoked:subject:{tenant.name}:user-1", tenant.redis.time()[0], ex=60)
    tenant.redis.set(f"live:revoked:token:{tenant.name}:the-one", 1, ex=60)

    assert close_code(open_live, gateway, revoked) == 4506
    assert close_code(open_live, gateway, tenant.token(sub="user-2", jti="the-one")) == 4506
