"""Defaults of the database that somebody changes while the services run, and takes back."""

import contextlib
import threading
import time

from holdfast.local.servers import Postgres

from .plan import Fault

__all__ = ["change_defaults"]

ISOLATIONS = ("serializable", "repeatable read")

DEFAULTS = {"statement_timeout": "'200ms'", "lock_timeout": "'1ms'", "synchronous_commit": "off"}

TERMINATE = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'holdfast'"
"""So that every connection is a new one, and meets the defaults."""

RETRY_SECONDS = 0.2
RESET_SECONDS = 60.0
"""For taking the defaults back, while PostgreSQL may be down."""


def change_defaults(postgres: Postgres, fault: Fault) -> dict[str, str | int] | None:
    """Change them, end all connections, and take them back after the fault's seconds.

    Returns the isolation and how many connections were ended; ``None`` if PostgreSQL was down throughout.

    Raises:
        RuntimeError: they could not be taken back.
    """
    isolation = ISOLATIONS[int(fault.choice * len(ISOLATIONS))]
    values = {"default_transaction_isolation": f"'{isolation}'"} | DEFAULTS
    until = time.monotonic() + fault.seconds
    changes = "; ".join(f"ALTER DATABASE holdfast SET {name} = {value}" for name, value in values.items())
    ended = _execute(postgres, f"{changes}; {TERMINATE}", until)
    threading.Event().wait(max(0.0, until - time.monotonic()))
    resets = "; ".join(f"ALTER DATABASE holdfast RESET {name}" for name in values)
    if _execute(postgres, resets, time.monotonic() + RESET_SECONDS) is None:
        raise RuntimeError(f"PostgreSQL was down for {RESET_SECONDS:.0f} s: the database's defaults are still changed")
    return None if ended is None else {"isolation": isolation, "ended": int(ended)}


def _execute(postgres: Postgres, statements: str, deadline: float) -> str | None:
    """Run them as one transaction, again while PostgreSQL is down; ``None`` if it was down until the deadline."""
    while time.monotonic() < deadline:
        with contextlib.suppress(RuntimeError):
            return postgres.execute(statements)
        threading.Event().wait(RETRY_SECONDS)
    return None
