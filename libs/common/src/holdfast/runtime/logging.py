"""Structured logs: JSON lines on stdout, readable lines on a terminal.

Field names: ``timestamp, level, message, logger, service.name, …``. Event names are static texts from
``runtime.telemetry``; whatever varies is a field. Payloads, keys and tokens are never passed to a logger. An exception is
logged by its type and frames: its message may quote a payload, so it is left out unless the operator wants it.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from holdfast.runtime.tracebacks import error_type, format_error

__all__ = ["Logger", "RareLines", "Rarely", "configure", "get"]

Logger = structlog.stdlib.BoundLogger

_NOISY = ("httpx", "httpcore", "sqlalchemy.engine", "alembic")


def configure(
    *, service: str, version: str, log_format: str = "auto", level: str = "info", with_error_texts: bool = False
) -> None:
    """Send this process's logs, the libraries' included, to stdout in one format.

    ``with_error_texts``: log the messages of all exceptions. Without it only those of Holdfast's own are logged.
    """
    is_console = log_format == "console" or (log_format == "auto" and sys.stdout.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
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
    handler = logging.StreamHandler(sys.stdout)
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
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get(name: str) -> Logger:
    """A logger by the name of its module."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger


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
