"""From POST to ``processed`` with every service at work: events are sent one a request, as fast as they are taken."""

import time

from bench import ingest
from bench.limits import clear
from holdfast.local.stack import Stack

__all__ = ["measure"]

PATIENCE_SECONDS = 120


def measure(stack: Stack, *, seconds: float) -> float:
    """Events a second from the first sent to the last processed, sending for ``seconds``. A backlog takes its time as well.

    Raises:
        RuntimeError: not all were processed in time.
    """
    clear(stack)
    began = time.monotonic()
    ingest.measure(stack, seconds=seconds)
    while left := _count(stack, "<> 'processed'"):
        if time.monotonic() - began > seconds + PATIENCE_SECONDS:
            raise RuntimeError(f"{left} events were not processed in {PATIENCE_SECONDS} s")
        time.sleep(0.05)
    took = time.monotonic() - began
    processed = _count(stack, "= 'processed'")
    clear(stack)
    return processed / took


def _count(stack: Stack, condition: str) -> int:
    statement = f"SELECT count(*) FROM processing_state WHERE state {condition}"  # noqa: S608
    return int(stack.postgres.execute(statement, database="holdfast"))
