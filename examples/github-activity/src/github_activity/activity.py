"""What a webhook delivery means for a repository. Pure, so that it can be checked against a count made elsewhere."""

from dataclasses import dataclass

from github_activity.payload import Delivery

__all__ = ["Change", "change_of"]

PULL_REQUESTS = "com.github.pull_request."
ISSUES = "com.github.issues."

OPENING = {"opened": 1, "reopened": 1, "closed": -1}
"""What an action does to the number of open ones. A merge is a ``closed`` too."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one delivery adds to a repository's row."""

    repository: str
    open_pull_requests: int = 0
    open_issues: int = 0


def change_of(event_type: str, delivery: Delivery) -> Change:
    """The change that an event of this type makes."""
    if event_type.startswith(PULL_REQUESTS):
        return Change(delivery.place, open_pull_requests=OPENING.get(event_type.removeprefix(PULL_REQUESTS), 0))
    if event_type.startswith(ISSUES):
        return Change(delivery.place, open_issues=OPENING.get(event_type.removeprefix(ISSUES), 0))
    return Change(delivery.place)
