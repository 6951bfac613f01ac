"""What the application is made of, and how a route reaches it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flask import current_app

from holdfast.ingest.http.traffic import Traffic
from holdfast.ingest.intake.backpressure import Backpressure
from holdfast.ingest.intake.record import Recorder
from holdfast.ingest.operate.operator import Operator
from holdfast.ingest.operate.revoker import Revoker
from holdfast.ingest.operate.scheduler import Scheduler
from holdfast.messaging.bell import Bell
from holdfast.messaging.live import Publisher
from holdfast.messaging.revocations import RevocationCopy
from holdfast.runtime import logging, tracing
from holdfast.runtime.background import Batcher, Repeater
from holdfast.runtime.health import Check
from holdfast.runtime.settings import IngestSettings
from holdfast.runtime.telemetry import Log
from holdfast.storage.database import Database

if TYPE_CHECKING:  # it reaches its own part through this module
    from holdfast.ingest.http.auth import Authenticator

__all__ = ["EXTENSION", "Parts", "parts"]

log = logging.get(__name__)

EXTENSION = "holdfast"
"""Where ``app.extensions`` has the parts."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with; :func:`parts` finds it."""

    settings: IngestSettings
    database: Database
    recorder: Recorder
    operator: Operator
    revoker: Revoker
    scheduler: Scheduler
    copying: Repeater
    backpressure: Backpressure
    looking: Repeater
    authenticator: "Authenticator"
    used_keys: Batcher[str]
    checks: dict[str, Check]
    publisher: Publisher
    revocations: RevocationCopy
    bell: Bell
    traffic: Traffic = field(default_factory=Traffic)

    def close(self) -> None:
        """Write what is still waiting to be written, and close the connections."""
        for part in (self.copying, self.looking, self.used_keys, self.traffic):
            part.stop()
        for connection in (self.database, self.publisher, self.revocations, self.bell):
            connection.close()
        tracing.stop()
        log.info(Log.STOPPED)


def parts() -> Parts:
    """The parts of the application that handles the current request."""
    found: Parts = current_app.extensions[EXTENSION]
    return found
