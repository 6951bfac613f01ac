"""The duties of one process, on its connections."""

from collections.abc import Callable

from redis.exceptions import RedisError

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.maintenance.gauges import measure
from holdfast.maintenance.recover import recover
from holdfast.maintenance.redispatch import redispatch
from holdfast.maintenance.relay import relay
from holdfast.messaging.broker import DoorbellBroker, redis_client
from holdfast.messaging.live import Publisher
from holdfast.runtime import logging
from holdfast.runtime.settings import MaintenanceSettings
from holdfast.runtime.telemetry import Log
from holdfast.storage.database import Database

__all__ = ["REDIS_TIMEOUT_SECONDS", "Duties"]

log = logging.get(__name__)

REDIS_TIMEOUT_SECONDS = 2.0

MAX_ROUNDS = 20
"""Full batches that one turn of a duty takes on: a bound, so that a turn ends and the thread can stop."""


class Duties:
    """Recover, redispatch, relay and the gauges. Any number of processes may run them: locked rows are skipped."""

    def __init__(self, settings: MaintenanceSettings, broker: DoorbellBroker) -> None:
        self._settings = settings
        self._broker = broker
        self.database = Database(
            settings.database_url.get_secret_value(), application_name="holdfast-maintenance", pool_size=5
        )  # fmt: skip
        self.live = redis_client(settings.redis_url.get_secret_value(), timeout_seconds=REDIS_TIMEOUT_SECONDS)
        self._publisher = Publisher(
            self.live, window_seconds=settings.live_window_seconds, window_updates=settings.live_window_updates
        )  # fmt: skip

    def recover(self) -> None:
        """See ``maintenance.recover``."""
        self._rounds(lambda limit: recover(self.database, self._publisher, limit=limit))

    def redispatch(self) -> None:
        """See ``maintenance.redispatch``."""
        self._rounds(lambda limit: redispatch(self.database, self._broker, limit=limit))

    def relay(self) -> None:
        """See ``maintenance.relay``."""
        age = self._settings.relay_after_seconds
        self._rounds(lambda limit: relay(self.database, self._publisher, older_than_seconds=age, limit=limit))

    def measure(self) -> None:
        """See ``maintenance.gauges``."""
        self._rounds(self._measure)

    def close(self) -> None:
        """Let go of the connections."""
        self.database.close()
        self.live.close()

    def _measure(self, _: int) -> int:
        measure(self.database)
        return 0

    def _rounds(self, duty: Callable[[int], int]) -> None:
        """Repeat a duty while it finds full batches. An outage is a line in the log: the next turn comes soon."""
        limit = self._settings.sweep_limit
        try:
            for _ in range(MAX_ROUNDS):
                if duty(limit) < limit:
                    return
        except DatabaseUnavailable as exc:
            log.warning(Log.DATABASE_UNAVAILABLE, reason=str(exc))
        except RedisError as exc:
            log.warning(Log.REDIS_UNAVAILABLE, reason=type(exc).__name__)
