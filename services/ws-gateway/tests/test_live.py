"""Updates as clients see them, over a real gateway process and a real Redis."""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from holdfast.gateway.protocol.frames import SERVER_FRAMES
from holdfast.messaging.live import topic_keys


def offsets(frames: list[dict[str, Any]]) -> list[int]:
    return [int(frame["pos"].rpartition(":")[2]) for frame in frames]


def versions(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["event"]["version"] for frame in frames]


def test_updates_arrive_in_order_with_contiguous_offsets(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    start = client.take("subscribed")

    tenant.publish(*range(1, 51))

    received = client.take_updates(50)
    assert start["recovered"] is None
    assert versions(received) == list(range(1, 51))
    first = offsets([start])[0] + 1
    assert offsets(received) == list(range(first, first + 50))


def test_every_frame_fits_its_model(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(tenant.topic), tenant.topic, "audience:other")
    tenant.publish(1)
    frames = [client.receive() for _ in range(2)]
    tenant.publish(2, type='ümläut "quoted" \\ 日本', detail={"result": {"nested": [1, None, "x" * 70_000]}})
    frames += [client.receive()]

    assert {frame["type"] for frame in frames} == {"error", "subscribed", "update"}
    for frame in frames:
        SERVER_FRAMES[frame["type"]].model_validate_json(json.dumps(frame))


def test_one_update_reaches_each_of_its_topics(gateway: Any, join: Any, tenant: Any) -> None:
    event_id = uuid4()
    topics = [f"event:{event_id}", "audience:user-42", tenant.topic]
    client = join(gateway, tenant.token(), *topics)
    for topic in topics:
        assert client.take("subscribed")["topic"] == topic

    tenant.publish(1, event_id=event_id, audience="user-42")

    received = client.take_updates(3)
    assert [frame["topic"] for frame in received] == topics
    assert len({str(frame["event"]) for frame in received}) == 1


def test_a_topic_is_seen_by_its_own_tenant_only(gateway: Any, join: Any, tenant: Any, other_tenant: Any) -> None:
    mine = join(gateway, tenant.token(), "audience:user-42")
    theirs = join(gateway, other_tenant.token(), "audience:user-42")
    mine.take("subscribed")
    theirs.take("subscribed")

    other_tenant.publish(7, audience="user-42")
    tenant.publish(1, audience="user-42")

    assert versions(mine.take_updates(1)) == [1]
    assert versions(theirs.take_updates(1)) == [7]


def test_another_tenants_topic_is_forbidden_even_by_a_wildcard(
    gateway: Any, join: Any, tenant: Any, other_tenant: Any
) -> None:
    client = join(gateway, tenant.token("tenant:*"))

    client.send(type="subscribe", id=1, topics=[{"topic": other_tenant.topic}])

    assert client.take("error")["code"] == "forbidden"


def test_l13_a_forbidden_topic_leaves_the_others_live(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(tenant.topic))

    client.send(type="subscribe", id="s1", topics=[{"topic": "audience:boss"}, {"topic": tenant.topic}])
    error, subscribed = client.take("error"), client.take("subscribed")
    tenant.publish(1, audience="boss")

    assert (error["id"], error["code"], error["temporary"]) == ("s1", "forbidden", False)
    assert (subscribed["id"], subscribed["topic"]) == ("s1", tenant.topic)
    assert [frame["topic"] for frame in client.take_updates(1)] == [tenant.topic]
    client.send(type="subscribe", id="s2", topics=[{"topic": tenant.topic}])
    assert client.take("subscribed")["id"] == "s2"


def test_no_topic_beyond_the_limit(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), *(f"audience:{n}" for n in range(128)))
    for _ in range(128):
        client.take("subscribed")

    client.send(type="subscribe", id=1, topics=[{"topic": "audience:more"}, {"topic": "audience:0"}])

    assert client.take("error")["code"] == "too_many_topics"
    assert client.take("subscribed")["topic"] == "audience:0"


def test_an_impossible_topic_is_an_error_and_not_the_end(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), "event:*", "kitchen:sink", tenant.topic)

    assert [client.take("error")["code"] for _ in range(2)] == ["invalid_topic"] * 2
    assert client.take("subscribed")["topic"] == tenant.topic


def test_a_client_may_ask_whether_the_connection_is_still_good(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token())

    client.send(type="ping")

    assert client.take("pong") == {"type": "pong"}


def test_what_is_said_right_behind_the_hello_is_heard(gateway: Any, open_live: Any, tenant: Any) -> None:
    client = open_live(gateway)

    client.send(type="hello", v=1, token=tenant.token("audience:*"), topics=["audience:a"])
    client.send(type="ping")
    client.send(type="subscribe", id=1, topics=[{"topic": "audience:b"}])

    client.take("welcome")
    told = [client.receive() for _ in range(3)]
    assert {(frame["type"], frame.get("topic")) for frame in told} == {
        ("pong", None),
        ("subscribed", "audience:a"),
        ("subscribed", "audience:b"),
    }


def test_a_client_that_leaves_right_behind_its_hello_is_forgotten(
    gateway: Any, open_live: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    client = open_live(gateway)
    client.send(type="hello", v=1, token=tenant.token("audience:*", sub="hasty"), topics=["audience:a"])
    client.connection.socket.shutdown(socket.SHUT_WR)

    def is_forgotten() -> bool:
        kept = [tenant.redis.hget(key, "tenant") for key in tenant.redis.scan_iter("live:session:*")]
        [(_, listening)] = tenant.redis.pubsub_numsub(topic_keys(tenant.name, "audience:a").channel)
        return (
            tenant.name.encode() in kept
            and tenant.redis.zcard(f"live:connections:{tenant.name}:hasty") == 0
            and listening == 0
        )

    eventually(is_forgotten, message="only its session is kept, neither its connection nor its topic")


def test_an_unsubscribed_topic_is_silent(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), "audience:a", "audience:b")
    client.take("subscribed")
    client.take("subscribed")

    client.send(type="unsubscribe", id=1, topics=["audience:a"])
    client.send(type="subscribe", id=2, topics=[{"topic": "audience:c"}])
    client.take("subscribed")
    tenant.publish(1, audience="a")
    tenant.publish(2, audience="b")

    assert versions(client.take_updates(1)) == [2]


def test_l22_an_update_published_twice_arrives_once(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    client.take("subscribed")
    first, second = tenant.update(1), tenant.update(2)

    tenant.publish_updates(first, first)
    tenant.publish_updates(first, second)

    received = client.take_updates(2)
    assert versions(received) == [1, 2]
    assert offsets(received) == [1, 2]


def test_l01_resume_gives_exactly_what_was_missed(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    client.take("subscribed")
    tenant.publish(1, 2)
    last = client.take_updates(2)[-1]["pos"]
    client.drop()
    tenant.publish(*range(3, 53))

    again = join(gateway, tenant.token(), tenant.topic, positions={tenant.topic: last})
    missed = again.take_updates(50)
    end = again.take("subscribed")
    tenant.publish(53)

    assert versions(missed) == list(range(3, 53))
    assert (end["recovered"], end["pos"]) == (True, missed[-1]["pos"])
    assert versions(again.take_updates(1)) == [53]


def test_l02_a_client_that_received_nothing_yet_resumes_as_well(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    start = client.take("subscribed")["pos"]
    client.drop()
    tenant.publish(1)

    again = join(gateway, tenant.token())
    again.send(type="subscribe", id=1, topics=[{"topic": tenant.topic, "since": start}])

    assert versions(again.take_updates(1)) == [1]
    assert again.take("subscribed")["recovered"] is True


def test_resume_without_anything_missed(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    start = client.take("subscribed")["pos"]

    again = join(gateway, tenant.token(), tenant.topic, positions={tenant.topic: start})

    end = again.take("subscribed")
    assert (end["recovered"], end["pos"]) == (True, start)


def test_a_resume_is_told_of_everything_published_before_it_was_asked_for(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token())
    watcher = join(gateway, tenant.token(), tenant.topic)
    start = watcher.take("subscribed")["pos"]

    for round_ in range(1, 11):
        tenant.publish(*range(20 * round_ - 19, 20 * round_ + 1))
        client.send(type="subscribe", id=round_, topics=[{"topic": tenant.topic, "since": start}])
        missed = client.take_updates(20 * round_)
        client.send(type="unsubscribe", id=round_, topics=[tenant.topic])

        assert versions(missed) == list(range(1, 20 * round_ + 1))
        assert client.take("subscribed")["pos"] == missed[-1]["pos"]


def test_resume_on_another_gateway(gateway: Any, join: Any, tenant: Any, serve: Callable[..., Any]) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    start = client.take("subscribed")["pos"]
    tenant.publish(1, 2, 3)

    other = join(serve(), tenant.token(), tenant.topic, positions={tenant.topic: start})

    assert versions(other.take_updates(3)) == [1, 2, 3]
    assert other.take("subscribed")["recovered"] is True


def test_l06_beyond_the_replay_limit_is_a_gap_and_no_part_of_it(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    start = client.take("subscribed")["pos"]
    client.connection.close()
    tenant.publish(*range(1, 502))

    again = join(gateway, tenant.token(), tenant.topic, positions={tenant.topic: start})
    gap, end = again.take("gap"), again.take("subscribed")
    tenant.publish(502)

    assert (gap["reason"], gap["refetch"]) == ("too_many", True)
    assert (end["recovered"], end["pos"]) == (False, gap["pos"])
    assert offsets(again.take_updates(1)) == [502]


def test_l06_what_has_left_the_window_is_a_gap_and_no_part_of_it(
    gateway: Any, join: Any, tenant: Any, serve: Callable[..., Any]
) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    start = client.take("subscribed")["pos"]
    tenant.publish(*range(1, 21))
    tenant.redis.xtrim(topic_keys(tenant.name, tenant.topic).stream, minid="3-0", approximate=False)

    # On another gateway, which has nothing in memory.
    again = join(serve(), tenant.token(), tenant.topic, positions={tenant.topic: start})
    gap, end = again.take("gap"), again.take("subscribed")
    tenant.publish(21)

    assert (gap["reason"], gap["refetch"]) == ("trimmed", True)
    assert (end["recovered"], end["pos"]) == (False, gap["pos"])
    assert versions(again.take_updates(1)) == [21]


def test_l03_resuming_twice_gives_nothing_twice(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    last = client.take("subscribed")["pos"]
    received = []
    for round_ in range(3):
        client.drop()
        tenant.publish(*range(10 * round_ + 1, 10 * round_ + 11))
        client = join(gateway, tenant.token(), session=client.session, positions={tenant.topic: last})
        missed = client.take_updates(10)
        assert client.take("subscribed")["recovered"] is True
        tenant.publish(1000 + round_)
        received += [*missed, client.take("update")]
        last = received[-1]["pos"]

    assert offsets(received) == list(range(1, 34))


def test_l05_reconnecting_at_once_amid_updates_loses_and_doubles_nothing(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    last = client.take("subscribed")["pos"]
    publishing = threading.Thread(target=lambda: [tenant.publish(version) for version in range(1, 501)])
    publishing.start()
    received: list[dict[str, Any]] = []

    while len(received) < 500:
        received += client.take_updates(min(25, 500 - len(received)))
        last = received[-1]["pos"]
        client.drop()
        client = join(gateway, tenant.token(), session=client.session, positions={tenant.topic: last})
        while (frame := client.receive())["type"] != "subscribed":
            assert frame["type"] == "update", frame
            received.append(frame)
        assert frame["recovered"] is True
    publishing.join()

    assert offsets(received) == list(range(1, 501))


def test_l05_updates_published_during_a_replay_come_after_it_and_once(
    gateway: Any, open_live: Any, join: Any, tenant: Any
) -> None:
    brisk = join(gateway, tenant.token(), tenant.topic)
    start = brisk.take("subscribed")["pos"]
    for version in range(1, 101):
        tenant.publish(version, detail={"filler": "x" * 60_000})
        brisk.take("update")

    slow = open_live(gateway, max_queue=1)  # reads no further than it is asked to, so the replay waits for it
    slow.send(type="hello", v=1, token=tenant.token(), topics=[tenant.topic], positions={tenant.topic: start})
    received = [slow.take("welcome"), slow.take("update")][1:]
    tenant.publish(*range(101, 151))
    brisk.take_updates(50)
    received += slow.take_updates(99)
    end = slow.take("subscribed")
    received += slow.take_updates(50)

    assert offsets(received) == list(range(1, 151))
    assert (end["recovered"], end["pos"]) == (True, received[99]["pos"])


def test_l12_users_see_their_own_and_gateways_hear_only_what_they_need(
    gateway: Any, join: Any, tenant: Any, serve: Callable[..., Any]
) -> None:
    ann = join(gateway, tenant.token("audience:ann"), "audience:ann", "audience:bob")
    bob = join(serve(), tenant.token("audience:bob"), "audience:bob")
    assert {ann.receive()["type"], ann.receive()["type"]} == {"subscribed", "error"}
    bob.take("subscribed")

    listeners = tenant.redis.pubsub_numsub(
        *(topic_keys(tenant.name, topic).channel for topic in ("audience:ann", "audience:bob", tenant.topic))
    )
    for version, user in enumerate(["ann", "bob", "ann", "bob"], 1):
        tenant.publish(version, audience=user)

    assert [count for _, count in listeners] == [1, 1, 0]
    assert versions(ann.take_updates(2)) == [1, 3]
    assert versions(bob.take_updates(2)) == [2, 4]


def test_a_position_of_another_epoch_is_a_gap(gateway: Any, join: Any, tenant: Any) -> None:
    tenant.publish(1, 2)

    client = join(gateway, tenant.token(), tenant.topic, positions={tenant.topic: "0123-456:1"})

    assert client.take("gap")["reason"] == "epoch"
    assert client.take("subscribed")["recovered"] is False


def test_subscribing_again_replays_when_asked_to(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    start = client.take("subscribed")["pos"]
    tenant.publish(1, 2)
    client.take_updates(2)

    client.send(type="subscribe", id=1, topics=[{"topic": tenant.topic}])
    assert offsets([client.take("subscribed")]) == [2]
    client.send(type="subscribe", id=2, topics=[{"topic": tenant.topic, "since": start}])

    assert versions(client.take_updates(2)) == [1, 2]
    assert client.take("subscribed")["recovered"] is True
    tenant.publish(3)
    assert offsets(client.take_updates(1)) == [3]


def test_joining_amid_a_thousand_publishes_leaves_no_hole(gateway: Any, join: Any, tenant: Any) -> None:
    watcher = join(gateway, tenant.token(), tenant.topic)
    start = watcher.take("subscribed")["pos"]
    # A hundred at a time, ahead of the watcher: one who joins late must not be further behind than can be replayed.
    hundreds = threading.Semaphore(2)

    def publish() -> None:
        for version in range(1, 1001, 2):
            if version % 100 == 1:
                hundreds.acquire()
            tenant.publish(version, version + 1)

    publishing = threading.Thread(target=publish)
    publishing.start()

    latecomers = []
    for _ in range(8):
        # Half of them with a position: what they missed is replayed, the others begin where the topic is.
        seen = watcher.take_updates(80)[-1]["pos"]
        hundreds.release()
        latecomers.append((join(gateway, tenant.token(), tenant.topic, positions={tenant.topic: seen}), seen))
        latecomers.append((join(gateway, tenant.token(), tenant.topic), None))
    publishing.join()

    assert offsets(watcher.take_updates(360)) == list(range(641, 1001))
    assert start.endswith(":0")
    for client, since in latecomers:
        frames = frames_until_offset(client, 1000)
        updates = [frame for frame in frames if frame["type"] == "update"]
        subscribed = next(frame for frame in frames if frame["type"] == "subscribed")
        first = offsets([{"pos": since or subscribed["pos"]}])[0]
        assert subscribed["recovered"] is (None if since is None else True)
        assert offsets(updates) == list(range(first + 1, 1001))


def frames_until_offset(client: Any, last: int) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    while not frames or offsets(frames[-1:]) != [last] or not any(frame["type"] == "subscribed" for frame in frames):
        frames.append(client.receive())
    return frames
