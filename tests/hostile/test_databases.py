"""Databases that are set up as nobody would expect, below all four services."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from holdfast.client import Client
from holdfast.local.fixtures import Eventually
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("odd-database")

DEFAULTS = {
    "default_transaction_isolation": "'repeatable read'",
    "default_transaction_deferrable": "on",
    "statement_timeout": "'200ms'",
    "lock_timeout": "'1ms'",
    "synchronous_commit": "off",
    "DateStyle": "'SQL, DMY'",
    "TimeZone": "'Asia/Kathmandu'",
    "bytea_output": "escape",
    "IntervalStyle": "sql_standard",
}
"""What somebody may have set for a whole database, and what would break or weaken what is promised."""


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    with Stack(server_folder / uuid4().hex) as stack:
        yield stack


@pytest.fixture(params=["repeatable read", "serializable"])
def odd_stack(stack: Stack, request: pytest.FixtureRequest) -> Stack:
    settings = DEFAULTS | {"default_transaction_isolation": f"'{request.param}'"}
    for name, value in settings.items():
        stack.postgres.execute(f"ALTER DATABASE holdfast SET {name} = {value}")
    # So that every connection is a new one, and meets them.
    stack.postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'holdfast'")
    return stack


def event(id_: str, subject: str) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": id_, "source": "/odd", "type": "com.github.push", "subject": subject,
        "data": {"ref": "refs/heads/main", "repository": {"full_name": f"acme/{subject}"}},
    }  # fmt: skip


def test_a_databases_own_defaults_change_nothing(odd_stack: Stack, eventually: Eventually) -> None:
    """160 POSTs, 16 at once, of which half repeat another one; every event is processed and none is refused."""
    ids = [uuid4().hex for _ in range(80)] * 2
    headers = {"Authorization": f"Bearer {odd_stack.api_key}", "Content-Type": "application/cloudevents+json"}
    with (
        httpx.Client(base_url=odd_stack.ingest_url, headers=headers, timeout=30) as http,
        ThreadPoolExecutor(16) as pool,
    ):
        eventually(lambda: http.post("/v1/events", json=event(uuid4().hex, "first")).status_code == 202)
        answers = list(pool.map(lambda id_: http.post("/v1/events", json=event(id_, "one-for-all")), ids))

    assert Counter(answer.status_code for answer in answers) == {202: 160}
    accepted = {answer.json()["event_id"] for answer in answers}
    assert len(accepted) == 80
    with Client(odd_stack.ingest_url, odd_stack.api_key) as client:
        eventually(lambda: {client.get(each).state for each in accepted} == {"processed"}, timeout_seconds=60)


def test_what_is_accepted_waits_for_the_disk_whatever_the_databases_default_is(
    odd_stack: Stack, make_database: Callable[[str], Any]
) -> None:
    assert make_database(odd_stack.database_url) == "on"


@pytest.fixture
def make_database() -> Callable[[str], Any]:
    from sqlalchemy import text

    from holdfast.storage.database import Database

    def shown(url: str) -> Any:
        database = Database(url, application_name="test")
        try:
            with database.transaction() as session:
                return session.scalar(text("SHOW synchronous_commit"))
        finally:
            database.close()

    return shown
