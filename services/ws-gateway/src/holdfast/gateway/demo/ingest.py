"""Ingest, as the demo asks it: with a key that stays in this process."""

import asyncio
import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from holdfast.domain.errors import ConfigurationError
from holdfast.gateway.demo.answers import Refusal

__all__ = ["Ingest"]

MOST_REQUESTS = 4
"""At one time: each takes a thread while ingest answers."""
TIMEOUT_SECONDS = 5.0
MOST_ANSWER_BYTES = 1 << 20
MOST_KEY_BYTES = 1024

_KEY_REFUSED = "ingest refuses the demo's key; make a new one for the scopes events:write, events:read and operate"


@dataclass(frozen=True, slots=True)
class _Address:
    host: str
    port: int | None
    is_tls: bool
    prefix: str

    def connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.is_tls else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=TIMEOUT_SECONDS)


class Ingest:
    """The HTTP API behind the demo.

    Args:
        url: ``http://host:port``.
        key_file: holds an API key; read for each request, since it may be made after this process has started.

    Raises:
        ConfigurationError: the address is none.
    """

    def __init__(self, url: str, key_file: Path | None) -> None:
        self._address = _address(url)
        self._key_file = key_file
        self._slots = asyncio.Semaphore(MOST_REQUESTS)

    async def ask(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """The JSON object of a successful answer.

        Raises:
            Refusal: ingest's own refusal; 503 when it is away, or when there is no key or no valid one.
        """
        async with self._slots:
            status, answered = await asyncio.to_thread(self._ask, method, path, body, content_type)
        if status in (401, 403):
            raise Refusal(503, "demo_key_refused", _KEY_REFUSED)
        if status >= 500:
            raise _away()
        if status >= 400:
            raise Refusal(status, str(answered.get("code")), str(answered.get("detail")))
        return answered

    def _ask(self, method: str, path: str, body: Any, content_type: str) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self._key()}", "Content-Type": content_type}
        connection = self._address.connect()
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, self._address.prefix + path, content, headers)
            response = connection.getresponse()
            answered = json.loads(response.read(MOST_ANSWER_BYTES))
            return response.status, answered if isinstance(answered, dict) else {}
        except (OSError, http.client.HTTPException, ValueError):
            raise _away() from None
        finally:
            connection.close()

    def _key(self) -> str:
        if self._key_file is None:
            raise Refusal(
                503, "no_demo_key", "the shop is closed: set HOLDFAST_GATEWAY_DEMO_KEY_FILE to a file with an API key"
            )
        try:
            with self._key_file.open(encoding="ascii") as file:
                key = file.read(MOST_KEY_BYTES).strip()
        except (OSError, ValueError):
            key = ""
        if not key:
            detail = "the shop is not open yet: the file that HOLDFAST_GATEWAY_DEMO_KEY_FILE names has no API key"
            raise Refusal(503, "no_demo_key", detail, retry_after=2)
        return key


def _away() -> Refusal:
    return Refusal(503, "ingest_unavailable", "ingest does not answer at the moment; try again", retry_after=2)


def _address(url: str) -> _Address:
    parts = urlsplit(url.strip())
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.username:
        raise ConfigurationError("HOLDFAST_GATEWAY_DEMO_INGEST_URL: it must look like http://127.0.0.1:8080")
    return _Address(parts.hostname, port, parts.scheme == "https", parts.path.rstrip("/"))
