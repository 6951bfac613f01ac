"""Celery's side: ``celery -A bench.peers.workers.celery_tasks worker``."""

import os
import sys

from celery import Celery

from bench.peers.workers.commits import claim_and_settle, queued

__all__ = ["app", "commits", "insert", "noop"]

app = Celery("peers", broker=os.environ["BENCH_BROKER_URL"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
)


@app.task(name="commits")  # type: ignore[untyped-decorator]
def commits(event_id: str) -> None:
    """Do to an event what Holdfast does."""
    claim_and_settle(event_id)


@app.task(name="insert")  # type: ignore[untyped-decorator]
def insert(event_id: str) -> None:
    """The same, with a row written by the settle."""
    claim_and_settle(event_id, with_insert=True)


@app.task(name="noop")  # type: ignore[untyped-decorator]
def noop(number: int) -> None:
    """Do nothing."""


def main() -> None:
    """Fill the queue."""
    name, messages = sys.argv[2], int(sys.argv[3])
    task = app.tasks[name]
    with app.producer_pool.acquire() as producer:
        for argument in range(messages) if name == "noop" else queued():
            task.apply_async((argument,), producer=producer)


if __name__ == "__main__":
    main()
