"""Asking the provider over HTTP, bounded in time, bytes and number, without redirects.

A socket's timeout bounds each read and not the whole, and a name's lookup not at all. So each request has a thread of its
own, and who waits for it goes at the deadline, whatever the thread hangs in.
"""

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from holdfast.ingest.console.oidc.failures import SignInFailed

__all__ = ["MAX_ANSWER_BYTES", "SECONDS", "Answer", "Fetcher"]

SECONDS = 4.0
"""For all requests of one sign-in together; the page then answers within five seconds."""

MAX_ANSWER_BYTES = 256 * 1024
"""Of a document, a key set or a token answer; those of large providers have about 20 KiB."""

_STATUS_REDIRECTS = range(300, 400)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON object."""

    status: int
    document: dict[str, Any]


@dataclass(slots=True)
class _Exchange:
    """One request on its way."""

    url: str
    seconds: float
    body: str | None
    headers: Mapping[str, str]
    is_done: threading.Event = field(default_factory=threading.Event)
    connection: http.client.HTTPConnection | None = None
    answer: Answer | None = None
    failure: str = "no_answer"


class Fetcher:
    """Sends requests to the provider.

    Args:
        most_at_once: requests under way at a time; further ones fail at once, so that a slow provider holds few threads.
    """

    def __init__(self, *, most_at_once: int) -> None:
        self._slots = threading.BoundedSemaphore(most_at_once)
        self._tls = ssl.create_default_context()

    def get(self, url: str, *, deadline: float) -> Answer:
        """A JSON object that is there. ``deadline`` is on the monotonic clock.

        Raises:
            SignInFailed: no answer in time, or another one.
        """
        answer = self._fetch(_Exchange(url, deadline - time.monotonic(), None, {}))
        if answer.status != 200:
            raise _failed("status")
        return answer

    def post(self, url: str, body: str, headers: Mapping[str, str], *, deadline: float) -> Answer:
        """What a form was answered with, whatever its status.

        Raises:
            SignInFailed: no answer in time, or one that is no JSON object.
        """
        return self._fetch(_Exchange(url, deadline - time.monotonic(), body, headers))

    def _fetch(self, exchange: _Exchange) -> Answer:
        if exchange.seconds <= 0:
            raise _failed("timeout")
        if not self._slots.acquire(blocking=False):
            raise SignInFailed("provider_busy", _BUSY, status=503)
        try:
            threading.Thread(target=self._run, args=(exchange,), name="oidc", daemon=True).start()
        except RuntimeError:
            self._slots.release()
            raise SignInFailed("provider_busy", _BUSY, status=503) from None
        if not exchange.is_done.wait(exchange.seconds):
            _abandon(exchange)
            raise _failed("timeout")
        if exchange.answer is None:
            raise _failed(exchange.failure)
        return exchange.answer

    def _run(self, exchange: _Exchange) -> None:
        try:
            exchange.answer = _exchanged(exchange, self._tls)
        except _Unusable as exc:
            exchange.failure = str(exc)
        except TimeoutError:
            exchange.failure = "timeout"  # the socket noticed before who waits did
        except ssl.SSLError:
            exchange.failure = "tls"
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            exchange.failure = "no_answer"  # AttributeError: ssl's, of a socket that was shut down meanwhile
        finally:
            self._slots.release()
            exchange.is_done.set()


class _Unusable(Exception):
    """The answer is not one that counts; the text is a code."""


def _exchanged(exchange: _Exchange, tls: ssl.SSLContext) -> Answer:
    parts = urlsplit(exchange.url)
    host, timeout = parts.hostname or "", exchange.seconds
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, parts.port, timeout=timeout, context=tls
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
    exchange.connection = connection
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        common = {"Accept": "application/json", "User-Agent": "holdfast", "Connection": "close"}
        method = "GET" if exchange.body is None else "POST"
        connection.request(method, target, exchange.body, common | dict(exchange.headers))
        response = connection.getresponse()
        if response.status in _STATUS_REDIRECTS:
            raise _Unusable("redirect")
        content = response.read(MAX_ANSWER_BYTES + 1)
    finally:
        connection.close()
    return Answer(response.status, _object(content))


def _object(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_ANSWER_BYTES:
        raise _Unusable("too_large")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise _Unusable("not_json") from None
    if not isinstance(document, dict):
        raise _Unusable("not_json")
    return document


def _abandon(exchange: _Exchange) -> None:
    """Let the thread that hangs in a read go. Closing would not wake it."""
    sock = exchange.connection.sock if exchange.connection else None
    if sock is not None:
        with suppress(OSError, ValueError):
            sock.shutdown(socket.SHUT_RDWR)


_BUSY = "Too many people are signing in at this moment. Try again in a few seconds, or sign in with an API key."

_REASONS = {
    "timeout": f"it did not answer within {SECONDS:.0f} s",
    "no_answer": "it cannot be reached",
    "tls": "its certificate is not trusted, or it does not speak TLS",
    "redirect": "it answered with a redirect, which is not followed here",
    "status": "it answered with an error",
    "too_large": f"its answer has more than {MAX_ANSWER_BYTES // 1024} KiB",
    "not_json": "its answer is no JSON object",
}


def _failed(reason: str) -> SignInFailed:
    text = f"The sign-in provider is no help now: {_REASONS[reason]}. Sign in with an API key, or try again later."
    return SignInFailed(f"provider_{reason}", text, status=503)
