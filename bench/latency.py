"""From POST to the live update ``processed``, one event at a time, as one client sees it."""

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

from holdfast.client import Client, Subscribed, UpdateReceived, watch
from holdfast.local.stack import TENANT, Stack

__all__ = ["Latency", "measure"]

WARM_UP = 20


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds."""

    p50: float
    p99: float
    post_p50: float
    """Of the POST alone, until its answer."""


def measure(stack: Stack, *, events: int, pause_seconds: float) -> Latency:
    """Latency over ``events`` events, after a warm-up."""
    all_ms, all_posts_ms = asyncio.run(_measure(stack, events + WARM_UP, pause_seconds))
    took_ms = sorted(all_ms[WARM_UP:])
    p99 = took_ms[max(0, int(len(took_ms) * 0.99) - 1)]
    return Latency(statistics.median(took_ms), p99, statistics.median(all_posts_ms[WARM_UP:]))


async def _measure(stack: Stack, events: int, pause_seconds: float) -> tuple[list[float], list[float]]:
    topic = f"tenant:{TENANT}"
    took_ms: list[float] = []
    posts_ms: list[float] = []
    with Client(stack.ingest_url, stack.api_key) as client:
        began = time.perf_counter()
        async for frame in watch(stack.live_url, client.token([topic]).token, topics=[topic]):
            is_processed = isinstance(frame, UpdateReceived) and frame.event["state"] == "processed"
            if is_processed:
                took_ms.append((time.perf_counter() - began) * 1000)
                if len(took_ms) == events:
                    break
            if is_processed or isinstance(frame, Subscribed):
                if len(took_ms) > WARM_UP:
                    await asyncio.sleep(pause_seconds)
                began = time.perf_counter()
                await asyncio.to_thread(client.send, _event())
                posts_ms.append((time.perf_counter() - began) * 1000)
    return took_ms, posts_ms


def _event() -> dict[str, Any]:
    return {"type": "bench.latency", "data": {"text": "x" * 400}}
