"""Topics that are left before they could be joined."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from holdfast.local.servers import Valkey


@pytest.fixture
def own_tenant(own_valkey: Valkey, tenant: Any) -> Iterator[Any]:
    """A tenant whose updates go to the test's own Valkey."""
    made = type(tenant)(own_valkey.url())
    yield made
    made.redis.close()


@pytest.mark.parametrize("since", [None, "another-epoch:1"])
def test_a_topic_left_during_an_outage_does_not_keep_later_ones_waiting(
    own_valkey: Valkey, own_tenant: Any, serve: Callable[..., Any], join: Any, since: str | None
) -> None:
    client = join(serve(redis_url=SecretStr(own_valkey.url()), linger_seconds=0.0), own_tenant.token())

    own_valkey.kill()
    assert client.take("status")["state"] == "degraded"
    client.send(type="subscribe", id="left", topics=[{"topic": "audience:left", "since": since}])
    client.send(type="subscribe", id="heard", topics=[{"topic": "nonsense"}])
    client.take("error")  # an answer to what came later: by now the first one waits for Redis
    client.send(type="unsubscribe", id="leave", topics=["audience:left"])
    client.send(type="subscribe", id="later", topics=[{"topic": "audience:later"}])
    own_valkey.start()

    assert client.take("subscribed")["id"] == "later"
    own_tenant.publish(1, audience="later")
    assert client.take("update")["topic"] == "audience:later"
