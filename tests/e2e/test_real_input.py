"""Real webhook deliveries (``REAL_EVENTS`` names the file; the project's own samples otherwise), all of them, twice."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from github_activity.webhooks import cloudevents
from holdfast.client import Client
from holdfast.local.samples import samples
from holdfast.local.stack import Stack

pytestmark = pytest.mark.xdist_group("shared-stack")


@pytest.fixture(scope="module")
def deliveries() -> list[dict[str, Any]]:
    if path := os.environ.get("REAL_EVENTS"):
        return list(cloudevents(Path(path).read_text().splitlines()))
    return [event for event in samples() if event["type"].startswith("com.github.")]


@pytest.fixture
def client(shared_stack: Stack) -> Iterator[Client]:
    with Client(shared_stack.ingest_url, shared_stack.api_key) as client:
        yield client


def place(event: dict[str, Any]) -> str:
    """Counted here without a line of the example package: the repository, else the organization, else ``github``."""
    data = event["data"]
    if data.get("repository"):
        return str(data["repository"]["full_name"])
    return str(data["organization"]["login"]) if data.get("organization") else "github"


def counted(stack: Stack, names: set[str]) -> dict[tuple[str, str], int]:
    rows = stack.postgres.execute("SELECT row_to_json(t) FROM github_activity_count t", database="holdfast")
    found = [json.loads(row) for row in rows.splitlines()]
    return {(row["repository"], row["type"]): row["count"] for row in found if row["repository"] in names}


def test_every_delivery_counts_once_however_often_it_is_sent(
    shared_stack: Stack, client: Client, deliveries: list[dict[str, Any]]
) -> None:
    names = {place(event) for event in deliveries}
    before = counted(shared_stack, names)

    first = [client.send(event) for event in deliveries]
    states = Counter(client.wait(sent.event_id, timeout_seconds=60).state for sent in first)
    again = [client.send(event) for event in deliveries]

    assert states == {"processed": len(deliveries)}
    assert all(sent.is_duplicate for sent in again)
    expected = Counter(before) + Counter((place(event), event["type"]) for event in deliveries)
    assert counted(shared_stack, names) == dict(expected)
