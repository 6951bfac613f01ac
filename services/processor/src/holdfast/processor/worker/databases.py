"""The two databases of a worker process, which are one: with claims that need not be durable, and with effects that must."""

from holdfast.processor.worker.roles import Role
from holdfast.runtime.settings import ProcessorSettings
from holdfast.storage.database import Database
from holdfast.storage.sealing import Sealing, open_sealing

__all__ = ["open_databases"]

IDLE_SECONDS = 60.0
"""A handler that computes for this long between two statements is taken for lost, or for four leases if that is longer.

While it runs its transaction keeps recovery away, so a worker that is frozen must not keep that for ever.
"""


def open_databases(settings: ProcessorSettings, role: Role) -> tuple[Database, Database]:
    """For claims and for effects. Both seal and open data of events with the same keys."""
    sealing = open_sealing(settings.read_encryption_keys(), is_sealing=settings.encryption_enabled)
    return _database(settings, role, sealing, is_durable=False), _database(settings, role, sealing, is_durable=True)


def _database(settings: ProcessorSettings, role: Role, sealing: Sealing | None, *, is_durable: bool) -> Database:
    # A connection per thread: a thread that waits for another one would hold a lease while it does nothing.
    return Database(
        settings.database_url.get_secret_value(),
        application_name="holdfast-processor",
        pool_size=role.threads + 1,
        is_durable=is_durable,
        idle_in_transaction_seconds=max(IDLE_SECONDS, 4 * settings.lease_seconds),
        sealing=sealing,
    )
