"""A wrong clock for one Python process: first on its ``PYTHONPATH``, with ``CLOCK_AHEAD_SECONDS`` in its environment.

Linux's time namespaces leave the wall clock alone, and libfaketime is neither on every machine nor in any wheel. All that
Holdfast's processes know of the time of day they know from these functions; PostgreSQL's and Redis's clocks stay right.
"""

import datetime as dt
import os
import time
from typing import Any

AHEAD_SECONDS = float(os.environ["CLOCK_AHEAD_SECONDS"])

_datetime, _time, _time_ns = dt.datetime, time.time, time.time_ns


class _AnyDatetime(type):
    """Values that C code makes are of the true class, and must pass for this one."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _datetime)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, _datetime)


class _ShiftedDatetime(dt.datetime, metaclass=_AnyDatetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return _datetime.now(tz) + dt.timedelta(seconds=AHEAD_SECONDS)

    @classmethod
    def utcnow(cls) -> Any:
        return _datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(seconds=AHEAD_SECONDS)

    @classmethod
    def today(cls) -> Any:
        return cls.now()


dt.datetime = _ShiftedDatetime  # type: ignore[misc]
time.time = lambda: _time() + AHEAD_SECONDS
time.time_ns = lambda: _time_ns() + int(AHEAD_SECONDS * 1_000_000_000)
