"""``python -m holdfast.processor``: check the settings, then look after the worker processes."""

import sys

from holdfast.domain.errors import ConfigurationError
from holdfast.processor import VERSION
from holdfast.processor.roles import roles
from holdfast.processor.supervisor import Supervisor
from holdfast.runtime import logging
from holdfast.runtime.settings import ProcessorSettings, load


def main() -> int:
    """Run the service; its exit status."""
    try:
        settings = load(ProcessorSettings)
    except ConfigurationError as exc:
        sys.exit(str(exc))
    logging.configure(service="processor", version=VERSION, log_format=settings.log_format, level=settings.log_level)
    return Supervisor(settings, roles(settings)).run()


if __name__ == "__main__":
    sys.exit(main())
