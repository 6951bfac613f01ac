"""How a service ends that cannot start: with the reason and an exit status that says that starting again is of no use."""

import sys
from typing import NoReturn

__all__ = ["CANNOT_START", "refuse"]

CANNOT_START = 78
"""Exit status (``EX_CONFIG`` of sysexits.h): a setting or a handler is wrong. systemd: ``RestartPreventExitStatus=78``."""


def refuse(reason: object) -> NoReturn:
    """Write the reason to standard error and exit with ``CANNOT_START``."""
    sys.stderr.write(f"{reason}\n")
    sys.exit(CANNOT_START)
