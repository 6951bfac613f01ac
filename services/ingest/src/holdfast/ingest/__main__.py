"""``python -m holdfast.ingest``: check the settings, open the port, then serve until SIGTERM."""

import sys
from contextlib import nullcontext

from holdfast.domain.errors import ConfigurationError
from holdfast.ingest import VERSION
from holdfast.runtime import logging
from holdfast.runtime.listening import open_listener
from holdfast.runtime.refusal import refuse
from holdfast.runtime.settings import IngestSettings, load
from holdfast.runtime.shared_metrics import shared_metrics


def main() -> int:
    """Run the service; its exit status is 78, with a message, when a setting is wrong, and 1 when the port is taken."""
    try:
        settings = load(IngestSettings)
    except ConfigurationError as exc:
        refuse(exc)
    logging.configure(
        service="ingest", version=VERSION, log_format=settings.log_format, level=settings.log_level,
        with_error_texts=settings.log_error_texts,
    )  # fmt: skip
    try:
        listener = open_listener(settings.ingest_host, settings.ingest_port)
    except (ConfigurationError, OSError) as exc:
        sys.exit(f"cannot listen on HOLDFAST_INGEST_HOST and HOLDFAST_INGEST_PORT, {settings.ingest_port}: {exc}")
    is_shared = settings.ingest_processes > 1 and settings.metrics_port != 0
    workers = [f"worker-{number}" for number in range(settings.ingest_processes)]
    try:
        with shared_metrics(workers) if is_shared else nullcontext():
            # Not before: metrics are made when these are imported, and shared if they are now.
            from holdfast.ingest.processes.supervisor import Supervisor
            from holdfast.ingest.processes.worker import work

            if settings.ingest_processes > 1:
                return Supervisor(settings, listener).run()
            work(settings, listener, None)
            return 0
    except ConfigurationError as exc:
        refuse(exc)


if __name__ == "__main__":
    sys.exit(main())
