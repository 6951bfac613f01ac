"""Sessions: topics that outlive a connection and its gateway, and whose they are."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed

from holdfast.gateway.protocol.frames import LIMITS
from holdfast.local.servers import Valkey


def versions(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["event"]["version"] for frame in frames]


def kept(tenant: Any, session: str) -> dict[str, str]:
    """The session as it is in Redis."""
    return {name.decode(): value.decode() for name, value in tenant.redis.hgetall(f"live:session:{session}").items()}


def kept_topics(tenant: Any, session: str) -> list[str]:
    topics: list[str] = json.loads(kept(tenant, session)["topics"])
    return topics


def test_a_session_is_there_with_its_welcome_and_follows_every_change(
    gateway: Any, join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    client = join(gateway, tenant.token(), "audience:a", "kitchen:sink")

    session = kept(tenant, client.session)
    client.send(type="subscribe", id=1, topics=[{"topic": "audience:b"}])
    client.send(type="unsubscribe", id=2, topics=["audience:a"])

    assert (session["sub"], session["tenant"], session["topics"]) == ("user-1", tenant.name, '["audience:a"]')
    assert 590 < tenant.redis.ttl(f"live:session:{client.session}") <= 600
    eventually(lambda: kept_topics(tenant, client.session) == ["audience:b"], message="the change is kept")


def test_l04_a_session_goes_on_elsewhere_after_its_gateway_was_killed(
    start_gateway: Callable[..., Any], gateway: Any, valkey: Valkey, join: Any, tenant: Any
) -> None:
    first = start_gateway(valkey.url())
    client = join(first, tenant.token(), tenant.topic, "audience:a")
    positions = {frame["topic"]: frame["pos"] for frame in (client.take("subscribed"), client.take("subscribed"))}
    tenant.publish(1, 2)
    positions[tenant.topic] = client.take_updates(2)[-1]["pos"]

    first.stop()
    tenant.publish(*range(3, 53))
    again = join(gateway, tenant.token(), session=client.session, positions=positions)

    assert again.session == client.session
    assert versions(again.take_updates(50)) == list(range(3, 53))
    ends = [again.take("subscribed"), again.take("subscribed")]
    assert {end["topic"]: end["recovered"] for end in ends} == {tenant.topic: True, "audience:a": True}
    tenant.publish(53, audience="a")
    assert {frame["topic"] for frame in again.take_updates(2)} == {tenant.topic, "audience:a"}


def test_l14_a_narrower_token_on_resume_neither_replays_nor_delivers_what_it_lost(
    gateway: Any, join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    client = join(gateway, tenant.token(), "audience:a", "audience:b")
    positions = {frame["topic"]: frame["pos"] for frame in (client.take("subscribed"), client.take("subscribed"))}
    client.connection.close()
    for version, audience in enumerate("ab", 1):
        tenant.publish(version, audience=audience)

    again = join(gateway, tenant.token("audience:b"), session=client.session, positions=positions)
    error = again.take("error")
    missed = again.take_updates(1)
    again.take("subscribed")
    for version, audience in enumerate("ab", 3):
        tenant.publish(version, audience=audience)

    assert error["code"] == "forbidden"
    assert "audience:a" in error["message"]
    assert versions(missed) == [2]
    assert versions(again.take_updates(1)) == [4]
    eventually(lambda: kept_topics(tenant, client.session) == ["audience:b"], message="the topic is gone for good")


def test_a_late_hello_of_an_abandoned_connection_leaves_the_newer_one_alone(
    gateway: Any, join: Any, open_live: Any, tenant: Any
) -> None:
    abandoned = open_live(gateway)
    first = join(gateway, tenant.token(), "audience:a", attempt=1)
    newer = join(gateway, tenant.token(), session=first.session, attempt=3)
    newer.take("subscribed")

    abandoned.send(type="hello", v=1, token=tenant.token(), session=first.session, attempt=2)

    assert abandoned.frames_until_close() == []
    assert abandoned.connection.close_code == 4503
    tenant.publish(1, audience="a")
    assert versions(newer.take_updates(1)) == [1], "it lives on"


def test_a_late_hello_is_known_after_the_sessions_were_lost_too(
    gateway: Any, join: Any, open_live: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    client = join(gateway, tenant.token(), "audience:a", attempt=7)
    client.take("subscribed")
    tenant.redis.delete(f"live:session:{client.session}")
    client.send(type="subscribe", id=1, topics=[{"topic": "audience:b"}])
    eventually(lambda: kept(tenant, client.session).get("attempt") == "7", message="written again")

    late = open_live(gateway)
    late.send(type="hello", v=1, token=tenant.token(), session=client.session, attempt=6)

    assert late.frames_until_close() == []
    assert late.connection.close_code == 4503


@pytest.mark.parametrize("attempt", [None, 5, 6])
def test_a_newer_hello_or_one_that_does_not_count_takes_the_session(
    gateway: Any, join: Any, tenant: Any, attempt: int | None
) -> None:
    first = join(gateway, tenant.token(), "audience:a", attempt=5)

    again = join(gateway, tenant.token(), session=first.session, **({} if attempt is None else {"attempt": attempt}))

    assert again.session == first.session
    assert again.take("subscribed")["topic"] == "audience:a"


@pytest.mark.parametrize("stranger", ["another subject", "another tenant"])
def test_l15_somebody_elses_session_is_refused_without_data(
    gateway: Any, join: Any, open_live: Any, tenant: Any, other_tenant: Any, stranger: str
) -> None:
    client = join(gateway, tenant.token(), "audience:a")
    position = client.take("subscribed")["pos"]
    before = kept(tenant, client.session)
    tenant.publish(1, audience="a")
    token = other_tenant.token() if stranger == "another tenant" else tenant.token(sub="user-2")

    thief = open_live(gateway)
    thief.send(type="hello", v=1, token=token, session=client.session, positions={"audience:a": position})

    assert thief.frames_until_close() == []
    assert thief.connection.close_code == 4502
    assert kept(tenant, client.session) == before
    assert versions(client.take_updates(1)) == [1]


def test_l16_a_second_socket_closes_the_first_here(gateway: Any, join: Any, tenant: Any) -> None:
    first = join(gateway, tenant.token(), tenant.topic)
    first.take("subscribed")

    second = join(gateway, tenant.token(), session=first.session)

    assert first.close_code() == 4503
    second.take("subscribed")
    tenant.publish(1)
    assert versions(second.take_updates(1)) == [1]
    assert kept(tenant, second.session)["generation"] == "2"


def test_l16_a_second_socket_closes_the_first_on_another_gateway(
    gateway: Any, serve: Callable[..., Any], join: Any, tenant: Any
) -> None:
    first = join(gateway, tenant.token(), tenant.topic)
    first.take("subscribed")

    second = join(serve(), tenant.token(), session=first.session)

    assert first.close_code() == 4503
    assert second.take("subscribed")["topic"] == tenant.topic


def test_a_takeover_whose_notice_was_lost_is_found_at_the_next_refresh(
    serve: Callable[..., Any], join: Any, tenant: Any
) -> None:
    client = join(serve(replace(LIMITS, session_refresh_s=0.5)), tenant.token())

    # As another gateway would, but without telling.
    tenant.redis.hincrby(f"live:session:{client.session}", "generation", 1)

    assert client.close_code() == 4503


def test_sessions_are_refreshed_however_busy_the_gateway_is(
    serve: Callable[..., Any], join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    address = serve(replace(LIMITS, session_refresh_s=0.5))
    client, busy = join(address, tenant.token()), join(address, tenant.token(sub="user-2"))
    tenant.redis.hincrby(f"live:session:{client.session}", "generation", 1)

    numbers = itertools.count()

    def is_closed() -> bool:
        # So that something is always due.
        busy.send(type="subscribe", id=1, topics=[{"topic": f"audience:{next(numbers)}"}])
        busy.take("subscribed")
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            client.receive(timeout_seconds=0.1)
        return client.connection.close_code is not None

    eventually(is_closed, timeout_seconds=10, message="it has learnt that it was taken over")
    assert client.close_code() == 4503


def test_the_older_connection_writes_nothing_any_more(
    gateway: Any, join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    first = join(gateway, tenant.token(), "audience:a")
    second = join(gateway, tenant.token(), session=first.session)
    second.send(type="subscribe", id=1, topics=[{"topic": "audience:b"}])
    eventually(lambda: kept_topics(tenant, second.session) == ["audience:a", "audience:b"], message="kept")

    assert first.close_code() == 4503
    second.send(type="subscribe", id=2, topics=[{"topic": "audience:c"}])

    eventually(lambda: len(kept_topics(tenant, second.session)) == 3, message="only the newer one writes")
    assert tenant.redis.zcard(f"live:connections:{tenant.name}:user-1") == 1


def test_an_expired_session_still_resumes_by_topics_and_positions(
    serve: Callable[..., Any], join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    address = serve(replace(LIMITS, session_ttl_s=1))
    client = join(address, tenant.token(), tenant.topic)
    position = client.take("subscribed")["pos"]
    client.connection.close()
    eventually(lambda: not kept(tenant, client.session), message="the session has expired")
    tenant.publish(1)

    again = join(address, tenant.token(), tenant.topic, session=client.session, positions={tenant.topic: position})

    assert again.session != client.session
    assert versions(again.take_updates(1)) == [1]
    assert again.take("subscribed")["recovered"] is True


def test_an_open_connection_keeps_its_session_alive(
    serve: Callable[..., Any], join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    client = join(serve(replace(LIMITS, session_ttl_s=60, session_refresh_s=1.0)), tenant.token())
    tenant.redis.expire(f"live:session:{client.session}", 30)

    eventually(lambda: tenant.redis.ttl(f"live:session:{client.session}") > 30, message="refreshed")


def test_a_flushed_session_is_written_again(
    own_valkey: Valkey, serve: Callable[..., Any], join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    own = type(tenant)(own_valkey.url())
    client = join(serve(redis_url=SecretStr(own_valkey.url())), own.token(), own.topic)
    client.take("subscribed")
    before = kept(own, client.session)

    own_valkey.execute("FLUSHALL")

    eventually(lambda: kept(own, client.session) == before, message="written again")
    own.redis.close()


def test_a_subject_has_a_limited_number_of_connections(
    serve: Callable[..., Any], join: Any, open_live: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    here, there = serve(connections_per_subject=2), serve(connections_per_subject=2)
    first, second = join(here, tenant.token()), join(there, tenant.token())

    third = open_live(here)
    third.send(type="hello", v=1, token=tenant.token())

    assert third.close_code() == 4504
    assert join(here, tenant.token(sub="user-2"))
    again = join(there, tenant.token(), session=first.session)  # takes over: still two
    second.connection.close()
    counted = f"live:connections:{tenant.name}:user-1"
    eventually(lambda: tenant.redis.zrange(counted, 0, -1) == [again.session.encode()], message="one has left")
    assert join(here, tenant.token())


def test_connections_of_a_killed_gateway_count_for_a_while_only(
    serve: Callable[..., Any], join: Any, tenant: Any
) -> None:
    address = serve(connections_per_subject=1)
    # What a gateway leaves behind that was killed long ago.
    tenant.redis.zadd(f"live:connections:{tenant.name}:user-1", {"a-session-of-it": 1})

    assert join(address, tenant.token())


@pytest.mark.parametrize("what", ["the token", "the subject"])
def test_a_revoked_token_ends_its_connections_and_opens_none(
    gateway: Any, join: Any, open_live: Any, tenant: Any, what: str
) -> None:
    token, bystander = tenant.token(jti="the-one"), join(gateway, tenant.token(sub="user-2"), "audience:a")
    bystander.take("subscribed")
    client = join(gateway, token)

    tenant.revoke(**({"jti": "the-one"} if what == "the token" else {"sub": "user-1"}))

    assert client.close_code() == 4506
    again = open_live(gateway)
    again.send(type="hello", v=1, token=token)
    assert again.close_code() == 4506
    tenant.publish(1, audience="a")
    assert versions(bystander.take_updates(1)) == [1]


def test_the_command_of_the_release_before_says_who_revokes_now(valkey: Valkey) -> None:
    command = [sys.executable, "-m", "holdfast.gateway", "revoke", "--tenant", "acme", "--sub", "user-1"]
    done = subprocess.run(
        command, env=os.environ | {"HOLDFAST_REDIS_URL": valkey.url()}, check=False, timeout=60, capture_output=True
    )

    assert done.returncode == 2
    assert b"nothing was revoked" in done.stderr
    assert b"POST /v1/tokens/revoke" in done.stderr


def test_a_refresh_with_a_revoked_token_ends_the_connection(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token())
    tenant.revoke(jti="the-one")

    client.send(type="token", id=1, token=tenant.token(jti="the-one"))

    assert client.close_code() == 4506


def test_a_revocation_whose_notice_was_lost_is_found_at_the_next_refresh(
    serve: Callable[..., Any], join: Any, tenant: Any
) -> None:
    client = join(serve(replace(LIMITS, session_refresh_s=0.5)), tenant.token(jti="the-one"))

    tenant.redis.set(f"live:revoked:token:{tenant.name}:the-one", 1, ex=60)

    assert client.close_code() == 4506


def test_a_token_issued_after_the_revocation_of_its_subject_is_good(gateway: Any, join: Any, tenant: Any) -> None:
    tenant.revoke(sub="user-1")

    assert join(gateway, tenant.token(iat=tenant.redis.time()[0] + 1))
