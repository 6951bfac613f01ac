"""An ingest service, as production starts it, on a database and a Valkey of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import redis
from tests.contract.oidc_provider import OidcProvider, Traveller, running_provider

from holdfast.domain.transitions import AttemptError, Completion, bury, settle
from holdfast.local.fixtures import Eventually, clone_template
from holdfast.local.process import children_by_parent, log_lines
from holdfast.local.servers import Postgres, Valkey, free_port
from holdfast.storage import claims, lifecycle
from holdfast.storage.database import Database
from holdfast.storage.keys import create_key, parse_key, revoke_key

SECRET = "a secret of the tests alone, long enough"
MAX_EVENT_BYTES = 16 * 1024
TENANT = "acme"

Post = Callable[..., httpx.Response]
MakeEvent = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Ingest:
    """A running service and what it works on."""

    url: str
    metrics_url: str
    log: Path
    database: Database
    broker_url: str
    redis_url: str
    process: "subprocess.Popen[bytes]"

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
        return log_lines(self.log)

    def workers(self) -> list[int]:
        """Process ids of those that serve."""
        return sorted(children_by_parent().get(self.process.pid, []))

    def is_alive(self) -> bool:
        """Whether it answers."""
        return self._status("/livez") == 200

    def is_ready(self) -> bool:
        """Whether it says that it can accept events."""
        return self._status("/readyz") == 200

    def stop(self) -> None:
        """SIGTERM, and the end in order that it asks for; unless the test has killed it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) in (0, -signal.SIGKILL)

    def _status(self, path: str) -> int:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}{path}", timeout=5).status_code
        except httpx.TransportError:
            return 0


class StartIngest(Protocol):
    """See the fixture ``start_ingest``."""

    def __call__(self, postgres: Postgres, valkey: Valkey, *, database: str, **settings: str) -> Ingest:
        """Start a process on a database of this server; ``settings`` are further ``HOLDFAST_*`` settings."""


@pytest.fixture(scope="module")
def start_ingest(tmp_path_factory: pytest.TempPathFactory, eventually: Eventually) -> Iterator[StartIngest]:
    """Start processes, which end with the module, in order and with status 0."""
    with ExitStack() as running:

        def start(postgres: Postgres, valkey: Valkey, *, database: str, **settings: str) -> Ingest:
            return running.enter_context(
                _running(postgres, valkey, database, settings, tmp_path_factory.mktemp("ingest"), eventually)
            )

        yield start


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    """Further settings of ``ingest``; for a module to say otherwise."""
    return {}


@pytest.fixture(scope="module")
def ingest(
    postgres: Postgres, valkey: Valkey, start_ingest: StartIngest, eventually: Eventually,
    ingest_settings: dict[str, str],
) -> Iterator[Ingest]:  # fmt: skip
    """A service for the tests of one module, which leave it as it is."""
    name = clone_template(postgres)
    valkey.execute("FLUSHALL")
    made = start_ingest(postgres, valkey, database=name, **ingest_settings)
    eventually(made.is_ready, timeout_seconds=30, message=f"ingest is not ready: {made.log}")
    yield made
    made.stop()
    postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def _running(
    postgres: Postgres, valkey: Valkey, name: str, settings: dict[str, str], folder: Path, eventually: Eventually
) -> Iterator[Ingest]:
    log = folder / "ingest.log"
    port, metrics_port = int(settings.get("HOLDFAST_INGEST_PORT", 0)) or free_port(), free_port()
    defaults = {
        "HOLDFAST_DATABASE_URL": postgres.url(name),
        "HOLDFAST_BROKER_URL": valkey.url(0),
        "HOLDFAST_REDIS_URL": valkey.url(1),
        "HOLDFAST_LIVE_TOKEN_SECRET": SECRET,
        "HOLDFAST_INGEST_PORT": str(port),
        "HOLDFAST_INGEST_PROCESSES": "2",  # on every machine
        "HOLDFAST_METRICS_PORT": str(metrics_port),
        "HOLDFAST_MAX_EVENT_BYTES": str(MAX_EVENT_BYTES),
        "HOLDFAST_KEY_CACHE_SECONDS": "0.1",
        "HOLDFAST_PUBLIC_LIVE_URL": "wss://live.example.com/v1/live",
    }
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.ingest"], env=inherited | defaults | settings, stdout=output, stderr=output
        )
    database = Database(postgres.url(name), application_name="test")
    made = Ingest(
        f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}", log, database, valkey.url(0), valkey.url(1),
        process,
    )  # fmt: skip
    try:
        eventually(made.is_alive, timeout_seconds=60, message=f"ingest did not start: {log}")
        yield made
    finally:
        database.close()
        made.stop()


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
        return _post(ingest, event, key, headers)

    return send


@pytest.fixture
def post_to() -> Post:
    """POST an event to a process that the test has started."""
    return lambda ingest, key: _post(ingest, event(), key, {})


def _post(ingest: Ingest, event: Any, key: str | None, headers: dict[str, str]) -> httpx.Response:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    defaults = {
        "Content-Type": "application/cloudevents+json",
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
    return httpx.post(f"{ingest.url}/v1/events", content=body, headers=defaults | named, timeout=30)


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


@pytest.fixture(scope="module")
def operator_key(ingest: Any) -> str:
    return str(ingest.key("operate", "events:read"))


@pytest.fixture
def api(ingest: Any, operator_key: str) -> Iterator[Callable[..., httpx.Response]]:
    """A request as the operator, or with another key."""
    with httpx.Client(base_url=ingest.url, timeout=10) as client:

        def ask(method: str, path: str, *, key: str = operator_key, **options: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"} | options.pop("headers", {})
            return client.request(method, path, headers=headers, **options)

        yield ask


@pytest.fixture
def put(ingest: Any, post: Post, make_event: MakeEvent) -> Callable[..., str]:
    """Record an event and bring it into a state; returns its id."""

    def make(
        state: str = "queued", *, error: str = "KeyError", reason: str | None = None, **attributes: Any
    ) -> str:  # fmt: skip
        event_id: str = post(make_event(**attributes)).json()["event_id"]
        if state == "queued":
            return event_id
        with ingest.database.transaction() as session:
            [(lease, _)] = claims.claim_events(session, [(event_id, 1)], owner="w", lease_seconds=300)  # type: ignore[list-item]
            died = AttemptError(
                error, "no such key", handler="h", traceback="Traceback …", fingerprint="f", reason=reason
            )
            ends = {
                "dead": [bury(lease.event.id, lease.token, died)],
                "processed": [settle(lease.event.id, lease.token, Completion("h", None, 7))],
            }
            lifecycle.apply(session, ends.get(state, []), worker="w-1")
        return event_id

    return make


_INPUT = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


class Browser:
    """Somebody at the console: keeps cookies, follows no redirect, and sends what a page's forms would."""

    def __init__(self, url: str) -> None:
        self.origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        self.http = httpx.Client(base_url=url, timeout=15)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=_named(headers))

    def token(self, path: str = "/console/") -> str:
        """The token in the page's head."""
        found = re.search(r'<meta name="csrf" content="([^"]*)">', self.get(path).text)
        assert found is not None, path
        return found[1]

    def request_key(self, path: str) -> str:
        """The idempotency key in a page's forms."""
        return str(dict(_INPUT.findall(self.get(path).text))["request"])

    def send(
        self, path: str, values: dict[str, Any] | None = None, *, page: str = "/console/", **headers: str
    ) -> httpx.Response:
        """A form; ``csrf`` is that of the page unless the values have one."""
        token = {} if "csrf" in (values or {}) else {"csrf": self.token(page)}
        return self.http.post(path, data=token | (values or {}), headers={"Origin": self.origin} | _named(headers))

    def sign_in(self, key: str, **values: str) -> httpx.Response:
        return self.send("/console/sign-in", {"key": key} | values, page="/console/sign-in")


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def visitor(ingest: Ingest) -> Iterator[Callable[..., Browser]]:
    """A new browser; with scopes, signed in with a new key that has them."""
    made: list[Browser] = []

    def open_one(*scopes: str, tenant: str = TENANT, url: str = ingest.url) -> Browser:
        made.append(Browser(url))
        if scopes:
            answer = made[-1].sign_in(ingest.key(*scopes, tenant=tenant))
            assert answer.status_code == 303, answer.text
        return made[-1]

    yield open_one
    for each in made:
        each.http.close()


@pytest.fixture
def viewer(visitor: Callable[..., Browser]) -> Browser:
    return visitor("events:read")


@pytest.fixture
def operator(visitor: Callable[..., Browser]) -> Browser:
    return visitor("events:read", "operate")


@pytest.fixture
def admin(visitor: Callable[..., Browser]) -> Browser:
    return visitor("admin")


@pytest.fixture(scope="module")
def provider_process() -> Iterator[OidcProvider]:
    with running_provider() as made:
        yield made


@pytest.fixture
def provider(provider_process: OidcProvider) -> Iterator[OidcProvider]:
    """It behaves again after the test."""
    yield provider_process
    provider_process.behave()


@pytest.fixture
def person(ingest: Any, visitor: Callable[..., Browser]) -> Callable[..., Traveller]:
    return lambda url=ingest.url: Traveller(visitor(url=url))
