"""A second processor whose ways to PostgreSQL and to the broker lead through proxies, for faults at an exact place.

Starting a process takes seconds, so one serves several tests; between them it is paused. A paused processor takes no
events from the other one.
"""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos.proxy import Proxy
from tests.chaos.stacks import Replica, replica, through

from holdfast.local.process import Guarded
from holdfast.local.stack import Stack

__all__ = ["Distant", "distant_processor", "pause", "wake"]


@dataclass(frozen=True, slots=True)
class Distant:
    """The processor and what lies between it and its servers."""

    processor: Replica
    database: Proxy
    broker: Proxy

    @property
    def is_running(self) -> bool:
        """Whether nobody has killed it."""
        return self.processor.process.is_running

    def pause(self) -> None:
        """SIGSTOP."""
        pause(self.processor.process)

    def wake(self) -> None:
        """SIGCONT."""
        wake(self.processor.process)

    def reconnect(self) -> None:
        """Make both ways as good as new."""
        for proxy in (self.database, self.broker):
            proxy.resume()
            proxy.accept()


@contextlib.contextmanager
def distant_processor(stack: Stack) -> Iterator[Distant]:
    """Start one."""
    with Proxy(stack.postgres.port) as database, Proxy(stack.redis.port) as broker:
        urls = {
            "DATABASE_URL": through(stack.database_url, database.port),
            "BROKER_URL": through(stack.redis.url(0), broker.port),
        }
        with replica(stack, "processor", **urls) as processor:
            yield Distant(processor, database, broker)


def pause(process: Guarded) -> None:
    """SIGSTOP a process and its descendants: what a frozen virtual machine looks like to everybody else."""
    for pid in process.pids():
        process.send(signal.SIGSTOP, pid=pid)


def wake(process: Guarded) -> None:
    """SIGCONT them."""
    for pid in process.pids():
        process.send(signal.SIGCONT, pid=pid)
