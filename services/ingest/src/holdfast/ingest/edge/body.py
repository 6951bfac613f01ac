"""Reading a request's body whole, before a thread is taken."""

import asyncio
from dataclasses import dataclass
from typing import Any

from holdfast.ingest.edge.connection import Connection
from holdfast.ingest.edge.refusal import Refusal
from holdfast.ingest.intake.cloudevents import BATCH, media_type
from holdfast.runtime.settings import IngestSettings

__all__ = ["Disconnected", "Reading", "body_limit", "check_framing", "read_body"]

DISCARD_SECONDS = 2.0
DISCARD_BYTES = 64 * 1024 * 1024
"""So much of a body that is too long is read and dropped before the answer: most clients read it only when they have sent
everything, and a connection that is closed with unread bytes is reset, which can take the answer with it."""


class Disconnected(Exception):
    """The client has gone."""


@dataclass
class Reading:
    """A body so far; ``size`` counts what was dropped as well."""

    kept: bytearray
    size: int = 0


def check_framing(headers: dict[bytes, bytes], http_version: str) -> None:
    """Refuse what two servers may read as two different requests (request smuggling, RFC 9112 section 6.3).

    Raises:
        Refusal: 400.
    """
    if b"transfer-encoding" not in headers:
        return
    if b"content-length" in headers or http_version != "1.1":
        raise Refusal(
            400, "bad_request", "send Content-Length or Transfer-Encoding, not both, and the latter in HTTP/1.1 only"
        )


def body_limit(headers: dict[bytes, bytes], settings: IngestSettings) -> int:
    """Bytes that a body may have: those of a batch, or of an event."""
    is_batch = media_type(headers.get(b"content-type", b"").decode("latin-1")) == BATCH
    return settings.max_batch_bytes if is_batch else settings.max_event_bytes


async def read_body(connection: Connection, receive: Any, headers: dict[bytes, bytes], limit: int) -> bytearray:
    """The body; of one that is too long only ``limit + 1`` bytes, which the application answers with 413.

    Raises:
        Refusal: 408 at the deadline, 503 where too many bodies are in memory.
        Disconnected: the client has gone.
    """
    reading = Reading(bytearray())
    is_announced_too_long = int(headers.get(b"content-length", b"0")) > limit
    deadline = connection.begin_body()
    if is_announced_too_long and headers.get(b"expect", b"").lower() == b"100-continue":
        connection.crowd.keep(limit + 1)
        return bytearray(limit + 1)  # it has not been sent, and need not be
    try:
        await _read(connection, receive, reading, limit + 1, deadline)
    except BaseException:
        connection.crowd.free(len(reading.kept))
        raise
    return reading.kept


async def _read(connection: Connection, receive: Any, reading: Reading, most: int, deadline: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(deadline) as patience:
            is_more = True
            while is_more and reading.size <= most + DISCARD_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                chunk, is_more = message["body"], message["more_body"]
                reading.size += len(chunk)
                _keep(connection, reading, chunk[: most - len(reading.kept)])
                if reading.size > len(reading.kept) and patience.when() == deadline:
                    patience.reschedule(min(deadline, loop.time() + DISCARD_SECONDS))
    except TimeoutError:
        if reading.size >= most:
            return  # too long anyhow, which is the better answer
        detail = f"a request has to arrive whole within {connection.request_seconds:g} seconds; send it again"
        raise Refusal(408, "request_timeout", detail) from None


def _keep(connection: Connection, reading: Reading, chunk: bytes) -> None:
    reading.kept += chunk
    if not connection.crowd.keep(len(chunk)):
        raise Refusal(503, "overloaded", "too many requests are in memory; send the request again after Retry-After")
