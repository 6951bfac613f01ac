"""One ingest process, as production starts it, on a database and a Valkey of its own."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis

from holdfast.local.fixtures import Eventually, clone_template
from holdfast.local.servers import Postgres, Valkey, free_port
from holdfast.storage.database import Database
from holdfast.storage.keys import create_key, parse_key, revoke_key

SECRET = "a secret of the tests alone, long enough"
MAX_EVENT_BYTES = 16 * 1024
TENANT = "acme"

Post = Callable[..., httpx.Response]


@dataclass(frozen=True, slots=True)
class Ingest:
    """A running process and what it works on."""

    url: str
    metrics_url: str
    log: Path
    database: Database
    broker_url: str
    redis_url: str

    def key(self, *scopes: str, tenant: str = TENANT) -> str:
        """A new API key; with ``events:write`` and ``events:read`` unless told otherwise."""
        with self.database.transaction() as session:
            return create_key(session, tenant=tenant, name="test", scopes=scopes or ("events:write", "events:read"))

    def revoke(self, key: str) -> None:
        """Revoke a key."""
        parsed = parse_key(key)
        assert parsed is not None
        with self.database.transaction() as session:
            assert revoke_key(session, parsed[0])

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def ingest(
    postgres: Postgres, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory, eventually: Eventually
) -> Iterator[Ingest]:
    """A process for the tests of one module, which leave it as it is."""
    name = clone_template(postgres)
    valkey.execute("FLUSHALL")
    log = tmp_path_factory.mktemp("ingest") / "ingest.log"
    port, metrics_port = free_port(), free_port()
    settings = {
        "HOLDFAST_DATABASE_URL": postgres.url(name),
        "HOLDFAST_BROKER_URL": valkey.url(0),
        "HOLDFAST_REDIS_URL": valkey.url(1),
        "HOLDFAST_LIVE_TOKEN_SECRET": SECRET,
        "HOLDFAST_INGEST_PORT": str(port),
        "HOLDFAST_METRICS_PORT": str(metrics_port),
        "HOLDFAST_MAX_EVENT_BYTES": str(MAX_EVENT_BYTES),
        "HOLDFAST_KEY_CACHE_SECONDS": "0.1",
        "HOLDFAST_PUBLIC_LIVE_URL": "wss://live.example.com/v1/live",
    }
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.ingest"], env=inherited | settings, stdout=output, stderr=output
        )
    database = Database(postgres.url(name), application_name="test")
    made = Ingest(
        f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}", log, database, valkey.url(0), valkey.url(1)
    )
    try:
        eventually(lambda: _answers(made.url), timeout_seconds=30, message=f"ingest did not start: {log}")
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        database.close()
        postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def key(ingest: Ingest) -> str:
    return ingest.key()


@pytest.fixture
def live(ingest: Ingest) -> Iterator["redis.Redis"]:
    """The live window."""
    with redis.Redis.from_url(ingest.redis_url) as client:
        yield client


@pytest.fixture
def post(ingest: Ingest, key: str) -> Post:
    """POST an event in structured mode; ``event`` may be bytes for what is no event."""

    def send(event: Any, *, key: str | None = key, **headers: str) -> httpx.Response:
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        defaults = {
            "Content-Type": "application/cloudevents+json",
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }
        return httpx.post(f"{ingest.url}/v1/events", content=body, headers=defaults | named, timeout=10)

    return send


@pytest.fixture
def get(ingest: Ingest, key: str) -> Callable[..., httpx.Response]:
    """GET an event."""

    def ask(event_id: str, include: str = "", *, key: str = key) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{ingest.url}/v1/events/{event_id}", params={"include": include}, headers=headers)

    return ask


def event(**attributes: Any) -> dict[str, Any]:
    """A small event with an identity of its own; an attribute given as ``None`` is left out."""
    defaults = {"specversion": "1.0", "id": uuid4().hex, "source": "/test", "type": "test.done", "data": {"n": 1}}
    return {name: value for name, value in (defaults | attributes).items() if value is not None}


@pytest.fixture
def make_event() -> Callable[..., dict[str, Any]]:
    return event


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310 (our own)
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
