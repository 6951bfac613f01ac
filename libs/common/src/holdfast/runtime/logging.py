"""Structured logs: JSON lines on stdout, readable lines on a terminal.

Field names: ``timestamp, level, message, logger, service.name, …``. Event names are static texts from
``runtime.telemetry``; whatever varies is a field. Payloads, keys and tokens are never passed to a logger. An exception is
logged by its type and frames: its message may quote a payload, so it is left out unless the operator wants it.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from holdfast.runtime.tracebacks import error_type, format_error

__all__ = ["Logger", "RareLines", "Rarely", "about", "about_events", "configure", "get", "is_debugging"]

Logger = structlog.stdlib.BoundLogger

_NOISY = ("httpx", "httpcore", "sqlalchemy.engine", "alembic", "urllib3")

_ABOUT: ContextVar[Mapping[str, object]] = ContextVar("holdfast_about", default={})  # noqa: B039 (nobody changes it)

MOST_NAMED = 20
"""Events that one line names."""


def configure(
    *, service: str, version: str, log_format: str = "auto", level: str = "info", with_error_texts: bool = False
) -> None:
    """Send this process's logs, the libraries' included, to stdout in one format.

    ``with_error_texts``: log the messages of all exceptions. Without it only those of Holdfast's own are logged.
    """
    is_console = log_format == "console" or (log_format == "auto" and sys.stdout.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_what_it_is_about,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _service_fields(service, version),
    ]
    render: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if is_console
        else [_json_names, structlog.processors.JSONRenderer()]
    )
    handler = _Handler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _error_fields(with_error_texts),
                *render,
            ],
        )
    )
    logging.raiseExceptions = False  # a line that cannot be written must not fail what it tells of
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        # First of all, so that a line that is not written costs little.
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get(name: str) -> Logger:
    """A logger by the name of its module."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def about(fields: Mapping[str, object]) -> Iterator[None]:
    """Within the block every line of this thread has these fields, a library's and a handler's own lines included.

    One assignment for all of them: it is done for every event. Fields that a line brings itself stay.
    """
    token = _ABOUT.set(fields)
    try:
        yield
    finally:
        _ABOUT.reset(token)


def about_events(event_ids: Sequence[object]) -> dict[str, object]:
    """Fields of a line about events: the id of a single one, or those of the first few."""
    if len(event_ids) == 1:
        return {"event_id": str(event_ids[0])}
    return {"event_ids": [str(each) for each in event_ids[:MOST_NAMED]]}


def is_debugging() -> bool:
    """Whether lines at debug are written: for those that are not worth being made otherwise."""
    return logging.getLogger().isEnabledFor(logging.DEBUG)


class _Handler(logging.StreamHandler[TextIO]):
    """A handler whose lock is free again although an exception is raised in the thread that waits for it.

    That is how a handler of events is ended whose time is up, perhaps in the middle of a line. Before Python 3.13 the
    standard one calls ``acquire()`` and then enters a ``try``: raised in between, the lock stays taken, and every other
    thread that logs waits for ever. Entering a ``with`` cannot be interrupted after the lock was taken.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        is_wanted = self.filter(record)
        if isinstance(is_wanted, logging.LogRecord):  # since Python 3.12
            record = is_wanted
        if is_wanted:
            with self._own_lock:
                self.emit(record)
        return bool(is_wanted)

    def flush(self) -> None:
        with self._own_lock:
            self.stream.flush()

    @property
    def _own_lock(self) -> "threading.RLock":
        return cast("threading.RLock", self.lock)


class Rarely:
    """Bounds what strangers can write into the log: one line each ``seconds``, which says how many it stands for."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._next_at = float("-inf")
        self._left_out = 0

    def say(self, write: Callable[..., object], event: str, **fields: object) -> None:
        """Write the line, or count it."""
        if self.is_due():
            write(event, **fields, **({"left_out": self._left_out} if self._left_out else {}))
            self._left_out = 0

    def is_due(self) -> bool:
        """Whether a line may be written now; it then counts as written."""
        now = time.monotonic()
        if now < self._next_at:
            self._left_out += 1
            return False
        self._next_at = now + self._seconds
        return True


class RareLines(logging.Filter):
    """The same for a library's logger: each text passes once in ``seconds``."""

    def __init__(self, *, seconds: float, most_texts: int = 100) -> None:
        super().__init__()
        self._seconds = seconds
        self._most_texts = most_texts
        self._by_text: dict[str, Rarely] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        text = str(record.msg)
        if text not in self._by_text and len(self._by_text) >= self._most_texts:
            self._by_text.clear()
        return self._by_text.setdefault(text, Rarely(seconds=self._seconds)).is_due()


def _add_what_it_is_about(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name, value in _ABOUT.get().items():
        event.setdefault(name, value)
    return event


def _service_fields(service: str, version: str) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service.name"] = service
        event["service.version"] = version
        return event

    return add


def _error_fields(with_texts: bool) -> Processor:
    """Writes exceptions out here, for people and machines alike: structlog's own ways have no bound."""

    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        exc = _error(event.pop("exc_info", None))
        if exc is not None:
            event["error.type"] = error_type(exc)
            event["exception"] = format_error(exc, with_texts=with_texts)
        return event

    return add


def _error(info: Any) -> BaseException | None:
    """What a logger was given as ``exc_info``: an exception, the triple of one, or ``True`` for the current one."""
    if isinstance(info, tuple):
        info = info[1]
    elif info is True:
        info = sys.exc_info()[1]
    return info if isinstance(info, BaseException) else None


def _json_names(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["message"] = event.pop("event", "")
    if "exception" in event:
        event["error.stack"] = event.pop("exception")
    return event
