"""Structured logs: JSON lines on stdout, readable lines on a terminal.

Field names: ``timestamp, level, message, logger, service.name, …``. Event names are static texts from
``runtime.telemetry``; whatever varies is a field. Payloads, keys and tokens are never passed to a logger.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["Logger", "RareLines", "Rarely", "configure", "get"]

Logger = structlog.stdlib.BoundLogger

_NOISY = ("httpx", "httpcore", "sqlalchemy.engine", "alembic")


def configure(*, service: str, version: str, log_format: str = "auto", level: str = "info") -> None:
    """Send this process's logs, the libraries' included, to stdout in one format."""
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
        [structlog.dev.ConsoleRenderer()] if is_console else [_error_fields, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
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


def _error_fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["message"] = event.pop("event", "")
    info: Any = event.get("exc_info")
    if info is True:
        info = sys.exc_info()
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if info and info[0] is not None:
        event["error.type"] = info[0].__qualname__
    event = structlog.processors.format_exc_info(logger, method, event)
    if "exception" in event:
        event["error.stack"] = event.pop("exception")
    return event
