"""The duties of one process, on its connections."""

from collections.abc import Callable, Mapping

from redis.exceptions import RedisError

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.maintenance.gauges import measure
from holdfast.maintenance.recover import recover
from holdfast.maintenance.redispatch import redispatch
from holdfast.maintenance.relay import relay
from holdfast.maintenance.replay import replay
from holdfast.messaging.broker import DoorbellBroker, redis_client
from holdfast.messaging.live import Publisher
from holdfast.runtime import logging
from holdfast.runtime.health import Check
from holdfast.runtime.settings import MaintenanceSettings
from holdfast.runtime.telemetry import Log
from holdfast.storage.database import Database
from holdfast.storage.readiness import check_work

__all__ = ["REDIS_TIMEOUT_SECONDS", "Duties"]

log = logging.get(__name__)

REDIS_TIMEOUT_SECONDS = 2.0

REPLAY_GRACE_SECONDS = 5.0
"""How long the doorbell of a new event that repeats another has before redispatch rings for it, as in ingest."""

MAX_ROUNDS = 20
"""Full batches that one turn of a duty takes on: a bound, so that a turn ends and the thread can stop."""


class Duties:
    """Recover, redispatch, relay, replay and the gauges. Any number of processes may run them: locked rows are skipped.

    A duty does not raise for an outage: it logs the first turn that meets it, and the next turn tries again.
    """

    def __init__(self, settings: MaintenanceSettings, broker: DoorbellBroker) -> None:
        self._settings = settings
        self._broker = broker
        self._database = Database(
            settings.database_url.get_secret_value(), application_name="holdfast-maintenance", pool_size=5
        )  # fmt: skip
        self._live = redis_client(settings.redis_url.get_secret_value(), timeout_seconds=REDIS_TIMEOUT_SECONDS)
        self._publisher = Publisher(
            self._live, window_seconds=settings.live_window_seconds, window_updates=settings.live_window_updates
        )  # fmt: skip
        self._outages: set[tuple[str, str]] = set()

    def recover(self) -> int:
        """See ``maintenance.recover``. Returns how many."""
        return self._turn("recover", lambda limit: recover(self._database, self._publisher, limit=limit))

    def redispatch(self) -> int:
        """See ``maintenance.redispatch``. Returns how many."""
        return self._turn("redispatch", lambda limit: redispatch(self._database, self._broker, limit=limit))

    def relay(self) -> int:
        """See ``maintenance.relay``. Returns how many."""
        age = self._settings.relay_after_seconds
        return self._turn(
            "relay", lambda limit: relay(self._database, self._publisher, older_than_seconds=age, limit=limit)
        )  # fmt: skip

    def replay(self) -> int:
        """See ``maintenance.replay``. Returns how many."""
        # Two turns' worth: one that comes a little late loses nothing of the rate.
        burst = 2 * max(1.0, self._settings.sweep_seconds)
        return self._turn("replay", lambda limit: replay(
            self._database, self._publisher, self._broker, limit=limit, burst_seconds=burst,
            grace_seconds=REPLAY_GRACE_SECONDS,
        ))  # fmt: skip

    def measure(self) -> int:
        """See ``maintenance.gauges``. Returns how many events are open."""
        return self._turn("measure", lambda _: measure(self._database), rounds=1)

    def checks(self) -> Mapping[str, Check]:
        """What readiness asks. Without Redis recovery goes on, so it is optional."""
        return {
            "database": Check(self._check_schema),
            "live": Check(self._live.ping, is_optional=True),
            "broker": Check(self._broker.client.ping, is_optional=True),
        }

    def close(self) -> None:
        """Let go of the connections."""
        self._database.close()
        self._live.close()

    def _turn(self, duty: str, run: Callable[[int], int], *, rounds: int = MAX_ROUNDS) -> int:
        """Repeat ``run`` while it finds full batches; returns the sum."""
        total, limit = 0, self._settings.sweep_limit
        try:
            for _ in range(rounds):
                done = run(limit)
                total += done
                if done < limit:
                    break
        except DatabaseUnavailable as exc:
            self._say(duty, Log.DATABASE_UNAVAILABLE, str(exc))
        except RedisError as exc:
            self._say(duty, Log.REDIS_UNAVAILABLE, type(exc).__name__)
        else:
            self._outages -= {(duty, Log.DATABASE_UNAVAILABLE), (duty, Log.REDIS_UNAVAILABLE)}
        return total

    def _say(self, duty: str, event: str, reason: str) -> None:
        """A warning for the first turn of an outage; the turns after it, one a second, would drown everything else."""
        write = log.debug if (duty, event) in self._outages else log.warning
        self._outages.add((duty, event))
        write(event, duty=duty, reason=reason)

    def _check_schema(self) -> None:
        with self._database.transaction() as session:
            check_work(session)
