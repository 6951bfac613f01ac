"""Which worker processes the service consists of."""

from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.messaging import doorbell
from holdfast.runtime.settings import ProcessorSettings

__all__ = ["Role", "queues", "roles"]


@dataclass(frozen=True, slots=True)
class Role:
    """What a worker process is for. It serves health and metrics unless ``metrics_port`` is 0."""

    name: str
    queue: str
    threads: int
    is_suspect: bool
    metrics_port: int
    reserved: int = 0
    """Threads that are kept for urgent events."""


def roles(settings: ProcessorSettings) -> list[Role]:
    """One worker with one thread for events that were with a lost worker before: whatever ran beside them would be lost with
    them. And as many as are wanted for all others, the first of which serves health, and the metrics of all.
    """
    suspects = Role("suspects", doorbell.SUSPECT_QUEUE, threads=1, is_suspect=True, metrics_port=0)
    workers = [
        Role(
            f"worker-{number}", doorbell.QUEUE, threads=settings.processor_threads, is_suspect=False,
            metrics_port=settings.metrics_port if number == 0 else 0, reserved=settings.reserved_threads,
        )
        for number in range(settings.processor_processes)
    ]  # fmt: skip
    return [suspects, *workers]


def queues(role: Role, pools: Iterable[str]) -> list[str]:
    """Where the doorbells of its events ring."""
    return [role.queue] if role.is_suspect else [doorbell.pool_queue(each) for each in sorted(pools)]
