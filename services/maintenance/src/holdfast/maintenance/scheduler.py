"""periodiq, with an orderly end."""

import signal
import sys
from types import FrameType

import periodiq

__all__ = ["run"]


def run() -> None:
    """Send the ticks of ``holdfast.maintenance.actors`` until SIGTERM or SIGINT.

    Exits with 1 when Redis does not take a tick; whoever supervises the process starts it again.
    """
    # Without a handler the first process of a container ignores SIGTERM.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    sys.argv = ["periodiq", "holdfast.maintenance.actors"]
    periodiq.entrypoint()


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)
