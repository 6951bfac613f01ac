"""What an idle connection costs this process: a gateway is sized by it."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from bench.crowd import Crowd
from bench.usage import resident_kib

from holdfast.local.servers import Valkey

FIRST, MORE, TOGETHER = 50, 500, 50
MOST_KIB = 20.0
"""docs/operations.md tells of 12."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_connection_takes_less_than_20_kib(
    valkey: Valkey, tenant: Any, start_gateway: Callable[..., Any]
) -> None:
    gateway = start_gateway(valkey.url())
    hello = json.dumps(
        {"type": "hello", "v": 1, "token": tenant.token("audience:*"), "topics": ["audience:a"]}
    ).encode()

    async def grow() -> float:
        crowd = Crowd(gateway.live)
        await crowd.connect([hello] * FIRST)  # pays for what is made once
        before = resident_kib(gateway.process.pid)
        for _ in range(MORE // TOGETHER):
            await crowd.connect([hello] * TOGETHER)
        grown = resident_kib(gateway.process.pid) - before
        crowd.leave()
        await asyncio.sleep(0)
        return grown / MORE

    assert asyncio.run(grow()) < MOST_KIB
