"""A conversation with every kind of frame in it, both ways; the fixture ``captured`` holds them against the document."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from holdfast.gateway.protocol.frames import CLIENT_FRAMES, LIMITS, SERVER_FRAMES
from holdfast.local.servers import Valkey


def test_l25_every_kind_of_frame_occurs_and_every_captured_one_is_valid(
    own_valkey: Valkey, serve: Callable[..., Any], join: Any, tenant: Any, captured: Any
) -> None:
    own = type(tenant)(own_valkey.url())
    address = serve(replace(LIMITS, ping_s=0.5, pong_s=20.0), redis_url=SecretStr(own_valkey.url()))
    client = join(address, own.token("audience:a", "audience:b"), "audience:a", positions={"audience:a": "older:7"})
    client.take("gap")
    client.take("subscribed")
    client.send(type="subscribe", id="s", topics=[{"topic": "audience:b"}, {"topic": "audience:c"}])
    client.take("error")
    client.take("subscribed")
    client.send(type="token", id=1, token=own.token("audience:*"))
    client.send(type="unsubscribe", id=2, topics=["audience:b"])
    own.publish(1, audience="a", detail={"result": {"text": 'ümläut "quoted" 日本'}})
    client.take("update")
    client.take("ping")
    client.send(type="pong")
    client.send(type="ping")
    client.take("pong")
    own_valkey.kill()
    client.take("status")
    own_valkey.start()
    client.take("gap")
    address.server.should_exit = True
    client.take("reconnect")
    client.close_code()
    own.redis.close()

    assert {frame["type"] for frame in captured.sent} == set(CLIENT_FRAMES)
    assert {frame["type"] for frame in captured.received} == set(SERVER_FRAMES)
