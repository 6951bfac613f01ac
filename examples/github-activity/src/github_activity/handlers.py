"""The handler: one for every event type of GitHub's webhooks."""

from datetime import datetime

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from github_activity.activity import Change, change_of
from github_activity.payload import Delivery
from github_activity.tables import ActivityCount, Repository
from holdfast.processor import Backoff, Context, Handlers
from holdfast.storage import Session

__all__ = ["handlers", "record_activity"]

handlers = Handlers()


@handlers.on("com.github.*", name="github-activity", retry=Backoff(first=1, factor=2, cap=60, attempts=6))
def record_activity(delivery: Delivery, ctx: Context) -> dict[str, object]:
    """Count the delivery. Holdfast commits the counts and ``processed`` together, so each delivery counts once."""
    change = change_of(ctx.event.type, delivery)
    ctx.progress(0.5, f"counting for {change.repository}")
    happened_at = ctx.event.time or ctx.event.received_at
    _touch(ctx.session, change, happened_at)
    count = _count(ctx.session, change.repository, ctx.event.type)
    ctx.log.info("counted", repository=change.repository, count=count)
    return {"repository": change.repository, "count": count}


def _touch(session: Session, change: Change, happened_at: datetime) -> None:
    row = insert(Repository).values(
        name=change.repository,
        last_activity_at=happened_at,
        open_pull_requests=change.open_pull_requests,
        open_issues=change.open_issues,
    )
    session.execute(
        row.on_conflict_do_update(
            index_elements=[Repository.name],
            set_={
                # Deliveries arrive in any order: the last activity is the latest, not the one that came last.
                "last_activity_at": func.greatest(Repository.last_activity_at, row.excluded.last_activity_at),
                "open_pull_requests": Repository.open_pull_requests + row.excluded.open_pull_requests,
                "open_issues": Repository.open_issues + row.excluded.open_issues,
            },
        )
    )


def _count(session: Session, repository: str, event_type: str) -> int:
    row = insert(ActivityCount).values(repository=repository, type=event_type, count=1)
    counted = session.execute(
        row.on_conflict_do_update(
            index_elements=[ActivityCount.repository, ActivityCount.type], set_={"count": ActivityCount.count + 1}
        ).returning(ActivityCount.count)
    )
    return counted.scalar_one()
