"""Data of events encrypted at rest: nothing of it is found wherever one looks, and a service without the key does no harm."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
import redis

from holdfast.client import Client
from holdfast.domain.encryption_keys import key_text
from holdfast.local.fixtures import Eventually
from holdfast.local.process import Guarded
from holdfast.local.servers import free_port
from holdfast.local.services import SERVICES, environment
from holdfast.local.stack import Stack

MARKER, EDITED, SHOWN = "marker-of-the-payload-31", "marker-of-an-edit-32", "marker-of-a-subject-33"

KEYS = "HOLDFAST_ENCRYPTION_KEYS"

Sealed = Callable[..., Stack]


@pytest.fixture
def stack(server_folder: Path) -> Iterator[Stack]:
    settings = {KEYS: key_text(os.urandom(32)), "HOLDFAST_HANDLERS": "sealed_handlers:handlers"}
    made = Stack(server_folder / uuid4().hex, settings=settings, python_path=str(Path(__file__).parent))
    # Whatever is said to PostgreSQL is in its log, as with log_statement or an error.
    with made:
        made.postgres.execute("ALTER SYSTEM SET log_statement = 'all'")
        made.postgres.execute("SELECT pg_reload_conf()")
        yield made


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.ingest_url, stack.api_key) as made:
        yield made


def event(**attributes: Any) -> dict[str, Any]:
    plain = {"specversion": "1.0", "id": uuid4().hex, "source": "/test", "type": "test.sealed", "subject": SHOWN}
    return plain | {"data": {"secret": MARKER}} | attributes


def files_with(folder: Path, marker: str) -> list[str]:
    """Files of the servers and the services, down to the log of PostgreSQL's changes."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path.relative_to(folder)) for path in paths if marker.encode() in path.read_bytes()]


def keys_with(stack: Stack, marker: str) -> list[str]:
    """Keys of Redis whose value has it; strings of a few words are stored as they are."""
    found = []
    for database in (0, 1):
        server = redis.Redis.from_url(stack.redis.url(database))
        found += [key.decode() for key in server.scan_iter() if marker.encode() in (server.dump(key) or b"")]
        server.close()
    return found


def scalar(stack: Stack, statement: str) -> Any:
    with psycopg2.connect(stack.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
    return row and row[0]


def test_nothing_of_the_data_is_found_anywhere(stack: Stack, client: Client, eventually: Eventually) -> None:
    first = event()
    sent = client.send(first)
    assert client.send(first).is_duplicate
    client.send(event(type="test.nobody"))  # a dead letter
    assert client.wait(sent.event_id, 30).state == "processed"
    repeated = client.replay(sent.event_id, edit={"data": {"secret": EDITED}})
    eventually(lambda: scalar(stack, "SELECT count(*) FROM event WHERE type = 'test.sealed.done'") == 2)
    eventually(
        lambda: scalar(stack, "SELECT count(*) FROM processing_state WHERE state IN ('queued', 'processing')") == 0
    )

    assert (client.data(sent.event_id) or b"").decode().count(MARKER) == 1
    assert repeated
    assert scalar(stack, "SELECT count(*) FROM processing_state WHERE state = 'dead'") == 1, "that of nobody"
    assert scalar(stack, "SELECT count(*) FROM event WHERE data_key_id IS NULL") == 0
    stack.postgres.execute("CHECKPOINT")
    for marker in (MARKER, EDITED):
        assert (keys_with(stack, marker), files_with(stack.folder, marker)) == ([], [])
    shown = files_with(stack.folder, SHOWN)
    assert any("postgres" in each for each in shown), "subjects are not sealed, and this look finds them"
    assert any(each.endswith(".log") for each in shown), "statements are logged, and this look reads the log"


def test_a_processor_without_the_key_is_not_ready_and_its_events_wait(
    stack: Stack, client: Client, eventually: Eventually, tmp_path: Path
) -> None:
    stack.hold("processor")
    sent = client.send(event())
    settings = {
        name: value for name, value in stack.environment_of("processor").items() if name.startswith("HOLDFAST_")
    }
    port = free_port()
    lacking = Guarded("lacking", log=tmp_path / "lacking.log")
    command = next(service.command for service in SERVICES if service.name == "processor")
    lacking.start(
        command,
        environment(
            {name: value for name, value in settings.items() if name != KEYS} | {"HOLDFAST_METRICS_PORT": str(port)}
        )
        | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    try:
        eventually(lambda: client.get(sent.event_id).version >= 3)
        eventually(lambda: answer(port) == (503, "KeyMissing"))
        timeline = client.get(sent.event_id, include=["timeline"]).timeline or ()
        assert timeline[2].detail["reason"] == "key_missing"
        assert client.get(sent.event_id).attempt == 0
        assert KEYS in lacking.log.read_text()
    finally:
        lacking.stop()

    scalar(stack, "UPDATE processing_state SET available_at = now() - interval '1 m' RETURNING 1")
    stack.resume("processor")
    assert client.wait(sent.event_id, 30).state == "processed"


def answer(port: int) -> tuple[int, str]:
    """Status of ``/readyz``, and what it says of the database."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as got:
            return got.status, json.load(got)["checks"]["database"]
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)["checks"]["database"]
    except OSError:
        return 0, ""
