"""Whether the broker answers, known without asking."""

from collections.abc import Callable

from holdfast.domain.errors import BrokerUnavailable
from holdfast.messaging.brokers import open_bell
from holdfast.runtime import logging
from holdfast.runtime.background import Repeater
from holdfast.runtime.telemetry import Log

__all__ = ["BrokerWatch"]

log = logging.get(__name__)

INTERVAL_SECONDS = 1.0

TIMEOUT_SECONDS = 0.5
"""A broker that hangs rings no bells either."""


class BrokerWatch:
    """Pings the broker in a thread of its own, so that nobody else has to wait for one that hangs.

    Args:
        on_loss: called when it has stopped to answer.
    """

    def __init__(self, url: str, *, on_loss: Callable[[], None]) -> None:
        self.is_answering = True
        self._bell = open_bell(url, timeout_seconds=TIMEOUT_SECONDS, is_consumer=False)
        self._on_loss = on_loss
        self._repeater = Repeater("broker-watch", self._look, interval_seconds=INTERVAL_SECONDS)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._repeater.is_alive

    def start(self) -> None:
        """Look for the first time at once."""
        self._repeater.start()

    def stop(self) -> None:
        """End the thread."""
        self._repeater.stop()
        self._bell.close()

    def _look(self) -> None:
        try:
            self._bell.ping()
        except BrokerUnavailable as exc:
            if self.is_answering:
                self.is_answering = False
                log.warning(Log.BROKER_LOST, reason=str(exc))
                self._on_loss()
        else:
            if not self.is_answering:
                self.is_answering = True
                log.info(Log.BROKER_BACK)
