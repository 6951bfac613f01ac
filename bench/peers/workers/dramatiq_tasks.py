"""Dramatiq's side, as it comes: ``dramatiq bench.peers.workers.dramatiq_tasks``."""

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers.workers.commits import claim_and_settle, queued

__all__ = ["commits", "noop"]

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_BROKER_URL"]))  # type: ignore[no-untyped-call]


@dramatiq.actor
def commits(event_id: str) -> None:
    """Do to an event what Holdfast does."""
    claim_and_settle(event_id)


@dramatiq.actor
def noop(number: int) -> None:
    """Do nothing."""


def main() -> None:
    """Fill the queue."""
    name, messages = sys.argv[2], int(sys.argv[3])
    actor = dramatiq.get_broker().get_actor(name)
    for argument in queued() if name == "commits" else range(messages):
        actor.send(argument)


if __name__ == "__main__":
    main()
