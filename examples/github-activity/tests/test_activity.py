"""The handler against a real database, and the rules behind it against a count made without them."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select

from github_activity.activity import Change, change_of
from github_activity.handlers import handlers, record_activity
from github_activity.payload import Delivery
from github_activity.tables import ActivityCount, Repository
from github_activity.webhooks import cloudevents
from holdfast.processor.testing import assert_idempotent, run
from holdfast.storage import Session
from holdfast.storage.database import Database


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    """A session on a migrated database: all that testing a handler needs."""
    database = Database(database_url, application_name="test")
    with database.transaction() as session:
        yield session
    database.close()


SHOP = Delivery.model_validate({"repository": {"full_name": "acme/shop"}})


def row(session: Session, name: str = "acme/shop") -> Repository:
    return session.scalars(select(Repository).where(Repository.name == name)).one()


@pytest.mark.parametrize(
    ("event_type", "change"),
    [
        ("com.github.push", Change("acme/shop")),
        ("com.github.pull_request.opened", Change("acme/shop", open_pull_requests=1)),
        ("com.github.pull_request.reopened", Change("acme/shop", open_pull_requests=1)),
        ("com.github.pull_request.closed", Change("acme/shop", open_pull_requests=-1)),
        ("com.github.pull_request.labeled", Change("acme/shop")),
        ("com.github.pull_request_review.submitted", Change("acme/shop")),
        ("com.github.issues.opened", Change("acme/shop", open_issues=1)),
        ("com.github.issues.closed", Change("acme/shop", open_issues=-1)),
        ("com.github.issue_comment.created", Change("acme/shop")),
    ],
)
def test_what_a_delivery_changes(event_type: str, change: Change) -> None:
    assert change_of(event_type, SHOP) == change


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"repository": {"full_name": "a/b"}, "organization": {"login": "c"}}, "a/b"),
        ({"organization": {"login": "c"}}, "c"),
        ({"repository": None}, "github"),
    ],
)
def test_where_a_delivery_counts(payload: dict[str, Any], place: str) -> None:
    assert Delivery.model_validate(payload).place == place


def test_a_repository_without_a_name_is_refused() -> None:
    with pytest.raises(ValidationError):
        Delivery.model_validate({"repository": {}})


def test_counts_add_up_by_type(session: Session) -> None:
    results = [
        run(record_activity, SHOP, session=session, type=event_type).result
        for event_type in ("com.github.push", "com.github.push", "com.github.star.created")
    ]

    assert [result["count"] for result in results] == [1, 2, 1]


def test_open_ones_rise_and_fall(session: Session) -> None:
    for name in ("issues.opened", "issues.opened", "issues.closed", "pull_request.opened"):
        run(record_activity, SHOP, session=session, type=f"com.github.{name}")

    assert (row(session).open_issues, row(session).open_pull_requests) == (1, 1)


def test_the_last_activity_is_the_latest_whatever_the_order(session: Session) -> None:
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)

    for moment in (late, early):
        run(record_activity, SHOP, session=session, type="com.github.push", time=moment)

    assert row(session).last_activity_at == late


def test_progress_is_told(session: Session) -> None:
    done = run(record_activity, SHOP, session=session, type="com.github.push")

    assert done.progress == [(0.5, "counting for acme/shop")]


def test_the_handler_counts_on_being_run_once(session: Session) -> None:
    # Its effects are in the settling transaction, so it needs not be idempotent by itself; the check sees that it is not.
    with pytest.raises(AssertionError, match="github_activity_count"):
        assert_idempotent(record_activity, SHOP, session=session, type="com.github.push")


def test_every_github_type_has_the_handler() -> None:
    assert handlers.find("com.github.anything.at.all") is not None
    assert handlers.find("com.gitlab.push") is None


def deliveries() -> list[str]:
    path = os.environ.get("REAL_EVENTS")
    return Path(path or Path(__file__).with_name("deliveries.jsonl")).read_text().splitlines()


def test_the_tables_equal_a_count_of_the_file(session: Session) -> None:
    lines = deliveries()
    for event in cloudevents(lines):
        delivery = Delivery.model_validate(event["data"])
        run(record_activity, delivery, session=session, type=event["type"])

    expected: Counter[tuple[str, str]] = Counter()
    for line in lines:
        raw = json.loads(line)
        payload, action = raw["payload"], raw["action"]
        repository = payload.get("repository") or {}
        place = repository.get("full_name") or (payload.get("organization") or {}).get("login") or "github"
        expected[place, ".".join(["com.github", raw["event"], *([action] if action else [])])] += 1
    found = {(count.repository, count.type): count.count for count in session.scalars(select(ActivityCount))}
    assert found == expected
