"""periodiq, with an orderly end."""

import signal
import sys
from types import FrameType

import periodiq

from holdfast.maintenance import VERSION
from holdfast.runtime import logging
from holdfast.runtime.settings import MaintenanceSettings

__all__ = ["run"]


def run(settings: MaintenanceSettings) -> None:
    """Send the ticks of ``holdfast.maintenance.actors`` until SIGTERM or SIGINT.

    Exits with 1 when Redis does not take a tick; its supervisor starts it again.
    """
    # periodiq writes its first lines before it imports the module that sets logging up.
    logging.configure(
        service="maintenance", version=VERSION, log_format=settings.log_format, level=settings.log_level,
        with_error_texts=settings.log_error_texts,
    )  # fmt: skip
    # Without a handler the first process of a container ignores SIGTERM.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    sys.argv = ["periodiq", "holdfast.maintenance.actors"]
    periodiq.entrypoint()


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)
