"""An operator who pauses a type of events while the services run, and resumes it."""

import contextlib
import threading
import time
from collections.abc import Callable

from holdfast.domain.errors import DatabaseUnavailable
from holdfast.domain.pauses import PauseKind
from holdfast.local.stack import TENANT
from holdfast.storage import pauses
from holdfast.storage.audit import Actor
from holdfast.storage.database import Database

from .plan import Fault

__all__ = ["TYPES", "pause_type"]

TYPES = ("soak.plain", "soak.outside", "soak.limited", "soak.steps")

OPERATOR = Actor(TENANT, "command:soak")

RETRY_SECONDS = 0.2
RESUME_SECONDS = 60.0
"""For resuming, while PostgreSQL may be down."""


def pause_type(database_url: str, fault: Fault) -> dict[str, str | float] | None:
    """Pause the type that the fault's choice falls on, and resume it after the fault's seconds.

    Returns tenant, type, and between which times it was paused for sure; ``None`` if PostgreSQL was down throughout.

    Raises:
        RuntimeError: it could not be resumed.
    """
    type_ = TYPES[int(fault.choice * len(TYPES))]
    until = time.monotonic() + fault.seconds
    with contextlib.closing(Database(database_url, application_name="soak", pool_size=1)) as database:

        def pause() -> None:
            with database.transaction() as session:
                pauses.pause(session, OPERATOR, PauseKind.TYPE, type_)

        def resume() -> None:
            with database.transaction() as session:
                for each in pauses.list_pauses(session, TENANT):
                    pauses.resume(session, OPERATOR, each.id)

        is_paused, since = _done(pause, until), time.time()
        threading.Event().wait(max(0.0, until - time.monotonic()))
        ended = time.time()
        if not _done(resume, time.monotonic() + RESUME_SECONDS):  # also what was paused by a commit without an answer
            raise RuntimeError(f"PostgreSQL was down for {RESUME_SECONDS:.0f} s: {type_} is still paused")
    return {"tenant": TENANT, "type": type_, "since": since, "until": ended} if is_paused else None


def _done(change: Callable[[], None], deadline: float) -> bool:
    while time.monotonic() < deadline:
        with contextlib.suppress(DatabaseUnavailable):
            change()
            return True
        threading.Event().wait(RETRY_SECONDS)
    return False
