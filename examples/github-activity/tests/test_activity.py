"""What a delivery means, and the handler against a real database."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select

from github_activity.activity import Change, change_of
from github_activity.handlers import handlers, record_activity
from github_activity.payload import Delivery
from github_activity.tables import Repository
from holdfast.processor.testing import assert_idempotent, run
from holdfast.storage import Session

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


def test_the_last_activity_of_an_event_without_time_is_its_arrival(session: Session) -> None:
    arrival = datetime(2026, 3, 1, tzinfo=UTC)

    run(record_activity, SHOP, session=session, type="com.github.push", received_at=arrival)

    assert row(session).last_activity_at == arrival


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
