"""``python -m bench.memory``: what the live window costs in Redis, in bytes an event and an update.

Publishes the three updates of each event (queued, processing, processed) to its three topics (event, audience, tenant),
through the real publisher, into a server of its own, and reads ``used_memory`` before and after.
"""

import argparse
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from holdfast.domain.state import State
from holdfast.domain.update import Update
from holdfast.local.servers import Valkey
from holdfast.messaging.contracts import encode_update
from holdfast.messaging.live import Publisher
from holdfast.runtime.ids import uuid7

WINDOW_SECONDS = 600
WINDOW_UPDATES = 1000
EVENTS_PER_AUDIENCE = 10
BATCH = 100
"""Events published in one round trip."""

SAMPLE = 1000
"""Keys looked at for a time to live."""

LIFE: list[tuple[State, int, dict[str, Any]]] = [
    (State.QUEUED, 0, {}),
    (State.PROCESSING, 1, {}),
    (State.PROCESSED, 1, {"result": {"order_id": "A-10042", "total": 129.9, "currency": "EUR"}}),
]


def main() -> int:
    """Measure and print; half a minute for 100,000 events."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="events published (100,000)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    server = Valkey(folder)
    try:
        server.start()
        with redis.Redis.from_url(server.url()) as client:
            _measure(client, options.events)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _measure(client: "redis.Redis", events: int) -> None:
    publisher = Publisher(client, window_seconds=WINDOW_SECONDS, window_updates=WINDOW_UPDATES)
    publisher.publish(list(_updates(0, 1)))  # the script itself
    before, keys_before = _used(client), client.dbsize()
    for first in range(1, events + 1, BATCH):
        updates = list(_updates(first, min(BATCH, events + 1 - first)))
        publisher.publish(updates)
        if first % 20_000 == 1:
            _say(f"{first - 1:,} of {events:,} events")
    body = len(encode_update(updates[-1]))
    used = _used(client) - before
    ages = [client.ttl(key) for key in (client.randomkey() for _ in range(SAMPLE)) if key is not None]
    lines = [
        f"machine: {platform.machine()}, server {client.info('server')['redis_version']}",
        f"events: {events:,}, three updates each, to three topics each; {EVENTS_PER_AUDIENCE} events an audience, one tenant",
        f"used_memory: {used:,} bytes in {client.dbsize() - keys_before:,} keys",
        f"an event with all its updates: {used / events:,.0f} bytes",
        f"an update with all its topics: {used / events / len(LIFE):,.0f} bytes, of which its body is {body}",
        f"time to live of {len(ages):,} keys drawn at random: {min(ages)} to {max(ages)} s",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _updates(first: int, count: int) -> Iterator[Update]:
    """The updates of some events, each event's in their order."""
    for number in range(first, first + count):
        event_id, audience = uuid7(), f"user-{number // EVENTS_PER_AUDIENCE}"
        for version, (state, attempt, detail) in enumerate(LIFE, 1):
            yield Update(
                event_id=event_id, tenant="bench", type="com.acme.order.placed", audience=audience, state=state,
                version=version, attempt=attempt, at=datetime.now(UTC), detail=detail,
            )  # fmt: skip


def _used(client: "redis.Redis") -> int:
    return int(client.info("memory")["used_memory"])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
