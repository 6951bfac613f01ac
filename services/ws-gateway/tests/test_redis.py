"""What the gateway has in Redis, and what becomes of clients when Redis fails."""

import asyncio
import shutil
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed, InvalidStatus

from holdfast.domain.errors import LiveWindowUnavailable
from holdfast.gateway.clients.session import Session
from holdfast.gateway.protocol.close_codes import CloseCode
from holdfast.gateway.protocol.frames import LIMITS
from holdfast.gateway.redis.session_store import SessionStore
from holdfast.gateway.redis.source import Source
from holdfast.gateway.redis.tickets import Tickets
from holdfast.local.fixtures import Eventually
from holdfast.local.servers import Valkey
from holdfast.messaging.contracts import LiveTokenV1
from holdfast.messaging.live import topic_keys


@pytest.fixture
def own_tenant(own_valkey: Valkey, tenant: Any) -> Iterator[Any]:
    """A tenant whose updates go to the test's own Valkey."""
    made = type(tenant)(own_valkey.url())
    yield made
    made.redis.close()


def offsets(frames: list[dict[str, Any]]) -> list[int]:
    return [int(frame["pos"].rpartition(":")[2]) for frame in frames]


def channels(tenant: Any) -> set[str]:
    return {name.decode() for name in tenant.redis.pubsub_channels(f"live:{tenant.name}:*")}


def test_only_wanted_topics_are_subscribed_and_only_as_long(
    serve: Callable[..., Any], join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    address = serve(linger_seconds=0.5)
    first = join(address, tenant.token(), "audience:a", "audience:b")
    second = join(address, tenant.token(), "audience:b")
    for client in (first, first, second):
        client.take("subscribed")
    a, b = (f"live:{tenant.name}:audience:{name}" for name in "ab")
    assert channels(tenant) == {a, b}

    first.connection.close()
    eventually(lambda: channels(tenant) == {b}, message="the topic of nobody is left")
    second.send(type="unsubscribe", id=1, topics=["audience:b"])
    second.send(type="subscribe", id=2, topics=[{"topic": "audience:b"}])
    second.take("subscribed")
    assert channels(tenant) == {b}
    second.connection.close()

    eventually(lambda: not channels(tenant), message="nothing is subscribed")


def test_a_topic_left_and_entered_again_works(
    serve: Callable[..., Any], join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    address = serve(linger_seconds=0.0)
    client = join(address, tenant.token())
    for n in range(8):
        client.send(type="subscribe", id=n, topics=[{"topic": tenant.topic}])
        client.take("subscribed")
        client.send(type="unsubscribe", id=n, topics=[tenant.topic])
    eventually(lambda: not channels(tenant), message="nothing is subscribed")

    client.send(type="subscribe", id="last", topics=[{"topic": tenant.topic}])
    client.take("subscribed")
    tenant.publish(1)

    assert client.take("update")["event"]["version"] == 1


def test_a_quiet_topic_keeps_its_epoch(
    serve: Callable[..., Any], join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    client = join(serve(live_window_seconds=10), tenant.token(), "audience:quiet")
    client.take("subscribed")
    meta = f"live:meta:{tenant.name}:audience:quiet"
    eventually(lambda: tenant.redis.pttl(meta) < 9_000, message="the time to live runs down")

    eventually(lambda: tenant.redis.pttl(meta) > 9_000, timeout_seconds=5, message="a reading renewed it")


def test_l07_a_pubsub_connection_that_is_killed_all_the_time_loses_nothing(
    gateway: Any, join: Any, tenant: Any
) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    client.take("subscribed")
    is_done, lead = threading.Event(), threading.Semaphore(300)
    kills = []

    def kill() -> None:
        with redis.Redis(connection_pool=tenant.redis.connection_pool) as killer:
            while not is_done.wait(0.05):
                kills.append(killer.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))

    def publish() -> None:
        for version in range(1, 1001):
            lead.acquire(timeout=30)  # less ahead of the client than may be read at once, however slow the gateway is
            tenant.publish(version)

    killing, publishing = threading.Thread(target=kill), threading.Thread(target=publish)
    killing.start()
    publishing.start()
    try:
        received = []
        for _ in range(1000):
            received.append(client.take("update"))
            lead.release()
    finally:
        lead.release(1000)
        publishing.join()
        is_done.set()
        killing.join()

    assert offsets(received) == list(range(1, 1001))
    assert sum(kills) >= 3, "the test is about killed connections"


def test_what_was_published_while_the_connection_was_gone_is_caught_up_with(
    gateway: Any, join: Any, tenant: Any
) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    client.take("subscribed")

    with tenant.redis.pipeline(transaction=True) as pipeline:
        # In one transaction with the kill, so that no reconnect can come before the update.
        pipeline.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        for _ in range(3):
            pipeline.hincrby(f"live:meta:{tenant.name}:{tenant.topic}", "offset", 1)
        pipeline.execute()
    gap = client.take("gap")

    # The three were counted and never stored: the only honest answer is a gap.
    assert (gap["reason"], offsets([gap])) == ("trimmed", [3])


def test_l10_a_flushed_redis_is_a_gap_though_no_connection_broke(
    own_valkey: Valkey, own_tenant: Any, serve: Callable[..., Any], join: Any
) -> None:
    client = join(serve(redis_url=SecretStr(own_valkey.url())), own_tenant.token(), own_tenant.topic, "audience:quiet")
    client.take("subscribed")
    client.take("subscribed")
    own_tenant.publish(1, 2)
    client.take_updates(2)

    own_tenant.redis.flushall()
    gaps = [client.take("gap"), client.take("gap")]
    own_tenant.publish(3)

    assert {gap["topic"] for gap in gaps} == {own_tenant.topic, "audience:quiet"}
    assert {(gap["reason"], gap["refetch"], offsets([gap])[0]) for gap in gaps} == {("epoch", True, 0)}
    assert offsets([client.take("update")]) == [1]


def test_a_restarted_redis_is_a_gap_and_goes_on(
    own_valkey: Valkey, own_tenant: Any, start_gateway: Callable[..., Any], join: Any
) -> None:
    gateway = start_gateway(own_valkey.url())
    client = join(gateway, own_tenant.token(), own_tenant.topic)
    client.take("subscribed")
    own_tenant.publish(1, 2)
    last = client.take_updates(2)[-1]["pos"]

    own_valkey.kill()
    assert client.take("status")["state"] == "degraded"
    own_valkey.start()

    gap = client.take("gap")
    assert gap["reason"] == "epoch"
    assert gap["pos"].partition(":")[0] != last.partition(":")[0]
    assert client.take("status")["state"] == "ok"
    own_tenant.publish(3)
    assert client.take("update")["event"]["version"] == 3


def test_l11_redis_restored_from_an_older_dump_is_a_gap_and_never_a_wrong_message(
    own_valkey: Valkey, own_tenant: Any, serve: Callable[..., Any], join: Any, tmp_path: Path
) -> None:
    address = serve(redis_url=SecretStr(own_valkey.url()))
    staying, leaving = (join(address, own_tenant.token(), own_tenant.topic) for _ in range(2))
    for client in (staying, leaving):
        client.take("subscribed")
    own_tenant.publish(1, 2, 3)
    own_valkey.execute("SAVE")
    shutil.copy(own_valkey.folder / "dump.rdb", tmp_path / "older.rdb")
    own_tenant.publish(4, 5)
    last = [client.take_updates(5)[-1]["pos"] for client in (staying, leaving)][-1]
    leaving.drop()

    own_valkey.kill()
    shutil.copy(tmp_path / "older.rdb", own_valkey.folder / "dump.rdb")
    own_valkey.start()
    assert own_valkey.execute("HGET", f"live:meta:{own_tenant.name}:{own_tenant.topic}", "offset") in (b"3", b"0")
    own_tenant.publish(6, 7)

    # Were the offsets still trusted, 4 and 5 would now be another two updates, which a client at 5 would never see.
    told = staying.take_until(lambda frame: frame["type"] == "status" and frame["state"] == "ok")
    gaps = [frame for frame in told if frame["type"] == "gap"]
    assert {gap["reason"] for gap in gaps} == {"epoch"}
    back = join(address, own_tenant.token(), own_tenant.topic, positions={own_tenant.topic: last})
    assert back.take("gap")["reason"] == "epoch"
    assert back.take("subscribed")["recovered"] is False
    own_tenant.publish(8)
    assert back.take("update")["event"]["version"] == 8
    later = staying.take_until(lambda frame: frame["type"] == "update" and frame["event"]["version"] == 8)
    seen = [frame for frame in told + later if frame["type"] == "update"]
    assert offsets(seen) == list(range(4 - len(seen), 4)), "what follows the gap is contiguous"


def test_a_connection_outlives_a_dump_from_before_it_took_its_session_over(
    own_valkey: Valkey, own_tenant: Any, serve: Callable[..., Any], join: Any, tmp_path: Path, eventually: Any
) -> None:
    address = serve(redis_url=SecretStr(own_valkey.url()))
    first = join(address, own_tenant.token(), own_tenant.topic)
    first.take("subscribed")
    own_valkey.execute("SAVE")
    shutil.copy(own_valkey.folder / "dump.rdb", tmp_path / "older.rdb")
    second = join(address, own_tenant.token(), session=first.session)
    second.take("subscribed")

    own_valkey.kill()
    shutil.copy(tmp_path / "older.rdb", own_valkey.folder / "dump.rdb")
    own_valkey.start()
    session = f"live:session:{first.session}"
    assert own_tenant.redis.hget(session, "generation") in {b"1", b"2"}, "the older dump is there"
    eventually(lambda: own_tenant.redis.hget(session, "generation") == b"2", message="the newer connection has it")

    second.take("gap")
    own_tenant.publish(1)
    assert second.take("update")["event"]["version"] == 1


def test_l09_without_redis_clients_stay_and_new_ones_are_sent_away(
    own_valkey: Valkey,
    own_tenant: Any,
    start_gateway: Callable[..., Any],
    join: Any,
    open_live: Any,
    eventually: Eventually,
) -> None:
    gateway = start_gateway(own_valkey.url())
    client = join(gateway, own_tenant.token(), own_tenant.topic)
    client.take("subscribed")

    own_valkey.kill()
    client.take("status")
    eventually(lambda: not gateway.is_ready())
    with pytest.raises(InvalidStatus) as refused:
        open_live(gateway)
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    client.send(type="subscribe", id="patient", topics=[{"topic": "audience:later"}])
    own_valkey.start()

    seen = {}
    while "subscribed" not in seen or "status" not in seen:
        frame = client.receive()
        seen[frame["type"]] = frame
    assert seen["status"]["state"] == "ok"
    assert seen["subscribed"]["id"] == "patient"
    eventually(lambda: is_let_in(join, gateway, own_tenant), message="new ones are let in again")


def is_let_in(join: Any, gateway: Any, tenant: Any) -> bool:
    """For a moment the gateway does not know yet which tokens are revoked."""
    try:
        return bool(join(gateway, tenant.token()))
    except ConnectionClosed as exc:
        if exc.rcvd is None or exc.rcvd.code != 4008:
            raise
        return False


def test_between_handshake_and_hello_redis_may_go_away(
    own_valkey: Valkey, own_tenant: Any, serve: Callable[..., Any], open_live: Any, join: Any
) -> None:
    gateway = serve(redis_url=SecretStr(own_valkey.url()))
    watcher = join(gateway, own_tenant.token())
    client = open_live(gateway)

    own_valkey.kill()
    watcher.take("status")
    client.send(type="hello", v=1, token=own_tenant.token())

    assert client.close_code() == 4008


def test_l08_a_hung_redis_is_noticed_and_everything_arrives_afterwards(
    own_valkey: Valkey, own_tenant: Any, start_gateway: Callable[..., Any], join: Any
) -> None:
    gateway = start_gateway(own_valkey.url())
    client = join(gateway, own_tenant.token(), own_tenant.topic)
    client.take("subscribed")

    own_valkey.send(signal.SIGSTOP)
    stopped_at = time.monotonic()
    try:
        assert client.take("status")["state"] == "degraded"
        assert time.monotonic() - stopped_at < 6.0
    finally:
        own_valkey.send(signal.SIGCONT)
    own_tenant.publish(1, 2, 3)

    kinds = [client.receive() for _ in range(4)]
    assert [frame["state"] for frame in kinds if frame["type"] == "status"] == ["ok"]
    assert offsets([frame for frame in kinds if frame["type"] == "update"]) == [1, 2, 3]


def _claims() -> LiveTokenV1:
    return LiveTokenV1(aud="holdfast-live", sub="ada", tenant="acme", topics=["audience:a"], iat=1, exp=2**31, jti="x")


QUESTIONS: dict[str, Callable[[Source], Awaitable[object]]] = {
    "a reading": lambda source: source.read(topic_keys("acme", "audience:a"), None, replay_limit=10),
    "an echo": Source.heard,
    "a session": lambda source: _store(source).open(_claims(), asked=None, topics=[], attempt=None),
    "a saving": lambda source: _store(source).save([Session("s", 1, _claims(), [], Bystander())]),
    "a ticket": lambda source: Tickets(source.client).issue(_claims()),
    "a ticket's use": lambda source: Tickets(source.client).redeem("x"),
}


class Bystander:
    def close(self, code: CloseCode, reason: str) -> None: ...


def _store(source: Source) -> SessionStore:
    return SessionStore(source.client, node=b"n", limits=LIMITS, connections_per_subject=1)


@pytest.mark.parametrize("question", QUESTIONS)
def test_whatever_is_asked_of_a_redis_that_is_away_raises_our_own_error(own_valkey: Valkey, question: str) -> None:
    async def ask() -> None:
        source = Source(own_valkey.url(), window_seconds=60)
        source._is_listening = True  # an echo is otherwise refused before it is sent
        try:
            own_valkey.kill()
            with pytest.raises(LiveWindowUnavailable):
                await QUESTIONS[question](source)
        finally:
            await source.aclose()

    asyncio.run(ask())
