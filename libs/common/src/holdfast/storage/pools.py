"""How much of a process's database connections is in use."""

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from holdfast.runtime.telemetry import Metrics
from holdfast.storage.database import Database

__all__ = ["note_connections"]


def note_connections(*databases: Database) -> None:
    """Set the gauges of this process, from all of its pools."""
    Metrics.connections_in_use.set(sum(_in_use(each.engine) for each in databases))
    Metrics.connections_most.set(sum(each.most_connections for each in databases))


def _in_use(engine: Engine) -> int:
    return engine.pool.checkedout() if isinstance(engine.pool, QueuePool) else 0
