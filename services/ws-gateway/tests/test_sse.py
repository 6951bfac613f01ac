"""The same updates as Server-Sent Events."""

import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from holdfast.gateway.protocol.frames import LIMITS


def versions(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["event"]["version"] for frame in frames]


def subscribed(stream: Any, *topics: str) -> str:
    """Read up to the last topic's ``subscribed``; the id by then."""
    assert stream.response.status == 200
    stream.take("welcome")
    assert {stream.take("subscribed")["topic"] for _ in topics} == set(topics)
    return str(stream.last_event_id)


def ticket(address: Any, token: str | None, **headers: str) -> tuple[int, Any]:
    sent = headers | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"{address.http}/v1/live/tickets", method="POST", headers=sent)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.loads(exc.read())


def test_l21_a_stream_resumes_by_its_last_event_id(gateway: Any, open_stream: Any, tenant: Any) -> None:
    topics = ["audience:a", tenant.topic]
    stream = open_stream(gateway, *topics, token=tenant.token())
    at_start = subscribed(stream, *topics)
    tenant.publish(1, 2)
    seen = versions(stream.take_updates(2))
    last = stream.last_event_id
    stream.close()
    tenant.publish(*range(3, 53))
    tenant.publish(53, audience="a")

    again = open_stream(gateway, *topics, token=tenant.token(), last_event_id=last)
    again.take("welcome")
    missed_a, end_a = again.take_updates(1), again.take("subscribed")
    missed, end = again.take_updates(51), again.take("subscribed")
    tenant.publish(54)

    assert [position.rpartition(":")[2] for position in at_start.split(",")] == ["0", "0"]
    assert [position.rpartition(":")[2] for position in last.split(",")] == ["0", "2"]
    assert (seen, versions(missed_a), versions(missed)) == ([1, 2], [53], list(range(3, 54)))
    assert (end_a["recovered"], end["recovered"]) == (True, True)
    assert versions(again.take_updates(1)) == [54]
    assert again.last_event_id == f"{end_a['pos']},{end['pos'].rpartition(':')[0]}:54"


def test_l21_a_stream_resumed_beyond_the_window_is_a_gap(gateway: Any, open_stream: Any, tenant: Any) -> None:
    stream = open_stream(gateway, tenant.topic, token=tenant.token())
    last = subscribed(stream, tenant.topic)
    stream.close()
    tenant.publish(*range(1, 502))

    again = open_stream(gateway, tenant.topic, token=tenant.token(), last_event_id=last)
    again.take("welcome")
    gap, end = again.take("gap"), again.take("subscribed")

    assert (gap["reason"], end["recovered"], end["pos"]) == ("too_many", False, gap["pos"])
    assert again.last_event_id == gap["pos"]


def test_a_stream_goes_on_where_a_websocket_stopped(gateway: Any, open_stream: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), tenant.topic)
    start = client.take("subscribed")["pos"]
    tenant.publish(1)
    client.take_updates(1)

    stream = open_stream(gateway, tenant.topic, token=tenant.token(), last_event_id=start)
    stream.take("welcome")

    assert versions(stream.take_updates(1)) == [1]


def test_a_ticket_opens_one_stream(gateway: Any, open_stream: Any, tenant: Any) -> None:
    status, answer = ticket(gateway, tenant.token("audience:a"))
    assert status == 201

    stream = open_stream(gateway, "audience:a", tenant.topic, query=answer)
    stream.take("welcome")
    kinds = {stream.receive()["type"] for _ in range(2)}
    again = open_stream(gateway, "audience:a", query=answer)

    assert kinds == {"subscribed", "error"}, "a ticket grants what its token grants"
    assert again.response.status == 401
    problem = json.loads(again.response.read())
    assert (problem["code"], problem["reconnect"]) == ("token_expired", True), "another ticket helps"


def test_a_question_for_the_head_alone_opens_no_stream(gateway: Any, tenant: Any) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"{gateway.http}/v1/live/sse?topics={tenant.topic}",
        method="HEAD",
        headers={"Authorization": f"Bearer {tenant.token()}"},
    )

    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.headers.get_content_type() == "text/event-stream"
    assert tenant.redis.zcard(f"live:connections:{tenant.name}:user-1") == 0


def test_a_page_without_headers_resumes_by_its_address(gateway: Any, open_stream: Any, tenant: Any) -> None:
    stream = open_stream(gateway, "audience:a", query=ticket(gateway, tenant.token())[1])
    last = subscribed(stream, "audience:a")
    stream.close()
    tenant.publish(1, audience="a")

    query = {"ticket": ticket(gateway, tenant.token())[1]["ticket"], "last_event_id": last}
    again = open_stream(gateway, "audience:a", query=query)
    again.take("welcome")

    assert versions(again.take_updates(1)) == [1]


def test_an_unused_ticket_expires(gateway: Any, tenant: Any) -> None:
    _, answer = ticket(gateway, tenant.token())

    assert 0 < tenant.redis.ttl(f"live:ticket:{answer['ticket']}") <= answer["expires_in_seconds"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({}, 401, "bad_token"),
        ({"ticket": "never-was"}, 401, "token_expired"),
        ({"token": "x.y.z"}, 400, "protocol"),
        ({"topics": ""}, 400, "protocol"),
        ({"topics": ",".join(f"audience:{n}" for n in range(17))}, 400, "protocol"),
        ({"last_event_id": "nonsense"}, 400, "protocol"),
        ({"last_event_id": "e:1,e:2"}, 400, "protocol"),
    ],
)
def test_what_is_no_good_request_is_a_problem(
    gateway: Any, open_stream: Any, query: dict[str, str], status: int, code: str
) -> None:
    stream = open_stream(gateway, query={"topics": "audience:a"} | query)

    problem = json.loads(stream.response.read())
    assert (stream.response.status, problem["status"], problem["code"]) == (status, status, code)
    assert stream.response.headers["Content-Type"] == "application/problem+json"
    assert problem["detail"]


@pytest.mark.parametrize(
    ("claims", "code", "reconnect"),
    [
        ({"exp": 1_700_000_000}, "token_expired", True),
        ({"nbf": 90_000_000_000}, "token_expired", True),
        ({"exp": "1794651300"}, "bad_token", False),
    ],
    ids=["expired", "not good yet", "wrong for good"],
)
def test_a_refused_token_says_whether_a_new_one_helps(
    gateway: Any, open_stream: Any, tenant: Any, claims: dict[str, Any], code: str, reconnect: bool
) -> None:
    token = tenant.token(**claims)
    stream = open_stream(gateway, tenant.topic, token=token)

    for status, problem in ((stream.response.status, json.loads(stream.response.read())), ticket(gateway, token)):
        assert (status, problem["code"], problem["reconnect"]) == (401, code, reconnect)


@pytest.mark.parametrize("token", [None, "x.y.z"])
def test_no_ticket_without_a_good_token(gateway: Any, token: str | None) -> None:
    status, problem = ticket(gateway, token)

    assert (status, problem["code"]) == (401, "bad_token")


def test_an_audience_may_have_commas(gateway: Any, open_stream: Any, tenant: Any) -> None:
    stream = open_stream(gateway, "audience:a,b", "audience:c", token=tenant.token())

    subscribed(stream, "audience:a,b", "audience:c")


NAMES = [
    "👩\u200d👩\u200d👧",
    "é" * 127,
    "a,tenant:b",
    "a, b & c=d+e #f?",
    "100 %",
    "%41",
    "\u2028",
    "\ufeff",
    " ",
    "\u202e/../",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_stream_and_a_websocket_can_name_every_audience(
    gateway: Any, open_stream: Any, join: Any, tenant: Any, name: str
) -> None:
    topic = f"audience:{name}"
    stream = open_stream(gateway, query={"topic": topic}, token=tenant.token(topic))
    client = join(gateway, tenant.token(topic), topic)
    subscribed(stream, topic)
    position = client.take("subscribed")["pos"]

    tenant.publish(1, audience=name)

    assert versions(stream.take_updates(1)) == versions(client.take_updates(1)) == [1]
    again = open_stream(gateway, query={"topic": topic}, token=tenant.token(topic), last_event_id=position)
    again.take("welcome")
    assert versions(again.take_updates(1)) == [1]


def test_both_ways_to_name_topics_go_together_in_the_order_of_the_address(
    gateway: Any, open_stream: Any, tenant: Any
) -> None:
    query = [("topic", "audience:a,tenant:b"), ("topics", f"audience:c,{tenant.topic}"), ("topic", "audience:d")]
    names = ["audience:a,tenant:b", "audience:c", tenant.topic, "audience:d"]
    stream = open_stream(gateway, query=query, token=tenant.token())

    assert len(subscribed(stream, *names).split(",")) == 4


@pytest.mark.parametrize("query", ["topic=audience:%ff", "topics=audience:%ed%a0%80"])
def test_an_address_that_is_not_utf_8_is_refused(gateway: Any, tenant: Any, query: str) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"{gateway.http}/v1/live/sse?{query}", headers={"Authorization": f"Bearer {tenant.token()}"}
    )

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)  # noqa: S310

    with refused.value as answer:
        assert (answer.code, json.loads(answer.read())["detail"]) == (400, "the address is percent-encoded UTF-8")


def test_pages_of_allowed_origins_only(serve: Callable[..., Any], tenant: Any) -> None:
    address = serve(allowed_origins=["https://app.example"])

    request = urllib.request.Request(  # noqa: S310
        f"{address.http}/v1/live/tickets",
        method="OPTIONS",
        headers={
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as preflight:  # noqa: S310
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert ticket(address, tenant.token(), Origin="https://app.example")[0] == 201
    assert ticket(address, tenant.token(), Origin="https://elsewhere.example")[0] == 403


def test_a_silent_stream_has_comments(serve: Callable[..., Any], open_stream: Any, tenant: Any) -> None:
    stream = open_stream(serve(replace(LIMITS, sse_ping_s=0.2)), tenant.topic, token=tenant.token())
    subscribed(stream, tenant.topic)

    for _ in range(6):
        stream.response.readline()
    tenant.publish(1)

    assert versions(stream.take_updates(1)) == [1]


def test_a_stream_ends_with_the_reason(gateway: Any, open_stream: Any, tenant: Any) -> None:
    stream = open_stream(gateway, tenant.topic, token=tenant.token())
    subscribed(stream, tenant.topic)

    tenant.revoke(sub="user-1")

    close = stream.take("close")
    assert (close["code"], close["reconnect"]) == (4506, False)
    with pytest.raises(EOFError):
        stream.receive()


def test_streams_count_against_the_subject_s_limit(
    serve: Callable[..., Any], open_stream: Any, join: Any, tenant: Any
) -> None:
    address = serve(connections_per_subject=1)
    join(address, tenant.token())

    stream = open_stream(address, tenant.topic, token=tenant.token())

    assert stream.response.status == 429
    assert int(stream.response.headers["Retry-After"]) >= 1


def test_a_stream_that_is_not_read_is_let_go_and_resumes_completely(
    serve: Callable[..., Any], open_stream: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    address = serve()
    stream = open_stream(address, tenant.topic, token=tenant.token())
    start = subscribed(stream, tenant.topic)
    sockets = address.server.server_state.connections
    assert len(sockets) == 1

    # Its kernel and ours take some megabytes first.
    for version in range(1, 301):
        tenant.publish(version, detail={"filler": "x" * 60_000})
    eventually(lambda: not sockets, timeout_seconds=10, message="the socket is gone")

    again = open_stream(address, tenant.topic, token=tenant.token(), last_event_id=start)
    again.take("welcome")
    assert versions(again.take_updates(300)) == list(range(1, 301))
    assert again.take("subscribed")["recovered"] is True


def test_without_redis_there_is_no_stream_for_the_moment(
    own_valkey: Any, serve: Callable[..., Any], open_stream: Any, tenant: Any
) -> None:
    address = serve(redis_url=SecretStr(own_valkey.url()))
    stream = open_stream(address, tenant.topic, token=tenant.token())
    subscribed(stream, tenant.topic)

    own_valkey.kill()

    assert stream.take("status")["state"] == "degraded"
    refused = open_stream(address, tenant.topic, token=tenant.token())
    assert refused.response.status == 503
    assert int(refused.response.headers["Retry-After"]) >= 1
    own_valkey.start()
    kinds = [stream.receive() for _ in range(2)]
    assert {frame["type"] for frame in kinds} == {"gap", "status"}


def test_the_end_of_the_process_sends_streams_elsewhere(
    serve: Callable[..., Any], open_stream: Any, tenant: Any
) -> None:
    address = serve()
    stream = open_stream(address, tenant.topic, token=tenant.token())
    subscribed(stream, tenant.topic)

    address.server.should_exit = True

    reconnect = stream.take("reconnect")
    close = stream.take("close")
    assert stream.retry_ms == reconnect["after_ms"]
    assert (close["code"], close["reconnect"]) == (4001, True)


def test_a_stream_that_begins_while_the_process_ends_is_sent_elsewhere_too(
    own_valkey: Any, serve: Callable[..., Any], open_stream: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    address = serve(redis_url=SecretStr(own_valkey.url()))
    host, _, port = address.http.removeprefix("http://").partition(":")

    def is_closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) != 0

    with ThreadPoolExecutor() as threads:
        own_valkey.send(signal.SIGSTOP)
        try:
            opening = threads.submit(open_stream, address, tenant.topic, token=tenant.token())
            eventually(lambda: address.server.server_state.tasks, message="the request is there, and waits for Redis")
            address.server.should_exit = True
            eventually(is_closed, message="the drain has begun")
        finally:
            own_valkey.send(signal.SIGCONT)
        stream = opening.result()

    while (frame := stream.receive())["type"] != "close":
        pass
    assert (frame["code"], frame["reconnect"]) == (4001, True)
