"""Structured logs: JSON lines on stdout, readable lines on a terminal.

Field names: ``timestamp, level, message, logger, service.name, …``. Event names are static texts from
``runtime.telemetry``; whatever varies is a field. Payloads, keys and tokens are never passed to a logger.
"""

import logging
import sys
import time
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["Logger", "Sparse", "configure", "get"]

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


class Sparse:
    """Says when a line that anybody can cause may be logged again. For one thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def is_due(self) -> bool:
        """``True`` at most once in ``seconds``."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


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
