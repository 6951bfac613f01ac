"""Recorded deliveries (``REAL_EVENTS`` names the file) against a count made without a line of this package."""

import json
import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from github_activity.handlers import record_activity
from github_activity.tables import ActivityCount, Repository
from github_activity.webhooks import cloudevents
from holdfast.processor.testing import run
from holdfast.storage.database import Database

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    path = os.environ.get("REAL_EVENTS")
    return Path(path or Path(__file__).with_name("deliveries.jsonl")).read_text().splitlines()


@pytest.fixture(scope="module")
def events(lines: list[str]) -> list[dict[str, Any]]:
    """A minute apart, and in an order of their own: deliveries arrive as they like."""
    made = [event | {"time": BEGIN + timedelta(minutes=minute)} for minute, event in enumerate(cloudevents(lines))]
    random.Random(7).shuffle(made)
    return made


@pytest.fixture
def recorded(database: Database, events: list[dict[str, Any]]) -> None:
    """Every delivery handled once, four at a time, each in a transaction of its own, as workers do."""

    def record(event: dict[str, Any]) -> None:
        with database.transaction() as session:
            run(record_activity, event["data"], session=session, type=event["type"], time=event["time"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(record, events))


def place(line: str) -> str:
    payload = json.loads(line)["payload"]
    if payload.get("repository"):
        return str(payload["repository"]["full_name"])
    return str(payload["organization"]["login"]) if payload.get("organization") else "github"


def named(line: str) -> tuple[str, str | None]:
    delivery = json.loads(line)
    return delivery["event"], delivery["action"]


def opened_minus_closed(lines: list[str], kind: str) -> dict[str, int]:
    counted = {place(line): 0 for line in lines}
    for line in lines:
        event, action = named(line)
        if event == kind:
            counted[place(line)] += {"opened": 1, "reopened": 1, "closed": -1}.get(action or "", 0)
    return counted


@pytest.mark.usefixtures("recorded")
def test_counts_by_type_equal_the_file(database: Database, lines: list[str]) -> None:
    with database.transaction() as session:
        found = {(row.repository, row.type): row.count for row in session.scalars(select(ActivityCount))}

    expected = Counter((place(line), ".".join(["com.github", *filter(None, named(line))])) for line in lines)
    assert found == expected
    assert sum(found.values()) == len(lines)


@pytest.mark.usefixtures("recorded")
def test_open_ones_and_last_activity_equal_the_file(database: Database, lines: list[str]) -> None:
    with database.transaction() as session:
        rows = session.scalars(select(Repository)).all()

    assert {row.name: row.open_pull_requests for row in rows} == opened_minus_closed(lines, "pull_request")
    assert {row.name: row.open_issues for row in rows} == opened_minus_closed(lines, "issues")
    last = {place(line): BEGIN + timedelta(minutes=minute) for minute, line in enumerate(lines)}
    assert {row.name: row.last_activity_at for row in rows} == last
