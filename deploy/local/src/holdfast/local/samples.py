"""The events that ``make run`` sends when it is not given others: a small story on one repository."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

__all__ = ["samples"]

REPOSITORY = {"full_name": "acme/shop", "html_url": "https://github.com/acme/shop"}

STORY: tuple[tuple[str, str | None, dict[str, Any]], ...] = (
    ("issues.opened", "7", {"issue": {"number": 7, "title": "Checkout is slow"}}),
    ("issues.labeled", "7", {"issue": {"number": 7}, "label": {"name": "performance"}}),
    ("push", "refs/heads/faster-checkout", {"ref": "refs/heads/faster-checkout"}),
    ("pull_request.opened", "8", {"pull_request": {"number": 8, "title": "Faster checkout"}}),
    ("check_run.completed", "8", {"check_run": {"id": 4, "conclusion": "success"}}),
    ("pull_request_review.submitted", "8", {"pull_request": {"number": 8}, "review": {"state": "approved"}}),
    ("pull_request.closed", "8", {"pull_request": {"number": 8, "merged": True}}),
    ("push", "refs/heads/main", {"ref": "refs/heads/main"}),
    ("issues.closed", "7", {"issue": {"number": 7}}),
    ("release.published", "v1.4.0", {"release": {"id": 5, "tag_name": "v1.4.0"}}),
    ("star.created", None, {"starred_at": "2026-11-02T10:00:00Z"}),
)


def samples() -> Iterator[dict[str, Any]]:
    """CloudEvents with new identities, and one of a type that nobody handles, to show a dead letter."""
    for name, subject, payload in STORY:
        yield _event(f"com.github.{name}", subject, {**payload, "repository": REPOSITORY})
    yield _event("com.acme.coffee.ready", "kitchen", {"cups": 4})


def _event(type_: str, subject: str | None, data: dict[str, Any]) -> dict[str, Any]:
    event = {
        "specversion": "1.0",
        "id": uuid4().hex,
        "source": REPOSITORY["html_url"],
        "type": type_,
        "audience": "repo-acme-shop",
        "datacontenttype": "application/json",
        "data": data,
    }
    return event | ({"subject": subject} if subject else {})
