"""``python -m holdfast.processor``: check the settings, then look after the worker processes. Or ``check``: handlers."""

import sys
from contextlib import nullcontext

from holdfast.domain.errors import ConfigurationError
from holdfast.processor import VERSION
from holdfast.processor.handlers.checking import check
from holdfast.processor.worker.roles import roles
from holdfast.runtime import logging
from holdfast.runtime.refusal import refuse
from holdfast.runtime.settings import ProcessorSettings, load
from holdfast.runtime.shared_metrics import shared_metrics


def main() -> int:
    """Run the service, or check handlers; the exit status."""
    if sys.argv[1:2] == ["check"]:
        return check(sys.argv[2:])
    try:
        settings = load(ProcessorSettings)
        logging.configure(
            service="processor",
            version=VERSION,
            log_format=settings.log_format,
            level=settings.log_level,
            with_error_texts=settings.log_error_texts,
        )
        workers = roles(settings)
        with shared_metrics(worker.name for worker in workers) if settings.metrics_port else nullcontext():
            # Not before: metrics are made when this is imported, and shared if it is now.
            from holdfast.processor.worker.supervisor import Supervisor

            return Supervisor(settings, workers).run()
    except ConfigurationError as exc:
        refuse(exc)


if __name__ == "__main__":
    sys.exit(main())
