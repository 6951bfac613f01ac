"""The gateway's own port on IPv6."""

import urllib.request

import pytest
from tests.chaos.stacks import replica

from holdfast.local.servers import free_port
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("hostile-edge")


@pytest.mark.parametrize("host", ["::1", "::"])
def test_the_gateway_and_its_metrics_listen_on_ipv6(hostile_stack: Stack, host: str) -> None:
    port = free_port()
    with (
        replica(hostile_stack, "ws-gateway", GATEWAY_HOST=host, GATEWAY_PORT=str(port)),
        urllib.request.urlopen(f"http://[::1]:{port}/livez", timeout=5) as answer,
    ):
        assert answer.status == 200
