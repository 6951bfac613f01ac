"""Every way in which a connection ends, with its code."""

import contextlib
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from holdfast.gateway.protocol.frames import LIMITS

NO_TOKEN = '{"type":"hello","v":1,"token":"x.y.z"}'


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("{", 4500),
        (b"{}", 4500),
        ('{"type":"pong"}', 4500),
        ('{"type":"hello","v":1}', 4501),
        (NO_TOKEN, 4501),
        ('{"type":"hello","v":2}', 4505),
        # Were they not too long, it would be the token that is refused.
        pytest.param(NO_TOKEN.ljust(8192), 4501, id="8 KiB"),
        pytest.param(NO_TOKEN.ljust(8193), 4500, id="a byte more"),
        pytest.param(NO_TOKEN.ljust(17 * 1024), 4500, id="17 KiB"),
        pytest.param(NO_TOKEN.ljust(100 * 1024), 4500, id="100 KiB"),
    ],
)
def test_l24_a_first_frame_that_is_no_good_hello(gateway: Any, open_live: Any, first: str | bytes, code: int) -> None:
    client = open_live(gateway)

    client.connection.send(first)

    assert client.close_code() == code


def test_a_first_frame_that_is_no_text(gateway: Any, open_live: Any) -> None:
    client = open_live(gateway)

    client.connection.send(b"\xff\xfe", text=True)  # no UTF-8

    assert client.close_code() == 4500


def test_an_expired_token_does_not_get_in_and_a_new_one_may(gateway: Any, open_live: Any, tenant: Any) -> None:
    client = open_live(gateway)

    client.send(type="hello", v=1, token=tenant.token(seconds=-60))

    assert client.close_code() == 4004


def test_an_expired_token_in_the_place_of_a_newer_one_lets_the_client_come_back(
    gateway: Any, join: Any, tenant: Any
) -> None:
    client = join(gateway, tenant.token())

    client.send(type="token", id=1, token=tenant.token(seconds=-60))

    assert client.close_code() == 4004


def test_a_frame_of_unknown_type(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token())

    client.send(type="publish", topic=tenant.topic)

    assert client.close_code() == 4500


def test_a_second_hello(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token())

    client.send(type="hello", v=1, token=tenant.token())

    assert client.close_code() == 4500


def test_l24_a_hundred_commands_at_once(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token())

    with contextlib.suppress(ConnectionClosed):  # it may come while there is still something to send
        for n in range(100):
            client.send(type="unsubscribe", id=n, topics=["audience:a"])

    assert client.close_code() == 4006


def test_l24_no_hello(serve: Callable[..., Any], open_live: Any) -> None:
    client = open_live(serve(replace(LIMITS, hello_s=0.2)))

    assert client.close_code() == 4007


def test_l19_no_pong(serve: Callable[..., Any], join: Any, tenant: Any) -> None:
    client = join(serve(replace(LIMITS, ping_s=0.2, pong_s=0.3)), tenant.token())

    client.take("ping")
    client.send(type="pong")
    client.take("ping")

    assert client.close_code() == 4003


def test_a_page_of_another_origin(gateway: Any, open_live: Any) -> None:
    client = open_live(gateway, origin="https://elsewhere.example")

    assert client.close_code() == 4502


def test_a_page_of_the_same_host_or_an_allowed_origin(serve: Callable[..., Any], open_live: Any, tenant: Any) -> None:
    address = serve(allowed_origins=["https://app.example"])

    for origin in ("https://app.example", address.http):
        client = open_live(address, origin=origin)
        client.send(type="hello", v=1, token=tenant.token())
        client.take("welcome")


def test_l17_an_expired_token_is_told_and_then_closed(serve: Callable[..., Any], join: Any, tenant: Any) -> None:
    client = join(serve(replace(LIMITS, token_grace_s=0.5)), tenant.token(seconds=3), tenant.topic)
    client.take("subscribed")

    assert client.take("error")["code"] == "token_expired"
    client.send(type="subscribe", id=5, topics=[{"topic": "audience:a"}])
    refusal = client.take("error")

    assert (refusal["id"], refusal["code"], refusal["temporary"]) == (5, "token_expired", True)
    assert client.close_code() == 4004


def test_l17_a_refreshed_token_keeps_the_connection(serve: Callable[..., Any], join: Any, tenant: Any) -> None:
    client = join(serve(replace(LIMITS, token_grace_s=1.0)), tenant.token(seconds=3), tenant.topic)
    client.take("subscribed")
    client.take("error")

    client.send(type="token", id=1, token=tenant.token(seconds=3))
    assert client.take("error", timeout_seconds=4)["code"] == "token_expired"
    client.send(type="token", id=2, token=tenant.token())
    client.send(type="subscribe", id=3, topics=[{"topic": "audience:a"}])

    assert client.take("subscribed")["id"] == 3


def test_l17_a_token_refreshed_in_time_is_not_even_told_of(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(seconds=2))

    client.send(type="token", id=1, token=tenant.token())

    with pytest.raises(TimeoutError):
        client.receive(timeout_seconds=3)


def test_a_narrower_token_ends_what_it_does_not_grant(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(), "audience:a", "audience:b")
    client.take("subscribed")
    client.take("subscribed")

    client.send(type="token", id="t", token=tenant.token("audience:b"))
    error = client.take("error")
    tenant.publish(1, audience="a")
    tenant.publish(2, audience="b")

    assert (error["id"], error["code"]) == ("t", "forbidden")
    assert "audience:a" in error["message"]
    assert client.take("update")["topic"] == "audience:b"


@pytest.mark.parametrize(("change", "code"), [({"sub": "somebody-else"}, 4502), ({"aud": "elsewhere"}, 4501)])
def test_a_refresh_with_a_wrong_token(gateway: Any, join: Any, tenant: Any, change: dict[str, Any], code: int) -> None:
    client = join(gateway, tenant.token())

    client.send(type="token", id=1, token=tenant.token(**change))

    assert client.close_code() == code


def test_l18_a_client_that_never_reads_is_let_go_and_resumes_completely(
    gateway: Any, open_live: Any, join: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    # A small window of its own: the client's library stops reading the socket at once, and its kernel buffers little.
    slow = open_live(gateway, max_queue=1)
    slow.send(type="hello", v=1, token=tenant.token(), topics=[tenant.topic])
    slow.take("welcome")
    start = slow.take("subscribed")["pos"]
    brisk = join(gateway, tenant.token(), tenant.topic)
    brisk.take("subscribed")
    before = closed_with(gateway, 4002)

    filler, memory, waits = "x" * 60_000, resident_kib(gateway), []
    for version in range(1, 201):
        tenant.publish(version, detail={"filler": filler})
        published_at = time.monotonic()
        assert brisk.take("update")["event"]["version"] == version
        waits.append(time.monotonic() - published_at)

    assert sorted(waits)[197] < 1.0, "the other client waits for nobody"
    assert resident_kib(gateway) - memory < 32 * 1024, "of 12 MB that were published, one queue's worth waits"
    eventually(lambda: closed_with(gateway, 4002) == before + 1, timeout_seconds=3, message="closed as slow")
    again = join(gateway, tenant.token(), tenant.topic, positions={tenant.topic: start})
    assert [frame["event"]["version"] for frame in again.take_updates(200)] == list(range(1, 201))
    assert again.take("subscribed")["recovered"] is True


def test_the_socket_of_a_stuck_client_is_dropped(
    serve: Callable[..., Any], open_live: Any, tenant: Any, eventually: Callable[..., Any]
) -> None:
    address = serve()
    stuck = open_live(address, max_queue=1)
    stuck.send(type="hello", v=1, token=tenant.token(), topics=[tenant.topic])
    stuck.take("welcome")
    stuck.take("subscribed")
    sockets = address.server.server_state.connections
    assert len(sockets) == 1

    for version in range(1, 201):
        tenant.publish(version, detail={"filler": "x" * 60_000})

    # It takes not even a close frame, so that no orderly end would ever come.
    eventually(lambda: not sockets, timeout_seconds=3, message="the socket is gone")


def resident_kib(gateway: Any) -> int:
    """Memory of the gateway's process."""
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(gateway.process.pid)], capture_output=True, check=True)
    return int(told.stdout)


@pytest.mark.soak
def test_l19_no_pong_for_as_long_as_the_protocol_says(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token())
    began = time.monotonic()

    assert client.close_code(timeout_seconds=60) == 4003

    assert time.monotonic() - began < 34


@pytest.mark.soak
def test_l17_a_token_expires_and_is_closed_after_the_grace(gateway: Any, join: Any, tenant: Any) -> None:
    client = join(gateway, tenant.token(seconds=2))
    began = time.monotonic()

    assert client.take("error")["code"] == "token_expired"
    with pytest.raises(ConnectionClosed):
        client.take("nothing but pings", timeout_seconds=60)

    assert client.connection.close_code == 4004
    assert 24 < time.monotonic() - began < 40


def closed_with(gateway: Any, code: int) -> float:
    text = urllib.request.urlopen(f"{gateway.metrics}/metrics", timeout=5).read().decode()  # noqa: S310
    lines = [line for line in text.splitlines() if line.startswith(f'holdfast_live_closed_total{{code="{code}"}}')]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0
