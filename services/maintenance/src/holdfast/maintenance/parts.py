"""What the duties work with."""

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.messaging.announce import Announcer
from holdfast.messaging.bell import Bell
from holdfast.messaging.brokers import open_bell
from holdfast.messaging.live import Publisher, open_publisher
from holdfast.messaging.revocations import RevocationCopy, open_revocation_copy
from holdfast.runtime.health import Check
from holdfast.runtime.settings import MaintenanceSettings
from holdfast.storage.database import Database
from holdfast.storage.readiness import check_work
from holdfast.storage.sealing import open_sealing

__all__ = ["REDIS_TIMEOUT_SECONDS", "Parts", "parts"]

REDIS_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """Connections, and the announcer on them."""

    database: Database
    publisher: Publisher
    bell: Bell
    revocations: RevocationCopy
    announcer: Announcer

    def checks(self) -> Mapping[str, Check]:
        """What readiness asks. Without Redis recovery goes on, so it is optional."""
        return {
            "database": Check(lambda: self.database.call(check_work)),
            "live": Check(self.publisher.ping, is_optional=True),
            "broker": Check(self.bell.ping, is_optional=True),
        }

    def close(self) -> None:
        """Let go of the connections."""
        for connection in (self.database, self.publisher, self.bell, self.revocations):
            connection.close()


def parts(settings: MaintenanceSettings) -> Parts:
    """Put them together; nothing connects yet."""
    database = Database(
        settings.database_url.get_secret_value(), application_name="holdfast-maintenance", pool_size=5,
        sealing=open_sealing(settings.read_encryption_keys(), is_sealing=settings.encryption_enabled),
    )  # fmt: skip
    bell = open_bell(
        settings.broker_url.get_secret_value(), timeout_seconds=REDIS_TIMEOUT_SECONDS, is_consumer=False
    )  # fmt: skip
    redis_url = settings.redis_url.get_secret_value()
    publisher = open_publisher(
        redis_url, timeout_seconds=REDIS_TIMEOUT_SECONDS, window_seconds=settings.live_window_seconds,
        window_updates=settings.live_window_updates,
    )  # fmt: skip
    return Parts(
        database, publisher, bell, open_revocation_copy(redis_url, timeout_seconds=REDIS_TIMEOUT_SECONDS),
        Announcer(publisher, bell),
    )  # fmt: skip
