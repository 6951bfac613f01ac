"""gunicorn's configuration. One process per replica, many threads: scale by replicas, and metrics stay in one registry."""

from typing import Any

from holdfast.ingest import VERSION
from holdfast.runtime import logging
from holdfast.runtime.settings import IngestSettings, load

_settings = load(IngestSettings)

bind = f"{_settings.ingest_host}:{_settings.ingest_port}"
workers = 1
# Not "sync": a client that leaves a chunked request unfinished would hold the only worker up.
worker_class = "gthread"
threads = _settings.ingest_threads
keepalive = 75  # above the idle time of common load balancers, so that they never meet a closing connection
graceful_timeout = 25
timeout = 60
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
accesslog = None
logger_class = "holdfast.ingest.http.gunicorn_conf.Logger"
control_socket_disable = True


class Logger:
    """Sends gunicorn's own lines through the process's structured log."""

    def __init__(self, _: Any) -> None:
        logging.configure(
            service="ingest", version=VERSION, log_format=_settings.log_format, level=_settings.log_level,
            with_error_texts=_settings.log_error_texts,
        )  # fmt: skip
        self.error_log = self._log = logging.get("gunicorn")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def access(self, *_: Any) -> None:
        """No access log: rejections are logged by the application, counts are metrics."""

    def reopen_files(self) -> None:
        """Stdout needs no reopening."""

    def close_on_exec(self) -> None:
        """Stdout stays open."""


def worker_exit(_: Any, worker: Any) -> None:
    """Let the application finish its bookkeeping after the last request."""
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["holdfast"].close()
